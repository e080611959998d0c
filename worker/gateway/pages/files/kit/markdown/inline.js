// Markdown's inline parts: from a text to DOM nodes. Nothing is ever parsed as HTML, and links lead to http, https and
// mailto addresses alone. Runs in time that grows with the text's length, however it is made.

import { h } from "../dom.js";

const MOST_DEPTH = 16;
const MOST_ADDRESS_CHARS = 2000;
const MOST_PARENTHESES = 16;
const SPECIAL = /[\\`*_~[\]!<&\n]|https?:\/\//gi;
const ADDRESS = /https?:\/\/[^\s<>"`|[\]]+/iy;
const BETWEEN_ANGLES = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/iy;
const BREAK = /<br[ \t]{0,8}\/?>/iy;
const ENTITY = /&(?:(amp|lt|gt|quot|apos|nbsp)|#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6}));/y;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const WHITE = /\s/;
const PUNCTUATION = /[\p{P}\p{S}]/u;

/** The nodes of a text. */
export function inline(text) {
  return new Inline(text).nodes();
}

/** An address that may be followed, or null. */
export function safeAddress(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
}

/** A link out of the page. */
export function outwards(address, ...children) {
  return h("a", { href: address, target: "_blank", rel: "noopener noreferrer", title: address }, ...children);
}

/** Items stand in a linked list, so that what is between two marks can be taken out of it at no cost. */
class Inline {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.head = { next: null, prev: null };
    this.tail = this.head;
    this.runs = [];
    this.brackets = [];
    this.unclosed = new Set();
  }

  nodes() {
    const { text } = this;
    while (this.at < text.length) {
      SPECIAL.lastIndex = this.at;
      const found = SPECIAL.exec(text);
      const stop = found ? found.index : text.length;
      if (stop > this.at) this.#push({ text: text.slice(this.at, stop) });
      this.at = stop;
      if (found) this.#special(found[0]);
    }
    this.#emphasise(this.runs);
    return taken(this.head, null);
  }

  #push(item) {
    item.prev = this.tail;
    item.next = null;
    item.depth ??= 0;
    this.tail.next = item;
    this.tail = item;
  }

  #literal(length) {
    this.#push({ text: this.text.slice(this.at, this.at + length) });
    this.at += length;
  }

  #special(mark) {
    switch (mark) {
      case "\\":
        return this.#escape();
      case "`":
        return this.#code();
      case "*":
      case "_":
      case "~":
        return this.#run(mark);
      case "[":
        return this.#open(1);
      case "!":
        return this.text[this.at + 1] === "[" ? this.#open(2) : this.#literal(1);
      case "]":
        return this.#close();
      case "<":
        return this.#angle();
      case "&":
        return this.#entity();
      case "\n":
        return this.#newline();
      default:
        return this.#address();
    }
  }

  #newline() {
    this.#push({ node: h("br") });
    this.#push({ text: "\n" });
    this.at += 1;
  }

  #escape() {
    const next = this.text[this.at + 1];
    if (next === "\n") this.at += 1;
    else if (next && ESCAPABLE.test(next)) {
      this.#push({ text: next });
      this.at += 2;
    } else this.#literal(1);
  }

  #code() {
    const { text, at } = this;
    let length = 1;
    while (text[at + length] === "`") length += 1;
    const end = this.unclosed.has(length) ? -1 : closing(text, at + length, length);
    if (end < 0) {
      this.unclosed.add(length);
      return this.#literal(length);
    }
    let inner = text.slice(at + length, end).replaceAll("\n", " ");
    if (inner.startsWith(" ") && inner.endsWith(" ") && inner.trim()) inner = inner.slice(1, -1);
    this.#push({ node: h("code", {}, inner) });
    this.at = end + length;
  }

  #run(char) {
    const { text, at } = this;
    let count = 1;
    while (text[at + count] === char) count += 1;
    const before = at ? text[at - 1] : " ";
    const after = text[at + count] ?? " ";
    const opens = !WHITE.test(after) && (!PUNCTUATION.test(after) || WHITE.test(before) || PUNCTUATION.test(before));
    const closes = !WHITE.test(before) && (!PUNCTUATION.test(before) || WHITE.test(after) || PUNCTUATION.test(after));
    const item = { char, count, length: count };
    item.canOpen = opens && (char !== "_" || !closes || PUNCTUATION.test(before));
    item.canClose = closes && (char !== "_" || !opens || PUNCTUATION.test(after));
    if (char === "~" && count !== 2) item.canOpen = item.canClose = false;
    this.#push(item);
    this.runs.push(item);
    this.at += count;
  }

  #open(length) {
    this.#literal(length);
    this.brackets.push({ item: this.tail, runs: this.runs.length, isImage: length === 2 });
  }

  #close() {
    const bracket = this.brackets.pop();
    const target = bracket && this.text[this.at + 1] === "(" ? destination(this.text, this.at + 2) : null;
    if (!target) return this.#literal(1);
    this.#emphasise(this.runs.splice(bracket.runs));
    const before = bracket.item.prev;
    const inner = taken(bracket.item, null);
    const depth = depthOf(inner) + 1;
    this.tail = before;
    before.next = null;
    this.#push({ node: linked(target.address, inner, bracket.isImage), depth });
    this.at = target.end;
  }

  #angle() {
    const breaking = matched(BREAK, this.text, this.at);
    const link = breaking ? null : matched(BETWEEN_ANGLES, this.text, this.at);
    if (!breaking && !link) return this.#literal(1);
    this.#push({ node: breaking ? h("br") : linked(link[1], [link[1]], false) });
    this.at += (breaking ?? link)[0].length;
  }

  #entity() {
    const found = matched(ENTITY, this.text, this.at);
    if (!found) return this.#literal(1);
    const code = found[2] ? Number(found[2]) : parseInt(found[3] ?? "", 16);
    const isText = code > 31 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
    this.#push({ text: found[1] ? ENTITIES[found[1]] : isText ? String.fromCodePoint(code) : "\ufffd" });
    this.at += found[0].length;
  }

  #address() {
    const [whole] = matched(ADDRESS, this.text, this.at) ?? ["http"];
    const address = trimmedAddress(whole);
    const isWord = this.at > 0 && /[\p{L}\p{N}]/u.test(this.text[this.at - 1]);
    if (isWord || address.length > MOST_ADDRESS_CHARS || !safeAddress(address)) return this.#literal(whole.length);
    this.#push({ node: linked(address, [address], false) });
    this.at += address.length;
  }

  /** Pair marks that open with marks that close; what is left over is text. */
  #emphasise(runs) {
    const open = [];
    const floor = new Map(); // below it there is no opener for such a closer
    for (const closer of runs) {
      const key = `${closer.char}${closer.canOpen}${closer.length % 3}`;
      while (closer.canClose && closer.count) {
        let at = open.length - 1;
        const lowest = Math.min(floor.get(key) ?? 0, open.length);
        while (at >= lowest && !fits(open[at], closer)) at -= 1;
        if (at < lowest) {
          floor.set(key, open.length);
          break;
        }
        this.#wrap(open[at], closer);
        open.length = open[at].count ? at + 1 : at;
        for (const [name, height] of floor) if (height > open.length) floor.set(name, open.length);
      }
      if (closer.canOpen && closer.count) open.push(closer);
    }
  }

  #wrap(opener, closer) {
    const used = Math.min(opener.count, closer.count, 2);
    opener.count -= used;
    closer.count -= used;
    const inner = taken(opener, closer);
    const depth = depthOf(inner) + 1;
    const tag = closer.char === "~" ? "s" : used === 2 ? "strong" : "em";
    const node = depth > MOST_DEPTH ? fragment(inner) : h(tag, {}, ...inner);
    const item = { node, depth: Math.min(depth, MOST_DEPTH), prev: opener, next: closer };
    node.shoalDepth = item.depth;
    opener.next = item;
    closer.prev = item;
  }
}

function fits(opener, closer) {
  if (opener.char !== closer.char) return false;
  const isEither = (opener.canClose || closer.canOpen) && (opener.length + closer.length) % 3 === 0;
  return !isEither || (opener.length % 3 === 0 && closer.length % 3 === 0);
}

/** The nodes of the items between two, which are taken out of the list. */
function taken(from, until) {
  const found = [];
  let text = "";
  for (let item = from.next; item !== until; item = item.next) {
    if (item.node) {
      if (text) found.push(document.createTextNode(text));
      text = "";
      item.node.shoalDepth = item.depth;
      found.push(item.node);
    } else text += item.char ? item.char.repeat(item.count) : item.text;
  }
  if (text) found.push(document.createTextNode(text));
  from.next = until;
  if (until) until.prev = from;
  return found;
}

function depthOf(nodes) {
  return nodes.reduce((deepest, node) => Math.max(deepest, node.shoalDepth ?? 0), 0);
}

function fragment(nodes) {
  const whole = document.createDocumentFragment();
  whole.append(...nodes);
  return whole;
}

/** A link, or what it says if its address may not be followed. */
function linked(address, children, isImage) {
  const safe = safeAddress(address);
  const inner = isImage ? ["Image: ", ...(children.length ? children : [address])] : children;
  if (!safe) return h("span", { title: "This link is not followed." }, ...inner);
  const link = outwards(safe, ...(inner.length ? inner : [address]));
  for (const nested of link.querySelectorAll("a")) nested.replaceWith(...nested.childNodes);
  return link;
}

/** `(address "title")` from behind its parenthesis. */
function destination(text, from) {
  let at = skipWhite(text, from);
  let address = "";
  if (text[at] === "<") {
    const end = text.indexOf(">", at);
    if (end < 0 || end - at > MOST_ADDRESS_CHARS) return null;
    address = text.slice(at + 1, end);
    at = end + 1;
  } else {
    let open = 0;
    const begin = at;
    for (; at < text.length && at - begin <= MOST_ADDRESS_CHARS; at += 1) {
      const char = text[at];
      if (char === "\\" && ESCAPABLE.test(text[at + 1] ?? "")) at += 1;
      else if (WHITE.test(char)) break;
      else if (char === "(" && (open += 1) > MOST_PARENTHESES) return null;
      else if (char === ")" && (open -= 1) < 0) break;
    }
    address = text.slice(begin, at).replace(/\\([!-/:-@[-`{-~])/g, "$1");
  }
  at = skipTitle(text, skipWhite(text, at));
  return text[at] === ")" ? { address, end: at + 1 } : null;
}

function skipTitle(text, at) {
  const quote = text[at];
  if (quote !== '"' && quote !== "'") return at;
  const end = text.slice(at + 1, at + 502).indexOf(quote);
  return end < 0 ? at : skipWhite(text, at + 1 + end + 1);
}

function skipWhite(text, at) {
  const most = at + 100;
  while (at < most && at < text.length && WHITE.test(text[at])) at += 1;
  return at;
}

function closing(text, from, length) {
  for (let at = text.indexOf("`", from); at >= 0; at = text.indexOf("`", at)) {
    let end = at + 1;
    while (text[end] === "`") end += 1;
    if (end - at === length) return at;
    at = end;
  }
  return -1;
}

/** Without what ends the sentence around it. */
function trimmedAddress(address) {
  let end = address.length;
  for (;;) {
    const last = address[end - 1];
    const isExtra = last === ")" && count(address, ")", end) > count(address, "(", end);
    if (!/[?!.,:;*_~'\]]/.test(last ?? "") && !isExtra) return address.slice(0, end);
    end -= 1;
    if (address.length - end > 50) return address.slice(0, end);
  }
}

function count(text, char, end) {
  let found = 0;
  for (let at = 0; at < Math.min(end, MOST_ADDRESS_CHARS); at += 1) found += text[at] === char ? 1 : 0;
  return found;
}

function matched(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}
