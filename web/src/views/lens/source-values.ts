import type { SessionClient } from "../../../../src/session/client.ts";
import type { ArraySpec, ModelHandle, PromptHandle } from "../../../../src/session/messages/values.ts";
import { tapOf, type Wanted, wantedKey } from "./edit-specs.ts";

/** Numbers kept, of all values together: 32 MB. */
const MOST_NUMBERS = 8 * 2 ** 20;
/** Numbers that are read before anybody asks: 1 MB. */
const MOST_AHEAD = 2 ** 18;

/** What sources hold, by their prompt and place; those read first in front. */
const known = new Map<string, ArraySpec>();
let numbers = 0;

export interface Source {
  readonly client: SessionClient;
  readonly model: ModelHandle;
  readonly prompt: PromptHandle;
  /** Tells the prompt, as this model reads it, from every other. */
  readonly key: string;
  readonly signal: AbortSignal;
}

/** Reads what is not known yet, in one pass; with it what may be wanted next, where that is not much. `width` bounds what a row can hold. */
export async function readSource(
  { client, model, prompt, key, signal }: Source,
  wanted: readonly Wanted[],
  width: number,
  next: readonly Wanted[] = [],
): Promise<(wanted: Wanted) => ArraySpec> {
  const size = (of: readonly Wanted[]) =>
    of.reduce((sum, { positions }) => sum + (positions.end - positions.start) * width, 0);
  const total = size(wanted);
  if (total > MOST_NUMBERS) {
    throw new Error(
      `the source's places hold some ${Math.round(total / 1e6)} million numbers, more than ${Math.round(MOST_NUMBERS / 1e6)} million: ` +
        "take fewer tokens or layers",
    );
  }
  const values = new Map<string, ArraySpec>();
  const missing: Wanted[] = [];
  for (const each of wanted) {
    const found = known.get(`${key}|${wantedKey(each)}`);
    if (found) values.set(wantedKey(each), found);
    else missing.push(each);
  }
  if (missing.length > 0) {
    const all = size(next) <= MOST_AHEAD ? [...missing, ...next] : missing;
    const taps = Object.fromEntries(all.map((each) => [wantedKey(each), tapOf(each)]));
    const answer = await client.run({ model, prompt, taps, top: 1 }, { signal });
    for (const each of all) {
      const value = answer.taps[wantedKey(each)]!;
      values.set(wantedKey(each), value);
      keep(`${key}|${wantedKey(each)}`, value);
    }
  }
  return (each) => values.get(wantedKey(each))!;
}

function keep(key: string, value: ArraySpec): void {
  numbers += value.data.length - (known.get(key)?.data.length ?? 0);
  known.delete(key);
  known.set(key, value);
  for (const [first, { data }] of known) {
    if (numbers <= MOST_NUMBERS) break;
    known.delete(first);
    numbers -= data.length;
  }
}
