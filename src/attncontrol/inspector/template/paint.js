/** Maps to pixels. */
import { HEAT_TABLE } from "inspector/colors";

/** Lowest and highest value shown: those of the map, 0 and its maximum, or 0 and `shared`. */
export function rangeOf(map, scale, shared) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of map.values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (scale === "shared") return { low: 0, high: shared };
  return { low: scale === "zero" ? 0 : low, high };
}

/** The share of the range, 0 to 1; 0 everywhere for an empty range. */
function share(value, { low, high }) {
  return high > low ? Math.min(Math.max((value - low) / (high - low), 0), 1) : 0;
}

/** Draws layers {map, range, color} over each other; a layer without a colour is drawn in heat colours, the stronger the higher. */
export function paintOverlay(canvas, layers, { opacity, smooth }) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const { width, height } = canvas;
  const pixels = context.createImageData(width, height);
  const sampled = layers.map(({ map, range }) => sample(map, range, width, height, smooth));
  for (let k = 0; k < width * height; k++) {
    const at = 4 * k;
    if (layers.length === 1 && !layers[0].color) heatPixel(pixels.data, at, sampled[0][k], opacity);
    else blendPixel(pixels.data, at, layers, sampled, k, opacity);
  }
  context.putImageData(pixels, 0, 0);
}

function heatPixel(data, at, value, opacity) {
  const color = 3 * Math.round(255 * value);
  for (let c = 0; c < 3; c++) data[at + c] = HEAT_TABLE[color + c];
  data[at + 3] = Math.round(255 * opacity * (0.3 + 0.7 * value));
}

/** The colours of the words by their shares, as strong as the strongest. */
function blendPixel(data, at, layers, sampled, k, opacity) {
  let total = 0;
  let strongest = 0;
  let red = 0;
  let green = 0;
  let blue = 0;
  layers.forEach(({ color }, layer) => {
    const value = sampled[layer][k];
    const weight = value * value;
    total += weight;
    strongest = Math.max(strongest, value);
    red += weight * color[0];
    green += weight * color[1];
    blue += weight * color[2];
  });
  if (!total) return;
  data[at] = red / total;
  data[at + 1] = green / total;
  data[at + 2] = blue / total;
  data[at + 3] = Math.round(255 * opacity * strongest);
}

/** Shares of the range at every pixel: those of its cell, or cubic between the centres of cells. */
function sample(map, range, width, height, smooth) {
  const cells = Float32Array.from(map.values, (value) => share(value, range));
  const across = resampled(cells, map.height, map.width, width, smooth, (row, column) => row * map.width + column);
  const found = resampled(across, width, map.height, height, smooth, (column, row) => row * width + column);
  const turned = new Float32Array(width * height);
  for (let x = 0, k = 0; x < width; x++) for (let y = 0; y < height; y++, k++) turned[y * width + x] = Math.min(Math.max(found[k], 0), 1);
  return turned;
}

/** Every one of `lines` lines from `cells` to `pixels` long; `at(line, cell)` is its place among the values. */
function resampled(values, lines, cells, pixels, smooth, at) {
  const found = new Float32Array(lines * pixels);
  const taps = Array.from({ length: pixels }, (_, pixel) => tapsOf(((pixel + 0.5) * cells) / pixels, cells, smooth));
  for (let line = 0, k = 0; line < lines; line++) {
    for (let pixel = 0; pixel < pixels; pixel++, k++) {
      for (const [cell, weight] of taps[pixel]) found[k] += weight * values[at(line, cell)];
    }
  }
  return found;
}

/** [cell, weight] of a place along a line of cells; Catmull-Rom, the outermost cells repeated. */
function tapsOf(place, cells, smooth) {
  if (!smooth) return [[Math.floor(place), 1]];
  const first = Math.floor(place - 0.5);
  const t = place - 0.5 - first;
  const weights = [
    ((2 - t) * t - 1) * t / 2, ((3 * t - 5) * t * t + 2) / 2, ((4 - 3 * t) * t + 1) * t / 2, (t - 1) * t * t / 2,
  ];
  return weights.map((weight, k) => [Math.min(Math.max(first - 1 + k, 0), cells - 1), weight]);
}

/** One pixel per cell, in heat colours. */
export function paintThumbnail(canvas, map, range) {
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(map.width, map.height);
  map.values.forEach((value, k) => {
    const color = 3 * Math.round(255 * share(value, range));
    pixels.data.set([HEAT_TABLE[color], HEAT_TABLE[color + 1], HEAT_TABLE[color + 2], 255], 4 * k);
  });
  context.putImageData(pixels, 0, 0);
}
