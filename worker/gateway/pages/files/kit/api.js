// Requests to the gateway, with the API key that was entered, if it wants one.
//
//   const queue = await get("/v1/ops/queue");
//   await post("/v1/ops/queue/pause");
//
// A request that is refused for want of a key asks for one (`onKeyWanted`) and is sent again. The key stays in this
// tab's session storage and goes nowhere else.

const STORED = "shoal.key";

let askForKey = null;
let asking = null;

/** What the gateway answered, or that it did not. `message` says it in a sentence. */
export class ApiError extends Error {
  constructor(status, detail, code = "") {
    super(detail);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }
}

/** The key that requests are sent with; empty: none. */
export function key() {
  return sessionStorage.getItem(STORED) || "";
}

export function setKey(value) {
  if (value) sessionStorage.setItem(STORED, value);
  else sessionStorage.removeItem(STORED);
}

/** `ask(reason)` resolves to a key, or to null if nobody gives one. */
export function onKeyWanted(ask) {
  askForKey = ask;
}

export const get = (path, options) => request("GET", path, undefined, options);
export const post = (path, body, options) => request("POST", path, body, options);

/** The answer's JSON. Throws `ApiError`. */
export async function request(method, path, body, options = {}) {
  const response = await send(method, path, body, options);
  if (response.status === 204) return null;
  return response.json();
}

/** The response itself, for streams. Throws `ApiError`, of network errors too (status 0). */
export async function send(method, path, body, { signal, headers = {} } = {}) {
  for (;;) {
    const used = key();
    const response = await attempt(method, path, body, signal, headers, used);
    if (response.status !== 401) {
      if (!response.ok) throw await errorOf(response);
      return response;
    }
    const refused = await errorOf(response);
    if (!(await newKey(used, refused))) throw refused;
  }
}

async function attempt(method, path, body, signal, headers, used) {
  const all = { Accept: "application/json", ...headers };
  if (used) all.Authorization = `Bearer ${used}`;
  if (body !== undefined) all["Content-Type"] = "application/json";
  try {
    return await fetch(path, {
      method,
      headers: all,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The gateway does not answer. Check that it runs and that you are connected.");
  }
}

/** Whether there is another key to try; all that wait for one share one question. */
async function newKey(used, refused) {
  if (key() !== used) return true;
  if (!askForKey) return false;
  asking ??= askForKey(used ? refused.message : "").finally(() => {
    asking = null;
  });
  const given = await asking;
  if (!given) return false;
  setKey(given);
  return true;
}

async function errorOf(response) {
  try {
    const problem = await response.json();
    return new ApiError(
      response.status,
      problem.detail || problem.title || `the gateway answered ${response.status}`,
      problem.code,
    );
  } catch {
    return new ApiError(response.status, `The gateway answered ${response.status} ${response.statusText}.`);
  }
}
