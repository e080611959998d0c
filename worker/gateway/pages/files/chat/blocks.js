// The parts of an answer: text, reasoning, and tools with their results. Each draws itself and is told when its block
// has grown; what the reader has opened stays open.

import { h, patch } from "../kit/dom.js";
import { duration } from "../kit/format.js";
import { MarkdownView } from "../kit/markdown/view.js";
import { badge } from "../kit/table.js";

const TICK_MS = 500;
const SHOWN_CHARS = 2000;
const MOST_PARSED_CHARS = 200_000;

export function blockView(kind) {
  return kind === "text" ? new TextView() : kind === "thinking" ? new ThinkingView() : new ToolView();
}

class TextView {
  constructor() {
    this.markdown = new MarkdownView();
    this.element = this.markdown.element;
  }

  update(block) {
    this.markdown.update(block.text);
  }

  close() {}
}

class ThinkingView {
  constructor() {
    this.label = h("span");
    this.text = document.createTextNode("");
    this.began = performance.now();
    this.took = 0;
    this.timer = 0;
    this.element = h("details", { class: "block thinking" }, h("summary", {}, this.label), h("div", { class: "text", dir: "auto" }, this.text));
  }

  update(block, { isLive, isTimed }) {
    if (block.text.startsWith(this.text.data)) this.text.appendData(block.text.slice(this.text.data.length));
    else this.text.data = block.text;
    this.element.classList.toggle("is-live", isLive);
    if (isLive) {
      this.isTimed = isTimed;
      this.timer ||= setInterval(() => this.#draw(), TICK_MS);
    } else if (this.timer) {
      this.took = (performance.now() - this.began) / 1000;
      this.close();
    }
    this.#draw();
  }

  #draw() {
    const since = (performance.now() - this.began) / 1000;
    const text = this.timer ? `Thinking…${this.isTimed && since >= 1 ? ` ${duration(Math.floor(since))}` : ""}` : this.took && this.isTimed ? `Thought for ${duration(this.took)}` : "Thought";
    if (this.label.textContent !== text) this.label.textContent = text;
  }

  close() {
    clearInterval(this.timer);
    this.timer = 0;
  }
}

class ToolView {
  constructor() {
    this.isWhole = false;
    this.summary = h("summary");
    this.body = h("div");
    this.element = h("details", { class: "block tool" }, this.summary, this.body);
    this.element.addEventListener("click", (event) => {
      if (!event.target.closest("[data-whole]")) return;
      this.isWhole = true;
      this.#drawBody(this.block);
      this.body.querySelector(".tool-result")?.focus();
    });
    this.element.addEventListener("toggle", () => this.#drawBody(this.block));
  }

  update(block, { isOver }) {
    const state = block.result === null ? (isOver ? "not finished" : "running") : block.isError ? "failed" : "finished";
    if (state === this.state) return;
    this.state = state;
    this.block = block;
    const tone = { running: "accent", finished: "good", failed: "bad" }[state] ?? "";
    patch(this.summary, [h("span", { class: "mono tool-name" }, block.name), h("span", { class: "mono tool-preview" }, preview(block.arguments)), badge(state, tone)]);
    this.#drawBody(block);
  }

  #drawBody(block) {
    if (!block || !this.element.open) return; // nobody looks
    const result = block.result === null ? null : pretty(block.result);
    const isCut = result !== null && result.length > SHOWN_CHARS && !this.isWhole;
    patch(this.body, [
      h("div", { class: "tool-part" }, h("span", { class: "label" }, "Arguments"), h("pre", { tabindex: "0", role: "region", "aria-label": `Arguments of ${block.name}` }, pretty(block.arguments) || "(none)")),
      result === null ? null : h("div", { class: "tool-part" },
        h("span", { class: "label" }, block.isError ? "Error" : block.isCut ? "Result (its beginning: the whole was too long to be shown here)" : "Result"),
        h("pre", { class: "tool-result", tabindex: "0", role: "region", "aria-label": `Result of ${block.name}` }, isCut ? `${result.slice(0, SHOWN_CHARS)}…` : result || "(empty)"),
        isCut ? h("button", { class: "button small quiet", type: "button", "data-whole": true }, `Show all ${result.length.toLocaleString("en")} characters`) : null),
    ]);
  }

  close() {}
}

/** JSON as people write it; other texts as they are. */
function pretty(value) {
  if (value === undefined || value === null || value === "") return "";
  if (typeof value !== "string") return JSON.stringify(value, null, 2);
  if (!/^\s*[[{]/.test(value) || value.length > MOST_PARSED_CHARS) return value;
  try {
    return JSON.stringify(JSON.parse(value), null, 2);
  } catch {
    return value;
  }
}

function preview(value) {
  if (value === undefined || value === null || value === "") return "";
  if (typeof value === "string") return value.slice(0, 200);
  return Object.values(value).map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join(", ").slice(0, 200);
}
