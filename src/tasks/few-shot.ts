import {
  aListOf,
  aNumber,
  anArray,
  aString,
  checkArgument,
  checkOptions,
  type Expected,
  either,
} from "../arguments.ts";
import { PromptError, XpatchError } from "../errors.ts";
import { isObject } from "../model/checkpoint/json/config-reader.ts";
import type { ModelOutline } from "../model/language-model.ts";
import type { PromptPart } from "../model/prompt/image-rules.ts";
import { Prompt } from "../model/prompt/prompt.ts";
import { aPicture } from "../model/prompt/prompt-arguments.ts";
import type { PromptImage } from "../model/prompt/prompt-image.ts";
import { aModelOutline, aPrompt } from "../patching/arguments.ts";
import type { TaskItem } from "./task.ts";
import { hashText } from "./text-hash.ts";

/** One example with its answer; a query is what comes before the answer. This one suits models such as SmolLM2. */
export const SPACED_TEMPLATE = "Q: {x}\nA: {y}\n\n";

/** The template of Luo et al. 2025 (arXiv 2410.22330), and the one for pictures. */
export const PAPER_TEMPLATE = "Q:{x}\nA:{y}\n\n";

/** What is asked about: its name, or a picture of it. */
export type Question = string | PromptImage;

/** How items are asked about: {@link byText}, or by the pictures that `loadPictures` gives. */
export type Asker = (item: TaskItem) => Question;

/** Asks about an item by its text. */
export const byText: Asker = ({ input }) => input;

/** A question and its answer, as a few-shot prompt shows them. */
export interface Example {
  readonly question: Question;
  readonly answer: string;
}

const aQuestion = either(aString, aPicture);
const anExample: Expected = {
  words: "{ question, answer }",
  holds: (example) =>
    isObject(example) && aQuestion.holds(example["question"]) && typeof example["answer"] === "string",
};

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
  model: ModelOutline,
  examples: readonly Example[],
  question: Question,
  template = SPACED_TEMPLATE,
): Prompt<PromptImage> {
  checkArgument("fewShotPrompt", "model", model, aModelOutline);
  checkArgument("fewShotPrompt", "examples", examples, aListOf(anExample));
  checkArgument("fewShotPrompt", "question", question, aQuestion);
  return model.prompt(askedParts(splitTemplate(template), examples, question));
}

/**
 * The same with the answer behind it, as the span `answer`: what a model is trained on. Where an encoder reads the prompt, the
 * answer is the decoder's.
 *
 * @throws PromptError as {@link fewShotPrompt} does
 */
export function answeredPrompt(
  model: ModelOutline,
  examples: readonly Example[],
  { question, answer }: Example,
  template = SPACED_TEMPLATE,
): Prompt<PromptImage> {
  checkArgument("answeredPrompt", "model", model, aModelOutline);
  checkArgument("answeredPrompt", "examples", examples, aListOf(anExample));
  checkArgument("answeredPrompt", "example", { question, answer }, anExample);
  const pieces = splitTemplate(template);
  const parts = askedParts(pieces, examples, question);
  if (model.config.encoder) {
    const asked = model.prompt(parts, { answer });
    // A token in front of the text's own, a bare blank, has to be predicted as well.
    const spans = { answer: { start: 0, end: asked.answer!.length } };
    return new Prompt<PromptImage>({ ...asked, answer: new Prompt({ ...asked.answer!, spans }) });
  }
  return model.prompt([...parts, { text: `${pieces.gap}${answer}`, name: "answer" }]);
}

/** Examples, and then a question without its answer. */
function askedParts(
  pieces: TemplatePieces,
  examples: readonly Example[],
  question: Question,
): (PromptPart<PromptImage> | PromptImage)[] {
  const shown = examples.flatMap(({ question: asked, answer }, i) => [
    ...ask(pieces, asked, i === examples.length - 1 ? "example" : undefined),
    `${pieces.gap}${answer}${pieces.after}`,
  ]);
  return [...shown, ...ask(pieces, question)];
}

/**
 * The position of the last example's answer cue, the `:` of its `A:`, where its answer and the query are yet unseen: a
 * task vector from there knows nothing of the query. For prompts of {@link fewShotPrompt} with at least one example.
 */
export function atLastExample(prompt: Prompt): number {
  return prompt.span("example").end - 1;
}

/**
 * The same prompt as far as the last example's answer cue, which is then its last token; what an encoder reads keeps the special
 * tokens behind that its prompts end in. Where tokens see those behind them too, only so its activations know nothing of that
 * example's answer and the question; in a causal model they are what they are in the whole prompt.
 */
export function upToLastExample(model: ModelOutline, prompt: Prompt<PromptImage>): Prompt<PromptImage> {
  checkArgument("upToLastExample", "model", model, aModelOutline);
  checkArgument("upToLastExample", "prompt", prompt, aPrompt);
  const cue = atLastExample(prompt);
  const end = model.config.encoder ? model.tokenizer.suffix : [];
  const before = Object.entries(prompt.spans).filter(
    ([name, { start }]) => /^image\d*$/.test(name) && start < cue,
  );
  return model.promptFromIds(
    [...prompt.ids.slice(0, cue + 1), ...end],
    prompt.images.slice(0, before.length),
  );
}

/**
 * An instruction and then a question without its answer: `The capital city of the country:\nQ: Italy\nA:`. The task
 * vector of an instruction is read at the last token of `model.prompt(instruction)`, which knows no question.
 *
 * @throws PromptError as {@link fewShotPrompt} does
 */
export function instructedPrompt(
  model: ModelOutline,
  instruction: string,
  question: Question,
  template = SPACED_TEMPLATE,
): Prompt<PromptImage> {
  return model.prompt([`${instruction}\n`, ...ask(splitTemplate(template), question)]);
}

/** How many examples, and which draw. */
export interface DrawOptions {
  /** Number of examples. Default 5. */
  readonly count?: number;
  /** Other seeds draw other examples. Default 0. */
  readonly seed?: number;
}

/**
 * Items to show before a query, drawn at random from the other items of `pool`, in random order. The draw depends on the
 * seed, the query's input and the inputs of the pool, not on the order of the pool or of calls.
 *
 * @throws XpatchError if the pool is too small
 */
export function drawItems<T extends TaskItem>(
  pool: readonly T[],
  query: Pick<TaskItem, "input">,
  options: DrawOptions = {},
): T[] {
  checkArgument("drawItems", "pool", pool, anArray);
  checkOptions("drawItems", options, { count: aNumber, seed: aNumber });
  const { count = 5, seed = 0 } = options;
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
    .map(({ item }) => item);
}

/** Examples for a query as text: the items that {@link drawItems} draws, each with its first output. */
export function drawExamples(
  pool: readonly TaskItem[],
  query: Pick<TaskItem, "input">,
  options: DrawOptions = {},
): Example[] {
  return drawItems(pool, query, options).map((item) => exampleOf(item));
}

/** An item with its first output as answer; `asked` may be the `Pictures` that `loadPictures` gives. */
export function exampleOf(item: TaskItem, asked: Asker = byText): Example {
  return { question: asked(item), answer: item.outputs[0]! };
}

/** The pieces around {x} and {y}: `before` {x} `cue` `gap` {y} `after`, where `gap` is white space. */
interface TemplatePieces {
  readonly before: string;
  readonly cue: string;
  readonly gap: string;
  readonly after: string;
}

/** A question up to its answer cue, whose end may get a name. */
function ask(
  { before, cue }: TemplatePieces,
  question: Question,
  name?: string,
): (PromptPart<PromptImage> | PromptImage)[] {
  const end = cue.at(-1)!;
  return [
    typeof question === "string" ? before : before.trimEnd(),
    question,
    cue.slice(0, -1),
    name === undefined ? end : { text: end, name },
  ];
}

/** Throws PromptError if a template lacks {x}, then some text, then {y}, each once. */
export function checkTemplate(template: string): void {
  splitTemplate(template);
}

function splitTemplate(template: string): TemplatePieces {
  checkArgument("fewShotPrompt", "template", template, aString);
  const [, before, between, after] = /^(.*)\{x\}(.*)\{y\}(.*)$/s.exec(template) ?? [];
  const cue = between?.trimEnd();
  if (before === undefined || !cue || /\{[xy]\}/.test(before + cue + after)) {
    throw new PromptError(
      `Expected a template with {x}, some text and {y}, each once, found ${JSON.stringify(template)}.`,
    );
  }
  return { before, cue, gap: between!.slice(cue.length), after: after! };
}
