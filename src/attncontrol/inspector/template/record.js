/** A record: which map belongs to what is chosen. */
import { floats, openAtlas } from "inspector/decode";

export async function openRecord(stored) {
  const [mean, step, head] = await Promise.all([stored.mean, stored.step, stored.head].map(openAtlas));
  const stats = stored.stats && floats(stored.stats);
  const cells = stored.taken && (await openAtlas(stored.taken.cells));
  const shares = stored.taken?.words && floats(stored.taken.words);
  const wide = Math.max(...stored.images.map((image) => image.words.length));
  const { branches, frames, images, groups, heads, steps } = stored;

  /** [image, branch, word] as numbers, or null if this record has not got them. */
  function place(view, name) {
    const word = images[view.image] ? images[view.image].words.indexOf(name) : -1;
    const branch = branches.indexOf(view.branch);
    return word < 0 || branch < 0 ? null : { image: view.image, branch, word };
  }

  function ofGroup(view, name) {
    const at = place(view, name);
    const group = groups.findIndex(({ kind, name: own }) => `${kind} ${own}` === view.group);
    if (!at || group < 0) return null;
    const frame = Math.min(view.frame, frames - 1);
    const index = ((at.image * branches.length + at.branch) * frames + frame) * wide + at.word;
    return { group, index };
  }

  function map(view, name) {
    if (view.head) return headMap(view, name, view.head);
    const found = ofGroup(view, name);
    if (!found) return null;
    if (!step || view.step === 0) return mean.map(found.group, found.index);
    return step.map(found.group, found.index * steps.length + stepAt(view) - 1);
  }

  /** 1 for the first; a record with another number of steps shows the one at the same share of the run. */
  function stepAt({ step: chosen, stepCount }) {
    if (stepCount === steps.length || stepCount < 2) return Math.min(chosen, steps.length);
    return 1 + Math.round(((chosen - 1) / (stepCount - 1)) * (steps.length - 1));
  }

  /** The largest value of a word in any step, or in any head. */
  function peak(view, name) {
    if (view.head) return headPeak(view, name);
    const found = ofGroup(view, name);
    if (!found) return 0;
    const count = steps.length;
    const ofSteps = step ? step.peak(found.group, Array.from({ length: count }, (_, k) => found.index * count + k)) : 0;
    return Math.max(mean.peak(found.group, [found.index]), ofSteps);
  }

  function headIndex({ image, branch, word }, row, number) {
    return ((image * branches.length + branch) * heads[row].count + number) * wide + word;
  }

  function headMap(view, name, chosen) {
    const at = place(view, name);
    const row = heads.findIndex(({ layer, count }) => layer === chosen.layer && chosen.number < count);
    return at && row >= 0 ? head.map(row, headIndex(at, row, chosen.number)) : null;
  }

  function headPeak(view, name) {
    const at = place(view, name);
    if (!at) return 0;
    return Math.max(...heads.map(({ count }, row) => head.peak(row, Array.from({ length: count }, (_, k) => headIndex(at, row, k)))));
  }

  const starts = heads.reduce((found, { count }) => [...found, found.at(-1) + images.length * branches.length * count * wide * 2], [0]);

  /** {entropy, share} of a head, or null. */
  function headStats(view, name, row, number) {
    const at = place(view, name);
    if (!at) return null;
    const from = starts[row] + 2 * headIndex(at, row, number);
    return { entropy: stats[from], share: stats[from + 1] };
  }

  /** Which cells are the source's after a step, or in which share of the steps, or null. */
  function takenCells(view) {
    if (!cells || !images[view.image]) return null;
    const count = cells.entries[1].count / images.length;
    return steps.length && view.step ? cells.map(1, view.image * count + stepAt(view) - 1) : cells.map(0, view.image);
  }

  /** Which share of the attention to a word is the source's; null if the edit does not say. */
  function takenShare(view, name) {
    const at = place(view, name);
    const group = groups.findIndex(({ kind, name: own }) => `${kind} ${own}` === view.group);
    if (!shares || !at || group < 0) return null;
    const count = shares.length / (groups.length * images.length * wide);
    const step = steps.length && view.step ? stepAt(view) : 0;
    return shares[((group * images.length + at.image) * wide + at.word) * count + step];
  }

  return { ...stored, takenCells, takenShare, stats, map, peak, stepAt, headMap, headPeak, headStats, hasHeads: Boolean(head) };
}

/** The sum of the maps of several words, or null if one is missing. */
export function sumOfMaps(record, view, names) {
  const maps = names.map((name) => record.map(view, name));
  if (!maps.length || maps.includes(null)) return null;
  const values = maps[0].values.map((_, k) => maps.reduce((sum, map) => sum + map.values[k], 0));
  return { ...maps[0], values };
}

export function cosine(a, b) {
  let ab = 0;
  let aa = 0;
  let bb = 0;
  for (let k = 0; k < a.values.length; k++) {
    ab += a.values[k] * b.values[k];
    aa += a.values[k] ** 2;
    bb += b.values[k] ** 2;
  }
  return aa && bb ? ab / Math.sqrt(aa * bb) : 0;
}
