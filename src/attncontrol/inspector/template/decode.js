/** The inverse of quantise.py: stacks of maps, each with 8 bits per cell. */

export function floats(text) {
  return new Float32Array(bytes(text).buffer);
}

function bytes(text) {
  const characters = atob(text);
  const found = new Uint8Array(characters.length);
  for (let k = 0; k < found.length; k++) found[k] = characters.charCodeAt(k);
  return found;
}

async function inflate(text) {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** {map(entry, index): {width, height, values}, peak(entry, indices)}; null stays null. */
export async function openAtlas(stored) {
  if (!stored) return null;
  const cells = await inflate(stored.cells);
  const peaks = floats(stored.peaks);
  const entries = [];
  let cell = 0;
  let first = 0;
  stored.grids.forEach(([height, width], k) => {
    const entry = { height, width, cell, first, count: stored.counts[k] };
    undoDifferences(cells, entry, stored.counts[k], stored.run);
    entries.push(entry);
    cell += height * width * stored.counts[k];
    first += stored.counts[k];
  });
  return {
    entries,
    map(entry, index) {
      const { height, width, cell: start, first: base } = entries[entry];
      const peak = peaks[base + index];
      const from = start + index * height * width;
      const values = new Float32Array(height * width);
      for (let k = 0; k < values.length; k++) values[k] = peak * (cells[from + k] / 255) ** 2;
      return { height, width, values };
    },
    peak: (entry, indices) => Math.max(...indices.map((index) => peaks[entries[entry].first + index])),
  };
}

function undoDifferences(cells, { height, width, cell }, count, run) {
  const size = height * width;
  for (let map = 0; map < count; map++) {
    if (map % run === 0) continue;
    const at = cell + map * size;
    for (let k = at; k < at + size; k++) cells[k] += cells[k - size]; // a Uint8Array wraps as the differences did
  }
}
