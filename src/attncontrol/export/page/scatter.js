/** Every head a dot: how evenly it spreads over the picture, and how much of it sits in few cells. */
import { el, hint, roving, svg } from "inspector/dom";
import { isChosen, toggleHead } from "inspector/heads";

const BOX = { left: 58, right: 14, top: 12, bottom: 40, width: 380, height: 300 };
const EXPLAINED =
  "p = map / Σ map over its N cells. Entropy −Σ p ln p / ln N: 1 for a head that looks the same everywhere, 0 for one cell. Top share: Σ of the 10 % largest p; 0.1 for an even map.";

export function createScatter(record, state) {
  const names = [...new Set(record.heads.map(({ block }) => block))];
  const dots = record.heads.flatMap((row, k) => Array.from({ length: row.count }, (_, number) => dot(row, k, number, names, state)));
  const plot = svg("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, class: "scatter", role: "group", "aria-label": "Heads by entropy and top share" });
  plot.append(...axes(), ...dots);
  const said = el("p", { class: "said", "aria-live": "polite" });
  const show = ({ target }) => dots.includes(target) && (said.textContent = target.getAttribute("aria-label"));
  plot.addEventListener("pointerover", show);
  plot.addEventListener("focusin", show);
  roving(plot, dots);
  state.on(["image", "branch", "focus"], () => {
    said.textContent = `“${state.focus}”: point at a dot, or use the arrow keys.`;
    for (const each of dots) placeDot(each, record, state);
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

function dot({ layer, name, block }, row, number, blocks, state) {
  const node = svg("circle", {
    r: 4.5, role: "button", class: `dot block-${blocks.indexOf(block) % 4}`, "data-row": row, "data-layer": layer, "data-number": number, "data-name": name,
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

function placeDot(node, record, state) {
  const { row, number, name } = node.dataset;
  const found = record.headStats(state, state.focus, Number(row), Number(number));
  node.style.display = found ? "" : "none";
  if (!found) return;
  node.setAttribute("cx", across(found.entropy));
  node.setAttribute("cy", up(found.share));
  node.setAttribute("aria-label", `${name}, head ${number}: entropy ${found.entropy.toFixed(2)}, top share ${found.share.toFixed(2)}`);
}

function across(value) {
  return BOX.left + value * (BOX.width - BOX.left - BOX.right);
}

function up(value) {
  return BOX.height - BOX.bottom - value * (BOX.height - BOX.top - BOX.bottom);
}

function axes() {
  const ticks = [0, 0.25, 0.5, 0.75, 1];
  const lines = ticks.flatMap((at) => [
    svg("line", { x1: across(at), x2: across(at), y1: up(0), y2: up(1), class: "grid" }),
    svg("line", { x1: across(0), x2: across(1), y1: up(at), y2: up(at), class: "grid" }),
    svg("text", { x: across(at), y: up(0) + 16, "text-anchor": "middle" }, `${at}`),
    svg("text", { x: across(0) - 8, y: up(at) + 4, "text-anchor": "end" }, `${at}`),
  ]);
  const middle = BOX.top + (BOX.height - BOX.top - BOX.bottom) / 2;
  return [
    ...lines,
    svg("text", { x: across(0.5), y: BOX.height - 6, "text-anchor": "middle", class: "axis" }, "normalised entropy"),
    svg("text", { x: 13, y: middle, "text-anchor": "middle", class: "axis", transform: `rotate(-90 13 ${middle})` }, "share of the top 10 % of cells"),
  ];
}
