// What stands above everything else while it is so.

import { h } from "../kit/dom.js";

export function problemBanner(fleet) {
  const problem = fleet.queue?.problem;
  return problem
    ? h(
        "div",
        { class: "banner bad", "data-key": "problem", role: "alert" },
        h("span", {}, `The queue does not answer, these figures are old: ${problem}`),
      )
    : null;
}

export function pausedBanner(fleet, { hasButton = false } = {}) {
  if (!fleet.queue?.paused) return null;
  return h(
    "div",
    { class: "banner", "data-key": "paused" },
    h("span", {}, h("strong", {}, "The queue is paused."), " Running tasks go on, no waiting one is started."),
    hasButton ? null : h("a", { href: "#/queue" }, "Resume it"),
  );
}
