/** What the numbers are: how the record was made and what was reduced. */
import { el } from "inspector/dom";

export function createNotes(record, state) {
  const branch = el("p", { class: "muted" });
  state.on(["branch"], () => {
    branch.hidden = state.branch === "cond";
    branch.textContent = `In the branch “${state.branch}” the model reads another text; words stand for the same positions of it.`;
  });
  const about = Object.entries(record.about).flatMap(([key, value]) => [el("dt", {}, key.replaceAll("_", " ")), el("dd", {}, value)]);
  return el(
    "footer",
    { class: "notes" },
    branch,
    el("details", {}, el("summary", {}, "What is shown, and how it was made"), el("ul", {}, record.reduced.map((line) => el("li", {}, line))), el("dl", {}, about)),
  );
}
