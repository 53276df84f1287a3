/** One picture: how it was made, its scores, its losses, and where its files are. */
import { el } from "inspector/dom";
import { createLosses } from "report/losses";
import { small } from "report/grids";
import { number, seconds } from "report/numbers";

export function createDetail(dialog, report, state) {
  const step = (by) => {
    const at = state.shown.findIndex(({ index }) => index === state.open);
    const next = state.shown[at + by];
    if (at >= 0 && next) state.set({ open: next.index });
  };
  const close = () => {
    const cell = document.querySelector(`.cell[data-index="${state.open}"]`);
    state.set({ open: null });
    cell?.focus();
  };
  dialog.addEventListener("cancel", (event) => (event.preventDefault(), close()));
  dialog.addEventListener("click", ({ target }) => target === dialog && close());
  dialog.addEventListener("keydown", ({ key }) => key === "ArrowRight" ? step(1) : key === "ArrowLeft" && step(-1));
  state.on(["open"], () => {
    if (state.open === null) return dialog.close();
    dialog.replaceChildren(...content(report.pictures[state.open], report, state, { step, close }));
    if (!dialog.open) dialog.showModal();
    dialog.querySelector(".close").focus();
  });
}

function content(picture, report, state, { step, close }) {
  const other = compared(picture, report);
  const prompt = el("h2", { class: "prompt" }, report.prompts[picture.prompt]);
  const button = (text, label, onclick, name = "") => el("button", { type: "button", class: `quiet ${name}`, "aria-label": label, onclick }, text);
  const bar = el("div", { class: "bar-top" }, button("←", "Picture before", () => step(-1)), button("→", "Next picture", () => step(1)), el("span", { class: "muted" }, `${report.arms[picture.arm]} · seed ${report.seeds[picture.seed]}`), button("Close", "Close", close, "close"));
  const figures = el("div", { class: "figures" }, figure(picture, report), other ? figure(other, report, picture.source === undefined ? null : "source", () => state.set({ open: other.index })) : null);
  const facts = el("div", { class: "facts" }, scores(picture, other, report), createLosses(picture), settings(picture, report), files(picture));
  return [bar, prompt, el("div", { class: "detail-body" }, figures, facts)];
}

/** The source of an edit, else the picture of the same prompt and seed that its method is compared with. */
function compared(picture, { lines, pictures }) {
  const there = pictures.filter(({ seed, error }) => seed === picture.seed && error === undefined);
  if (picture.source !== undefined) return there.find(({ prompt, source }) => prompt === picture.source && source === undefined) ?? null;
  const against = lines.find(({ arm }) => arm === picture.arm)?.against ?? null;
  return there.find(({ arm, prompt }) => arm === against && prompt === picture.prompt) ?? null;
}

function figure(picture, report, title, onclick) {
  const name = title ?? report.arms[picture.arm];
  if (picture.error !== undefined) return el("figure", {}, el("p", { class: "failure" }, picture.error), el("figcaption", {}, name));
  const image = el("img", { alt: name, src: small(picture), width: picture.size[0], height: picture.size[1] });
  if (picture.file) sharpen(image, picture.file);
  return el("figure", {}, onclick ? el("button", { type: "button", "aria-label": `Show ${name}`, onclick }, image) : image, el("figcaption", {}, name));
}

/** Puts the picture in full size in place of the small one, if it is there. */
function sharpen(image, address) {
  const full = new Image();
  full.addEventListener("load", () => (image.src = address));
  full.src = address;
}

function scores(picture, other, report) {
  if (!report.scores.length || !picture.scores) return null;
  const rows = report.scores.flatMap(({ name, about }, k) => [
    el("dt", { title: about }, name),
    el("dd", { class: "number", "data-score": name }, number(picture.scores[k]), other?.scores ? el("small", { class: "muted" }, ` (${report.arms[other.arm]}: ${number(other.scores[k])})`) : null),
  ]);
  return el("section", {}, el("h3", {}, "Scores"), el("dl", {}, rows));
}

function settings(picture, report) {
  const told = { method: report.arms[picture.arm], seed: report.seeds[picture.seed], ...picture.settings, ...report.shared };
  if (picture.seconds != null) told.time = seconds(picture.seconds);
  if (picture.size) told.size = `${picture.size[0]} × ${picture.size[1]}`;
  const rows = Object.entries(told).flatMap(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, value)]);
  return el("section", {}, el("h3", {}, "Settings"), el("dl", { class: "settings" }, rows));
}

function files(picture) {
  const link = (address, text) => (address ? el("li", {}, el("a", { href: address, target: "_blank", rel: "noopener" }, text)) : null);
  const command = (text) => el("li", {}, el("code", {}, text));
  const items = [
    link(picture.file, "Picture in full size"),
    link(picture.inspector, "Its attention, in the inspector"),
    link(picture.record, "Record of its attention"),
    picture.inspect && !picture.inspector ? command(picture.inspect) : null,
    picture.repeat ? command(picture.repeat) : null,
  ].filter(Boolean);
  return items.length ? el("section", {}, el("h3", {}, "Files"), el("ul", { class: "files" }, items)) : null;
}
