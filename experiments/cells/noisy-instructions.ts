import type { Modality } from "xpatch";
import { IRRELEVANT_WORDS, PARAPHRASES } from "../data/instruction-noise.ts";
import { defineCell } from "../framework/cell.ts";
import { instructionOf, queries } from "../framework/prompts.ts";
import { type Answered, answered } from "../framework/scored.ts";
import { seededRandom } from "../statistics/random.ts";
import { lastRows } from "./ensembles.ts";
import { chosenLayer, patchAt } from "./layer-sweep.ts";

/** What is done to an instruction. Its end, where the vector is read, stays. */
export const NOISES = ["typos", "paraphrase", "irrelevant"] as const;
export type Noise = (typeof NOISES)[number];

export const NOISE_NAMES: Readonly<Record<Noise, string>> = {
  typos: "typing mistakes",
  paraphrase: "put otherwise",
  irrelevant: "irrelevant words in it",
};

/** Variants of each kind, where they are drawn. */
const VARIANTS = 3;
const IRRELEVANT = 4;
/** A swap of letters in one of so many words that are long enough. */
const WORDS_A_TYPO = 2;

/** An instruction with noise of a kind: the same variants every time; none where it is not known how to put it otherwise. */
export function noisyInstructions(instruction: string, noise: Noise): readonly string[] {
  if (noise === "paraphrase") {
    return Object.hasOwn(PARAPHRASES, instruction) ? PARAPHRASES[instruction]! : [];
  }
  const change = noise === "typos" ? withTypos : withIrrelevantWords;
  return Array.from({ length: VARIANTS }, (_, seed) => change(instruction, seededRandom(seed)));
}

/** Neighbouring letters swapped within words, in at least one. */
function withTypos(text: string, random: () => number): string {
  const words = text.split(" ");
  const long = words.flatMap((word, i) => (swaps(word).length > 0 ? [i] : []));
  const count = Math.ceil(long.length / WORDS_A_TYPO);
  for (const i of drawn(long, count, random)) {
    const word = words[i]!;
    const [at] = drawn(swaps(word), 1, random);
    words[i] = word.slice(0, at) + word[at! + 1]! + word[at!]! + word.slice(at! + 2);
  }
  return words.join(" ");
}

/** Where two letters differ and neither is the word's first: a word of four letters or more is still to be recognised. */
function swaps(word: string): number[] {
  const letters = /^\p{L}+/u.exec(word)?.[0] ?? "";
  if (letters.length < 4) return [];
  return Array.from({ length: letters.length - 2 }, (_, i) => i + 1).filter(
    (i) => letters[i] !== letters[i + 1],
  );
}

/** Words put before some of the words. */
function withIrrelevantWords(text: string, random: () => number): string {
  const words = text.split(" ");
  for (const word of drawn(IRRELEVANT_WORDS, IRRELEVANT, random)) {
    words.splice(Math.floor(random() * words.length), 0, word);
  }
  return words.join(" ");
}

function drawn<T>(values: readonly T[], count: number, random: () => number): T[] {
  return values
    .map((value) => ({ value, rank: random() }))
    .sort((a, b) => a.rank - b.rank)
    .slice(0, count)
    .map(({ value }) => value);
}

export interface NoisyTestResult {
  /** The layer that validation items chose for the instruction as it is written. */
  readonly layer: number;
  readonly texts: Readonly<Record<Noise, readonly string[]>>;
  /** By variant. */
  readonly patched: Readonly<Record<Noise, readonly Answered[]>>;
}

/** The test items of a task under the vectors of its instruction with noise, in the layer chosen for it without. */
export const noisyTest = defineCell(
  "noisy-instructions",
  async (lab, { task: name, query }: { task: string; query: Modality }): Promise<NoisyTestResult> => {
    const task = lab.task(name);
    const items = lab.items(task, "test");
    const layer = chosenLayer(lab, { specification: "instruction", query }, task);
    const texts = byNoise((noise) => noisyInstructions(instructionOf(task), noise));
    const prompts = NOISES.flatMap((noise) => texts[noise].map((text) => lab.model.prompt(text)));
    const vectors = await lastRows(lab, prompts, [layer]);
    lab.spendPasses(prompts, lab.model);
    const bare = await queries(lab, task, "test", query);
    const { patched } = await lab.patchEach(
      bare,
      vectors.map((vector) => patchAt(lab, layer, vector)),
    );
    const scores = patched.map((answers) => answered(lab.model.tokenizer, items, answers, lab.options));
    return { layer, texts, patched: byNoise((noise) => scores.splice(0, texts[noise].length)) };
  },
);

function byNoise<T>(of: (noise: Noise) => T): Record<Noise, T> {
  return { typos: of("typos"), paraphrase: of("paraphrase"), irrelevant: of("irrelevant") };
}
