// A team's graph, drawn from the places that the gateway gives. Cards can be chosen, by pointer or by keys: Tab reaches
// the graph, arrow keys go from card to card, Enter chooses.
//
//   const graph = new TeamGraph({label: "Graph of the run", onPick: (node) => …});
//   graph.show({width, height, edges}, nodes, now);

import { h, patch, s } from "../kit/dom.js";
import { duration, short, usd } from "../kit/format.js";
import { FINAL } from "./phases.js";

const LEAST_SCALE = 0.5;
const MOST_SCALE = 1.6;
const STEP = 1.2;
const FACT_CHARS = 27;

export class TeamGraph {
  constructor({ label, onPick = null }) {
    this.onPick = onPick;
    this.label = label;
    this.nodes = [];
    this.chosen = "";
    this.focused = "";
    this.zoom = 0;
    this.area = h("div", { class: "graph-area" });
    // Without cards to choose, the box itself takes the focus, so that keys can scroll it.
    const tabindex = onPick ? null : "0";
    this.box = h("div", { class: "graph-box", role: "group", "aria-label": label, tabindex }, this.area);
    const button = (text, name, act) =>
      h("button", { class: "button small icon quiet", type: "button", "aria-label": name, title: name, click: act }, text);
    this.controls = h(
      "div",
      { class: "tools graph-tools" },
      button("−", "Smaller", () => this.#scale(1 / STEP)),
      button("+", "Larger", () => this.#scale(STEP)),
      button("⤢", "Fit", () => this.#fit()),
    );
    this.element = h("div", { class: "graph", "data-own": true }, this.box);
    this.area.addEventListener("click", (event) => this.#pick(event.target.closest("[data-node]")));
    this.area.addEventListener("keydown", (event) => this.#key(event));
    this.area.addEventListener("focusin", (event) => {
      const node = event.target.closest("[data-node]");
      if (node && node.dataset.node !== this.focused) {
        this.focused = node.dataset.node;
        this.#draw();
      }
    });
    new ResizeObserver(() => this.box.clientWidth !== this.width && this.#draw()).observe(this.box);
  }

  show(frame, nodes, now) {
    this.frame = frame;
    this.nodes = nodes;
    this.now = now;
    this.#draw();
  }

  choose(id) {
    this.chosen = id;
    this.#draw();
  }

  #scale(by) {
    this.zoom = Math.min(MOST_SCALE, Math.max(LEAST_SCALE / 2, this.#now() * by));
    this.#draw();
  }

  #fit() {
    this.zoom = 0;
    this.#draw();
  }

  /** As large as it fits, but never so small that nobody can read it: then it scrolls. */
  #now() {
    return this.zoom || Math.min(1, Math.max(LEAST_SCALE, (this.box.clientWidth || 800) / this.frame.width));
  }

  #draw() {
    if (!this.frame) return;
    this.width = this.box.clientWidth;
    const { width, height, edges } = this.frame;
    const scale = this.#now();
    const first = this.nodes.some((node) => node.id === this.focused) ? this.focused : this.nodes[0]?.id;
    patch(this.area, [
      s(
        "svg",
        {
          class: "graph-svg",
          width: Math.ceil(width * scale),
          height: Math.ceil(height * scale),
          viewBox: `0 0 ${width} ${height}`,
        },
        s(
          "defs",
          {},
          s(
            "marker",
            {
              id: "graph-tip",
              viewBox: "0 0 8 8",
              refX: "6.5",
              refY: "4",
              markerWidth: "8",
              markerHeight: "8",
              orient: "auto",
            },
            s("path", { class: "graph-tip", d: "M0.5 0.8L7 4L0.5 7.2z" }),
          ),
        ),
        s(
          "g",
          { "aria-hidden": "true" },
          edges.map((edge) =>
            s("path", {
              "data-key": `${edge.source}→${edge.target}`,
              class: `graph-edge ${edge.kind}${edge.is_idle ? " is-idle" : ""}`,
              d: edge.path,
              "marker-end": "url(#graph-tip)",
            }),
          ),
        ),
        this.nodes.map((node) => this.#card(node, node.id === first)),
      ),
    ]);
    if (!this.isPlaced && this.width) this.#reveal(scale);
  }

  /** At first the chosen card is in the middle, or the first one: a large graph would else begin with an empty corner. */
  #reveal(scale) {
    const node = this.nodes.find((one) => one.id === this.chosen) ?? this.nodes[0];
    this.isPlaced = Boolean(node);
    if (!node) return;
    const { clientWidth, clientHeight } = this.box;
    this.box.scrollTo({
      left: (node.x + node.width / 2) * scale - clientWidth / 2,
      top: (node.y + node.height / 2) * scale - clientHeight / 2,
      behavior: "instant",
    });
  }

  #card(node, isStop) {
    const phase = node.phase ? ` is-${node.phase.toLowerCase()}` : "";
    const told = facts(node, this.now);
    const isButton = Boolean(this.onPick);
    return s(
      "g",
      {
        "data-key": node.id,
        "data-node": node.id,
        class: `graph-node ${node.kind}${phase}${node.is_idle ? " is-idle" : ""}${node.id === this.chosen ? " is-chosen" : ""}`,
        transform: `translate(${node.x} ${node.y})`,
        role: isButton ? "button" : "img",
        tabindex: isButton ? (isStop ? "0" : "-1") : null,
        "aria-pressed": isButton ? String(node.id === this.chosen) : null,
        "aria-label": spoken(node, told),
      },
      node.team ? s("rect", { class: "card behind", x: 5, y: 5, width: node.width, height: node.height, rx: 10 }) : null,
      s("rect", { class: "card", width: node.width, height: node.height, rx: 10 }),
      node.phase
        ? [
            s("path", { class: "bar", d: `M5 12v${node.height - 24}` }),
            s("path", { class: "icon", transform: "translate(15 12)", d: node.icon }),
          ]
        : null,
      // Blanks between the texts, for those who have the card read to them.
      s("text", { class: "title", x: node.text_x, y: node.title_y }, node.title),
      (node.lines ?? []).map(([text, y]) => [" ", s("text", { class: "text", x: node.text_x, y }, text)]),
      told ? [" ", s("text", { class: "facts", x: node.text_x, y: node.facts_y }, told)] : null,
      (node.marks ?? []).map((mark) => [
        " ",
        s("rect", { class: "mark", x: mark.x, y: node.marks_y, width: mark.width, height: 18, rx: 9 }),
        s("text", { class: "mark-text", x: mark.x + 7, y: node.marks_y + 13 }, mark.text),
      ]),
      node.condition ? condition(node) : null,
    );
  }

  #pick(element) {
    if (!element || !this.onPick) return;
    const node = this.nodes.find((one) => one.id === element.dataset.node);
    if (!node) return;
    this.focused = node.id;
    this.choose(node.id);
    this.onPick(node);
  }

  #key(event) {
    const element = event.target.closest("[data-node]");
    if (!element) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      return this.#pick(element);
    }
    const next = this.#neighbour(element.dataset.node, event.key);
    if (!next) return;
    event.preventDefault();
    this.focused = next.id;
    this.#draw();
    const found = [...this.area.querySelectorAll("[data-node]")].find((one) => one.dataset.node === next.id);
    found?.focus();
    found?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** The nearest card in the direction of an arrow; Home and End are the first and the last. */
  #neighbour(id, key) {
    if (key === "Home") return this.nodes[0];
    if (key === "End") return this.nodes.at(-1);
    const [dx, dy] = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[key] ?? [0, 0];
    const from = this.nodes.find((node) => node.id === id);
    if (!from || (!dx && !dy)) return null;
    let best = null;
    for (const node of this.nodes) {
      const x = node.x + node.width / 2 - from.x - from.width / 2;
      const y = node.y - from.y;
      const along = x * dx + y * dy;
      if (node === from || along <= 1 || (dx && Math.abs(y) > from.height)) continue;
      const far = along + 2 * Math.abs(dx ? y : x / 4);
      if (!best || far < best.far) best = { node, far };
    }
    return best?.node ?? null;
  }
}

function condition(node) {
  const width = Math.min(node.condition.length * 6.4 + 20, node.width - 4);
  return [
    " ",
    s("rect", { class: "label", x: (node.width - width) / 2, y: -34, width, height: 18, rx: 9 }),
    s("text", { class: "label-text", "text-anchor": "middle", x: node.width / 2, y: -21 }, node.condition),
  ];
}

/** Progress, tokens, seconds and cost of a card; the phase where there is nothing else. */
export function facts(node, now) {
  if (!node.phase) return "";
  const isGoing = !FINAL.has(node.phase) && node.started_at;
  const seconds = node.seconds ?? (isGoing ? Math.max(0, now - node.started_at) : null);
  const parts = [
    node.progress,
    node.tokens ? `${short(node.tokens)} tok` : "",
    seconds === null ? "" : duration(seconds),
    node.cost_usd ? usd(node.cost_usd) : "",
  ].filter(Boolean);
  while (parts.length > 1 && parts.join(" · ").length > FACT_CHARS) parts.pop();
  return parts.join(" · ") || (node.is_idle ? "not used" : node.phase);
}

/** What stands on the card, in its order, then what is shown by colour and sign alone. */
function spoken(node, told) {
  const marks = (node.marks ?? []).map((mark) => mark.text);
  const lines = (node.lines ?? []).map(([text]) => text);
  const written = [node.title, ...lines, told, ...marks, node.condition].filter(Boolean).join(" ");
  const more = [told === node.phase ? "" : node.phase, node.title === node.name ? "" : node.name, node.message];
  return [written, ...more].filter(Boolean).join(", ");
}
