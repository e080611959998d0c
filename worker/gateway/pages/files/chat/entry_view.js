// A message with its answer, as it stands in the thread.

import { h, patch } from "../kit/dom.js";
import { clock, count, duration, exact, usd } from "../kit/format.js";
import { blockView } from "./blocks.js";
import { adviceFor } from "./words.js";

const FOLDED_CHARS = 3000;

export class EntryView {
  constructor(entry) {
    this.entry = entry;
    this.views = new Map();
    this.isUnfolded = false;
    this.asked = h("div", { class: "asked" });
    this.blocks = h("div", { class: "blocks" });
    this.state = h("div", { class: "entry-state" });
    this.foot = h("div", { class: "entry-foot" });
    this.answer = h("div", { class: "answer" }, h("h2", { class: "unseen" }, "Answer"), this.blocks, this.state, this.foot);
    this.element = h("article", { class: "entry", "aria-label": "Message and answer", "data-entry": entry.key }, this.asked, this.answer);
    this.element.addEventListener("click", (event) => {
      if (!event.target.closest("[data-unfold]")) return;
      this.isUnfolded = true;
      this.#drawAsked();
    });
    this.#drawAsked();
  }

  update({ isLast }) {
    const { entry } = this;
    if (this.drawnContent !== entry.content) this.#drawAsked();
    this.#drawBlocks();
    this.element.setAttribute("aria-busy", String(entry.state === "running"));
    patch(this.state, this.#stateNodes(isLast));
    patch(this.foot, this.#footNodes(isLast));
  }

  close() {
    for (const view of this.views.values()) view.close();
  }

  #drawAsked() {
    const { content, images } = this.entry;
    this.drawnContent = content;
    const isFolded = content.length > FOLDED_CHARS && !this.isUnfolded;
    patch(this.asked, [
      h("h2", { class: "unseen" }, "You"),
      h("div", { class: "asked-text", dir: "auto" }, isFolded ? `${content.slice(0, FOLDED_CHARS)}…` : content),
      images.length ? h("p", { class: "hint" }, images.length === 1 ? "with an image" : `with ${images.length} images`) : null,
      isFolded ? h("button", { class: "button small quiet", type: "button", "data-unfold": true }, `Show all ${content.length.toLocaleString("en")} characters`) : null,
    ]);
  }

  #drawBlocks() {
    const { entry, views, blocks } = this;
    const isOver = !entry.isPending;
    const turns = [...entry.transcript.turns.values()].sort((a, b) => a.number - b.number);
    const wanted = turns.flatMap((turn) => turn.blocks.map((block, index) => [`${turn.number}.${turn.attempt}.${index}`, block]));
    const keys = new Set(wanted.map(([key]) => key));
    for (const [key, view] of views) {
      if (keys.has(key)) continue;
      view.close();
      view.element.remove();
      views.delete(key);
    }
    wanted.forEach(([key, block], index) => {
      let view = views.get(key);
      if (!view) views.set(key, (view = blockView(block.kind)));
      if (blocks.children[index] !== view.element) blocks.insertBefore(view.element, blocks.children[index] ?? null);
      view.update(block, { isOver, isLive: !isOver && index === wanted.length - 1, isTimed: entry.isTimed });
    });
  }

  #stateNodes(isLast) {
    const { entry } = this;
    switch (entry.state) {
      case "sending": return [working("Sending")];
      case "queued": return [h("p", { class: "hint", "data-key": "queued" }, "Waits for its turn.")];
      case "running": return [working(this.views.size ? "The agent is working" : "Waiting for the agent"), this.#restarts()];
      case "cancelled": return [h("p", { class: "hint", "data-key": "stopped" }, "Stopped.")];
      case "unsent": return [problem(entry.problem, "This message was not sent.", [button("send-again", "Send again", "primary"), button("edit", "Edit")])];
      case "failed": return [problem(entry.error, adviceFor(entry.errorType), [isLast ? button("again", "Retry", "primary") : null, entry.taskId ? h("a", { class: "button small", href: `/dashboard#/tasks/${encodeURIComponent(entry.taskId)}` }, "Look into it") : null])];
      default: return [this.views.size ? null : h("p", { class: "hint", "data-key": "empty" }, "The agent said nothing."), this.#restarts()];
    }
  }

  #restarts() {
    const restarts = [...this.entry.transcript.turns.values()].reduce((sum, turn) => sum + turn.restarts, 0);
    return restarts ? h("p", { class: "hint", "data-key": "restarts" }, restarts === 1 ? "It had to start over once." : `It had to start over ${restarts} times.`) : null;
  }

  #footNodes(isLast) {
    const { entry } = this;
    if (entry.isPending || entry.state === "unsent") return [];
    return [
      entry.text ? button("copy-answer", "Copy", "quiet") : null,
      isLast && entry.state !== "failed" ? button("again", "Try again", "quiet") : null,
      h("span", { class: "footnote" }, footnote(entry)),
    ];
  }
}

function footnote({ usage, cost, at, endedAt }) {
  const parts = [];
  if (usage && (usage.input_tokens || usage.output_tokens)) parts.push(`${count((usage.input_tokens ?? 0) + (usage.output_tokens ?? 0))} tokens`);
  if (cost !== null && cost !== undefined) parts.push(usd(cost));
  if (endedAt && at && endedAt >= at) parts.push(duration(endedAt - at));
  const nodes = parts.length ? [h("span", { title: usage ? `${count(usage.input_tokens ?? 0)} tokens in, ${count(usage.output_tokens ?? 0)} out` : null }, parts.join(" · "))] : [];
  if (at) nodes.push(h("time", { datetime: new Date(at * 1000).toISOString(), title: exact(at) }, clock(at, { seconds: false })));
  return nodes;
}

function working(text) {
  return h("p", { class: "working", "data-key": "working" }, h("span", { class: "pulse", "aria-hidden": "true" }), h("span", {}, text));
}

function problem(text, advice, buttons) {
  return h("div", { class: "problem", "data-key": "problem" }, h("p", {}, text), h("p", {}, advice), h("div", { class: "tools" }, buttons));
}

function button(action, text, kind = "") {
  return h("button", { class: `button small ${kind}`, type: "button", "data-action": action, "data-key": action }, text);
}
