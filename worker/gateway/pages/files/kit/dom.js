// Building and updating the page. Text is always text: nothing here, or anywhere else, parses HTML.
//
//   h("button", {class: "button", "data-action": "drain", disabled: true}, "Drain")
//   patch(slot, [h("p", {}, "new"), …])     makes a slot's content equal to these nodes, and keeps what is equal:
//                                           focus, scroll positions, open <details>, what was typed
//
// Nodes with `data-key` are matched by it, others by place and tag. A node with `data-own` is left alone once it stands
// (plots draw themselves). Listeners of replaced nodes would be lost: use `actions` on something that stays.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `null`, `undefined` and `false` attributes and children are left out; arrays of children are flattened. */
export function h(tag, attributes = {}, ...children) {
  return build(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s(tag, attributes = {}, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name === "value") element.value = value;
    else if (name === "vars") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...nodes(children));
  return element;
}

function nodes(children) {
  return children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
}

/** Make the children of `parent` equal to `children`, changing as little as possible. */
export function patch(parent, children) {
  const wanted = nodes([children]).map((child) =>
    child instanceof Node ? child : document.createTextNode(String(child)),
  );
  const byKey = new Map();
  for (const child of parent.children) if (child.dataset && child.dataset.key) byKey.set(child.dataset.key, child);
  let next = parent.firstChild;
  for (const node of wanted) {
    const match = counterpart(node, next, byKey);
    if (!match) {
      parent.insertBefore(node, next);
      continue;
    }
    if (match === next) next = next.nextSibling;
    else parent.insertBefore(match, next);
    morph(match, node);
  }
  while (next) {
    const gone = next;
    next = next.nextSibling;
    const hadFocus = gone.contains(document.activeElement);
    gone.remove();
    // Not to the top of the page: who uses keys goes on where the element was.
    if (hadFocus) parent.closest("[tabindex]")?.focus({ preventScroll: true });
  }
}

function counterpart(node, next, byKey) {
  const key = node.dataset && node.dataset.key;
  if (key) {
    const found = byKey.get(key);
    byKey.delete(key);
    return found && found.nodeName === node.nodeName ? found : null;
  }
  const fits = next && next.nodeType === node.nodeType && next.nodeName === node.nodeName;
  return fits && !(next.dataset && next.dataset.key) ? next : null;
}

/** Make an element equal to another one of its kind. */
export function morph(old, node) {
  if (old === node) return;
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== node.data) old.data = node.data;
    return;
  }
  if (old.dataset && old.dataset.own !== undefined) return;
  for (const { name } of [...old.attributes]) {
    const isKept = name === "open" && old.nodeName === "DETAILS";
    if (!isKept && !node.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of [...node.attributes])
    if (old.getAttribute(name) !== value && !(name === "open" && old.nodeName === "DETAILS"))
      setAttribute(old, name, value, node);
  if (old.nodeName === "INPUT" || old.nodeName === "SELECT" || old.nodeName === "TEXTAREA") return keepTyped(old, node);
  patch(old, [...node.childNodes]);
}

function setAttribute(old, name, value, node) {
  // The policy forbids style attributes that a page writes as text; the object model is open to it.
  if (name === "style") for (const key of node.style) old.style.setProperty(key, node.style.getPropertyValue(key));
  else old.setAttribute(name, value);
}

function keepTyped(old, node) {
  if (old.nodeName === "SELECT") patch(old, [...node.childNodes]);
  if (old !== document.activeElement && old.value !== node.value) old.value = node.value;
  if (old.type === "checkbox" && old.checked !== node.checked) old.checked = node.checked;
}

/** Run `handlers[name](element, event)` for clicks on elements with `data-action="name"` within `root`. While what a
 * handler returns has not settled, further clicks on the same element do nothing: networks are slow, people are not. */
export function actions(root, handlers, signal) {
  const busy = new Set();
  root.addEventListener(
    "click",
    (event) => {
      const element = event.target.closest("[data-action]");
      if (!element || !root.contains(element) || element.disabled) return;
      const handler = handlers[element.dataset.action];
      if (handler) {
        event.preventDefault();
        if (busy.has(element)) return;
        busy.add(element);
        Promise.resolve(handler(element, event)).finally(() => busy.delete(element));
      }
    },
    { signal },
  );
}
