// Tells people who listen to the page what happens in it: whole sentences, not every piece as it comes.

import { h } from "../kit/dom.js";

const PAUSE_MS = 2500;
const KEPT = 6;

export class Announcer {
  constructor() {
    this.element = h("div", {
      class: "unseen",
      role: "log",
      "aria-live": "polite",
      "aria-relevant": "additions",
      "aria-label": "What the agent says",
    });
    this.told = 0;
    this.text = "";
    this.timer = 0;
  }

  /** Another answer begins. */
  begin(text = "") {
    clearTimeout(this.timer);
    this.timer = 0;
    this.told = 0;
    this.text = "";
    if (text) this.say(text);
  }

  /** So much of the answer is there. */
  progress(text) {
    if (text.length < this.told) this.told = 0;
    this.text = text;
    this.timer ||= setTimeout(() => {
      this.timer = 0;
      this.#tell(sentences(this.text.slice(this.told)));
    }, PAUSE_MS);
  }

  /** The answer has ended. */
  end(text, how) {
    clearTimeout(this.timer);
    this.timer = 0;
    this.text = text;
    this.#tell(text.slice(this.told));
    this.say(how);
  }

  say(text) {
    this.element.append(h("p", {}, text));
    while (this.element.children.length > KEPT) this.element.firstElementChild.remove();
  }

  #tell(text) {
    this.told += text.length;
    const plain = text
      .replace(/[`*_#>|~]+/g, " ")
      .replace(/\s+/g, " ")
      .trim();
    if (plain) this.say(plain.slice(0, 4000));
  }
}

/** As much as ends with a sentence, or with a line. */
function sentences(text) {
  const end = Math.max(text.lastIndexOf(". "), text.lastIndexOf("? "), text.lastIndexOf("! "), text.lastIndexOf("\n"));
  return end < 0 ? "" : text.slice(0, end + 1);
}
