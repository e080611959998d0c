// The buttons in the corner of every page: the theme, and the API key.

import { key, setKey } from "./api.js";
import { s } from "./dom.js";

const THEMES = {
  auto: ["M8 2.500a5.500 5.500 0 0 0 0 11z", "M8 2.500a5.500 5.500 0 0 1 0 11"],
  light: ["M8 5a3 3 0 1 0 0 6a3 3 0 0 0 0-6z", "M8 1v1.500M8 13.500V15M1 8h1.500M13.500 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1"],
  dark: ["M13 9.500A5.500 5.500 0 0 1 6.500 3a5.500 5.500 0 1 0 6.500 6.500z"],
};
const KEY = "M10.500 2a3.500 3.500 0 1 0 0 7a3.500 3.500 0 0 0 0-7zM8 8l-6 6M4 12l1.500 1.500M6 10l1.500 1.500";

/** Goes from the system's theme to light to dark. */
export function themeButton(button) {
  const draw = () => {
    const choice = window.shoalTheme.choice();
    const name = `Theme: ${choice === "auto" ? "as the system" : choice}`;
    button.title = name;
    button.setAttribute("aria-label", name);
    button.replaceChildren(s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, THEMES[choice].map((d, index) => s("path", { d, fill: choice === "auto" && index === 0 ? "currentColor" : null }))));
  };
  button.addEventListener("click", () => {
    window.shoalTheme.next();
    draw();
  });
  draw();
}

/** Asks (`ask()`) for another key, and loads the page again with it. */
export function keyButton(button, ask) {
  button.replaceChildren(s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: KEY })));
  button.addEventListener("click", async () => {
    const given = await ask();
    if (!given || given === key()) return;
    setKey(given);
    location.reload();
  });
}
