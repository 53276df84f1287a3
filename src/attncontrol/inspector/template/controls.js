/** The bar of controls that all records share; controls with one choice are left out. */
import { compareControls } from "inspector/compare";
import { el } from "inspector/dom";

const KINDS = { all: "All", block: "Blocks", grid: "Grids", layer: "Single layers" };
const SCALES = { each: "per map", zero: "per map, from 0", shared: "shared, from 0" };

export function createControls(records, state) {
  return [
    imageControl(records, state),
    branchControl(records, state),
    layerControl(records, state),
    stepControl(records, state),
    frameControl(records, state),
    scaleControl(state),
    opacityControl(state),
    smoothControl(state),
    ...compareControls(records, state),
  ].filter(Boolean);
}

function field(label, ...children) {
  return el("label", { class: "field" }, el("span", {}, label), ...children);
}

function imageControl(records, state) {
  const count = Math.max(...records.map(({ images }) => images.length));
  if (count < 2) return null;
  const select = el("select", { id: "image", onchange: () => state.set({ image: Number(select.value) }) });
  for (let k = 0; k < count; k++) {
    const seed = records[0].images[k]?.seed;
    select.append(el("option", { value: k }, `${k + 1} of ${count}${seed ? `, seed ${seed}` : ""}`));
  }
  return field("Image", select);
}

function branchControl(records, state) {
  const names = [...new Set(records.flatMap(({ branches }) => branches))];
  if (names.length < 2) return null;
  const select = el("select", { id: "branch", onchange: () => state.set({ branch: select.value }) }, names.map((name) => el("option", {}, name)));
  return field("Branch", select);
}

function layerControl(records, state) {
  const groups = new Map(records.flatMap((record) => record.groups.map((group) => [`${group.kind} ${group.name}`, group])));
  if (groups.size < 2) return null;
  const select = el("select", { id: "group", onchange: () => state.set({ group: select.value, head: null }) });
  for (const [kind, label] of Object.entries(KINDS)) {
    const options = [...groups].filter(([, group]) => group.kind === kind);
    const made = options.map(([key, { name, title }]) => el("option", { value: key, title }, name));
    if (made.length) select.append(kind === "all" ? made[0] : el("optgroup", { label }, made));
  }
  return field("Layers", select);
}

function stepControl(records, state) {
  const { steps } = records.find((record) => record.steps.length) ?? { steps: [] };
  if (!steps.length) return null;
  const output = el("output", {});
  const slider = el("input", { id: "step", type: "range", min: 0, max: steps.length, value: 0, step: 1 });
  slider.addEventListener("input", () => state.set({ step: Number(slider.value), head: null }));
  state.on(["step"], () => {
    slider.value = state.step;
    output.textContent = state.step ? stepName(steps[state.step - 1]) : "mean of all";
    slider.setAttribute("aria-valuetext", output.textContent);
  });
  return field("Step", slider, output);
}

function stepName({ first, last, timestep, sigma }) {
  const number = first === last ? `${first}` : `${first}–${last}`;
  const time = timestep === null ? "" : ` · t ${Number(timestep.toPrecision(4))}`;
  return number + time + (sigma === null ? "" : ` · σ ${Number(sigma.toPrecision(3))}`);
}

function frameControl(records, state) {
  const count = Math.max(...records.map(({ frames }) => frames));
  if (count < 2) return null;
  const output = el("output", {}, "0");
  const slider = el("input", { id: "frame", type: "range", min: 0, max: count - 1, value: 0, step: 1 });
  slider.addEventListener("input", () => {
    output.textContent = slider.value;
    state.set({ frame: Number(slider.value), head: null });
  });
  return field("Frame", slider, output);
}

function scaleControl(state) {
  const options = Object.entries(SCALES).map(([value, label]) => el("option", { value }, label));
  const select = el("select", { id: "scale", onchange: () => state.set({ scale: select.value }) }, options);
  return field("Scale", select);
}

function opacityControl(state) {
  const slider = el("input", { id: "opacity", type: "range", min: 0, max: 100, value: 100 * state.opacity, step: 5 });
  const output = el("output", {}, `${slider.value} %`);
  slider.addEventListener("input", () => {
    output.textContent = `${slider.value} %`;
    state.set({ opacity: slider.value / 100 });
  });
  return field("Opacity", slider, output);
}

function smoothControl(state) {
  const box = el("input", { id: "smooth", type: "checkbox", checked: state.smooth, onchange: () => state.set({ smooth: box.checked }) });
  return el("label", { class: "check" }, box, "Smooth");
}
