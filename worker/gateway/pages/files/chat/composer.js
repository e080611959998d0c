// Where messages are written.

import { h } from "../kit/dom.js";
import { icon } from "./icons.js";

const MOST_CHARS = 200_000; // the gateway's limit
const DRAFT = "shoal.draft.";

export class Composer {
  /** `on`: {send(text), stop()}. */
  constructor(on) {
    this.on = on;
    this.place = "";
    this.isRunning = false;
    this.refusal = "";
    this.isBusy = false;
    this.input = h("textarea", { id: "input", rows: "1", placeholder: "Write a message", "aria-label": "Message", "aria-describedby": "input-hint", enterkeyhint: "send", autocomplete: "off" });
    this.sendButton = h("button", { class: "button primary icon", type: "submit", "aria-label": "Send", title: "Send" }, icon("send"));
    this.stopButton = h("button", { class: "button stop", type: "button", hidden: true, click: () => on.stop() }, h("span", { class: "stop-mark", "aria-hidden": "true" }), "Stop");
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.hint = h("p", { class: "hint", id: "input-hint" });
    this.element = h("form", { class: "composer", "aria-label": "Write a message" },
      this.problem,
      h("div", { class: "composer-box" }, this.input, h("div", { class: "composer-buttons" }, this.stopButton, this.sendButton)),
      this.hint);
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("input", () => {
      this.#keepDraft();
      this.#draw();
    });
    this.#draw();
  }

  /** The draft of this place (a conversation, or "new"). */
  open(place) {
    this.place = place;
    this.input.value = sessionStorage.getItem(DRAFT + place) ?? "";
    this.tell("");
    this.#draw();
  }

  /** What can be done now. `refusal`: why nothing can be sent. */
  set({ isRunning = this.isRunning, refusal = this.refusal, isBusy = this.isBusy }) {
    Object.assign(this, { isRunning, refusal, isBusy });
    this.#draw();
  }

  get text() {
    return this.input.value;
  }

  write(text) {
    this.input.value = text;
    this.#keepDraft();
    this.#draw();
  }

  /** A problem above the box; empty: none. */
  tell(text) {
    this.problem.textContent = text;
    this.problem.hidden = !text;
  }

  /** On a touch screen the keyboard would jump up: there the reader taps. */
  focus({ always = false } = {}) {
    if (!always && matchMedia("(pointer: coarse)").matches) return;
    this.input.focus({ preventScroll: true });
    this.input.setSelectionRange(this.text.length, this.text.length);
  }

  #key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.#send();
  }

  #send() {
    const text = this.text.trim();
    if (!text || this.#isTooLong || this.refusal || this.isBusy) return;
    this.tell("");
    this.write("");
    this.on.send(text);
  }

  get #isTooLong() {
    return this.text.length > MOST_CHARS && [...this.text].length > MOST_CHARS;
  }

  #keepDraft() {
    try {
      if (this.text) sessionStorage.setItem(DRAFT + this.place, this.text);
      else sessionStorage.removeItem(DRAFT + this.place);
    } catch {
      // a draft that does not fit is not kept
    }
  }

  #draw() {
    const { input } = this;
    const isEmpty = !this.text.trim();
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight}px`;
    input.disabled = Boolean(this.refusal);
    this.stopButton.hidden = !this.isRunning;
    this.sendButton.disabled = isEmpty || this.#isTooLong || Boolean(this.refusal) || this.isBusy;
    this.element.classList.toggle("is-too-long", this.#isTooLong);
    this.hint.textContent = this.refusal
      || (this.#isTooLong ? `${(this.text.length - MOST_CHARS).toLocaleString("en")} characters too many: shorten it, or send it in parts.`
        : this.isRunning ? "Enter sends, after this answer. Shift + Enter begins a new line."
          : "Enter sends. Shift + Enter begins a new line.");
  }
}
