// A form made of the inputs that a team declares.

import { h, patch } from "../kit/dom.js";

/** `onRun(input)` resolves to what was wrong, or to an empty text. */
export function inputForm(inputs, onRun) {
  const problem = h("div", { role: "alert" });
  const button = h("button", { class: "button primary" }, "Run");
  const fields = inputs.length ? inputs.map(fieldOf) : [wholeInput()];
  const submit = async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    const told = await valuesOf(fields).then(onRun).catch((error) => error.message);
    button.disabled = false;
    patch(problem, told ? [h("p", { class: "problem" }, told)] : []);
  };
  return h(
    "section",
    { class: "panel" },
    h("div", { class: "panel-head" }, h("h2", {}, "Run it")),
    h(
      "form",
      { class: "panel-body input-form", submit, novalidate: true, "aria-label": "Run this team" },
      problem,
      fields.map((field) => field.element),
      h("div", {}, button),
    ),
  );
}

async function valuesOf(fields) {
  return Object.assign({}, ...fields.map((field) => field.read()));
}

function fieldOf({ type = "string", ...spec }, index) {
  const id = `input-${index}`;
  const hintId = `${id}-hint`;
  const told = spec.description ? h("span", { class: "hint", id: hintId }, spec.description) : null;
  const described = told ? hintId : null;
  const fallback = spec.default ?? "";
  if (type === "boolean") {
    const box = h("input", { id, type: "checkbox", checked: fallback === "true", "aria-describedby": described });
    return {
      element: h("div", { class: "input-field" }, h("label", { for: id, class: "input-check" }, box, spec.name), told),
      read: () => ({ [spec.name]: box.checked }),
    };
  }
  const isLong = type !== "number";
  const control = h(isLong ? "textarea" : "input", {
    id,
    type: isLong ? null : "text",
    inputmode: isLong ? null : "decimal",
    rows: isLong ? (type === "string" ? 2 : 4) : null,
    required: Boolean(spec.required),
    spellcheck: isLong && type === "string" ? null : "false",
    class: type === "object" || type === "array" ? "mono" : null,
    "aria-describedby": described,
  });
  control.value = fallback;
  const kind = { number: "number", object: "JSON object", array: "JSON list" }[type];
  const extra = [kind, spec.required ? "required" : ""].filter(Boolean).join(", ");
  return {
    element: h(
      "div",
      { class: "input-field" },
      h("label", { for: id }, spec.name, extra ? h("span", { class: "hint" }, ` ${extra}`) : null),
      control,
      told,
    ),
    read: () => {
      const text = control.value;
      if (!text.trim()) {
        if (spec.required) {
          control.focus();
          throw new Error(`${spec.name} is required.`);
        }
        return {};
      }
      return { [spec.name]: text };
    },
  };
}

/** A team that declares no inputs takes any. */
function wholeInput() {
  const control = h("textarea", { id: "input-all", rows: 5, class: "mono", spellcheck: "false" });
  return {
    element: h(
      "div",
      { class: "input-field" },
      h("label", { for: "input-all" }, "Input", h("span", { class: "hint" }, " JSON object, or a text as the prompt")),
      control,
    ),
    read: () => {
      const text = control.value.trim();
      if (!text) return {};
      if (!text.startsWith("{")) return { prompt: text };
      try {
        return JSON.parse(text);
      } catch (error) {
        control.focus();
        throw new Error(`Input is no JSON: ${error.message}`);
      }
    },
  };
}
