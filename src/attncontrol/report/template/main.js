/** Reads the pictures of the page and puts its parts together. */
import { createState } from "inspector/state";
import { useTheme } from "inspector/theme";
import { createControls } from "report/controls";
import { createDetail } from "report/detail";
import { matching } from "report/filters";
import { createGrids } from "report/grids";
import { createLines } from "report/lines";

export function start(page) {
  const byId = (id) => page.getElementById(id);
  useTheme(byId("theme"));
  const report = JSON.parse(byId("data").textContent);
  report.pictures.forEach((picture, index) => (picture.index = index));
  const state = createState({
    text: "", arms: new Set(report.arms.keys()), seeds: "", status: "all",
    layout: "prompt", score: report.scores.length ? 0 : null, sort: "job",
    shown: report.pictures, open: null,
  });
  const clear = () => {
    state.set({ text: "", arms: new Set(report.arms.keys()), seeds: "", status: "all" });
    byId("controls").replaceChildren(...createControls(report, state));
  };
  byId("lead").textContent = lead(report);
  byId("controls").append(...createControls(report, state));
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  state.on(["text", "arms", "seeds", "status"], () => state.set({ shown: matching(report, state) }));
  byId("all").addEventListener("click", clear);
  state.on(["shown"], () => (byId("none").hidden = state.shown.length > 0));
  createLines(byId("lines"), report, state);
  createGrids(byId("grids"), report, state);
  createDetail(byId("detail"), report, state);
  page.documentElement.dataset.ready = "true";
}

/** How many pictures, and the settings that all of them have. */
function lead({ pictures, shared }) {
  const failed = pictures.filter(({ error }) => error !== undefined).length;
  const count = `${pictures.length} ${pictures.length === 1 ? "picture" : "pictures"}${failed ? `, ${failed} failed` : ""}`;
  return [count, ...Object.entries(shared).map(([name, value]) => `${name} ${value}`)].join(" · ");
}
