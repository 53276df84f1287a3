/** Every head a dot: how evenly it spreads over the picture, and how much of it sits in few cells. */
import { el, hint, roving, svg } from "inspector/dom";
import { isChosen, toggleHead } from "inspector/heads";

const BOX = { left: 58, right: 14, top: 12, bottom: 40, width: 380, height: 300 };
const EXPLAINED =
  "p = map / Σ map over its N cells. Entropy −Σ p ln p / ln N: 1 for a head that looks the same everywhere, 0 for one cell. Top share: Σ of the 10 % largest p; 0.1 for an even map.";

/** The axes hold the heads of all records, for every word. */
export function createScatter(record, records, state) {
  const space = spaceOf(records);
  const names = [...new Set(record.heads.map(({ block }) => block))];
  const crowded = record.heads.reduce((sum, { count }) => sum + count, 0) > 400;
  const dots = record.heads.flatMap((row, k) => Array.from({ length: row.count }, (_, number) => dot(row, k, number, names, crowded, state)));
  const plot = svg("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, class: "scatter", role: "group", "aria-label": "Heads by entropy and top share" });
  plot.append(...axes(space), ...dots);
  const said = el("p", { class: "said", "aria-live": "polite" });
  const show = ({ target }) => dots.includes(target) && (said.textContent = target.getAttribute("aria-label"));
  plot.addEventListener("pointerover", show);
  plot.addEventListener("focusin", show);
  roving(plot, dots);
  state.on(["image", "branch", "focus"], () => {
    said.textContent = `“${state.focus}”: point at a dot, or use the arrow keys.`;
    for (const each of dots) placeDot(each, record, space, state);
  });
  state.on(["head"], () => {
    for (const each of dots) each.setAttribute("aria-pressed", isChosen(state.head, headOf(each)));
  });
  const key = names.map((name, k) => el("span", { class: `key block-${k % 4}` }, name));
  return el("section", { class: "card" }, el("h3", {}, "Focus of the heads ", hint(EXPLAINED)), plot, el("p", { class: "keys" }, key), said);
}

function headOf({ dataset }) {
  return { layer: dataset.layer, number: Number(dataset.number) };
}

function dot({ layer, name, block }, row, number, blocks, crowded, state) {
  const node = svg("circle", {
    r: crowded ? 3 : 4.5, role: "button", class: `dot block-${blocks.indexOf(block) % 4}`, "data-row": row, "data-layer": layer, "data-number": number, "data-name": name,
  });
  const choose = () => toggleHead(state, headOf(node));
  node.addEventListener("click", choose);
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    choose();
  });
  return node;
}

function placeDot(node, record, { across, up }, state) {
  const { row, number, name } = node.dataset;
  const found = record.headStats(state, state.focus, Number(row), Number(number));
  node.style.display = found ? "" : "none";
  if (!found) return;
  node.setAttribute("cx", across(found.entropy));
  node.setAttribute("cy", up(found.share));
  node.setAttribute("aria-label", `${name}, head ${number}: entropy ${found.entropy.toFixed(2)}, top share ${found.share.toFixed(2)}`);
}

/** Places of the values of both axes, and where their ticks are. */
function spaceOf(records) {
  const values = records.flatMap(({ stats }) => (stats ? [stats] : []));
  const [x, y] = [0, 1].map((part) => rangeOf(values, part));
  const along = ([low, high], from, to) => (value) => from + ((value - low) / (high - low)) * (to - from);
  return {
    x: ticksOf(x), y: ticksOf(y),
    across: along(x, BOX.left, BOX.width - BOX.right),
    up: along(y, BOX.height - BOX.bottom, BOX.top),
  };
}

/** Lowest and highest of every second value, rounded outwards to tenths, at least 0.2 apart. */
function rangeOf(arrays, part) {
  let low = 1;
  let high = 0;
  for (const values of arrays) {
    for (let k = part; k < values.length; k += 2) {
      low = Math.min(low, values[k]);
      high = Math.max(high, values[k]);
    }
  }
  const from = Math.max(0, Math.floor(Math.min(low, high - 0.2) * 10) / 10);
  return [from, Math.max(Math.ceil(Math.min(high, 1) * 10) / 10, from + 0.2)];
}

/** Multiples of 0.1, or of 0.2 on a long axis. */
function ticksOf([low, high]) {
  const step = high - low > 0.55 ? 2 : 1;
  const tenths = Array.from({ length: 11 }, (_, k) => k).filter((k) => k % step === 0 && k >= 10 * low - 0.01 && k <= 10 * high + 0.01);
  return tenths.map((k) => k / 10);
}

function axes({ x, y, across, up }) {
  const [left, right, top, bottom] = [BOX.left, BOX.width - BOX.right, BOX.top, BOX.height - BOX.bottom];
  const upright = x.flatMap((at) => [
    svg("line", { x1: across(at), x2: across(at), y1: bottom, y2: top, class: "grid" }),
    svg("text", { x: across(at), y: bottom + 16, "text-anchor": "middle" }, `${at}`),
  ]);
  const level = y.flatMap((at) => [
    svg("line", { x1: left, x2: right, y1: up(at), y2: up(at), class: "grid" }),
    svg("text", { x: left - 8, y: up(at) + 4, "text-anchor": "end" }, `${at}`),
  ]);
  const middle = (top + bottom) / 2;
  return [
    svg("rect", { x: left, y: top, width: right - left, height: bottom - top, class: "grid" }),
    ...upright,
    ...level,
    svg("text", { x: (left + right) / 2, y: BOX.height - 6, "text-anchor": "middle", class: "axis" }, "normalised entropy"),
    svg("text", { x: 13, y: middle, "text-anchor": "middle", class: "axis", transform: `rotate(-90 13 ${middle})` }, "share of the top 10 % of cells"),
  ];
}
