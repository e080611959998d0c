// A plot's values as a table, for those who do not see the plot, or want to copy figures.

import { h } from "./dom.js";

const MOST_ROWS = 60;

/** The newest first; of many, evenly picked ones. `nameOf(index)` names a row. */
export function valueTable(title, series, data, nameOf, format) {
  const last = data.x.length - 1;
  const every = Math.max(1, Math.ceil(data.x.length / MOST_ROWS));
  const picked = data.x.map((_, index) => last - index).filter((index) => (last - index) % every === 0);
  const head = h(
    "tr",
    {},
    h("th", { scope: "col" }, "Time"),
    series.map((one) => h("th", { scope: "col", class: "number" }, one.name)),
  );
  const row = (index) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, nameOf(index)),
      series.map((_, column) => h("td", { class: "number" }, written(data.values[column]?.[index], format))),
    );
  const rows = h("table", {}, h("thead", {}, head), h("tbody", {}, picked.map(row)));
  const about = { role: "region", "aria-label": `${title}: values`, tabindex: "0" };
  return h("div", { class: "table-wrap dense plain", ...about }, rows);
}

function written(value, format) {
  return value === null || value === undefined ? "–" : format(value);
}
