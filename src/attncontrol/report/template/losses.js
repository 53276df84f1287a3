/** Losses of the guided steps, as a line. */
import { el, svg } from "inspector/dom";
import { number } from "report/numbers";

const WIDTH = 300, HEIGHT = 90, EDGE = 6;

export function createLosses({ losses = [], refinements = [] }) {
  const known = losses.filter((loss) => loss !== null);
  if (!known.length) return null;
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const x = (k) => EDGE + ((WIDTH - 2 * EDGE) * k) / Math.max(1, losses.length - 1);
  const y = (loss) => HEIGHT - EDGE - ((HEIGHT - 2 * EDGE) * (loss - low)) / (high - low || 1);
  const points = losses.flatMap((loss, k) => (loss === null ? [] : [`${x(k).toFixed(1)},${y(loss).toFixed(1)}`]));
  const dots = losses.map((loss, k) => loss === null ? null : svg("circle", { class: refinements[k] ? "refined" : "", cx: x(k), cy: y(loss), r: 2.5 }, svg("title", {}, `step ${k}: ${number(loss)}${refinements[k] ? `, ${refinements[k]} refinements` : ""}`)));
  const refined = refinements.reduce((sum, count) => sum + count, 0);
  const text = `${losses.length} guided steps, from ${number(known[0])} to ${number(known.at(-1))}${refined ? `; ${refined} refinements (filled)` : ""}`;
  const chart = svg("svg", { class: "losses", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": text }, svg("polyline", { points: points.join(" ") }), dots);
  return el("section", {}, el("h3", {}, "Losses"), chart, el("p", { class: "muted" }, text));
}
