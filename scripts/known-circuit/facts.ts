/**
 * What the hand-built model knows: a hundred made-up countries, and of each the answer that every task gives. Names are
 * a stem and an ending, so that twenty directions spell them all; no name begins with another.
 */

export const STEMS = ["Bor", "Cal", "Dor", "Es", "Fal", "Gor", "Hel", "Il", "Jar", "Kel"] as const;
export const ENDINGS = [
  "avia",
  "egal",
  "eria",
  "istan",
  "land",
  "mark",
  "onia",
  "uela",
  "uria",
  "way",
] as const;
export const CAPITAL_ENDINGS = [
  "borg",
  "dam",
  "ford",
  "grad",
  "haven",
  "minster",
  "polis",
  "stad",
  "ton",
  "ville",
] as const;
export const LANGUAGES = STEMS.map((stem) => `${stem}ish`);
export const REGIONS = ["North", "South", "East", "West", "Centre"] as const;

/** The word of each task, which its name ends in: `country-capital`. */
export const TASK_WORDS = ["capital", "language", "region"] as const;

const all = <T>(of: (stem: number, ending: number) => T): T[] =>
  STEMS.flatMap((_, stem) => ENDINGS.map((_, ending) => of(stem, ending)));

export const ITEMS: readonly string[] = all((stem, ending) => `${STEMS[stem]}${ENDINGS[ending]}`);

/** `FACTS[t][i]` is the answer of task t to item i: each capital once, each language and region equally often. */
export const FACTS: readonly (readonly string[])[] = [
  all((stem, ending) => `${STEMS[(stem + 3) % 10]}${CAPITAL_ENDINGS[(stem + ending) % 10]}`),
  all((stem, ending) => LANGUAGES[(3 * stem + 7 * ending) % 10]!),
  all((stem, ending) => REGIONS[(stem + 2 * ending) % 5]!),
];

/** Ten items to show, 45 to choose by, 45 to report on, strewn over the list. */
function splitOf(i: number): string {
  const place = (37 * i) % 101;
  if (place < 10) return "train";
  return place < 55 ? "validation" : "test";
}

/** The tasks as files that `parseTask` and `--task` read, by name. */
export function taskFiles(): Record<string, string> {
  const files = TASK_WORDS.map((word, t) => {
    const items = ITEMS.map((input, i) => ({ input, output: FACTS[t]![i]!, split: splitOf(i) }));
    const task = { name: `country-${word}`, instruction: `The ${word} of the country:`, items };
    return [`country-${word}.json`, `${JSON.stringify(task, undefined, 1)}\n`];
  });
  return Object.fromEntries(files);
}
