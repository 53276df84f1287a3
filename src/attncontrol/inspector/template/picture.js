/** The picture under its maps. The pointer, or the arrow keys, choose a cell; a click or Enter keeps it. */
import { wordColor } from "inspector/colors";
import { paintCells, sourceOf } from "inspector/compare";
import { el } from "inspector/dom";
import { paintOverlay, rangeOf } from "inspector/paint";
import { shownWords, VIEW } from "inspector/state";

const SIDE = 512;

export function createPicture(record, records, state) {
  const ground = el("div", { class: "ground" });
  const canvas = el("canvas", { class: "overlay" });
  const cells = el("canvas", { class: "cells", "aria-hidden": true });
  const source = sourceOf(record, records);
  const marker = el("div", { class: "cell", hidden: true });
  const label = "Picture with maps; the arrow keys choose a cell, Enter keeps it";
  const stage = el("div", { class: "stage", tabindex: 0, role: "group", "aria-label": label }, ground, canvas, source && cells, marker);
  const frame = el("div", { class: "frame" }, stage, headNote(record, state));
  state.on(["image"], () => setGround(record, state, { stage, ground, canvas, cells }, source));
  state.on([...VIEW, "words", "preview", "opacity", "smooth", "scale", "mix"], () => {
    const layers = layersOf(source && state.mix > 0.5 ? source : record, records, state);
    stage.classList.toggle("covered", layers.length > 0);
    paintOverlay(canvas, layers, state);
  });
  state.on(["mix"], () => stage.style.setProperty("--mix", state.mix));
  if (source) state.on([...VIEW, "cells"], () => paintCells(cells, state.cells ? record.takenCells(state) : null));
  state.on([...VIEW, "cell", "pinned"], () => mark(record, state, marker));
  listen(record, state, stage);
  return frame;
}

/** {map, range, color, name} of the words shown, without those that the record has not got; one word alone has no colour. */
export function layersOf(record, records, state) {
  const names = shownWords(state);
  const shared = Math.max(0, ...names.flatMap((name) => records.map((each) => each.peak(state, name))));
  return names.flatMap((name) => {
    const map = record.map(state, name);
    const color = names.length > 1 ? wordColor(state.names.indexOf(name)) : null;
    return map ? [{ name, map, color, range: rangeOf(map, state.scale, shared) }] : [];
  });
}

function setGround(record, state, { stage, ground, canvas, cells }, source) {
  const picture = record.images[state.image]?.picture;
  const aspect = picture ? picture.width / picture.height : record.aspect;
  stage.style.setProperty("--aspect", aspect);
  const other = source?.images[state.image]?.picture;
  ground.replaceChildren(
    ...(picture ? [el("img", { src: picture.uri, alt: record.images[state.image].prompt })] : []),
    ...(other ? [el("img", { class: "source", src: other.uri, alt: "" })] : []),
  );
  for (const each of [canvas, cells]) {
    each.width = Math.round(SIDE * Math.min(1, aspect));
    each.height = Math.round(SIDE / Math.max(1, aspect));
  }
}

function headNote(record, state) {
  const note = el("div", { class: "head-note", role: "status" });
  const close = () => state.set({ head: null });
  state.on(["head"], () => {
    const row = state.head && record.heads.find(({ layer }) => layer === state.head.layer);
    note.hidden = !state.head;
    const name = row ? `${row.name}, head ${state.head.number}, mean over steps` : "This record has no such head";
    note.replaceChildren(el("span", {}, name), el("button", { type: "button", class: "quiet", onclick: close }, "Back to layers"));
  });
  return note;
}

/** The grid of the maps that are shown. */
function gridOf(record, state) {
  const names = record.images[state.image]?.words ?? [];
  return names.length ? record.map(state, names[0]) : null;
}

function mark(record, state, marker) {
  const at = state.cell ?? state.pinned;
  const grid = at && gridOf(record, state);
  marker.hidden = !grid;
  if (!grid) return;
  marker.classList.toggle("pinned", !state.cell || state.cell === state.pinned);
  const { column, row } = cellAt(grid, at);
  const places = { left: column / grid.width, top: row / grid.height, width: 1 / grid.width, height: 1 / grid.height };
  for (const [key, value] of Object.entries(places)) marker.style.setProperty(key, `${100 * value}%`);
}

/** The cell of a grid at {x, y}, shares of width and height. */
export function cellAt(grid, { x, y }) {
  const column = Math.min(Math.floor(x * grid.width), grid.width - 1);
  const row = Math.min(Math.floor(y * grid.height), grid.height - 1);
  return { column, row, index: row * grid.width + column };
}

function listen(record, state, stage) {
  const at = ({ clientX, clientY }) => {
    const box = stage.getBoundingClientRect();
    const inside = (share) => Math.min(Math.max(share, 0), 0.9999);
    return { x: inside((clientX - box.left) / box.width), y: inside((clientY - box.top) / box.height) };
  };
  stage.addEventListener("pointermove", (event) => state.set({ cell: at(event) }));
  stage.addEventListener("pointerleave", () => state.set({ cell: null }));
  stage.addEventListener("click", (event) => state.set({ pinned: at(event) }));
  stage.addEventListener("blur", () => state.set({ cell: null }));
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const grid = gridOf(record, state);
    if (!grid) return;
    if (event.key === "Enter" || event.key === " ") state.set({ pinned: state.cell });
    else if (step) state.set({ cell: moved(grid, state.cell ?? state.pinned ?? { x: 0.5, y: 0.5 }, step) });
    else return;
    event.preventDefault();
  });
}

function moved(grid, from, [right, down]) {
  const { column, row } = cellAt(grid, from);
  const to = (at, by, count) => (Math.min(Math.max(at + by, 0), count - 1) + 0.5) / count;
  return { x: to(column, right, grid.width), y: to(row, down, grid.height) };
}
