import {
  addVector,
  answeredPrompt,
  cosineSchedule,
  type Edit,
  exampleOf,
  Lora,
  type Modality,
  mul,
  type Prompt,
  type PromptImage,
  set,
  shuffledBatch,
  square,
  sub,
  sum,
  type Task,
  type Tensor,
  Trainer,
  tap,
  XpatchError,
} from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { queries, specifiedQueries } from "../framework/prompts.ts";
import { type Answered, answered, type Scored, scored } from "../framework/scored.ts";
import { dot, norm, randomLike } from "../statistics/vectors.ts";
import { type Labelled, labelledItems, tuningVector } from "./tuning-vectors.ts";

/** What is added to the residual stream at a query's last token. */
type Start = "zero" | "task" | "random";

/** What a training trains, and what of the task vector it has. */
interface Arm {
  readonly name: string;
  /** Whether an adapter is trained. */
  readonly lora?: boolean;
  readonly start?: Start;
  /** Whether what is added is trained. */
  readonly trained?: boolean;
  /** Whether the residual stream is drawn to the task vector by a loss of its own. */
  readonly towards?: boolean;
}

export const ARMS = {
  "vector-zero": { name: "vector, from zero", start: "zero", trained: true },
  "vector-task": { name: "vector, from the task vector", start: "task", trained: true },
  "vector-random": { name: "vector, from a random one", start: "random", trained: true },
  lora: { name: "LoRA", lora: true },
  "lora-added": { name: "LoRA, task vector added", lora: true, start: "task" },
  "lora-trained": { name: "LoRA, task vector added and trained", lora: true, start: "task", trained: true },
  "lora-towards": { name: "LoRA, loss towards the task vector", lora: true, towards: true },
  "lora-random": { name: "LoRA, random vector added", lora: true, start: "random" },
} as const satisfies Readonly<Record<string, Arm>>;

export type ArmName = keyof typeof ARMS;

export interface TrainingParams extends Labelled {
  readonly arm: ArmName;
  readonly steps: number;
}

const RANK = 4;
const BATCH = 8;
const RATE = 1 / 512;
const WARM_UP = 2;
/** What a step moves a trained vector by at most, in each dimension, of what the task vector's direction has there on average. */
const VECTOR_STEP = 0.1;
const SETUP = { specification: "text", query: "text" } as const;

/** Of text queries, and of image queries where the task has pictures. */
export type ByQuery<T> = { readonly text: T; readonly image?: T };

export interface UntrainedResult {
  readonly layer: number;
  readonly noContext: ByQuery<Answered>;
  /** The task vector in place of the residual stream, as everywhere else. */
  readonly patch: ByQuery<Answered>;
  /** Its direction added to it, where trainings begin. */
  readonly added: ByQuery<Answered>;
  readonly random: ByQuery<Answered>;
}

/** What the task vector of the labelled items does without training. */
export const untrained = defineCell(
  "fine-tuning-untrained",
  async (lab, params: Labelled): Promise<UntrainedResult> => {
    const { layer, vector, direction } = await tuningVector(lab, params);
    const other = randomLike(direction, params.seed);
    const site = `resid_post.${layer}` as const;
    const edits = [set(site, -1, vector), addVector(site, -1, direction), addVector(site, -1, other)];
    const each = await byQuery(lab, params.task, async (prompts, score) => {
      const { unpatched, patched } = await lab.patchEach(
        prompts,
        edits.map((edit) => [edit]),
      );
      return [unpatched, ...patched].map(score);
    });
    const pick = (index: number): ByQuery<Answered> => ({
      text: each.text[index]!,
      ...(each.image && { image: each.image[index]! }),
    });
    return { layer, noContext: pick(0), patch: pick(1), added: pick(2), random: pick(3) };
  },
);

export interface TrainedResult {
  /** By step, before it: mean over the answers' tokens, the auxiliary loss included. */
  readonly losses: readonly number[];
  /** Answers to text queries after so many steps. */
  readonly bySteps: readonly { readonly steps: number; readonly text: Scored }[];
  /** At the end. */
  readonly end: ByQuery<Answered>;
  /** Of an adapter: another task behind its text examples, without the vector. */
  readonly elsewhere?: Answered;
}

/** After how many steps answers are looked at: before any, after a quarter, half and all of them. */
export function checkpoints(steps: number): number[] {
  return [...new Set([0, Math.round(steps / 4), Math.round(steps / 2), steps])];
}

/** One training on the labelled items of a task, asked as text without context, and its answers to test items. */
export const trained = defineCell(
  "fine-tuning",
  async (lab, params: TrainingParams): Promise<TrainedResult> => {
    const { task: name, seed, steps } = params;
    const { model } = lab;
    const task = lab.task(name);
    const arm: Arm = ARMS[params.arm];
    const prompts = labelledItems(lab, params).map((item) =>
      answeredPrompt(model, [], exampleOf(item), lab.options.template),
    );
    using made = await madeFor(lab, params);
    const { parameters, edits } = made;
    using trainer = new Trainer(model, {
      parameters,
      edits: edits(beforeAnswer),
      loss: { span: "answer" },
      schedule: (step) => cosineSchedule(step, steps, { warmUp: Math.min(WARM_UP, steps - 1) }),
      learningRate: RATE,
      weightDecay: 0,
      ...(made.auxiliary && { auxiliary: made.auxiliary }),
    });
    const items = lab.items(task, "test");
    const asked = await queries(lab, task, "test", "text");
    const bySteps: { steps: number; text: Scored }[] = [];
    const losses: number[] = [];
    for (let step = 0; step <= steps; step++) {
      if (checkpoints(steps).includes(step)) {
        const ids = await lab.answers(asked, edits(-1));
        bySteps.push({ steps: step, text: scored(model.tokenizer, items, ids, lab.options) });
      }
      if (step === steps) break;
      const batch = shuffledBatch(prompts.length, Math.min(BATCH, prompts.length), { step, seed });
      losses.push(
        await oneStep(
          lab,
          trainer,
          batch.map((i) => prompts[i]!),
        ),
      );
    }
    const end = await byQuery(lab, name, async (query, score) => score(await lab.answers(query, edits(-1))));
    const other = arm.lora ? otherTask(lab, task) : undefined;
    return { losses, bySteps, end, ...(other && { elsewhere: await answersElsewhere(lab, other) }) };
  },
);

/** The loss before the step. Throws XpatchError where it is not finite. */
async function oneStep(lab: Lab, trainer: Trainer, prompts: readonly Prompt[]): Promise<number> {
  const { loss, gradNorm } = trainer.step(prompts);
  const [[value], [norm]] = (await lab.model.device.read([loss, gradNorm])).map(([number]) => [number!]) as [
    [number],
    [number],
  ];
  loss.dispose();
  gradNorm.dispose();
  lab.spendPasses(prompts, lab.model);
  if (Number.isFinite(value) && Number.isFinite(norm)) return value;
  throw new XpatchError(
    `fine-tuning: the loss is ${value}, the gradient's norm ${norm}: training has diverged`,
  );
}

interface Made {
  readonly parameters: Readonly<Record<string, Tensor>>;
  readonly edits: (at: Edit["at"]) => Edit[];
  readonly auxiliary?: NonNullable<ConstructorParameters<typeof Trainer>[1]["auxiliary"]>;
  [Symbol.dispose](): void;
}

/** What an arm trains, as it is before the first step. */
async function madeFor(lab: Lab, params: TrainingParams): Promise<Made> {
  const { model } = lab;
  const { device } = model;
  const arm: Arm = ARMS[params.arm];
  const { layer, vector, direction } = await tuningVector(lab, params);
  const site = `resid_post.${layer}` as const;
  const scale = vectorScale(direction);
  const start = arm.start && startOf(arm.start, direction, params.seed).map((x) => x / scale);
  const added = start && device.tensor(start);
  const lora = arm.lora
    ? new Lora(model, { rank: RANK, modules: projections(lab), seed: params.seed })
    : undefined;
  const target = arm.towards ? device.tensor(vector) : undefined;
  return {
    parameters: { ...lora?.parameters, ...(added && arm.trained && { vector: added }) },
    edits: (at) => (added ? [addVector(site, at, added, { scale })] : []),
    ...(target && {
      auxiliary: {
        taps: { stream: tap(site, beforeAnswer) },
        // Squared distance, 1 for the mean bare query: [prompts]
        of: ({ stream }) => mul(sum(square(sub(stream!, target)), -1), 1 / dot(direction, direction)),
      },
    }),
    [Symbol.dispose]() {
      lora?.dispose();
      added?.dispose();
      target?.dispose();
    },
  };
}

function startOf(start: Start, direction: Float32Array, seed: number): Float32Array {
  if (start === "zero") return new Float32Array(direction.length);
  return start === "task" ? direction : randomLike(direction, seed);
}

/** A trained vector is this times its parameter, which moves by {@link RATE}; a power of 2, so that it rounds nothing. */
function vectorScale(direction: Float32Array): number {
  const size = norm(direction) / Math.sqrt(direction.length);
  return 2 ** Math.round(Math.log2((VECTOR_STEP * size) / RATE));
}

/** The last token before the answer: the query's last. */
const beforeAnswer = (prompt: Prompt): number => prompt.span("answer").start - 1;

/**
 * The projections of queries and values in the language model, by their usual names; not those of a vision tower or of attention
 * to it, which texts do not go through.
 */
export function projections({ model }: Pick<Lab, "model">): string[] {
  const names = model.parameterNames.filter((name) => !/vision|visual|cross|perceiver/.test(name));
  const ending = (ends: RegExp) =>
    names.filter((name) => ends.test(name)).map((name) => name.slice(0, -".weight".length));
  const apart = ending(/\.(q_proj|v_proj)\.weight$/);
  return apart.length > 0 ? apart : ending(/\.(c_attn|query_key_value|qkv_proj)\.weight$/);
}

/** The task that forgetting is seen in: of those in the means the one behind this. */
export function otherTask(lab: Lab, task: Task): Task | undefined {
  const tasks = lab.tasksInMeans;
  const other = tasks[(tasks.indexOf(task) + 1) % tasks.length];
  return other === task ? undefined : other;
}

/** Test items behind text examples of seed 0, as `test-prompt` asks them. */
async function answersElsewhere(lab: Lab, task: Task): Promise<Answered> {
  const prompts = await specifiedQueries(lab, task, { split: "test", ...SETUP, seed: 0 });
  return answered(lab.model.tokenizer, lab.items(task, "test"), await lab.answers(prompts), lab.options);
}

async function byQuery<T>(
  lab: Lab,
  name: string,
  ask: (prompts: readonly Prompt<PromptImage>[], score: (ids: readonly number[]) => Answered) => Promise<T>,
): Promise<ByQuery<T>> {
  const task = lab.task(name);
  const items = lab.items(task, "test");
  const score = (ids: readonly number[]) => answered(lab.model.tokenizer, items, ids, lab.options);
  const of = async (query: Modality) => ask(await queries(lab, task, "test", query), score);
  return { text: await of("text"), ...(lab.isPictured(task) && { image: await of("image") }) };
}
