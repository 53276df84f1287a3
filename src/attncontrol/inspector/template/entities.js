/** The nouns of the parse with their modifiers, and how well the maps of each pair agree. */
import { el, hint } from "inspector/dom";
import { cosine, sumOfMaps } from "inspector/record";
import { VIEW } from "inspector/state";

const FORMULA =
  "Agreement = cosine similarity of two maps a, b over the cells i: Σ aᵢbᵢ / √(Σ aᵢ² · Σ bᵢ²). 1 where they have the same shape, 0 where they do not meet. ▲: a modifier agrees more with another noun than with its own. For the layers, step or head chosen above.";

export function createEntities(record, state) {
  const list = el("ul", { class: "entities" });
  state.on(VIEW, () => {
    const entities = record.images[state.image]?.entities ?? { found: [], note: null };
    list.replaceChildren(...entities.found.map((entity) => item(entity, entities.found, record, state)));
    if (entities.note) list.append(el("li", { class: "muted" }, entities.note));
  });
  return el("section", { class: "card" }, el("h3", {}, "Nouns and their modifiers ", hint(FORMULA)), list);
}

function item(entity, all, record, state) {
  const own = mapOf(entity.noun, record, state);
  const others = all.filter((other) => other !== entity).map(({ noun }) => ({ noun, map: mapOf(noun, record, state) }));
  const pairs = entity.modifiers.map((modifier) => pair(modifier, entity.noun, own, others, mapOf(modifier, record, state)));
  const note = own ? null : el("span", { class: "muted" }, " not recorded");
  return el("li", {}, el("b", {}, entity.noun.text), note, pairs.length ? el("ul", {}, pairs) : null);
}

function pair(modifier, noun, own, others, map) {
  if (!map || !own) return el("li", {}, modifier.text, el("span", { class: "muted" }, ` ${map ? "noun" : "modifier"} not recorded`));
  const value = cosine(map, own);
  const rivals = others.flatMap((other) => (other.map ? [{ text: other.noun.text, value: cosine(map, other.map) }] : []));
  const rows = [{ text: noun.text, value, own: true }, ...rivals];
  return el("li", {}, modifier.text, el("div", { class: "pairs" }, rows.map((row) => agreement(row, value))));
}

function agreement({ text, value, own = false }, best) {
  const stolen = !own && value > best + 0.01;
  const said = `with ${text}${stolen ? " ▲" : ""}`;
  return el(
    "div",
    { class: `pair${own ? " own" : ""}${stolen ? " stolen" : ""}`, title: stolen ? "more than with its own noun" : null, "data-noun": text, "data-agreement": value.toFixed(3), style: { "--share": Math.max(value, 0) } },
    el("span", {}, said),
    el("span", { class: "meter" }),
    el("span", { class: "number" }, value.toFixed(2)),
  );
}

function mapOf({ words }, record, state) {
  return sumOfMaps(record, state, words.map((word) => record.images[state.image].words[word]));
}
