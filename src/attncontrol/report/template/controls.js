/** The filters, and how the pictures are laid out. */
import { el } from "inspector/dom";
import { seedTest } from "report/filters";

export function createControls(report, state) {
  const { arms, seeds, scores, pictures } = report;
  const failed = pictures.some(({ error }) => error !== undefined);
  const recorded = pictures.some(({ record }) => record !== undefined);
  const status = [["all", "all"], failed && ["made", "made"], failed && ["failed", "failed"], recorded && ["recorded", "with a record"]].filter(Boolean);
  const layouts = [["prompt", "by prompt"], seeds.length > 1 && ["seed", "by seed"], arms.length > 1 && ["arm", "by method"]].filter(Boolean);
  const sorts = [["job", "of the job"], ["low", "lowest score first"], ["high", "highest score first"]];
  const controls = [
    search(state),
    arms.length > 1 && methods(arms, state),
    seeds.length > 1 && seedField(state),
    status.length > 1 && choice("status", "Show", status, state),
    layouts.length > 1 && choice("layout", "Layout", layouts, state),
    scores.length && choice("score", "Score", scores.map(({ name }, k) => [k, name]), state),
    scores.length && choice("sort", "Order", sorts, state),
    count(report, state),
  ];
  return controls.filter(Boolean);
}

function search(state) {
  const input = el("input", { id: "text", type: "search", placeholder: "Prompt contains", "aria-label": "Words of the prompt", oninput: () => state.set({ text: input.value }) });
  input.value = state.text;
  return input;
}

function seedField(state) {
  const input = el("input", { id: "seeds", class: "short", type: "text", inputmode: "numeric", placeholder: "all, or 0-3, 8", oninput: () => change() });
  const change = () => {
    const good = seedTest(input.value) !== null;
    input.setAttribute("aria-invalid", String(!good));
    if (good) state.set({ seeds: input.value });
  };
  input.value = state.seeds;
  return el("label", { class: "field" }, el("span", {}, "Seeds"), input);
}

function choice(key, label, options, state) {
  const change = () => state.set({ [key]: key === "score" ? Number(select.value) : select.value });
  const select = el("select", { id: key, onchange: change }, options.map(([value, text]) => el("option", { value, selected: state[key] === value }, text)));
  return el("label", { class: "field" }, el("span", {}, label), select);
}

/** A menu of check boxes: several may be compared. */
function methods(arms, state) {
  const summary = el("summary", {});
  const box = (name, k) => {
    const change = () => {
      const chosen = new Set(state.arms);
      if (input.checked) chosen.add(k);
      else chosen.delete(k);
      state.set({ arms: chosen });
    };
    const input = el("input", { type: "checkbox", "data-arm": name, checked: state.arms.has(k), onchange: change });
    return el("label", { class: "check" }, input, el("span", {}, name));
  };
  const menu = el("details", { id: "arms", class: "menu" }, summary, el("div", { class: "menu-list" }, arms.map(box)));
  menu.addEventListener("keydown", (event) => event.key === "Escape" && (menu.open = false));
  document.addEventListener("pointerdown", ({ target }) => menu.contains(target) || (menu.open = false));
  state.on(["arms"], () => (summary.textContent = `Methods: ${state.arms.size === arms.length ? "all" : `${state.arms.size} of ${arms.length}`}`));
  return menu;
}

function count({ pictures }, state) {
  const output = el("output", { id: "count", class: "muted" });
  state.on(["shown"], () => (output.textContent = state.shown.length === pictures.length ? `${pictures.length} pictures` : `${state.shown.length} of ${pictures.length} pictures`));
  return output;
}
