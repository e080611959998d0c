// Figures for people. The forms are those of the command line.

import { h } from "./dom.js";

const LOCALE = undefined; // the browser's

/** `12 ms`, `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 2 h`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds > 0 && seconds < 0.0995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  const whole = Math.round(seconds);
  for (const [size, unit, part, partUnit] of [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ]) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / part);
      return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${partUnit}` : ""}`;
    }
  }
  return `${whole} s`;
}

/** A whole number with thousands apart. */
export function count(number) {
  return number === null || number === undefined ? "?" : Math.round(number).toLocaleString("en").replaceAll(",", " ");
}

/** A figure in few characters: `0`, `3.2`, `940`, `12.3k`, `4.5M`, `1.2G`. */
export function short(number) {
  if (number === null || number === undefined) return "?";
  for (const [size, unit] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ]) {
    if (Math.abs(number) >= 0.9995 * size) return `${trimmed(number / size)}${unit}`;
  }
  return number ? trimmed(number) : "0";
}

function trimmed(number) {
  return String(Number(number.toPrecision(3)));
}

/** `$0.0012`, `$3.40`, `$1 204.00`; `?` if it is not known. */
export function usd(amount) {
  if (amount === null || amount === undefined) return "?";
  if (amount === 0) return "$0";
  if (Math.abs(amount) < 0.01) return `$${amount.toPrecision(2)}`;
  const digits = Math.abs(amount) < 1 ? 3 : 2;
  return `$${amount.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: digits }).replaceAll(",", " ")}`;
}

/** What was spent on calls, or null where of none of them the price is known. */
export function knownCost(spent) {
  return spent.calls && spent.unpriced_calls === spent.calls ? null : spent.cost_usd;
}

/** `68 MB`, `1.2 GB`. */
export function bytes(size) {
  if (!size) return "–";
  return size < 1e9 ? `${(size / 1e6).toFixed(0)} MB` : `${(size / 1e9).toFixed(1)} GB`;
}

/** `37 %`. */
export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

/** `1 task`, `3 tasks`. */
export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** A moment (Unix seconds) as an exact local time. */
export function exact(at) {
  return new Date(at * 1000).toLocaleString(LOCALE, { dateStyle: "medium", timeStyle: "long" });
}

/** The time of day, with the date if it is not today's. */
export function clock(at, { seconds = true } = {}) {
  const date = new Date(at * 1000);
  const time = date.toLocaleTimeString("en-GB", seconds ? {} : { hour: "2-digit", minute: "2-digit" });
  return date.toDateString() === new Date().toDateString() ? time : `${day(date)} ${time}`;
}

function day(date) {
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
}

/** `<time>`: how long ago, with the exact moment as its title. */
export function ago(at, now = Date.now() / 1000) {
  if (!at) return h("span", { class: "muted" }, "–");
  const text =
    now - at < 1.5
      ? "just now"
      : `${duration(now - at)
          .split(" ")
          .slice(0, 2)
          .join(" ")} ago`;
  return h("time", { datetime: new Date(at * 1000).toISOString(), title: exact(at) }, text);
}

/** `<time>`: a moment that is to come. */
export function ahead(at, now = Date.now() / 1000) {
  const text =
    at <= now
      ? "now"
      : `in ${duration(at - now)
          .split(" ")
          .slice(0, 2)
          .join(" ")}`;
  return h("time", { datetime: new Date(at * 1000).toISOString(), title: exact(at) }, text);
}

/** `<time>`: the moment itself. */
export function moment(at) {
  return h("time", { datetime: new Date(at * 1000).toISOString(), title: exact(at) }, clock(at));
}

/** The first characters of a text, the whole of it as a title. */
export function clipped(text, most = 100) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length <= most ? line : h("span", { title: text.slice(0, 2000) }, `${line.slice(0, most - 1)}…`);
}
