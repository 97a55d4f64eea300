import { patchEach } from "../analysis/vectors/sweep-layers.ts";
import { batches } from "../analysis/vectors/task-vectors.ts";
import { XpatchError } from "../errors.ts";
import type { ModelOutline } from "../model/language-model.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { checkChoice, choicesOf, mostProbable } from "../model/walk/sampling.ts";
import { type Edit, set } from "../patching/edit.ts";
import type { PatchableModel } from "../patching/model.ts";
import type { OnePosition } from "../patching/positions.ts";
import { type Tap, tap } from "../patching/tap.ts";
import { atLastExample, byText, exampleOf, fewShotPrompt, PAPER_TEMPLATE } from "../tasks/few-shot.ts";
import { loadPictures } from "../tasks/pictures.ts";
import type { Modality } from "../tasks/specification.ts";
import type { PicturedItem, TaskItem } from "../tasks/task.ts";
import { showShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { AuthorsSplit, AuthorsTask } from "./authors-folder.ts";
import { type Check, checkTensor, type Tolerance } from "./checks.ts";

/** Pixels that the authors make pictures wide before the processor. */
const PICTURE_WIDTH = 224;

/** Tokens of prompts in one pass; bounds the memory. */
const BATCH_TOKENS = 1024;

/** How far from the authors' program is near enough. */
export interface AuthorsRule {
  /**
   * An answer that differs is a tie where xpatch gives the authors' token a logit that is at most so much below that of its
   * own; any other difference is a failure.
   */
  readonly tie: number;
  /** Of the task vectors. */
  readonly vectors: Tolerance;
}

/** Weights as the authors' program read them, or as they are stored. */
export type AuthorsWeights = "f32" | "stored";

/**
 * In f32 two programs differ by the order in which they add. As stored in f16, weights are rounded: on the model that comes
 * along that moved the gap between the top logit and the next 49 by at most 0.022 in 156 runs, and vectors by a relative
 * norm of 5e-4.
 */
export const AUTHORS_RULES: Readonly<Record<AuthorsWeights, AuthorsRule>> = {
  f32: { tie: 1e-3, vectors: { atol: 1e-4, rtol: 1e-4 } },
  stored: { tie: 2.5e-2, vectors: { atol: 5e-2, rtol: 1e-2 } },
};

export const WAYS = ["no context", "prompt", "patch"] as const;
export type Way = (typeof WAYS)[number];

/** An answer that is not that of the authors' program. */
export interface Difference {
  readonly examples: Modality;
  readonly query: Modality;
  readonly task: string;
  readonly split: AuthorsSplit["split"];
  readonly item: number;
  readonly input: string;
  readonly way: Way;
  /** The layer patched. */
  readonly layer?: number;
  readonly expected: string;
  readonly found: string;
  /** xpatch's logit of what it answers less its logit of what was expected; infinite where no token reads so. */
  readonly margin: number;
  readonly tie: boolean;
}

/** Answers of one split, by how they were asked for. */
export interface SplitCount {
  readonly examples: Modality;
  readonly query: Modality;
  readonly task: string;
  readonly split: AuthorsSplit["split"];
  readonly items: number;
  readonly compared: Readonly<Record<Way, number>>;
  readonly same: Readonly<Record<Way, number>>;
}

export interface AuthorsComparison {
  readonly counts: readonly SplitCount[];
  readonly differences: readonly Difference[];
  /** Of the vectors, a check a task and direction. */
  readonly vectors: readonly Check[];
}

/**
 * Asks what the authors' program was asked, item by item: without context, behind the drawn examples, and patched in every
 * layer with vectors extracted here. Throws XpatchError where the model does not fit the folder.
 */
export async function compareWithAuthors(
  tasks: readonly AuthorsTask[],
  model: PatchableModel,
  rule: AuthorsRule,
  onProgress: (done: number, total: number) => void = () => {},
): Promise<AuthorsComparison> {
  const total = tasks.reduce((sum, { splits }) => sum + splits.length, 0);
  const counts: SplitCount[] = [];
  const differences: Difference[] = [];
  const vectors: Check[] = [];
  const margins = new Margins(model);
  for (const task of tasks) {
    checkFit(task, model);
    const asked: Asked[] = [];
    for (const split of task.splits) asked.push(await ask(model, task, split));
    const context: Context[] = [];
    for (const { inContext } of asked) context.push(await readContext(model, inContext));
    // Of val, whatever the split asked about.
    const own = context[0]!.means;
    const name = `${task.examples}-${task.query}/${task.task}, vectors`;
    vectors.push(checkTensor(name, [own], [task.vectors.values], rule.vectors));
    const patches = task.splits[0]!.patched.map((_, layer) => patchAt(layer, own, model.config.width));
    for (const [s, { split, bare, inContext }] of asked.entries()) {
      const prompted = context[s]!.ids;
      const { unpatched, patched } = await patchEach(model, bare, patches);
      const answers: Answer[] = [
        ...split.noContext.map(
          (expected, item): Answer => ({ way: "no context", item, expected, id: unpatched[item]! }),
        ),
        ...split.prompt.map(
          (expected, item): Answer => ({ way: "prompt", item, expected, id: prompted[item]! }),
        ),
        ...split.patched.flatMap((byItem, layer) =>
          byItem.map(
            (expected, item): Answer => ({ way: "patch", layer, item, expected, id: patched[layer]![item]! }),
          ),
        ),
      ];
      const where = { examples: task.examples, query: task.query, task: task.task, split: split.split };
      const same: Record<Way, number> = { "no context": 0, prompt: 0, patch: 0 };
      const compared = { ...same };
      for (const { way, layer, item, expected, id } of answers) {
        compared[way]++;
        const found = margins.textOf(id);
        if (found === expected) {
          same[way]++;
          continue;
        }
        const prompt = (way === "prompt" ? inContext : bare)[item]!;
        const edits = layer === undefined ? [] : patches[layer]!;
        const margin = await margins.of(prompt, edits, id, expected);
        const { input } = split.items[item]!;
        const at = { ...where, item, input, way, ...(layer !== undefined && { layer }) };
        differences.push({ ...at, expected, found, margin, tie: margin <= rule.tie });
      }
      counts.push({ ...where, items: split.items.length, compared, same });
      onProgress(counts.length, total);
    }
  }
  return { counts, differences, vectors };
}

/** A token to compare with an answer of the authors' program. */
interface Answer {
  readonly way: Way;
  readonly layer?: number;
  readonly item: number;
  readonly expected: string;
  readonly id: number;
}

/** Throws XpatchError for answers of a model with other layers or another width. */
export function checkFit({ task, splits, vectors }: AuthorsTask, { name, config }: ModelOutline): void {
  const expected = [config.layers, config.width];
  if (vectors.shape.join() !== expected.join()) {
    throw new XpatchError(
      `${task}: expected vectors ${showShape(expected)} for ${name}, found ${showShape(vectors.shape)}`,
    );
  }
  for (const { file, patched } of splits) {
    if (patched.length === config.layers) continue;
    throw new XpatchError(`${file}: expected answers for ${config.layers} layers, found ${patched.length}`);
  }
}

/** A split with the authors' prompts: the bare queries, and those behind the examples that they drew. */
interface Asked {
  readonly split: AuthorsSplit;
  readonly bare: readonly Prompt[];
  readonly inContext: readonly Prompt[];
}

async function ask(
  model: PatchableModel,
  { examples, query }: AuthorsTask,
  split: AuthorsSplit,
): Promise<Asked> {
  const { items, drawn, file } = split;
  const pictured = examples === "image" || query === "image";
  const pictures = pictured
    ? await loadPictures(
        model,
        items.map((item, i) => picturedItem(item, `${file}: items[${i}]`)),
        {
          width: PICTURE_WIDTH,
        },
      )
    : undefined;
  const askerOf = (modality: Modality) => (modality === "image" ? pictures! : byText);
  const question = askerOf(query);
  return {
    split,
    bare: items.map((item) => fewShotPrompt(model, [], question(item), PAPER_TEMPLATE)),
    inContext: items.map((item, i) => {
      const shown = drawn[i]!.map((index) => exampleOf(items[index]!, askerOf(examples)));
      return fewShotPrompt(model, shown, question(item), PAPER_TEMPLATE);
    }),
  };
}

function picturedItem(item: TaskItem, where: string): PicturedItem {
  const { image } = item;
  if (image !== undefined) return { ...item, image };
  throw new XpatchError(`${where}: expected a picture`);
}

/** What one pass over prompts in context gives. */
interface Context {
  /** The most probable next token of each. */
  readonly ids: readonly number[];
  /** The residual stream behind each layer, where the task vector is read, averaged over the prompts: [layers, width]. */
  readonly means: Float32Array;
}

async function readContext(model: PatchableModel, prompts: readonly Prompt[]): Promise<Context> {
  const { layers, width } = model.config;
  const taps: Record<string, Tap<OnePosition>> = {};
  for (let layer = 0; layer < layers; layer++) taps[`${layer}`] = tap(`resid_post.${layer}`, atLastExample);
  const ids: number[] = [];
  const sums = new Float64Array(layers * width);
  for (const batch of batches(prompts, BATCH_TOKENS)) {
    const scope = model.device.openScope();
    try {
      const wanted = scope.enter(() => {
        const { logits, ...tapped } = model.run(batch, { taps });
        const chosen = mostProbable(logits as Tensor);
        const byLayer = Array.from({ length: layers }, (_, layer) => tapped[`${layer}`] as Tensor);
        return [chosen, ...byLayer];
      });
      const [chosen, ...byLayer] = await model.device.read<readonly Tensor[]>(wanted);
      const { ids: tokens, logits } = choicesOf(chosen as Uint32Array);
      logits.forEach((value, i) => {
        checkChoice(value, () => `prompt ${ids.length + i}`);
      });
      ids.push(...tokens);
      byLayer.forEach((rows, layer) => {
        rows.forEach((value, i) => {
          sums[layer * width + (i % width)]! += value;
        });
      });
    } finally {
      scope.dispose();
    }
  }
  return { ids, means: Float32Array.from(sums, (sum) => sum / prompts.length) };
}

/** Puts a layer's row of [layers, width] in place of the residual stream at the last token. */
function patchAt(layer: number, vectors: Float32Array, width: number): Edit[] {
  return [set(`resid_post.${layer}`, -1, vectors.slice(layer * width, (layer + 1) * width))];
}

/** How far an expected answer is from being given. */
class Margins {
  readonly #model: PatchableModel;
  #texts: readonly string[] | undefined;

  constructor(model: PatchableModel) {
    this.#model = model;
  }

  /** A token as an answer. */
  textOf(id: number): string {
    return this.#model.tokenizer.decode([id], { skipSpecial: true });
  }

  /** The logit of `id` behind a prompt, less the largest one of the tokens that read as `expected`. */
  async of(prompt: Prompt, edits: readonly Edit[], id: number, expected: string): Promise<number> {
    const { device, config } = this.#model;
    this.#texts ??= Array.from({ length: config.vocab }, (_, token) => this.textOf(token));
    using row = device.scope(() => this.#model.run(prompt, { edits }).logits as Tensor<"f32">);
    const logits = await row.read();
    const rivals = logits.filter((_, token) => this.#texts![token] === expected);
    return logits[id]! - rivals.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  }
}
