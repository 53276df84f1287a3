/** Colours of maps and words, and how numbers are written. */

const HEAT = [[13, 8, 80], [126, 3, 168], [204, 71, 120], [248, 149, 64], [240, 249, 33]];
const WORDS = [
  [244, 162, 54], [56, 160, 245], [232, 76, 128], [52, 190, 140], [168, 122, 250], [240, 98, 60],
  [80, 200, 225], [190, 202, 60], [214, 110, 214], [150, 150, 160],
];

/** 256 RGB triples, dark blue through red to yellow. */
export const HEAT_TABLE = Uint8ClampedArray.from({ length: 768 }, (_, k) => {
  const at = (Math.floor(k / 3) / 255) * (HEAT.length - 1);
  const low = Math.min(Math.floor(at), HEAT.length - 2);
  return HEAT[low][k % 3] + (at - low) * (HEAT[low + 1][k % 3] - HEAT[low][k % 3]);
});

export const HEAT_GRADIENT = `linear-gradient(90deg, ${HEAT.map((color) => css(color)).join(", ")})`;

/** `number` is the place of a word among all words of the page. */
export function wordColor(number) {
  return WORDS[number % WORDS.length];
}

export function css(color, alpha = 1) {
  return `rgb(${color.join(" ")} / ${alpha})`;
}

/** Three digits: 0.0123, 8.00, 1.00e-4. */
export function write(value) {
  if (value === 0) return "0";
  return Math.abs(value) >= 0.001 && Math.abs(value) < 1000 ? value.toPrecision(3) : value.toExponential(2);
}
