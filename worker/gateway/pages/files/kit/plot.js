// Plots in SVG: lines over time, and stacked bars.
//
//   const plot = new Plot({title: "Depth", kind: "lines", unit: "tasks", format: count, series: [{name: "ready", tone: 1}]});
//   slot.append(plot.element);
//   plot.show({x: [unixSeconds…], values: [[…], …], labels: null, from, to});
//
// The pointer, or the arrow keys once the plot has the focus, move a cursor that reads all values at one moment. Below
// each plot the same values stand in a table, folded away.

import { h, patch, s } from "./dom.js";
import { clock } from "./format.js";
import { areaPath, linePath, runsOf } from "./paths.js";
import { timeLabel, timeTicks, valueTicks } from "./scale.js";
import { valueTable } from "./value_table.js";

const HEIGHT = 168;
const PAD = { top: 10, right: 10, bottom: 22, left: 44 };

export class Plot {
  constructor({
    title,
    kind = "lines",
    series = [],
    format,
    whole = false,
    label = (at) => clock(at),
    empty = "No data yet.",
    height = HEIGHT,
  }) {
    Object.assign(this, { title, kind, series, format, whole, label, empty, height });
    this.data = null;
    this.cursor = null;
    this.width = 0;
    this.area = h("div", {
      class: "plot-area",
      tabindex: "0",
      role: "group",
      "aria-label": `${title}: plot. Arrow keys read its values.`,
    });
    this.tip = h("div", { class: "plot-tip", hidden: true, "aria-live": "polite" });
    this.legend = h("div", { class: "legend" });
    this.values = h("details", { class: "plot-values" }, h("summary", {}, "Values as a table"));
    this.valueSlot = h("div", { class: "plot-table" });
    this.values.append(this.valueSlot);
    this.element = h(
      "figure",
      { class: "plot", "data-own": true },
      h("figcaption", {}, h("h2", { class: "plot-title" }, title), this.legend),
      h("div", { class: "plot-box" }, this.area, this.tip),
      this.values,
    );
    this.#listen();
  }

  /** Draw these columns; `names` replaces the series. */
  show(data, series = this.series) {
    this.data = data;
    this.series = series;
    if (this.cursor !== null && this.cursor >= data.x.length) this.cursor = null;
    this.#draw();
  }

  #listen() {
    new ResizeObserver(() => {
      if (this.area.clientWidth !== this.width) this.#draw();
    }).observe(this.area);
    this.area.addEventListener("pointermove", (event) => this.#point(event));
    this.area.addEventListener("pointerleave", () => this.#read(null));
    this.area.addEventListener("blur", () => this.#read(null));
    this.area.addEventListener("keydown", (event) => this.#step(event));
    this.values.addEventListener("toggle", () => this.#tabulate());
  }

  #step(event) {
    const last = (this.data?.x.length ?? 0) - 1;
    if (last < 0) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last, PageUp: -10, PageDown: 10 }[event.key];
    if (event.key === "Escape") return this.#read(null);
    if (by === undefined) return;
    event.preventDefault();
    const from = this.cursor ?? (by < 0 ? last + 1 : -1);
    this.#read(Math.max(0, Math.min(last, from + by)));
  }

  #point(event) {
    if (!this.data?.x.length) return;
    const at = event.clientX - this.area.getBoundingClientRect().left;
    let best = 0;
    for (let index = 1; index < this.data.x.length; index += 1) {
      if (Math.abs(this.#x(index) - at) < Math.abs(this.#x(best) - at)) best = index;
    }
    this.#read(best);
  }

  #read(index) {
    this.cursor = index;
    this.tip.hidden = index === null;
    this.area.querySelector(".cursor")?.remove();
    if (index === null) return;
    const x = this.#x(index);
    const svg = this.area.querySelector("svg");
    svg?.append(s("line", { class: "cursor", x1: x, x2: x, y1: PAD.top, y2: this.height - PAD.bottom }));
    patch(this.tip, [
      h("strong", {}, this.#name(index)),
      this.series
        .map((one, row) => ({ one, value: this.data.values[row]?.[index] }))
        .filter(({ value }) => value !== null && value !== undefined && (this.kind === "lines" || value))
        .map(({ one, value }) =>
          h(
            "div",
            {},
            h("span", { class: `swatch tone-${one.tone}` }),
            h("span", { class: "legend-name" }, one.name),
            h("b", {}, this.format(value)),
          ),
        ),
    ]);
    const width = this.tip.offsetWidth;
    this.tip.style.setProperty("--x", `${x + width + 16 > this.width ? Math.max(0, x - width - 10) : x + 10}px`);
  }

  #name(index) {
    return this.data.labels ? this.data.labels[index] : this.label(this.data.x[index]);
  }

  #draw() {
    this.width = this.area.clientWidth;
    patch(
      this.legend,
      this.series.length > 1
        ? this.series.map((one) =>
            h(
              "span",
              { class: "legend-item" },
              h("span", { class: `swatch tone-${one.tone}` }),
              h("span", { class: "legend-name", title: one.name }, one.name),
            ),
          )
        : [],
    );
    const isEmpty = !this.data || !this.data.x.length;
    this.values.hidden = isEmpty;
    if (isEmpty || !this.width) {
      patch(this.area, [h("p", { class: "plot-empty" }, this.empty)]);
      return;
    }
    this.top = this.#highest();
    this.ticks = valueTicks(this.top, 4, { whole: this.whole });
    this.top = this.ticks.at(-1);
    patch(this.area, [
      s(
        "svg",
        {
          width: this.width,
          height: this.height,
          viewBox: `0 0 ${this.width} ${this.height}`,
          role: "img",
          "aria-label": this.#summary(),
        },
        this.#grid(),
        this.#times(),
        this.kind === "lines" ? this.#lines() : this.#bars(),
      ),
    ]);
    if (this.cursor !== null) this.#read(this.cursor);
    if (this.values.open) this.#tabulate();
  }

  #highest() {
    const sums = this.data.x.map((_, index) => {
      const values = this.series.map((__, row) => this.data.values[row]?.[index] ?? 0);
      return this.kind === "lines" ? Math.max(...values) : values.reduce((sum, value) => sum + value, 0);
    });
    return Math.max(...sums);
  }

  #summary() {
    const last = this.data.x.length - 1;
    const now = this.series
      .map((one, row) => `${one.name} ${this.format(this.data.values[row]?.[last] ?? 0)}`)
      .join(", ");
    return `${this.title}, ${this.#name(0)} to ${this.#name(last)}. Last: ${now}.`;
  }

  #grid() {
    return this.ticks.map((value) =>
      s(
        "g",
        {},
        s("line", { class: "grid", x1: PAD.left, x2: this.width - PAD.right, y1: this.#y(value), y2: this.#y(value) }),
        s(
          "text",
          { class: "tick", x: PAD.left - 6, y: this.#y(value) + 3.5, "text-anchor": "end" },
          this.format(value)
            .replace(/(\.\d*?)0+(?!\d)/, "$1")
            .replace(/\.(?!\d)/, ""),
        ),
      ),
    );
  }

  #times() {
    const y = this.height - 6;
    if (this.data.labels) {
      const every = Math.ceil(this.data.x.length / Math.max(2, Math.floor(this.width / 76)));
      return this.data.x.map((_, index) =>
        index % every === 0
          ? s(
              "text",
              { class: "tick", x: this.#x(index), y, "text-anchor": "middle" },
              this.data.short?.[index] ?? this.data.labels[index],
            )
          : null,
      );
    }
    const [from, to] = this.#span();
    const { ticks, step } = timeTicks(from, to, Math.max(2, Math.floor(this.width / 90)));
    return ticks
      .filter((at) => this.#xOf(at) < this.width - 16)
      .map((at) => s("text", { class: "tick", x: this.#xOf(at), y, "text-anchor": "middle" }, timeLabel(at, step)));
  }

  #lines() {
    return this.series.map((one, row) => {
      const runs = this.#runs(this.data.values[row] ?? []);
      const isAlone = this.series.length === 1;
      return s(
        "g",
        {},
        isAlone ? s("path", { class: `area tone-${one.tone}`, d: areaPath(runs, this.#y(0)) }) : null,
        s("path", { class: `line tone-${one.tone}`, d: linePath(runs) }),
      );
    });
  }

  #runs(values) {
    const most = (this.data.every ?? Infinity) * 3.5;
    return runsOf(this.data.x, values, (index, value) => [this.#x(index), this.#y(value)], most);
  }

  #bars() {
    const room = (this.width - PAD.left - PAD.right) / this.data.x.length;
    const width = Math.max(1, Math.min(48, room * 0.72));
    return this.data.x.map((_, index) => {
      let below = 0;
      return s(
        "g",
        {},
        this.series.map((one, row) => {
          const value = this.data.values[row]?.[index] ?? 0;
          if (!value) return null;
          below += value;
          const y = this.#y(below);
          return s("rect", {
            class: `bar tone-${one.tone}`,
            x: (this.#x(index) - width / 2).toFixed(1),
            y: y.toFixed(1),
            width: width.toFixed(1),
            height: Math.max(0.5, this.#y(below - value) - y).toFixed(1),
          });
        }),
      );
    });
  }

  #span() {
    const { x, from, to } = this.data;
    return [from ?? x[0], to ?? Math.max(x.at(-1), x[0] + 1)];
  }

  #x(index) {
    if (this.kind === "lines") return this.#xOf(this.data.x[index]);
    const room = (this.width - PAD.left - PAD.right) / this.data.x.length;
    return PAD.left + room * (index + 0.5);
  }

  #xOf(at) {
    const [from, to] = this.#span();
    return PAD.left + ((at - from) / (to - from || 1)) * (this.width - PAD.left - PAD.right);
  }

  #y(value) {
    return this.height - PAD.bottom - (value / (this.top || 1)) * (this.height - PAD.top - PAD.bottom);
  }

  #tabulate() {
    if (!this.values.open || !this.data) return;
    const nameOf = (index) => this.#name(index);
    patch(this.valueSlot, [valueTable(this.title, this.series, this.data, nameOf, this.format)]);
  }
}
