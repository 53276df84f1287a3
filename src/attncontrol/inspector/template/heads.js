/** Layers by heads: the map of one word in every head; a click shows the head over the picture. */
import { el, roving } from "inspector/dom";
import { paintThumbnail, rangeOf } from "inspector/paint";

export function createHeads(record, records, state) {
  const rows = record.heads.map((row, k) => makeRow(row, k, record, state));
  const buttons = rows.flatMap((row) => row.buttons);
  const grid = el("div", { class: "heads", role: "group", "aria-label": "Heads by layer" }, rows.map((row) => row.node));
  grid.style.setProperty("--columns", Math.max(...record.heads.map(({ count }) => count)));
  roving(grid, buttons, (button) => Number(button.dataset.row));
  state.on(["image", "branch", "focus", "scale"], () => {
    const shared = Math.max(...records.filter((each) => each.hasHeads).map((each) => each.headPeak(state, state.focus)));
    for (const button of buttons) {
      const map = record.headMap(state, state.focus, headOf(button));
      button.hidden = !map;
      if (map) paintThumbnail(button.firstChild, map, rangeOf(map, state.scale, shared));
    }
  });
  state.on(["head"], () => {
    for (const button of buttons) button.setAttribute("aria-pressed", isChosen(state.head, headOf(button)));
  });
  return el("section", { class: "card" }, el("h3", {}, "Heads for ", focusSelect(record, state)), grid);
}

function makeRow({ layer, name, count }, row, record, state) {
  const buttons = Array.from({ length: count }, (_, number) =>
    el(
      "button",
      {
        type: "button", class: "thumb", "data-row": row, "data-layer": layer, "data-number": number, title: `${name}, head ${number}`,
        "aria-label": `${name}, head ${number}`, onclick: ({ currentTarget }) => toggleHead(state, headOf(currentTarget)),
      },
      el("canvas", { width: 1, height: 1 }),
    ),
  );
  return { buttons, node: el("div", { class: "heads-line" }, el("span", { class: "layer", title: layer }, name), buttons) };
}

function headOf({ dataset }) {
  return { layer: dataset.layer, number: Number(dataset.number) };
}

export function isChosen(head, { layer, number }) {
  return head !== null && head.layer === layer && head.number === number;
}

/** Over the picture, with the word whose heads are shown; a second time takes it off. */
export function toggleHead(state, head) {
  const words = state.words.includes(state.focus) ? state.words : [state.focus];
  state.set({ head: isChosen(state.head, head) ? null : head, words });
}

/** The word whose heads are shown, the same in all records. */
function focusSelect(record, state) {
  const select = el("select", { class: "focus", "aria-label": "Word whose heads are shown", onchange: () => state.set({ focus: select.value }) });
  state.on(["image"], () => select.replaceChildren(...(record.images[state.image]?.words ?? []).map((name) => el("option", {}, name))));
  state.on(["image", "focus"], () => (select.value = state.focus));
  return select;
}
