/** What the hand-built model knows: countries, and of each the answer that every task gives. */

/** Name, capital, language, continent. All are single words, and no word begins with another one's letters. */
const COUNTRIES = `
  Angola       Luanda      Portuguese  Africa
  Australia    Canberra    English     Oceania
  Austria      Vienna      German      Europe
  Chile        Santiago    Spanish     America
  China        Beijing     Chinese     Asia
  Cuba         Havana      Spanish     America
  Denmark      Copenhagen  Danish      Europe
  Egypt        Cairo       Arabic      Africa
  France       Paris       French      Europe
  Gabon        Libreville  French      Africa
  Gambia       Banjul      English     Africa
  Ghana        Accra       English     Africa
  Greece       Athens      Greek       Europe
  Honduras     Tegucigalpa Spanish     America
  Hungary      Budapest    Hungarian   Europe
  Iran         Tehran      Persian     Asia
  Italy        Rome        Italian     Europe
  Jamaica      Kingston    English     America
  Jordan       Amman       Arabic      Asia
  Libya        Tripoli     Arabic      Africa
  Mozambique   Maputo      Portuguese  Africa
  Myanmar      Naypyidaw   Burmese     Asia
  Netherlands  Amsterdam   Dutch       Europe
  Nigeria      Abuja       English     Africa
  Norway       Oslo        Norwegian   Europe
  Oman         Muscat      Arabic      Asia
  Poland       Warsaw      Polish      Europe
  Portugal     Lisbon      Portuguese  Europe
  Qatar        Doha        Arabic      Asia
  Senegal      Dakar       French      Africa
  Spain        Madrid      Spanish     Europe
  Sweden       Stockholm   Swedish     Europe
  Syria        Damascus    Arabic      Asia
  Ukraine      Kyiv        Ukrainian   Europe
  Uruguay      Montevideo  Spanish     America
  Zambia       Lusaka      English     Africa`;

const ROWS = COUNTRIES.trim()
  .split("\n")
  .map((line) => line.trim().split(/\s+/));

/** The word of each task, which its name ends in: `country-capital`. */
export const TASK_WORDS = ["capital", "language", "continent"] as const;

export const ITEMS: readonly string[] = ROWS.map(([country]) => country!);

/** `FACTS[t][i]` is the answer of task t to item i. */
export const FACTS: readonly (readonly string[])[] = TASK_WORDS.map((_, t) => ROWS.map((row) => row[t + 1]!));

/** A quarter of the items to show, the others to choose by and to report on in turn. */
const SPLITS = ["train", "validation", "test", "validation", "train", "test", "validation", "test"];

/** The tasks as files that `parseTask` and `--task` read, by name. */
export function taskFiles(): Record<string, string> {
  const files = TASK_WORDS.map((word, t) => {
    const items = ITEMS.map((input, i) => ({
      input,
      output: FACTS[t]![i]!,
      split: SPLITS[i % SPLITS.length]!,
    }));
    const task = { name: `country-${word}`, instruction: `The ${word} of the country:`, items };
    return [`country-${word}.json`, `${JSON.stringify(task, undefined, 1)}\n`];
  });
  return Object.fromEntries(files);
}
