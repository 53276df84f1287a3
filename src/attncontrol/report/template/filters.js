/** Which pictures are shown. */

/** Of a text such as "0-3, 8": tests a seed, a decimal text. Seeds are longer than numbers of JavaScript. */
export function seedTest(text) {
  const parts = text.split(",").map((part) => part.trim()).filter(Boolean);
  const ranges = parts.map((part) => /^(\d+)(?:\s*-\s*(\d+))?$/.exec(part));
  if (!parts.length) return () => true;
  if (ranges.includes(null)) return null;
  const spans = ranges.map(([, low, high]) => [BigInt(low), BigInt(high ?? low)]);
  return (seed) => spans.some(([low, high]) => low <= BigInt(seed) && BigInt(seed) <= high);
}

const STATUS = {
  all: () => true,
  made: ({ error }) => error === undefined,
  failed: ({ error }) => error !== undefined,
  recorded: ({ record }) => record !== undefined,
};

/** Those of all filters: every word of the text is in the prompt. */
export function matching(report, { text, arms, seeds, status }) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const prompts = report.prompts.map((prompt) => words.every((word) => prompt.toLowerCase().includes(word)));
  const isSeed = seedTest(seeds) ?? (() => false);
  const ofSeeds = report.seeds.map(isSeed);
  return report.pictures.filter(
    (picture) => prompts[picture.prompt] && arms.has(picture.arm) && ofSeeds[picture.seed] && STATUS[status](picture),
  );
}
