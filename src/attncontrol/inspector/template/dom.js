/** An element with attributes, listeners ("onclick"), CSS variables (style: {...}) and children; strings become text, never markup. */
export function el(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function dress(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) node.style.setProperty(key, each);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}

/** A question mark that shows an explanation on hover and on focus. */
export function hint(text) {
  return el("span", { class: "hint" }, el("button", { type: "button", "aria-label": `Explanation: ${text}` }, "?"), el("span", { role: "tooltip" }, text));
}

/** Arrow keys, Home and End move the focus among `items`, of which one is in the tab order. `columns` is the length of a row, or 1. */
export function roving(container, items, rowOf = null) {
  items.forEach((item, k) => item.setAttribute("tabindex", k ? "-1" : "0"));
  container.addEventListener("focusin", ({ target }) => {
    if (items.includes(target)) for (const item of items) item.setAttribute("tabindex", item === target ? "0" : "-1");
  });
  container.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement);
    const to = at < 0 ? -1 : next(event.key, at, items, rowOf);
    if (to < 0) return;
    event.preventDefault();
    items[to].focus();
  });
}

function next(key, at, items, rowOf) {
  const last = items.length - 1;
  if (key === "ArrowRight") return Math.min(at + 1, last);
  if (key === "ArrowLeft") return Math.max(at - 1, 0);
  if (key === "Home") return 0;
  if (key === "End") return last;
  if (!rowOf || (key !== "ArrowDown" && key !== "ArrowUp")) return -1;
  const row = rowOf(items[at]) + (key === "ArrowDown" ? 1 : -1);
  const column = at - items.findIndex((item) => rowOf(item) === rowOf(items[at]));
  const there = items.flatMap((item, k) => (rowOf(item) === row ? [k] : []));
  return there.length ? there[Math.min(column, there.length - 1)] : at;
}
