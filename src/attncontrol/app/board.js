// Boxes on a picture: dragging draws one for the chosen word. The value is a line for each,
// word=left,top,right,bottom in fractions of the picture.
const INKS = ["#e5484d", "#3b82f6", "#2da44e", "#a855f7", "#d97706"];
const SMALLEST = 0.02;
const board = () => element.querySelector(".ac-board");
const rounded = (share) => Math.round(Math.min(1, Math.max(0, share)) * 100) / 100;

function lines() {
  return String(props.value || "").split("\n").map((line) => line.trim()).filter(Boolean);
}

const named = (line) => line.slice(0, line.lastIndexOf("="));

function parsed(line) {
  const sides = line.slice(line.lastIndexOf("=") + 1).split(",").map(Number);
  return sides.length === 4 && sides.every(Number.isFinite) ? { word: named(line), sides } : null;
}

function shown({ word, sides: [left, top, right, bottom] }, ink) {
  const box = document.createElement("div"), name = document.createElement("b");
  box.className = "ac-box";
  const percent = (share) => `${100 * share}%`;
  Object.assign(box.style, {
    left: percent(left), top: percent(top), width: percent(right - left),
    height: percent(bottom - top), borderColor: ink,
  });
  name.textContent = word;
  box.append(name);
  return box;
}

function draw(next) {
  const nodes = [];
  if (props.ground) {
    const ground = document.createElement("img");
    ground.src = props.ground;
    ground.alt = "";
    nodes.push(ground);
  }
  const boxes = lines().map(parsed).filter(Boolean);
  if (next) boxes.push(next);
  boxes.forEach((box, number) => nodes.push(shown(box, INKS[number % INKS.length])));
  board().replaceChildren(...nodes);
}

function place(event) {
  const { left, top, width, height } = board().getBoundingClientRect();
  return [rounded((event.clientX - left) / width), rounded((event.clientY - top) / height)];
}

let start = null;

function between([x, y]) {
  const sides = [Math.min(start[0], x), Math.min(start[1], y), Math.max(start[0], x), Math.max(start[1], y)];
  return { word: String(props.word || "").trim() || "word", sides };
}

element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".ac-board")) return;
  event.preventDefault();
  board().setPointerCapture(event.pointerId);
  start = place(event);
});
element.addEventListener("pointermove", (event) => {
  if (start) draw(between(place(event)));
});
element.addEventListener("pointerup", (event) => {
  if (!start) return;
  const { word, sides } = between(place(event));
  start = null;
  if (sides[2] - sides[0] >= SMALLEST && sides[3] - sides[1] >= SMALLEST) {
    const before = lines(), at = before.findIndex((line) => named(line) === word);
    before[at < 0 ? before.length : at] = `${word}=${sides.join(",")}`;
    props.value = before.join("\n");
    trigger("input");
  }
  draw();
});
element.addEventListener("pointercancel", () => {
  start = null;
  draw();
});
watch(["value", "ground"], () => draw());
draw();
