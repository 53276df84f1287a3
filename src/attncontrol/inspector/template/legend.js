/** One colour bar with its range per word shown. */
import { css, HEAT_GRADIENT, write } from "inspector/colors";
import { el } from "inspector/dom";
import { layersOf } from "inspector/picture";
import { shownWords, VIEW } from "inspector/state";

export function createLegend(record, records, state) {
  const legend = el("div", { class: "legend", role: "group", "aria-label": "Colour scale" });
  state.on([...VIEW, "words", "preview", "scale"], () => {
    const layers = layersOf(record, records, state);
    const missing = shownWords(state).filter((name) => !layers.some((layer) => layer.name === name));
    const gone = missing.map((name) => el("p", { class: "muted" }, `“${name}” is not recorded here.`));
    const nothing = layers.length || missing.length ? [] : [el("p", { class: "muted" }, "Choose a word of the prompt to see its map.")];
    const { width, height } = layers[0]?.map ?? {};
    const grid = width ? [el("p", { class: "muted" }, `Probability of attending to the word, ${width} × ${height} cells`)] : [];
    legend.replaceChildren(el("div", { class: "bars" }, layers.map(bar)), ...grid, ...gone, ...nothing);
  });
  return legend;
}

function bar({ name, range, color }) {
  const background = color ? `linear-gradient(90deg, ${css(color, 0)}, ${css(color)})` : HEAT_GRADIENT;
  const flat = range.high > range.low ? null : "the same everywhere";
  return el(
    "div",
    { class: "bar" },
    el("b", { title: name }, name),
    el("span", { class: "number low" }, write(range.low)),
    flat ? el("span", { class: "muted" }, flat) : el("span", { class: "ramp", style: { background } }),
    el("span", { class: "number high" }, write(range.high)),
  );
}
