// Markdown's blocks: from lines to plain objects. Of CommonMark and GitHub's tables what answers are made of; HTML is
// text, and so is what is indented by four spaces.
//
//   {type: "paragraph", text} {type: "heading", level, text} {type: "rule"} {type: "code", language, text, isOpen}
//   {type: "quote", blocks} {type: "list", isOrdered, start, isLoose, items: [{isDone, blocks}]}
//   {type: "table", aligns, head: [text], rows: [[text]]}
//
// Every line is looked at a bounded number of times, and nesting ends at MOST_DEPTH: texts may be hostile.

const MOST_DEPTH = 12;
const MOST_COLUMNS = 40;
const MOST_ITEMS = 500; // then another list begins, so that no block of a long text is long
const MARKER = /^([ \t]*)(?:([-*+])|(\d{1,9})([.)]))(?=[ \t]|$)/;
const DELIMITER = /^[ \t|:-]*-[ \t|:-]*$/;

/** The block that begins at or after line `at`: `{block, begin, end}`, lines counted; null: there is none. */
export function nextBlock(lines, at, depth = 0) {
  let begin = at;
  while (begin < lines.length && isBlank(lines[begin])) begin += 1;
  if (begin === lines.length) return null;
  for (const read of depth < MOST_DEPTH ? READERS : FLAT_READERS) {
    const found = read(lines, begin, depth);
    if (found) return { ...found, begin };
  }
  return { ...paragraph(lines, begin), begin };
}

/** All blocks of some lines. */
export function blocksOf(lines, depth = 0) {
  const found = [];
  for (let step = nextBlock(lines, 0, depth); step; step = nextBlock(lines, step.end, depth)) found.push(step.block);
  return found;
}

function fence(lines, begin) {
  const open = fenceOf(lines[begin]);
  if (!open) return null;
  const text = [];
  for (let at = begin + 1; at < lines.length; at += 1) {
    const close = fenceOf(lines[at]);
    if (close && close.mark === open.mark && close.length >= open.length && !close.info)
      return code(open, text, at + 1, false);
    text.push(strip(lines[at], open.indent));
  }
  return code(open, text, lines.length, true);
}

function code(open, text, end, isOpen) {
  return {
    block: { type: "code", language: open.info.split(/[\s{,]/, 1)[0].slice(0, 40), text: text.join("\n"), isOpen },
    end,
  };
}

function fenceOf(line) {
  const indent = indentOf(line);
  const trimmed = line.trim();
  const mark = trimmed[0];
  if (mark !== "`" && mark !== "~") return null;
  let length = 1;
  while (trimmed[length] === mark) length += 1;
  const info = trimmed.slice(length).trim();
  return length < 3 || (mark === "`" && info.includes("`")) ? null : { indent, mark, length, info };
}

function heading(lines, begin) {
  const trimmed = lines[begin].trim();
  let level = 0;
  while (trimmed[level] === "#") level += 1;
  if (level < 1 || level > 6 || (trimmed.length > level && !/\s/.test(trimmed[level]))) return null;
  let end = trimmed.length;
  while (end > level && trimmed[end - 1] === "#") end -= 1;
  if (end > level && !/\s/.test(trimmed[end - 1])) end = trimmed.length; // it belongs to a word, as in C#
  return { block: { type: "heading", level, text: trimmed.slice(level, end).trim() }, end: begin + 1 };
}

function rule(lines, begin) {
  return isRule(lines[begin]) ? { block: { type: "rule" }, end: begin + 1 } : null;
}

function isRule(line) {
  const mark = line.trimStart()[0];
  if (mark !== "-" && mark !== "*" && mark !== "_") return false;
  let count = 0;
  for (const char of line) {
    if (char === mark) count += 1;
    else if (char !== " " && char !== "\t") return false;
  }
  return count >= 3;
}

function quote(lines, begin, depth) {
  if (!isQuoted(lines[begin])) return null;
  const own = [];
  let at = begin;
  for (; at < lines.length && !isBlank(lines[at]); at += 1) {
    const line = lines[at];
    if (isQuoted(line)) own.push(line.trimStart().slice(1).replace(/^ /, ""));
    else if (isBlank(own.at(-1)) || startsBlock(line)) break;
    else own.push(line);
  }
  return { block: { type: "quote", blocks: blocksOf(own, depth + 1) }, end: at };
}

function isQuoted(line) {
  return line.trimStart()[0] === ">";
}

function list(lines, begin, depth) {
  const first = markerOf(lines[begin]);
  if (!first) return null;
  const items = [];
  let isLoose = false;
  let at = begin;
  while (at < lines.length) {
    const marker = markerOf(lines[at]);
    if (!marker || marker.kind !== first.kind || items.length === MOST_ITEMS || (items.length && isRule(lines[at])))
      break;
    const { own, end, hasGap } = itemLines(lines, at, marker, first.indent);
    const blocks = blocksOf(own, depth + 1);
    isLoose ||= hasGap && blocks.length > 1 && own.some(isBlank) && !isTightWith(blocks);
    items.push({ ...taskOf(blocks), blocks });
    at = end;
    while (at < lines.length && isBlank(lines[at])) at += 1;
    if (at > end && at < lines.length && markerOf(lines[at])?.kind === first.kind) isLoose = true;
  }
  // Blank lines behind the last item are not the list's.
  let end = at;
  while (end > begin && isBlank(lines[end - 1])) end -= 1;
  return { block: { type: "list", isOrdered: first.number !== null, start: first.number ?? 1, isLoose, items }, end };
}

/** A blank line before a nested list or some code makes no item loose that is one paragraph otherwise. */
function isTightWith(blocks) {
  return blocks.filter((block) => block.type === "paragraph").length < 2;
}

function itemLines(lines, begin, marker, base) {
  const own = [behind(lines[begin], marker)];
  let hasGap = false;
  let at = begin + 1;
  for (; at < lines.length; at += 1) {
    const line = lines[at];
    if (isBlank(line)) {
      own.push("");
      continue;
    }
    const indent = indentOf(line);
    const isNested = indent >= marker.offset || (indent >= base + 2 && markerOf(line) !== null);
    const isLazy = !isNested && !isBlank(own.at(-1)) && !startsBlock(line) && !markerOf(line);
    if (!isNested && !isLazy) break;
    hasGap ||= isBlank(own.at(-1));
    own.push(isNested ? strip(line, marker.offset) : line.trimStart());
  }
  while (at > begin + 1 && isBlank(lines[at - 1])) {
    at -= 1;
    own.pop();
  }
  return { own, end: at, hasGap };
}

/** A list item's marker: `offset` is where its text begins. */
function markerOf(line) {
  const found = MARKER.exec(line);
  if (!found || isRule(line)) return null;
  const indent = columns(found[1]);
  const width = found[2] ? 1 : found[3].length + 1;
  let spaces = 0;
  while (line[found[0].length + spaces] === " ") spaces += 1;
  const isEmpty = found[0].length + spaces >= line.length;
  const offset = indent + width + (isEmpty || spaces > 4 || spaces === 0 ? 1 : spaces);
  return {
    kind: found[2] ?? found[4],
    number: found[3] === undefined ? null : Number(found[3]),
    indent,
    offset,
    isEmpty,
  };
}

function taskOf(blocks) {
  const [first] = blocks;
  const found = first?.type === "paragraph" ? /^\[([ xX])\][ \t]+/.exec(first.text) : null;
  if (!found) return { isDone: null };
  first.text = first.text.slice(found[0].length);
  return { isDone: found[1] !== " " };
}

function table(lines, begin) {
  const aligns = tableAligns(lines, begin);
  if (!aligns) return null;
  const head = cells(lines[begin]);
  const rows = [];
  let at = begin + 2;
  for (; at < lines.length && lines[at].includes("|") && !isBlank(lines[at]); at += 1) {
    const row = cells(lines[at]).slice(0, head.length);
    rows.push([...row, ...Array(head.length - row.length).fill("")]);
  }
  return { block: { type: "table", aligns, head, rows }, end: at };
}

function tableAligns(lines, begin) {
  const next = lines[begin + 1];
  if (
    next === undefined ||
    !lines[begin].includes("|") ||
    !next.includes("|") ||
    next.length > 4000 ||
    !DELIMITER.test(next)
  )
    return null;
  const marks = cells(next);
  if (
    marks.length > MOST_COLUMNS ||
    marks.length !== cells(lines[begin]).length ||
    !marks.every((mark) => /^:?-+:?$/.test(mark))
  )
    return null;
  return marks.map((mark) => (mark.endsWith(":") ? (mark.startsWith(":") ? "center" : "right") : null));
}

function cells(line) {
  const found = [""];
  const trimmed = line.trim();
  for (let at = trimmed[0] === "|" ? 1 : 0; at < trimmed.length; at += 1) {
    if (trimmed[at] === "\\" && trimmed[at + 1] === "|") {
      found[found.length - 1] += "|";
      at += 1;
    } else if (trimmed[at] !== "|") found[found.length - 1] += trimmed[at];
    else if (at < trimmed.length - 1) found.push("");
  }
  return found.map((cell) => cell.trim());
}

function paragraph(lines, begin) {
  const text = [lines[begin].trim()];
  let at = begin + 1;
  for (; at < lines.length && !isBlank(lines[at]); at += 1) {
    const underline = /^[ \t]*(=+|-+)[ \t]*$/.exec(lines[at]);
    if (underline && text.length === 1) {
      const level = underline[1][0] === "=" ? 1 : 2;
      if (level === 1 || underline[1].length > 1)
        return { block: { type: "heading", level, text: text[0] }, end: at + 1 };
    }
    if (startsBlock(lines[at]) || tableAligns(lines, at)) break;
    text.push(lines[at].trimStart());
  }
  return { block: { type: "paragraph", text: text.join("\n") }, end: at };
}

/** Whether a line ends the paragraph before it. */
function startsBlock(line) {
  if (isQuoted(line) || isRule(line) || fenceOf(line) || heading([line], 0)) return true;
  const marker = markerOf(line);
  return marker !== null && !marker.isEmpty && (marker.number === null || marker.number === 1);
}

function isBlank(line) {
  return line.trim() === "";
}

function columns(space) {
  let width = 0;
  for (const char of space) width += char === "\t" ? 4 - (width % 4) : 1;
  return width;
}

function indentOf(line) {
  let width = 0;
  for (const char of line) {
    if (char === " ") width += 1;
    else if (char === "\t") width += 4 - (width % 4);
    else break;
  }
  return width;
}

/** The line without its first `most` columns, as far as they are white. */
function strip(line, most) {
  let width = 0;
  let at = 0;
  for (; width < most && (line[at] === " " || line[at] === "\t"); at += 1)
    width += line[at] === "\t" ? 4 - (width % 4) : 1;
  return line.slice(at);
}

/** What stands behind an item's marker. */
function behind(line, marker) {
  let width = 0;
  let at = 0;
  for (; width < marker.offset && at < line.length; at += 1) width += line[at] === "\t" ? 4 - (width % 4) : 1;
  return line.slice(at);
}

const FLAT_READERS = [fence, heading, rule, table];
const READERS = [fence, heading, rule, quote, list, table];
