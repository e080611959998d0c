// Copies text, also on pages that came over plain HTTP, where browsers keep their clipboard to themselves.

import { h } from "../kit/dom.js";

const SHOWN_MS = 1600;

/** Copy, and say so on the button. */
export async function copyFrom(button, text) {
  const isDone = await copied(text);
  const before = (button.dataset.label ??= button.textContent);
  button.textContent = isDone ? "Copied" : "Not copied";
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => {
    button.textContent = before;
  }, SHOWN_MS);
  return isDone;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedByHand(text);
  }
}

function copiedByHand(text) {
  const active = document.activeElement;
  const area = h("textarea", { class: "unseen", "aria-hidden": "true", readonly: true, value: text });
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  active?.focus();
  return isDone;
}
