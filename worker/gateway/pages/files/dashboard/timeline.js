// A run's journal as a table: model calls, tool calls, retries.

import { h } from "../kit/dom.js";
import { clipped, count, duration, moment, usd } from "../kit/format.js";
import { badge, table } from "../kit/table.js";

const ENDINGS = {
  retry: ["attempt failed", "warn"],
  postponed: ["postponed", "warn"],
  parked: ["waits", "warn"],
  released: ["handed back", "warn"],
  dead: ["given up", "bad"],
  cancelled: ["cancelled", "bad"],
};

export function timelineTable(entries) {
  const finished = new Map(
    entries.filter((entry) => entry.kind === "tool_finished").map((entry) => [entry.key, entry]),
  );
  const started = new Set(entries.filter((entry) => entry.kind === "tool_started").map((entry) => entry.key));
  const rows = entries.map((entry, index) => row(entry, finished, started, index)).filter(Boolean);
  return table({
    label: "Timeline",
    columns: [
      { name: "At" },
      { name: "Step" },
      { name: "What", wide: true },
      { name: "Turn", number: true },
      { name: "Took", number: true },
      { name: "Tokens", number: true },
      { name: "Cost", number: true },
      { name: "Worker", mono: true },
    ],
    empty: "Nothing is journalled yet.",
    next: "Model calls and tool calls appear here as they end.",
    rows,
  });
}

function row(entry, finished, started, index) {
  const cells = cellsOf(entry, finished, started);
  if (!cells) return null;
  const [at, step, what, took = "", tokens = "", cost = ""] = cells;
  return {
    key: `${index}`,
    cells: [
      moment(at),
      step,
      what,
      entry.turn === undefined ? "" : String(entry.turn + 1),
      took,
      tokens,
      cost,
      entry.worker ?? "",
    ],
  };
}

function cellsOf(entry, finished, started) {
  switch (entry.kind) {
    case "model_call":
      return modelCall(entry);
    case "tool_started":
      return tool(entry.at, entry.name, finished.get(entry.key));
    case "tool_finished":
      return started.has(entry.key) ? null : tool(entry.at, entry.outcome.name, entry);
    case "tool_waits": // its run's parking says so
      return null;
    case "switched":
      return [
        entry.at,
        badge(entry.switch.beside ? "hedge" : "switch", "warn"),
        `${entry.switch.target}, was ${entry.switch.before}: ${String(entry.switch.reason).replaceAll("_", " ")}`,
      ];
    case "taken_over":
      return [
        entry.at,
        badge("taken over", "warn"),
        entry.crashes ? `after ${entry.crashes} lost worker${entry.crashes > 1 ? "s" : ""}` : "",
      ];
    case "attempt_ended": {
      const [name, tone] = ENDINGS[entry.how] ?? [entry.how, "warn"];
      const again = entry.retry_in_s == null ? "" : ` (again in ${duration(entry.retry_in_s)})`;
      return [entry.at, badge(name, tone), clipped(`${entry.error ?? ""}${again}`, 160)];
    }
    default:
      return [entry.at, badge(entry.kind ?? "entry"), ""];
  }
}

function modelCall(entry) {
  const record = entry.usage;
  const { input_tokens: input, output_tokens: output } = record.usage ?? {};
  const isWell = record.outcome === "completed";
  const what = h(
    "span",
    {},
    `${record.provider}/${record.model}`,
    isWell
      ? null
      : [
          " ",
          h(
            "span",
            { class: "warn" },
            entry.error ? `${record.outcome}: ${entry.error.slice(0, 200)}` : record.outcome,
          ),
        ],
  );
  const tokens =
    input == null && output == null ? "?" : `${record.estimated ? "~" : ""}${count((input ?? 0) + (output ?? 0))}`;
  return [
    record.started_at,
    badge("model", isWell ? "accent" : "warn"),
    what,
    duration(record.duration_ms / 1000),
    tokens,
    usd(record.cost_usd),
  ];
}

function tool(at, name, finished) {
  if (!finished)
    return [at, badge("tool", "warn"), h("span", {}, h("span", { class: "mono" }, name), ": no outcome yet")];
  const { outcome } = finished;
  return [
    at,
    badge("tool", outcome.is_error ? "bad" : "good"),
    h("span", {}, h("span", { class: "mono" }, name), ": ", clipped(outcome.content ?? "", 120)),
    duration((finished.duration_ms ?? 0) / 1000),
  ];
}
