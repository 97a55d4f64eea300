import { aNumber, type Options, oneOf } from "../../arguments.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { PromptImage } from "../../model/prompt/prompt-image.ts";
import { answerEach, firstLine } from "../../patching/answer.ts";
import type { Generated } from "../../patching/generate.ts";
import type { PatchableModel } from "../../patching/model.ts";
import { type Asker, fewShotPrompt } from "../../tasks/few-shot.ts";
import { type ScoredAnswers, scoreTokens } from "../../tasks/score.ts";
import {
  askerIn,
  checkTask,
  itemsIn,
  MODALITIES,
  type Modality,
  poolOf,
  promptInContext,
  SPECIFY_OPTIONS,
  type Specification,
  type SpecifyOptions,
  specify,
} from "../../tasks/specification.ts";
import type { Task, TaskItem } from "../../tasks/task.ts";
import { chooseLayer, type LayerChoice } from "./layer-choice.ts";
import { patchEach, patchOf } from "./sweep-layers.ts";
import { type SwitchedTask, scoreSwitch } from "./switch.ts";
import type { TaskVectors } from "./task-vectors.ts";

/** Prompts with context in one pass: few, so that progress is seen. */
const BATCH_PROMPTS = 8;

/** How the task is specified, how it is asked about, and over how many items. */
export interface TransferOptions extends SpecifyOptions {
  /** What the questions are: the items' text, or their pictures. */
  readonly query: Modality;
  /** Most validation items that the layer is chosen by, and most test items. Default: all there are. */
  readonly sweepItems?: number;
  readonly testItems?: number;
}

const OPTIONS: Options<TransferOptions> = {
  ...SPECIFY_OPTIONS,
  query: oneOf(...MODALITIES),
  sweepItems: aNumber,
  testItems: aNumber,
};

/** What {@link Transfer.test} does beside patching the task's own vector. */
export interface TestOptions {
  /** Vectors of other tasks of the same things, to be tried on the same questions. */
  readonly others?: readonly { readonly task: Task; readonly vectors: TaskVectors }[];
  /** How many of the questions are answered at more length, and in how many tokens. */
  readonly shown?: number;
  readonly shownTokens?: number;
  /** Called with the number of questions done. */
  readonly onProgress?: (done: number, total: number) => void;
}

/** Something of the bare question, of the question in context, and of the bare question with a vector patched in. */
export interface ThreeWays<T> {
  /** The question alone. */
  readonly noContext: T;
  /** Behind the examples or the instruction. */
  readonly prompted: T;
  /** The question alone, with the task vector patched in. */
  readonly patched: T;
}

/** Scores of one token for each test question. */
export interface TransferTest extends ThreeWays<ScoredAnswers> {
  /** The answers without context, scored as names of what is asked about. */
  readonly named: ScoredAnswers;
  /** The first questions at more length. */
  readonly shown: readonly ShownItem[];
  /** With the vectors of other tasks of the same things. */
  readonly switched: readonly SwitchedTask[];
}

/** First lines of answers. */
export interface ShownItem extends ThreeWays<string> {
  /** What is asked about. */
  readonly item: TaskItem;
  /** With the vectors of the other tasks, in their order. */
  readonly switched: readonly string[];
}

interface Prepared {
  readonly model: PatchableModel;
  readonly tuned: readonly TaskItem[];
  readonly tested: readonly TaskItem[];
  readonly asked: Asker;
  /** What examples before test questions are drawn from. */
  readonly pool: readonly TaskItem[];
  readonly specification: Specification;
}

/**
 * The experiment of Luo et al. 2025 (arXiv 2410.22330) on one task: the vector of a task that is given in one way goes
 * into questions of another kind. The layer is chosen on validation items; test items are asked with examples of the test
 * split.
 */
export class Transfer {
  readonly #prepared: Prepared;

  private constructor(prepared: Prepared) {
    this.#prepared = prepared;
  }

  /** Finds the items and loads their pictures. Throws XpatchError, PromptError or ImageError where there are none. */
  static async open(model: PatchableModel, task: Task, options: TransferOptions): Promise<Transfer> {
    checkTask("Transfer.open", model, task, options, OPTIONS);
    const { query, sweepItems, testItems, ...given } = options;
    const tuned = itemsIn(query, task, "validation").slice(0, sweepItems);
    const tested = itemsIn(query, task, "test").slice(0, testItems);
    const asked = await askerIn(query, model, [...tuned, ...tested]);
    const pool = poolOf(given.kind, task, "test");
    const specification = await specify(model, task, pool, given);
    return new Transfer({ model, tuned, tested, asked, pool, specification });
  }

  /** The test items that are asked about. */
  get tested(): readonly TaskItem[] {
    return this.#prepared.tested;
  }

  /** The bare question about an item. */
  query(item: TaskItem): Prompt<PromptImage> {
    const { model, asked, specification } = this.#prepared;
    return fewShotPrompt(model, [], asked(item), specification.template);
  }

  /** The question about a test item behind what tells the task. */
  inContext(item: TaskItem): Prompt<PromptImage> {
    const { model, asked, specification, pool } = this.#prepared;
    return promptInContext(model, specification, pool, item, asked(item));
  }

  /** Scores each layer's vector on validation items. */
  sweep(vectors: TaskVectors, onProgress?: (done: number, total: number) => void): Promise<LayerChoice> {
    const { model, tuned, asked, specification } = this.#prepared;
    return chooseLayer(model, tuned, asked, vectors, { template: specification.template, onProgress });
  }

  /** Asks the test questions without context, with it, and with a layer's vector patched in. */
  async test(vectors: TaskVectors, layer: number, options: TestOptions = {}): Promise<TransferTest> {
    const { others = [], shown = 0, shownTokens = 5, onProgress } = options;
    const { model, tested } = this.#prepared;
    const queries = tested.map((item) => this.query(item));
    const contexts = tested.map((item) => this.inContext(item));
    const patches = [vectors, ...others.map((other) => other.vectors)].map((v) => patchOf(v, layer));
    const { unpatched, patched } = await patchEach(
      model,
      queries,
      patches.map((patch) => [patch]),
    );
    const long = await answerEach(
      model,
      queries.slice(0, shown),
      [[], ...patches.map((patch) => [patch])],
      shownTokens,
    );

    const prompted: Generated[] = [];
    while (prompted.length < contexts.length) {
      const batch = contexts.slice(prompted.length, prompted.length + BATCH_PROMPTS);
      const maxNewTokens = prompted.length < shown ? shownTokens : 1;
      prompted.push(...(await model.generate(batch, { maxNewTokens })));
      onProgress?.(prompted.length, tested.length);
    }

    const { tokenizer } = model;
    const score = (ids: readonly number[]) => scoreTokens(tokenizer, tested, ids);
    const line = (answer: Generated) => firstLine(tokenizer, answer);
    const names = tested.map((item) => ({ ...item, outputs: [item.input] }));
    return {
      noContext: score(unpatched),
      prompted: score(prompted.map(({ ids }) => ids[0]!)),
      patched: score(patched[0]!),
      named: scoreTokens(tokenizer, names, unpatched),
      shown: tested.slice(0, shown).map((item, q) => {
        const [noContext, own, ...switched] = long.map((answers) => line(answers[q]!));
        return { item, noContext: noContext!, prompted: line(prompted[q]!), patched: own!, switched };
      }),
      switched: others.map(({ task }, i) =>
        scoreSwitch(tokenizer, tested, patched[0]!, task, patched[i + 1]!),
      ),
    };
  }
}
