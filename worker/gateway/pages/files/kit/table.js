// Tables that scroll by themselves, and become cards on a phone.
//
//   table({
//     label: "Workers",
//     columns: [{name: "Worker"}, {name: "Tokens", number: true}, {name: "Prompt", wide: true}],
//     rows: workers.map((worker) => ({key: worker.id, cells: [worker.id, count(worker.tokens), …]})),
//     empty: "No worker is up.",
//   })

import { h } from "./dom.js";

export function table({ label, columns, rows, empty = "Nothing here.", next = null, dense = false }) {
  if (!rows.length) return emptyState(empty, next);
  return h(
    "div",
    { class: `table-wrap${dense ? " dense" : ""}`, role: "region", "aria-label": label, tabindex: "0" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          columns.map((column) =>
            h(
              "th",
              { scope: "col", class: classes(column) },
              column.name || h("span", { class: "unseen" }, column.title || "Actions"),
            ),
          ),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            { "data-key": row.key, class: row.class },
            row.cells.map((cell, index) =>
              h(
                "td",
                { class: classes(columns[index]), "data-label": columns[index].name || null },
                h("div", { class: "cell" }, cell),
              ),
            ),
          ),
        ),
      ),
    ),
  );
}

function classes(column) {
  return [column.number && "number", column.wide && "wide", column.mono && "mono"].filter(Boolean).join(" ") || null;
}

/** What to say where there is nothing, and what to do next. */
export function emptyState(text, next = null) {
  return h("div", { class: "empty" }, h("p", {}, text), next ? h("p", { class: "hint" }, next) : null);
}

/** A labelled figure; `hint: false` leaves no room for one. */
export function figure(label, value, { hint = null, tone = "", href = null } = {}) {
  const body = [
    h("span", { class: "figure-label" }, label),
    h("span", { class: `figure-value ${tone}` }, value),
    hint === false ? null : h("span", { class: "figure-hint" }, hint ?? "\u00a0"),
  ];
  return href ? h("a", { class: "figure", href }, body) : h("div", { class: "figure" }, body);
}

/** A small word with a colour; the word says it all. */
export function badge(text, tone = "") {
  return h("span", { class: `badge ${tone}` }, text);
}

/** A bar of `share`, with marks. */
export function meter({ label, share, held = 0, tone = "good", marks = [] }) {
  return h(
    "div",
    {
      class: "meter",
      role: "meter",
      "aria-label": label,
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      "aria-valuenow": String(Math.round(Math.min(share, 1) * 100)),
      "aria-valuetext": `${Math.round(share * 100)} %`,
    },
    h("div", { class: `meter-held`, vars: { "--share": `${Math.min(share + held, 1) * 100}%` } }),
    h("div", { class: `meter-bar ${tone}`, vars: { "--share": `${Math.min(share, 1) * 100}%` } }),
    marks.map((mark) =>
      h("div", {
        class: `meter-mark ${mark.tone || ""}`,
        title: mark.title,
        vars: { "--at": `${Math.min(mark.at, 1) * 100}%` },
      }),
    ),
  );
}

/** Two columns: names and values. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}
