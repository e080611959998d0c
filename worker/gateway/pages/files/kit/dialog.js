// Dialogs: the browser's own <dialog> keeps the focus inside, closes on Escape and gives the focus back.

import { h } from "./dom.js";

/** Ask before something happens. Resolves to whether it shall. */
export function confirm({ title, text, action, danger = false }) {
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "dialog-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      ...[text].flat().map((line) => h("p", {}, line)),
      h(
        "div",
        { class: "dialog-buttons" },
        h("button", { class: "button", value: "no", autofocus: danger }, "Cancel"),
        h("button", { class: danger ? "button danger" : "button primary", value: "yes", autofocus: !danger }, action),
      ),
    ),
  );
  return shown(dialog).then((answer) => answer === "yes");
}

/** Ask for an API key, which wants `scope`. Resolves to it, or to null. */
export function askForKey(reason, scope = "ops.read") {
  const input = h("input", {
    id: "api-key",
    name: "key",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    autofocus: true,
    "aria-describedby": "api-key-hint",
  });
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "dialog-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, "API key"),
      reason ? h("p", { class: "problem", role: "alert" }, reason) : null,
      h("label", { for: "api-key" }, "This gateway wants a key"),
      input,
      h(
        "p",
        { id: "api-key-hint", class: "hint" },
        "Make one with ",
        h("code", {}, `shoal key create NAME --scope ${scope}`),
        ". It is kept in this tab until you close it.",
      ),
      h(
        "div",
        { class: "dialog-buttons" },
        h("button", { class: "button", value: "no", type: "button", click: () => dialog.close("no") }, "Cancel"),
        h("button", { class: "button primary", value: "yes" }, "Use this key"),
      ),
    ),
  );
  return shown(dialog).then((answer) => (answer === "yes" && input.value.trim()) || null);
}

/** Ask for a text. Resolves to it, or to null. */
export function askForText({ title, label, value = "", action, most = 200 }) {
  const input = h("input", {
    id: "dialog-text",
    type: "text",
    autocomplete: "off",
    maxlength: most,
    required: true,
    autofocus: true,
    value,
  });
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "dialog-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      h("label", { for: "dialog-text" }, label),
      input,
      h(
        "div",
        { class: "dialog-buttons" },
        h("button", { class: "button", value: "no", type: "button", click: () => dialog.close("no") }, "Cancel"),
        h("button", { class: "button primary", value: "yes" }, action),
      ),
    ),
  );
  const answer = shown(dialog);
  input.select();
  return answer.then((how) => (how === "yes" && input.value.trim()) || null);
}

/** Show any dialog; resolves to the value of the button that closed it. */
export function shown(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        dialog.remove();
        resolve(dialog.returnValue);
      },
      { once: true },
    );
  });
}
