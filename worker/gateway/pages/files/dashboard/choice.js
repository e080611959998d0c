// A row of links of which one is chosen: the choice is in the address, so that it can be linked and gone back from.

import { h } from "../kit/dom.js";

/** `options`: {value: label}. `href(value)` leads to the page with that choice. */
export function choice(label, options, chosen, href) {
  return h(
    "div",
    { class: "choice", role: "group", "aria-label": label },
    Object.entries(options).map(([value, text]) =>
      h("a", { href: href(value), "aria-current": value === chosen ? "true" : null }, text),
    ),
  );
}
