// A conversation that has not begun: whom to ask, and what one could ask.

import { h, patch } from "../kit/dom.js";
import { emptyState } from "../kit/table.js";

const SEARCH_FROM = 7;
const MOST_SHOWN = 30;
const SEARCH_AFTER_MS = 200;
const EXAMPLES = [
  "What can you help me with?",
  "Which tools do you have, and what is each of them good for?",
  "Explain step by step how you would solve a problem of mine.",
];

export class Picker {
  /** `on`: {choose(agent), example(text)}. */
  constructor(agents, on) {
    this.agents = agents;
    this.on = on;
    this.chosen = null;
    this.found = [];
    this.timer = 0;
    this.search = h("input", { type: "search", placeholder: "Search agents", "aria-label": "Search agents", hidden: true, input: () => this.#searchSoon() });
    this.cards = h("div", { class: "agent-cards" });
    this.state = h("div", { "aria-live": "polite" });
    this.examples = h("div", { class: "examples" });
    this.element = h("div", { class: "picker", hidden: true },
      h("div", { class: "picker-inner" },
        h("h2", { class: "picker-title" }, "Whom do you want to ask?"),
        this.search,
        h("fieldset", { class: "agents" }, h("legend", { class: "unseen" }, "Agent"), this.cards),
        this.state,
        this.examples));
    this.cards.addEventListener("change", (event) => this.#choose(this.found.find((agent) => agent.slug === event.target.value)));
    this.examples.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) on.example(button.textContent);
    });
  }

  /** Show all agents, with this one or the usual one chosen. */
  open(slug) {
    this.search.value = "";
    this.search.hidden = this.agents.total < SEARCH_FROM;
    this.found = this.agents.all;
    this.#choose(this.agents.bySlug(slug) ?? this.agents.usual);
  }

  tell(nodes) {
    patch(this.state, nodes);
  }

  #searchSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#search(), SEARCH_AFTER_MS);
  }

  async #search() {
    const text = this.search.value;
    try {
      const found = await this.agents.find(text);
      if (text === this.search.value) this.found = found;
    } catch (error) {
      return this.tell([h("p", { class: "problem" }, error.message)]);
    }
    this.#draw();
  }

  #choose(agent) {
    this.chosen = agent;
    this.#draw();
    if (agent) this.on.choose(agent);
  }

  #draw() {
    const shown = [...this.found].sort((a, b) => (b === this.chosen) - (a === this.chosen) || a.name.localeCompare(b.name)).slice(0, MOST_SHOWN);
    if (this.found.length <= MOST_SHOWN) shown.sort((a, b) => a.name.localeCompare(b.name));
    patch(this.cards, shown.map((agent) => h("label", { class: "agent-card", "data-key": agent.slug },
      h("input", { type: "radio", name: "agent", value: agent.slug, checked: agent.slug === this.chosen?.slug }),
      h("span", {}, h("strong", {}, agent.name), h("span", { class: "hint" }, agent.description || (agent.slug === "default" ? "The agent that answers if none is named." : agent.slug))))));
    for (const input of this.cards.querySelectorAll("input")) input.checked = input.value === this.chosen?.slug;
    const more = this.found.length - shown.length;
    this.tell(!this.agents.isLoaded ? [h("p", { class: "hint" }, "Loading…")]
      : !this.agents.total ? [emptyState("There is no agent that you may talk to.", "Whoever runs this gateway can give you access, or make one with shoal agent create.")]
        : !this.found.length ? [h("p", { class: "hint" }, `No agent matches “${this.search.value.trim()}”.`)]
          : more > 0 ? [h("p", { class: "hint" }, `${more} more: search for them.`)] : []);
    patch(this.examples, this.chosen ? [h("p", { class: "hint" }, "For example"), EXAMPLES.map((text) => h("button", { class: "button", type: "button" }, text))] : []);
  }
}
