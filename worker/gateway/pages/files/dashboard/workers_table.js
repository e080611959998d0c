// Workers as a table.

import { h } from "../kit/dom.js";
import { bytes, count, duration, short, usd } from "../kit/format.js";
import { badge, table } from "../kit/table.js";

const SILENT_S = 11; // two beats and a bit
const LEAST_SPAN_S = 30; // what began a moment ago has no rate yet worth the name

export function workersTable(workers, fleet, { isShort = false, canDrain = false } = {}) {
  const columns = [
    { name: "Worker", mono: true },
    { name: "State" },
    { name: "Running", number: true },
    { name: "Tasks/min", number: true },
    { name: "Tokens/min", number: true },
    { name: "Memory", number: true },
    { name: "Up", number: true },
  ];
  if (!isShort)
    columns.push({ name: "Done", number: true }, { name: "Failed", number: true }, { name: "Cost", number: true });
  if (canDrain) columns.push({ name: "", title: "Actions", number: true });
  return table({
    label: "Workers",
    columns,
    empty: "No worker is up.",
    next: h("span", {}, "Start one: ", h("code", {}, "shoal worker")),
    rows: workers.map((worker) => ({
      key: worker.id,
      cells: [
        ...first(worker, fleet),
        ...(isShort ? [] : rest(worker, fleet)),
        ...(canDrain ? [drainButton(worker)] : []),
      ],
    })),
  });
}

function first(worker, fleet) {
  const minute = worker.last_minute;
  const rate = (amount) => (minute ? short((60 * amount) / Math.max(minute.seconds, LEAST_SPAN_S)) : "–");
  const share = worker.slots ? worker.running / worker.slots : 0;
  return [
    h("span", { title: `${worker.host}:${worker.pid}, shoal ${worker.version}` }, worker.id),
    stateBadge(worker, fleet.now),
    h(
      "span",
      {},
      h("span", { class: "share", "aria-hidden": "true", vars: { "--share": `${Math.round(share * 100)}%` } }),
      `${count(worker.running)}/${count(worker.slots)}`,
    ),
    rate(minute?.tasks),
    rate(minute?.tokens),
    bytes(worker.rss_bytes),
    duration(fleet.now - worker.started_at),
  ];
}

function rest(worker, fleet) {
  return [
    count(worker.tasks_done),
    h("span", { class: worker.tasks_failed ? "bad" : "muted" }, count(worker.tasks_failed)),
    worker.cost_usd === undefined ? "–" : usd(worker.cost_usd),
  ];
}

function stateBadge(worker, now) {
  if (now - worker.beat_at > SILENT_S) return badge("silent", "bad");
  return worker.draining ? badge("draining", "warn") : badge("works", "good");
}

function drainButton(worker) {
  return h(
    "span",
    { class: "row-actions" },
    h(
      "button",
      {
        class: "button small",
        "data-action": "drain",
        "data-id": worker.id,
        disabled: worker.draining,
        "aria-label": `Drain ${worker.id}`,
      },
      worker.draining ? "Draining" : "Drain",
    ),
  );
}
