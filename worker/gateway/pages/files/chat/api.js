// The sessions API, as the page uses it.

import { get, request, send } from "../kit/api.js";

const sessionPath = (session) => `/v1/sessions/${encodeURIComponent(session)}`;
export const conversationPath = (session, id) => `${sessionPath(session)}/conversations/${encodeURIComponent(id)}`;
export const eventsPath = (session, after) => `${sessionPath(session)}/events?after=${encodeURIComponent(after)}`;

export const listSessions = (limit, offset) => get(`/v1/sessions?conversations=true&limit=${limit}&offset=${offset}`);
export const getSession = (session) => get(sessionPath(session));
export const openSession = (agent) => request("POST", "/v1/sessions", { agent });
export const deleteSession = (session) => request("DELETE", sessionPath(session));
export const renameConversation = (session, id, title) => request("PATCH", conversationPath(session, id), { title });
export const deleteConversation = (session, id) => request("DELETE", conversationPath(session, id));
export const getMessages = (session, id, before = "") =>
  get(`${conversationPath(session, id)}/messages?limit=50${before ? `&before=${encodeURIComponent(before)}` : ""}`);
export const stopAnswer = (session, id) => request("POST", `${conversationPath(session, id)}/stop`);

/** Say something. The message's id makes it safe to send again. */
export async function postMessage(session, id, content, messageId) {
  return (
    await send(
      "POST",
      `${conversationPath(session, id)}/messages`,
      { content },
      { headers: { "Idempotency-Key": messageId } },
    )
  ).json();
}

/** Ask the last message again, under another id. */
export async function askAgain(session, id, messageId) {
  return (
    await send("POST", `${conversationPath(session, id)}/retry`, undefined, {
      headers: { "Idempotency-Key": messageId },
    })
  ).json();
}

/** A new id. `crypto.randomUUID` is not there on pages that came over plain HTTP. */
export function newId() {
  const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
