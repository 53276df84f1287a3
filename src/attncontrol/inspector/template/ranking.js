/** The words by the attention that they get from the cell under the pointer. */
import { css, wordColor, write } from "inspector/colors";
import { el } from "inspector/dom";
import { cellAt } from "inspector/picture";
import { VIEW } from "inspector/state";

const MOST = 12;

export function createRanking(record, state) {
  const where = el("span", { class: "muted" });
  const list = el("ol", { class: "ranking", "aria-live": "polite" });
  const empty = el("p", { class: "muted" }, "Point at the picture, or focus it and use the arrow keys. A click keeps the cell.");
  state.on([...VIEW, "cell", "pinned"], () => {
    const at = state.cell ?? state.pinned;
    const rows = at ? ranked(record, state, at) : [];
    empty.hidden = rows.length > 0;
    where.textContent = rows.length ? rows[0].where : "";
    list.replaceChildren(...rows.slice(0, MOST).map((row) => line(row, rows[0].value, state)));
  });
  return el("section", { class: "card" }, el("h3", {}, "Words at this cell ", where), empty, list);
}

function ranked(record, state, at) {
  const names = record.images[state.image]?.words ?? [];
  const rows = names.flatMap((name) => {
    const map = record.map(state, name);
    if (!map) return [];
    const { column, row, index } = cellAt(map, at);
    return [{ name, value: map.values[index], where: `column ${column}, row ${row}` }];
  });
  return rows.sort((a, b) => b.value - a.value);
}

function line({ name, value }, highest, state) {
  const color = css(wordColor(state.names.indexOf(name)));
  const length = highest > 0 ? value / highest : 0;
  return el(
    "li",
    { "data-word": name, style: { "--word": color, "--share": length } },
    el("span", { class: "name" }, name),
    el("span", { class: "meter" }),
    el("span", { class: "number" }, write(value)),
  );
}
