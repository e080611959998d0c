// The running tasks as a table.

import { h } from "../kit/dom.js";
import { clipped, count, duration, usd } from "../kit/format.js";
import { badge, table } from "../kit/table.js";

export function runningTable(tasks, now, { hasPrompt = true } = {}) {
  const columns = [
    { name: "Task", mono: true },
    ...(hasPrompt ? [{ name: "Prompt", wide: true }] : []),
    { name: "Agent" },
    { name: "Tenant" },
    { name: "Worker", mono: true },
    { name: "Tokens", number: true },
    { name: "Cost", number: true },
    { name: "Running for", number: true },
  ];
  return table({
    label: "Running tasks",
    columns,
    empty: "No task is running.",
    next: h("span", {}, "Submit one: ", h("code", {}, "shoal submit 'Say hello' --follow")),
    rows: tasks.map((task) => ({
      key: task.id,
      cells: [
        h("a", { href: taskHref(task.id) }, task.id),
        ...(hasPrompt
          ? [
              h(
                "span",
                {},
                clipped(task.prompt || ""),
                task.attempt ? [" ", badge(`attempt ${task.attempt + 1}`, "warn")] : null,
              ),
            ]
          : []),
        task.agent || h("span", { class: "muted" }, "default"),
        task.tenant || "–",
        task.worker || "–",
        task.tokens ? count(task.tokens) : "–",
        task.cost_usd === undefined || task.cost_usd === null ? "–" : usd(task.cost_usd),
        task.started_at ? duration(now - task.started_at) : "–",
      ],
    })),
  });
}

export function taskHref(id) {
  return `#/tasks/${encodeURIComponent(id)}`;
}
