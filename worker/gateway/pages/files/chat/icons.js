// Small pictures for buttons that have no room for words; their names are the buttons' labels.

import { s } from "../kit/dom.js";

const PATHS = {
  close: ["M4 4l8 8M12 4l-8 8"],
  down: ["M8 3v10M4 9l4 4l4-4"],
  edit: ["M10.500 3.500l2 2L6 12l-2.500.5L4 10z"],
  list: ["M3 4.500h10M3 8h10M3 11.500h10"],
  remove: ["M3 4.500h10M6.500 4.500V3h3v1.500M4.500 4.500l.5 8.500h6l.5-8.500"],
  send: ["M8 13V3M4 7l4-4l4 4"],
};

export function icon(name) {
  return s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, PATHS[name].map((d) => s("path", { d })));
}
