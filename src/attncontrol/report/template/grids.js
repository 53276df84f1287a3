/** The pictures, in grids that are drawn when they come near the window. */
import { el, roving } from "inspector/dom";
import { mean, number } from "report/numbers";

const LAYOUTS = { prompt: ["prompt", "arm", "seed"], seed: ["seed", "prompt", "arm"], arm: ["arm", "prompt", "seed"] };
const ROWS = 8; // of a block
const GAP = 8, LABEL = 150, NARROW = 700, CAPTION = 24, HEAD = 26;

export function createGrids(main, report, state) {
  const blocks = new Map();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        observer.unobserve(target);
        fill(target, blocks.get(target), report, state);
      }
    },
    { rootMargin: "700px 0px" },
  );
  let width = 0;
  const draw = () => {
    observer.disconnect();
    blocks.clear();
    width = main.clientWidth;
    const sections = sectionsOf(report, state);
    main.replaceChildren(...sections.map((section) => sectionElement(section, sizes(width), report, state, blocks)));
    for (const block of blocks.keys()) observer.observe(block);
  };
  state.on(["shown", "layout", "sort"], draw);
  state.on(["score"], () => (state.sort === "job" ? main.querySelectorAll(".cell").forEach((cell) => caption(cell, report, state)) : draw()));
  new ResizeObserver(() => main.clientWidth !== width && draw()).observe(main);
}

function sizes(width) {
  const narrow = width < NARROW;
  const cell = narrow ? 96 : 128;
  const label = narrow ? 0 : LABEL;
  return { narrow, cell, label, columns: Math.max(1, Math.floor((width - label) / (cell + GAP))) };
}

/** [{key, pictures, rows, columns}], in their order. */
function sectionsOf({ prompts, seeds, arms }, { shown, layout, sort, score }) {
  const [dimension, row, column] = LAYOUTS[layout];
  const names = { prompt: prompts, seed: seeds, arm: arms };
  const found = new Map();
  for (const picture of shown) {
    if (!found.has(picture[dimension])) found.set(picture[dimension], []);
    found.get(picture[dimension]).push(picture);
  }
  const ordered = (pictures, key) => [...new Set(pictures.map((picture) => picture[key]))].sort((a, b) => a - b);
  const sections = [...found].sort(([a], [b]) => a - b).map(([key, pictures]) => ({
    key, pictures, dimension, row, column, names,
    rows: ordered(pictures, row), columns: ordered(pictures, column),
    mean: score === null ? null : mean(pictures.map(({ scores }) => scores?.[score])),
  }));
  if (sort === "job") return sections;
  const sign = sort === "low" ? 1 : -1;
  return sections.sort((a, b) => (a.mean === null) - (b.mean === null) || sign * (a.mean - b.mean));
}

function sectionElement(section, size, report, state, blocks) {
  const { key, dimension, names, pictures, rows, columns } = section;
  const label = { prompt: "", seed: "Seed ", arm: "" }[dimension];
  const heading = el("h2", { class: "title" }, el("span", {}, `${label}${names[dimension][key]}`), el("small", { class: "muted" }, `${pictures.length}`));
  const cells = new Map();
  for (const picture of pictures) {
    const at = `${picture[section.row]} ${picture[section.column]}`;
    cells.set(at, [...(cells.get(at) ?? []), picture]);
  }
  const [width, height] = pictures.find(({ size: known }) => known)?.size ?? [1, 1];
  const around = { ...size, aspect: width / height };
  const element = el("section", { class: "grid-section", [`data-${dimension}`]: names[dimension][key] }, heading);
  for (const someRows of parts(rows, ROWS)) {
    for (const someColumns of parts(columns, around.columns)) {
      const block = el("div", { class: "block", style: { "min-height": `${tall(someRows.length, around)}px` } });
      blocks.set(block, { ...section, rows: someRows, columns: someColumns, cells, size: around });
      element.append(block);
    }
  }
  return element;
}

/** About how tall a block will be. */
function tall(rows, { cell, aspect, narrow }) {
  return HEAD + rows * (cell / aspect + CAPTION + GAP + (narrow ? HEAD : 0));
}

function parts(values, size) {
  return Array.from({ length: Math.ceil(values.length / size) }, (_, k) => values.slice(k * size, (k + 1) * size));
}

function fill(block, { rows, columns, cells, row, column, names, size }, report, state) {
  const name = (dimension, key) => (dimension === "seed" ? `seed ${names.seed[key]}` : names[dimension][key]);
  block.style.minHeight = "";
  block.style.setProperty("--columns", columns.length);
  block.style.setProperty("--cell", `${size.cell}px`);
  block.style.setProperty("--aspect", size.aspect);
  block.classList.toggle("narrow", size.narrow);
  const buttons = [], rowOf = new Map();
  const head = [el("span", { class: "corner" }), ...columns.map((key) => el("span", { class: "column", title: name(column, key) }, name(column, key)))];
  const body = rows.flatMap((key) => [
    el("span", { class: "row", title: name(row, key) }, name(row, key)),
    ...columns.map((other) => {
      const here = (cells.get(`${key} ${other}`) ?? []).map((picture) => cellElement(picture, report, state));
      here.forEach((button) => (buttons.push(button), rowOf.set(button, key)));
      return el("div", { class: "place" }, here);
    }),
  ]);
  block.replaceChildren(...head, ...body);
  roving(block, buttons, (button) => rows.indexOf(rowOf.get(button)));
}

function cellElement(picture, report, state) {
  const about = `${report.prompts[picture.prompt]}, ${report.arms[picture.arm]}, seed ${report.seeds[picture.seed]}`;
  const failed = picture.error !== undefined;
  const image = failed ? el("span", { class: "failed" }, "failed") : el("img", { alt: about, decoding: "async", src: small(picture) });
  const button = el("button", { type: "button", class: "cell", "data-index": picture.index, "aria-label": failed ? `${about}: failed` : about, onclick: () => state.set({ open: picture.index }) }, image, el("span", { class: "score" }));
  caption(button, report, state);
  return button;
}

function caption(cell, { pictures }, { score }) {
  const value = score === null ? null : pictures[cell.dataset.index].scores?.[score];
  cell.querySelector(".score").textContent = value == null ? "" : number(value);
}

export function small(picture) {
  return `data:image/webp;base64,${picture.small}`;
}
