/** A source and its edit: both pictures in one place, and the cells that the edit took over. */
import { el, hint } from "inspector/dom";
import { cosine } from "inspector/record";
import { VIEW } from "inspector/state";

const PERIOD = 700; // milliseconds
const FORMULA =
  "Cells are the source’s where the latents after the step are exactly its own; hatched over the picture. Attention: which share of the attention to a word the edit took from the source. Agreement = cosine similarity of the maps of the word in both pictures, for the layers, step or head chosen above; recorded maps are those before the change where only a part is taken.";

/** The record in which the sources are, for one that holds their edits. */
export function sourceOf(record, records) {
  return record.taken ? records.find(({ role }) => role === "source") : null;
}

export function compareControls(records, state) {
  if (!records.some(({ taken }) => taken)) return [];
  return [mixControl(state), blinkControl(state), cellsControl(records, state)].filter(Boolean);
}

function mixControl(state) {
  const slider = el("input", { id: "mix", type: "range", min: 0, max: 100, value: 0, step: 5 });
  const output = el("output", {});
  slider.addEventListener("input", () => state.set({ mix: slider.value / 100, blinking: false }));
  state.on(["mix"], () => {
    slider.value = 100 * state.mix;
    output.textContent = { 0: "edited", 1: "source" }[state.mix] ?? `${slider.value} % source`;
    slider.setAttribute("aria-valuetext", output.textContent);
  });
  return el("label", { class: "field" }, el("span", {}, "Edited picture"), slider, output);
}

function blinkControl(state) {
  const button = el("button", { id: "blink", type: "button", class: "quiet", onclick: () => state.set({ blinking: !state.blinking }) }, "Blink");
  let timer = null;
  state.on(["blinking"], () => {
    clearInterval(timer);
    button.setAttribute("aria-pressed", state.blinking);
    if (state.blinking) timer = setInterval(() => state.set({ mix: state.mix < 0.5 ? 1 : 0 }), PERIOD);
  });
  return button;
}

function cellsControl(records, state) {
  if (!records.some(({ taken }) => taken?.cells)) return null;
  const box = el("input", { id: "cells", type: "checkbox", checked: state.cells, onchange: () => state.set({ cells: box.checked }) });
  return el("label", { class: "check" }, box, "Cells of the source");
}

/** Stripes over the cells of the source, the stronger in the more steps, and a line around them. */
export function paintCells(canvas, map) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  if (!map) return;
  const pixels = context.createImageData(width, height);
  const cell = (x, y) => map.values[Math.floor((y * map.height) / height) * map.width + Math.floor((x * map.width) / width)];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const share = cell(x, y);
      const phase = (x + y) % 16;
      if (share > 0 && phase < 5) pixels.data.set(phase < 2 ? [255, 255, 255, 190 * share] : [0, 0, 0, 110 * share], 4 * (y * width + x));
    }
  }
  context.putImageData(pixels, 0, 0);
  for (const [color, line] of [["rgb(0 0 0 / 0.6)", 5], ["#fff", 2.5]]) outline(context, map, width, height, color, line);
}

function outline(context, map, width, height, color, line) {
  const inside = (column, row) => map.values[row * map.width + column] >= 0.5;
  const [w, h] = [width / map.width, height / map.height];
  context.beginPath();
  for (let row = 0; row < map.height; row++) {
    for (let column = 0; column < map.width; column++) {
      if (column && inside(column, row) !== inside(column - 1, row)) edge(context, column * w, row * h, 0, h);
      if (row && inside(column, row) !== inside(column, row - 1)) edge(context, column * w, row * h, w, 0);
    }
  }
  Object.assign(context, { strokeStyle: color, lineWidth: line, lineCap: "square" });
  context.stroke();
}

function edge(context, x, y, right, down) {
  context.moveTo(x, y);
  context.lineTo(x + right, y + down);
}

/** What the edit took over, in words. */
export function createTaken(record, records, state) {
  const source = sourceOf(record, records);
  if (!source) return null;
  const said = el("p", { class: "taken-cells", role: "status" });
  const list = el("ul", { class: "taken" });
  state.on(VIEW, () => {
    said.textContent = cellsSaid(record, state);
    const names = record.images[state.image]?.words ?? [];
    const known = names.some((name) => record.takenShare(state, name) !== null);
    const head = known ? "attention that is the source’s, and agreement of maps" : "agreement of maps";
    list.replaceChildren(el("li", { class: "head" }, el("span"), el("span", {}, head)), ...names.map((name) => line(name, record, source, state)));
  });
  return el("section", { class: "card" }, el("h3", {}, "Taken over from the source ", hint(FORMULA)), said, list);
}

function cellsSaid(record, state) {
  const map = record.takenCells(state);
  if (!map) return "Which cells are the source’s is not known.";
  const share = map.values.reduce((sum, value) => sum + value, 0) / map.values.length;
  const when = state.step && record.steps.length ? "after this step" : "mean over steps";
  return share ? `${percent(share)} of the cells, ${when}` : `No cells, ${when}: only attention can be the source’s.`;
}

function line(name, record, source, state) {
  const [own, other] = [record, source].map((each) => each.map(state, name));
  const agreement = own && other ? cosine(own, other).toFixed(2) : "–";
  const share = record.takenShare(state, name);
  const taken = share === null ? null : el("span", { class: "number", "data-share": share.toFixed(3) }, percent(share));
  return el(
    "li",
    { "data-word": name, "data-agreement": agreement, style: { "--share": share ?? 0 } },
    el("span", { class: "name" }, name),
    share === null ? null : el("span", { class: "meter", title: "attention taken from the source" }),
    taken,
    el("span", { class: "number" }, other ? agreement : "new"),
  );
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}
