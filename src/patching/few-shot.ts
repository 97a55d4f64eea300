import type { PromptPart } from "../model/build-prompt.ts";
import type { LanguageModel } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt.ts";
import type { PromptImage } from "../model/vision-setup.ts";
import { PromptError, XpatchError } from "../tensor/errors.ts";
import type { TaskItem } from "./task.ts";
import { hashText } from "./text-hash.ts";

/** One example with its answer; a query is what comes before the answer. This one suits models such as SmolLM2. */
export const SPACED_TEMPLATE = "Q: {x}\nA: {y}\n\n";

/** The template of Luo et al. 2025 (arXiv 2410.22330), and the one for pictures. */
export const PAPER_TEMPLATE = "Q:{x}\nA:{y}\n\n";

/** What is asked about: its name, or a picture of it. */
export type Question = string | PromptImage;

export interface Example {
  readonly question: Question;
  readonly answer: string;
}

/**
 * A prompt of examples and then a question without its answer: `Q: Greece\nA: Athens\n\nQ: Italy\nA:`. Without examples
 * it is the zero-shot query.
 *
 * The query's task vector is read at `prompt.last`, its answer cue. The span `example` is the same place in the last
 * example; see {@link atLastExample}. White space right before a picture is left out, since models have not seen it there.
 *
 * @throws PromptError if the template lacks {x}, then some text, then {y}, each once
 */
export function fewShotPrompt(
  model: LanguageModel,
  examples: readonly Example[],
  question: Question,
  template = SPACED_TEMPLATE,
): Prompt<PromptImage> {
  const { before, cue, gap, after } = splitTemplate(template);
  const ask = (asked: Question, last: boolean): (PromptPart<PromptImage> | PromptImage)[] => {
    const end = cue.at(-1)!;
    return [
      typeof asked === "string" ? before : before.trimEnd(),
      asked,
      cue.slice(0, -1),
      ...(last ? [{ text: end, name: "example" }] : [end]),
    ];
  };
  const shown = examples.flatMap(({ question: asked, answer }, i) => [
    ...ask(asked, i === examples.length - 1),
    `${gap}${answer}${after}`,
  ]);
  return model.prompt([...shown, ...ask(question, false)]);
}

/**
 * The position of the last example's answer cue, the `:` of its `A:`, where its answer and the query are yet unseen: a
 * task vector from there knows nothing of the query. For prompts of {@link fewShotPrompt} with at least one example.
 */
export function atLastExample(prompt: Prompt): number {
  return prompt.span("example").end - 1;
}

export interface DrawOptions {
  /** Number of examples. Default 5. */
  readonly count?: number;
  /** Other seeds draw other examples. Default 0. */
  readonly seed?: number;
}

/**
 * Examples for a query, drawn at random from the other items of `pool`, in random order. The draw depends on the seed,
 * the query's input and the inputs of the pool, not on the order of the pool or of calls.
 *
 * @throws XpatchError if the pool is too small
 */
export function drawExamples(
  pool: readonly TaskItem[],
  query: TaskItem,
  { count = 5, seed = 0 }: DrawOptions = {},
): Example[] {
  const others = pool.filter((item) => item.input !== query.input);
  if (others.length < count) {
    throw new XpatchError(
      `expected at least ${count} items besides "${query.input}", found ${others.length}`,
    );
  }
  return others
    .map((item) => ({ item, rank: hashText(`${seed}\n${query.input}\n${item.input}`) }))
    .sort((a, b) => a.rank - b.rank || (a.item.input < b.item.input ? -1 : 1))
    .slice(0, count)
    .map(({ item }) => ({ question: item.input, answer: item.outputs[0]! }));
}

/** The pieces around {x} and {y}: `before` {x} `cue` `gap` {y} `after`, where `gap` is white space. */
function splitTemplate(template: string): { before: string; cue: string; gap: string; after: string } {
  const [, before, between, after] = /^(.*)\{x\}(.*)\{y\}(.*)$/s.exec(template) ?? [];
  const cue = between?.trimEnd();
  if (before === undefined || !cue || /\{[xy]\}/.test(before + cue + after)) {
    throw new PromptError(
      `Expected a template with {x}, some text and {y}, each once, found ${JSON.stringify(template)}.`,
    );
  }
  return { before, cue, gap: between!.slice(cue.length), after: after! };
}
