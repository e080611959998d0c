// Short messages at the edge of the page: what was done, and what went wrong.

import { h } from "./dom.js";

const SHOWN_MS = 6000;
const MOST = 4;

let area = null;

export const done = (text) => notice(text, "good");
export const failed = (error) => notice(error instanceof Error ? error.message : String(error), "bad");

/** Errors stay until they are dismissed, or there are too many; one that is there already is not said again. */
function notice(text, kind) {
  area ??= document.body.appendChild(h("div", { class: "notices", role: "status", "aria-live": "polite" }));
  const same = [...area.children].find((one) => one.dataset.text === text);
  if (same && kind === "bad") return;
  const close = () => item.remove();
  const item = h(
    "div",
    { class: `notice ${kind}`, "data-text": text },
    h("span", {}, text),
    h("button", { class: "button quiet", "aria-label": "Dismiss", click: close }, "×"),
  );
  area.append(item);
  while (area.children.length > MOST) area.firstChild.remove();
  if (kind !== "bad") setTimeout(close, SHOWN_MS);
}
