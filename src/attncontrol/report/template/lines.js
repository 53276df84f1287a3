/** The methods side by side: means of the scores, and what each gains on the same prompts and seeds. */
import { el, hint, svg } from "inspector/dom";
import { number, seconds, signed } from "report/numbers";

const ABOUT =
  "Means over prompts of means over seeds. A gain is taken on pictures of the same prompt and seed; its interval (95 %) is that of a bootstrap over prompts: drawn from them again, 2,000 times. An interval beside zero is printed bold. Filters do not change this table.";

export function createLines(section, { lines, arms, scores }) {
  section.hidden = lines.length < 2 && !scores.length;
  if (section.hidden) return;
  const head = el("tr", {}, ["Method", "Pictures", ...scores.map(({ name, about }) => [name, el("span", { class: "visually-hidden" }, about)]), "Time"].map((cell) => el("th", { scope: "col" }, cell)));
  scores.forEach(({ about }, k) => head.children[k + 2].setAttribute("title", about));
  const ranges = scores.map((_, k) => widest(lines.map(({ gains }) => gains[k])));
  const body = lines.map((line) => row(line, arms, scores, ranges));
  const table = el("table", {}, el("thead", {}, head), el("tbody", {}, body));
  section.append(el("h2", {}, "Comparison", hint(ABOUT)), el("div", { class: "wide" }, table));
}

function row(line, arms, scores, ranges) {
  const against = line.against === null ? null : arms[line.against];
  const name = el("th", { scope: "row" }, arms[line.arm], against === null ? null : el("small", {}, `against ${against}, ${line.pairs} ${line.pairs === 1 ? "pair" : "pairs"}`));
  const count = el("td", { class: "number" }, String(line.pictures), line.failed ? el("small", { class: "bad" }, `${line.failed} failed`) : null);
  const values = scores.map((_, k) => score(line.means[k], line.gains[k], ranges[k]));
  const time = el("td", { class: "number" }, seconds(line.seconds), line.time === null ? null : el("small", {}, `${line.time.toFixed(2)} ×`));
  return el("tr", { "data-arm": arms[line.arm] }, name, count, values, time);
}

function score(mean, gain, range) {
  if (mean === null) return el("td", { class: "number" }, "–");
  const value = el("span", { class: "mean" }, number(mean.value));
  if (gain === null) return el("td", { class: "number" }, value);
  const known = gain.low !== null;
  const beside = known && (gain.low > 0 || gain.high < 0);
  const between = known ? ` (${signed(gain.low)} to ${signed(gain.high)})` : " (one prompt)";
  const text = el("small", { class: beside ? "sure" : "" }, signed(gain.value), between);
  return el("td", { class: "number" }, value, text, known ? interval(gain, range) : null);
}

function widest(gains) {
  return Math.max(1e-9, ...gains.flatMap((gain) => (gain ? [gain.low, gain.high, gain.value].map((value) => Math.abs(value ?? 0)) : [])));
}

/** A bar from low to high around zero, the line in the middle. */
function interval({ value, low, high }, range) {
  const at = (x) => 60 + (56 * x) / range;
  const bar = svg("line", { class: low > 0 ? "up" : high < 0 ? "down" : "even", x1: at(low), x2: at(high), y1: 5, y2: 5 });
  return svg("svg", { class: "interval", viewBox: "0 0 120 10", "aria-hidden": "true" }, svg("line", { class: "zero", x1: 60, x2: 60, y1: 0, y2: 10 }), bar, svg("circle", { cx: at(value), cy: 5, r: 3 }));
}
