// Draws Markdown, and goes on drawing it while it grows.
//
//   const view = new MarkdownView();
//   parent.append(view.element);
//   view.update("# So f");  view.update("# So far\n\nall i");
//
// Of a text that grows only the last blocks are read and drawn again. Long ones are drawn in slices, so that the page
// answers meanwhile.

import { h, morph } from "../dom.js";
import { blocksOf, nextBlock } from "./blocks.js";
import { inline } from "./inline.js";

const SLICE_MS = 12;
const UNSURE = 2; // blocks at the end that what follows may change
const MOST_INLINE_CHARS = 20_000; // longer pieces are cut at a space, so that no layout takes them all at once

export class MarkdownView {
  #source = "";
  #nodes = []; // what stands, by block: live collections are slow to count
  #starts = []; // where each block that stands begins in the source
  #levels = []; // heading level before each of them
  #work = null; // what of the source is not drawn yet
  #frame = 0;
  #timer = 0;
  #restUntil = 0;

  constructor() {
    this.element = h("div", { class: "md", dir: "auto" });
  }

  /** The text is now this. */
  update(text) {
    const source = text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
    if (source === this.#source) return;
    const kept = source.startsWith(this.#source) ? Math.max(0, this.#starts.length - UNSURE) : -1;
    this.#starts.length = this.#levels.length = Math.min(this.#starts.length, kept + 1);
    this.#source = source;
    this.#work = null;
    this.#schedule();
  }

  /** Whether all of it stands. */
  get isDrawn() {
    return !this.#frame && !this.#timer;
  }

  /** At once, or when the page has rested from the last time. */
  #schedule() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#timer) return;
    const wait = this.#restUntil - performance.now();
    if (wait <= 0) return this.#draw();
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#draw();
    }, wait);
  }

  #begun() {
    const index = Math.max(0, this.#starts.length - 1);
    const offset = this.#starts[index] ?? 0;
    return { lines: this.#source.slice(offset).split("\n"), at: 0, offset, index, level: this.#levels[index] ?? 2 };
  }

  #draw() {
    const began = performance.now();
    this.#frame = 0;
    const work = (this.#work ??= this.#begun());
    for (let step = nextBlock(work.lines, work.at); step; step = nextBlock(work.lines, work.at)) {
      advance(work, step.begin);
      this.#starts[work.index] = work.offset;
      this.#levels[work.index] = work.level;
      const { block } = step;
      if (block.type === "heading") work.level = Math.min(block.level + 2, work.level + 1, 6);
      this.#place(work.index, node(block, work.level));
      work.index += 1;
      advance(work, step.end);
      if (performance.now() - began > SLICE_MS) break;
    }
    this.#rest(began);
    if (work.at < work.lines.length && nextBlock(work.lines, work.at)) {
      this.#frame = requestAnimationFrame(() => this.#draw());
      return;
    }
    this.#starts.length = this.#levels.length = work.index;
    while (this.#nodes.length > work.index) this.#nodes.pop().remove();
  }

  /** What takes long, layout included, is not done again at once. */
  #rest(began) {
    requestAnimationFrame(() => {
      const took = performance.now() - began;
      this.#restUntil = took > 4 * SLICE_MS ? performance.now() + 3 * took : 0;
    });
  }

  #place(index, fresh) {
    const old = this.#nodes[index];
    if (old && old.nodeName === fresh.nodeName && old.className === fresh.className) return morph(old, fresh);
    if (old) old.replaceWith(fresh);
    else this.element.append(fresh);
    this.#nodes[index] = fresh;
  }
}

function advance(work, line) {
  for (; work.at < line; work.at += 1) work.offset += work.lines[work.at].length + 1;
}

/** The nodes of a whole text. */
export function markdown(text) {
  return blocksOf(text.replace(/\r\n?/g, "\n").split("\n")).map((block) => node(block, 3));
}

function node(block, level) {
  switch (block.type) {
    case "paragraph":
      return h("p", {}, pieces(block.text));
    case "heading":
      return h(`h${level}`, { class: `md-${block.level}` }, pieces(block.text));
    case "rule":
      return h("hr");
    case "code":
      return codeBlock(block);
    case "quote":
      return h(
        "blockquote",
        {},
        block.blocks.map((inner) => node(inner, 6)),
      );
    case "list":
      return h(
        block.isOrdered ? "ol" : "ul",
        { start: block.isOrdered && block.start !== 1 ? block.start : null },
        block.items.map((item) => itemNode(item, block.isLoose)),
      );
    default:
      return tableNode(block);
  }
}

function itemNode(item, isLoose) {
  const mark =
    item.isDone === null
      ? null
      : h(
          "span",
          { class: "task-mark", role: "img", "aria-label": item.isDone ? "done:" : "to do:" },
          item.isDone ? "☑" : "☐",
        );
  const inner = item.blocks.map((block) =>
    block.type === "paragraph" && !isLoose ? pieces(block.text) : node(block, 6),
  );
  return h("li", { class: mark ? "task" : null }, mark, inner);
}

function codeBlock({ language, text }) {
  const name = language || "text";
  return h(
    "div",
    { class: "code" },
    h(
      "div",
      { class: "code-head" },
      h("span", {}, name),
      h(
        "button",
        {
          class: "button quiet small",
          type: "button",
          "data-action": "copy-code",
          "aria-label": `Copy ${language ? `${language} ` : ""}code`,
        },
        "Copy",
      ),
    ),
    h("pre", { tabindex: "0", "aria-label": `${name} code`, role: "region" }, h("code", {}, text)),
  );
}

function tableNode({ aligns, head, rows }) {
  const cell = (tag, text, column) =>
    h(tag, { class: aligns[column] ? `to-${aligns[column]}` : null, scope: tag === "th" ? "col" : null }, pieces(text));
  return h(
    "div",
    { class: "md-table", role: "region", "aria-label": "Table", tabindex: "0" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          head.map((text, column) => cell("th", text, column)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.map((text, column) => cell("td", text, column)),
          ),
        ),
      ),
    ),
  );
}

function pieces(text) {
  if (text.length <= MOST_INLINE_CHARS) return inline(text);
  const found = [];
  for (let at = 0; at < text.length;) {
    const space = text.indexOf(" ", at + MOST_INLINE_CHARS);
    const end =
      space < 0 || space > at + 2 * MOST_INLINE_CHARS ? Math.min(at + 2 * MOST_INLINE_CHARS, text.length) : space;
    found.push(h("span", { class: "piece" }, inline(text.slice(at, end))));
    at = end;
  }
  return found;
}
