// When each step ran, as bars over the run's time.

import { h } from "../kit/dom.js";
import { duration } from "../kit/format.js";
import { emptyState } from "../kit/table.js";
import { FINAL, took } from "./phases.js";

export function runTimeline(run, steps, now) {
  const shown = steps.filter((step) => step.started_at).sort((a, b) => a.started_at - b.started_at);
  if (!shown.length) return emptyState("No step has begun yet.");
  const from = run.started_at || shown[0].started_at;
  const until = FINAL.has(run.phase) && run.ended_at ? run.ended_at : now;
  const whole = Math.max(until - from, 0.001);
  const share = (seconds) => `${Math.min(100, Math.max(0, (100 * seconds) / whole))}%`;
  return h(
    "ol",
    { class: "bars", tabindex: "0", "aria-label": "Steps by the time when they began" },
    shown.map((step) => {
      const seconds = took(step, now);
      return h(
        "li",
        { "data-key": step.name },
        h("span", { class: "bars-name", title: step.name }, step.name),
        h(
          "span",
          { class: "bars-track", "aria-hidden": "true" },
          h("span", {
            class: `bars-bar is-${step.phase.toLowerCase()}`,
            vars: { "--from": share(step.started_at - from), "--share": share(seconds) },
          }),
        ),
        h("span", { class: "bars-time" }, duration(seconds), h("span", { class: "unseen" }, ` ${step.phase}`)),
      );
    }),
  );
}
