// One message and its answer, as the page knows them.

import { Transcript } from "../kit/transcript.js";

export const STOPPED = "run cancelled"; // the error of an answer that was stopped
const TYPES = new Set(["CONTENT", "THINKING", "TOOL_CALL", "TOOL_RESULT"]);

let count = 0;

export class Entry {
  constructor({ content = "", messageId = "", taskId = "", state = "queued", at = 0 }) {
    this.key = `entry-${(count += 1)}`;
    this.content = content;
    this.messageId = messageId;
    this.taskId = taskId;
    this.state = state; // sending, unsent, queued, running, done, failed, cancelled
    this.at = at; // Unix seconds
    this.endedAt = 0;
    this.images = [];
    this.transcript = new Transcript();
    this.error = "";
    this.errorType = "";
    this.usage = null;
    this.cost = null;
    this.problem = ""; // why it could not be sent
    this.isFromHistory = false; // its answer was read whole: chunks of it are no news
    this.isTimed = false; // its chunks come as they are written: how long things take can be seen
  }

  get isPending() {
    return this.state === "sending" || this.state === "queued" || this.state === "running";
  }

  isSame(message) {
    return Boolean(
      (message.task_id && message.task_id === this.taskId) ||
      (message.message_id && message.message_id === this.messageId),
    );
  }

  /** What the history says of it. What was heard live is richer, and stays. */
  learn(message) {
    this.content = message.content || this.content;
    this.taskId = message.task_id || this.taskId;
    this.messageId = message.message_id || this.messageId;
    this.images = message.images ?? [];
    this.at = message.at || this.at;
    const hasEnded = !["running", "queued"].includes(message.state);
    if (!hasEnded && !this.isPending) return; // we know better: its end was heard
    this.state = message.state;
    if (!hasEnded) return;
    this.endedAt = message.ended_at || this.endedAt;
    this.usage = message.usage ?? this.usage;
    this.cost = message.cost_usd ?? this.cost;
    this.error = plainError(message.error ?? "");
    this.errorType = message.error_type || this.errorType;
    if (this.transcript.final) return;
    this.isFromHistory = true;
    this.transcript.clear();
    (message.answer ?? []).forEach((part, seq) => this.transcript.add(chunkOf(part, seq)));
  }

  /** A chunk of its answer; returns whether it was new. */
  hear(chunk) {
    if (this.isFromHistory || !this.transcript.add(chunk)) return false;
    this.taskId ||= chunk.task_id;
    if (TYPES.has(chunk.type) && this.isPending) this.state = "running";
    const { final } = this.transcript;
    if (!chunk.is_final || !final) return true;
    this.error = final.isError ? plainError(final.text) || "The answer failed." : "";
    this.errorType = final.metadata.error_type ?? "";
    this.state = !final.isError ? "done" : final.text === STOPPED ? "cancelled" : "failed";
    this.usage = final.metadata.usage ?? null;
    this.cost = final.metadata.cost_usd ?? null;
    this.endedAt = this.isTimed ? Date.now() / 1000 : 0;
    return true;
  }

  /** All that was answered, as it can be copied. */
  get text() {
    return [...this.transcript.turns.values()]
      .sort((a, b) => a.number - b.number)
      .flatMap((turn) => turn.blocks.filter((block) => block.kind === "text").map((block) => block.text))
      .join("\n\n");
  }
}

/** Without the mark that says to queues that it shall not be tried again. */
function plainError(text) {
  return text.replace(/^permanent failure: /, "");
}

function chunkOf(part, seq) {
  const metadata = { id: part.id, name: part.name, arguments: part.arguments ?? undefined, is_error: part.is_error };
  return { seq, type: part.type, content: part.content ?? "", metadata };
}
