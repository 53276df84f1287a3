/** Reads the records of the page and puts its parts together. */
import { createTaken } from "inspector/compare";
import { createControls } from "inspector/controls";
import { el } from "inspector/dom";
import { createEntities } from "inspector/entities";
import { createHeads } from "inspector/heads";
import { createLegend } from "inspector/legend";
import { createNotes } from "inspector/notes";
import { createPicture } from "inspector/picture";
import { createPrompt } from "inspector/prompt";
import { createRanking } from "inspector/ranking";
import { openRecord } from "inspector/record";
import { createScatter } from "inspector/scatter";
import { createState } from "inspector/state";
import { useTheme } from "inspector/theme";

export async function start(page) {
  useTheme(page.getElementById("theme"));
  const main = page.getElementById("records");
  try {
    const records = await Promise.all(JSON.parse(page.getElementById("data").textContent).map(openRecord));
    const state = createState(initial(records));
    page.getElementById("controls").append(...createControls(records, state));
    main.append(...records.map((record) => panel(record, records, state)));
    page.addEventListener("keydown", ({ key }) => key === "Escape" && state.set({ head: null, pinned: null, cell: null }));
    page.documentElement.dataset.ready = "true";
  } catch (problem) {
    main.append(el("p", { class: "problem" }, `The maps could not be read: ${problem.message}. A browser from 2024 or later is needed.`));
    throw problem;
  }
}

function initial(records) {
  const first = records[0];
  const names = [...new Set(records.flatMap((record) => record.images.flatMap(({ words }) => words)))];
  const { words, entities } = first.images[0];
  const word = first.images[0].changed[0] ?? words[entities.found.flatMap(({ noun }) => noun.words)[0] ?? 0];
  return {
    image: 0, branch: first.branches[0], group: `${first.groups[0].kind} ${first.groups[0].name}`, step: 0, frame: 0, head: null,
    stepCount: first.steps.length, names, words: [word], preview: null, focus: word,
    opacity: 0.75, scale: "each", smooth: true, cell: null, pinned: null, mix: 0, blinking: false, cells: true,
  };
}

function panel(record, records, state) {
  const title = records.length > 1 ? el("h2", { class: "record-title" }, record.title) : null;
  const picture = el("section", { class: "look", "aria-label": "Picture" }, createPicture(record, records, state), createLegend(record, records, state));
  const side = el("div", { class: "side" }, createTaken(record, records, state), createRanking(record, state), createEntities(record, state));
  const wide = record.heads.some(({ count }) => count > 12);
  const heads = record.hasHeads ? el("div", { class: wide ? "heads-row wide" : "heads-row" }, createHeads(record, records, state), createScatter(record, records, state)) : null;
  const body = el("div", { class: "body" }, picture, side, heads, createNotes(record, state));
  return el("article", { class: "record", "aria-label": record.title }, title, createPrompt(record, state), body);
}
