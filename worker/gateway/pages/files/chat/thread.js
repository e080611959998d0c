// The messages of the open conversation, and the way through them.

import { actions, h, patch } from "../kit/dom.js";
import { copyFrom } from "./clipboard.js";
import { EntryView } from "./entry_view.js";
import { icon } from "./icons.js";
import { Follower } from "./scroll.js";

export class Thread {
  /** `on`: {older(), again(), sendAgain(entry), edit(entry)}. */
  constructor(on) {
    this.on = on;
    this.views = new Map();
    this.dirty = new Set();
    this.frame = 0;
    this.conversation = null;
    this.above = h("div", { class: "thread-above" });
    this.list = h("div", { class: "entries" });
    this.inner = h("div", { class: "thread-inner" }, this.above, this.list);
    this.box = h("div", { class: "thread", tabindex: "0", role: "region", "aria-label": "Messages" }, this.inner);
    this.jump = h("button", { class: "button jump", type: "button", hidden: true, click: () => this.follower.jump() }, icon("down"), "Jump to latest");
    this.element = h("div", { class: "thread-frame" }, this.box, this.jump);
    this.follower = new Follower(this.box, this.inner, (isAway) => { this.jump.hidden = !isAway; });
    actions(this.element, {
      older: () => on.older(),
      again: () => on.again(),
      "send-again": (element) => on.sendAgain(this.#entryOf(element)),
      edit: (element) => on.edit(this.#entryOf(element)),
      "copy-answer": (element) => copyFrom(element, this.#entryOf(element).text),
      "copy-code": (element) => copyFrom(element, element.closest(".code").querySelector("code").textContent),
    });
  }

  /** Show another conversation. */
  open(conversation) {
    this.close();
    this.conversation = conversation;
    this.follower.jump();
  }

  close() {
    for (const view of this.views.values()) view.close();
    this.views.clear();
    this.dirty.clear();
    this.list.replaceChildren();
    patch(this.above, []);
  }

  /** An entry has changed, or (null) which ones there are. At most once a frame, however quickly chunks come. */
  change(entry) {
    this.dirty.add(entry);
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.#draw();
    });
  }

  /** What stands above the first message. */
  showAbove(nodes) {
    patch(this.above, nodes);
  }

  #draw() {
    const { conversation, dirty } = this;
    this.dirty = new Set();
    if (!conversation) return;
    if (!dirty.has(null)) {
      for (const entry of dirty) this.views.get(entry.key)?.update({ isLast: entry === conversation.last });
      return;
    }
    if (this.follower.isAtEnd) this.#drawAll();
    else this.follower.keepPlace(() => this.#drawAll());
  }

  #drawAll() {
    const { conversation, views, list } = this;
    const entries = conversation.entries;
    const keys = new Set(entries.map((entry) => entry.key));
    for (const [key, view] of views) {
      if (keys.has(key)) continue;
      view.close();
      view.element.remove();
      views.delete(key);
    }
    entries.forEach((entry, index) => {
      let view = views.get(entry.key);
      if (!view) views.set(entry.key, (view = new EntryView(entry)));
      if (list.children[index] !== view.element) list.insertBefore(view.element, list.children[index] ?? null);
      view.update({ isLast: entry === conversation.last });
    });
    this.showAbove(conversation.hasOlder ? [h("button", { class: "button small", type: "button", "data-action": "older" }, "Show earlier messages")] : []);
  }

  #entryOf(element) {
    const { entry: key } = element.closest("[data-entry]").dataset;
    return this.conversation.entries.find((entry) => entry.key === key);
  }
}
