// Server-sent events over fetch, which unlike EventSource can send a key.
//
//   const stream = follow("/v1/ops/events", {
//     onEvent: ({event, data, id}) => …      data: the JSON value
//     onState: (state, error) => …           "connecting" | "live" | "reconnecting" | "failed" | "ended"
//   });
//   stream.close();
//
// A broken connection is made again, with the last event's id, after 0.5 to 15 s; one that is silent for SILENT_MS
// counts as broken. `onEvent` returns `false` to end it.

import { send } from "./api.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;
const SILENT_MS = 45000; // three heartbeats

export function follow(path, { onEvent, onState = () => {}, lastId = "" }) {
  const leaving = new AbortController();
  run(path, onEvent, onState, lastId, leaving.signal);
  return { close: () => leaving.abort() };
}

async function run(path, onEvent, onState, lastId, leaving) {
  let wait = FIRST_WAIT_MS;
  onState("connecting");
  const place = { id: lastId };
  while (!leaving.aborted) {
    try {
      const ended = await read(path, place, onEvent, leaving, () => {
        wait = FIRST_WAIT_MS;
        onState("live");
      });
      if (leaving.aborted) return;
      if (ended) return onState("ended");
      onState("reconnecting");
    } catch (error) {
      if (leaving.aborted) return;
      if (isFinal(error)) return onState("failed", error);
      onState("reconnecting", error);
    }
    await pause(wait * (0.75 + Math.random() / 2), leaving);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  }
}

/** What would be answered the same the next time. */
function isFinal(error) {
  return error.status >= 400 && error.status < 500 && error.status !== 408 && error.status !== 429;
}

async function read(path, place, onEvent, leaving, onOpen) {
  const connection = new AbortController();
  const leave = () => connection.abort();
  leaving.addEventListener("abort", leave, { once: true });
  let silence = setTimeout(leave, SILENT_MS);
  try {
    const headers = { Accept: "text/event-stream", ...(place.id ? { "Last-Event-ID": place.id } : {}) };
    const response = await send("GET", path, undefined, { signal: connection.signal, headers });
    onOpen();
    const parser = new EventParser(place);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return false;
      clearTimeout(silence);
      silence = setTimeout(leave, SILENT_MS);
      for (const event of parser.feed(value)) {
        if (onEvent(event) === false) return true;
      }
    }
  } finally {
    clearTimeout(silence);
    leaving.removeEventListener("abort", leave);
    connection.abort();
  }
}

/** Takes text as it comes, gives whole events. */
export class EventParser {
  constructor(place) {
    this.place = place;
    this.rest = "";
    this.event = "";
    this.data = [];
  }

  *feed(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (this.data.length) yield this.#whole();
        this.event = "";
        this.data = [];
      } else this.#field(line);
    }
  }

  #field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a heartbeat
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.data.push(value);
    else if (name === "event") this.event = value;
    else if (name === "id") this.place.id = value;
  }

  #whole() {
    const text = this.data.join("\n");
    let data = text;
    try {
      data = JSON.parse(text);
    } catch {
      // not every stream carries JSON throughout
    }
    return { event: this.event || "message", data, id: this.place.id };
  }
}

function pause(ms, leaving) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    leaving.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
