// What a question asks about, as text that says what it is.

import { h } from "../kit/dom.js";

// Controls, and what turns around or hides the characters beside it: a person decides by what is to be seen.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

export function readable(text) {
  return text.replace(UNSEEN, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The arguments of a call, or what a plugin says besides; null if there is nothing. */
export function details(question) {
  const { arguments: given, context } = question;
  if (given === undefined && !context) return null;
  const text = given === undefined ? context : typeof given === "string" ? given : JSON.stringify(given, null, 2);
  return h(
    "pre",
    { tabindex: "0", role: "region", "aria-label": `Arguments: ${readable(question.message)}` },
    readable(text),
  );
}
