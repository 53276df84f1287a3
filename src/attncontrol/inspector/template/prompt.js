/** The prompt, its recorded words as buttons: hover shows one alone, a click keeps it on or takes it off. */
import { css, wordColor } from "inspector/colors";
import { el } from "inspector/dom";
import { toggleWord } from "inspector/state";

export function createPrompt(record, state) {
  const line = el("p", { class: "prompt" });
  state.on(["image"], () => line.replaceChildren(...pieces(record, state)));
  state.on(["image", "words", "preview"], () => {
    for (const button of line.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", state.words.includes(button.dataset.word));
      button.classList.toggle("preview", state.preview === button.dataset.word);
    }
  });
  return line;
}

function pieces(record, state) {
  const image = record.images[state.image];
  if (!image) return ["This record has no such image."];
  const placed = new Set(image.segments.map(({ word }) => word));
  const rest = image.words.filter((_, k) => !placed.has(k));
  const made = image.segments.map(({ text, word }) => (word === null ? text : wordButton(state, image.words[word], text)));
  const more = rest.length ? [el("span", { class: "also" }, "also recorded ", rest.map((name) => wordButton(state, name, name)))] : [];
  return [...made, ...more];
}

function wordButton(state, name, text) {
  const color = wordColor(state.names.indexOf(name));
  const preview = (word) => () => state.set({ preview: word });
  return el(
    "button",
    {
      type: "button", class: "word", "data-word": name, "aria-label": `Map of ${name}`, style: { "--word": css(color) },
      onclick: () => toggleWord(state, name), onpointerenter: preview(name), onpointerleave: preview(null), onblur: preview(null),
      onfocus: ({ target }) => target.matches(":focus-visible") && state.set({ preview: name }),
    },
    text,
  );
}
