// A task's stream of chunks, as something to read: text, reasoning, and tool calls with their results.
//
// `Transcript` is the model: feed it chunks, in any attempt; it drops what a turn had shown when the turn starts over.
// `transcriptNodes` draws it, to be given to `patch`.

import { h } from "./dom.js";
import { badge } from "./table.js";

/** Blocks of a run: {kind: "text" | "thinking" | "tool", …}, by turn. */
export class Transcript {
  constructor() {
    this.clear();
  }

  clear() {
    this.turns = new Map();
    this.final = null;
    this.seq = -1;
    this.chunks = 0;
  }

  /** Take one chunk; returns whether it was new. */
  add(chunk) {
    if (chunk.seq <= this.seq) return false;
    this.seq = chunk.seq;
    this.chunks += 1;
    const number = chunk.turn ?? 0;
    const attempt = chunk.attempt ?? 0;
    let turn = this.turns.get(number);
    if (!turn || attempt > turn.attempt) {
      turn = { number, attempt, blocks: [], restarts: turn ? turn.restarts + 1 : 0 };
      if (chunk.type !== "DONE" && chunk.type !== "ERROR") this.turns.set(number, turn);
    }
    this.#take(turn, chunk);
    return true;
  }

  #take(turn, chunk) {
    const metadata = chunk.metadata ?? {};
    switch (chunk.type) {
      case "CONTENT":
        return this.#text(turn, "text", chunk.content);
      case "THINKING":
        return this.#text(turn, "thinking", chunk.content);
      case "TOOL_CALL":
        turn.blocks.push({
          kind: "tool",
          id: metadata.id ?? `${chunk.seq}`,
          name: metadata.name || chunk.content,
          arguments: metadata.arguments,
          result: null,
          isError: false,
          isCut: false,
        });
        return;
      case "TOOL_RESULT":
        return this.#result(turn, chunk, metadata);
      default:
        if (chunk.is_final) this.final = { isError: chunk.type === "ERROR", text: chunk.content ?? "", metadata };
    }
  }

  #text(turn, kind, text = "") {
    if (!text) return;
    const last = turn.blocks.at(-1);
    if (last?.kind === kind) last.text += text;
    else turn.blocks.push({ kind, text });
  }

  #result(turn, chunk, metadata) {
    const calls = [...this.turns.values()]
      .flatMap((one) => one.blocks)
      .filter((block) => block.kind === "tool" && block.id === metadata.id);
    const call = calls.findLast((block) => block.result === null) ?? calls.at(-1);
    const found = call ?? { kind: "tool", id: metadata.id, name: metadata.name ?? "tool", arguments: undefined };
    Object.assign(found, {
      result: chunk.content ?? "",
      isError: Boolean(metadata.is_error),
      isCut: Boolean(metadata.truncated),
    });
    if (!call) turn.blocks.push(found);
  }
}

/** The transcript's nodes. `isLive`: the run goes on. */
export function transcriptNodes(transcript, { isLive = false } = {}) {
  const turns = [...transcript.turns.values()].sort((a, b) => a.number - b.number);
  const nodes = turns.map((turn) =>
    h(
      "section",
      { class: "turn", "data-key": `turn-${turn.number}`, "aria-label": `Turn ${turn.number + 1}` },
      h(
        "div",
        { class: "turn-head" },
        `Turn ${turn.number + 1}`,
        turn.restarts ? badge(`started over ${turn.restarts}×`, "warn") : null,
      ),
      turn.blocks.map((block, index) => blockNode(block, `${turn.number}-${index}`)),
    ),
  );
  if (isLive)
    nodes.push(
      h(
        "p",
        { class: "working", "data-key": "working" },
        h("span", { class: "pulse", "aria-hidden": "true" }),
        "working",
      ),
    );
  if (transcript.final?.isError)
    nodes.push(h("p", { class: "problem", "data-key": "final" }, transcript.final.text || "The task failed."));
  return nodes;
}

function blockNode(block, key) {
  switch (block.kind) {
    case "thinking":
      return h(
        "details",
        { class: "block thinking", "data-key": key, open: true },
        h("summary", {}, "Thinking"),
        h("div", { class: "text" }, block.text),
      );
    case "tool":
      return h(
        "details",
        { class: "block tool", "data-key": key },
        h(
          "summary",
          {},
          h("span", { class: "mono" }, block.name),
          block.result === null
            ? badge("running", "warn")
            : block.isError
              ? badge("failed", "bad")
              : badge("done", "good"),
        ),
        h(
          "div",
          { class: "tool-part" },
          h("span", { class: "label" }, "Arguments"),
          h("pre", {}, json(block.arguments)),
        ),
        block.result === null
          ? null
          : h(
              "div",
              { class: "tool-part" },
              h("span", { class: "label" }, block.isCut ? "Result (its beginning)" : "Result"),
              h("pre", {}, block.result || "(empty)"),
            ),
      );
    default:
      return h("div", { class: "block text", "data-key": key }, block.text);
  }
}

function json(value) {
  if (value === undefined || value === null || value === "") return "(none)";
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
