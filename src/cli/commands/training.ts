import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { FolderLock } from "#experiments/index";
import { encodeTaskVectors, TaskVectors } from "../../analysis/vectors/task-vectors.ts";
import { XpatchError } from "../../errors.ts";
import { hashPrompts, type Prompt } from "../../model/prompt/prompt.ts";
import { addVector, type Edit } from "../../patching/edit.ts";
import type { PatchableModel } from "../../patching/model.ts";
import type { OnePosition } from "../../patching/positions.ts";
import { type Setting, settingOf, showSetting } from "../../patching/setting.ts";
import { openFile } from "../../platform/node-file.ts";
import { writeWhole } from "../../platform/node-write.ts";
import { type ScoredAnswers, scoreTokens } from "../../tasks/score.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import {
  checkTraining,
  encodeTraining,
  restoreTraining,
  type TrainingSettings,
} from "../../training/checkpoint.ts";
import { shuffledBatch } from "../../training/data-order.ts";
import { Lora } from "../../training/lora.ts";
import { saveAdapter } from "../../training/save-adapter.ts";
import { cosineSchedule } from "../../training/schedule.ts";
import { Trainer } from "../../training/trainer.ts";
import { readOptions } from "../options/session.ts";
import { showCount, showPercent, table } from "../terminal/layout.ts";
import { note } from "../terminal/output.ts";
import { withProgress } from "../terminal/progress.ts";
import type { TrainArguments, TrainingData } from "./train.ts";
import { LOG, TrainingLog } from "./training-log.ts";

/** What a training goes on from, in the folder of what it trains. */
export const CHECKPOINT = "training.safetensors";
const STEERING = "steering.safetensors";
/** Questions that are scored in one pass: few, so that progress is seen. */
const SCORED_AT_ONCE = 8;

interface StepReport {
  /** From 1. */
  readonly step: number;
  /** Mean over the answers' tokens, before the step. */
  readonly loss: number;
  readonly gradNorm: number;
}

export interface TrainReport extends Setting {
  readonly task: string;
  readonly items: number;
  /** What was trained, in words, and how many numbers that are. */
  readonly trained: string;
  readonly parameters: number;
  /** Steps in all, and how many of them an earlier run had done. */
  readonly total: number;
  readonly resumedAt: number;
  /** Those of this run. */
  readonly steps: readonly StepReport[];
  readonly seconds: number;
  readonly tokensPerSecond: number;
  /** One new token for each held-out question. */
  readonly before: ScoredAnswers;
  readonly after: ScoredAnswers;
  readonly files: readonly string[];
}

/** What a command trains. */
interface Trained {
  readonly words: string;
  readonly parameters: Readonly<Record<string, Tensor>>;
  /** Where training prompts, and questions without answer, are changed. */
  edits(at: OnePosition): Edit[];
  /** Files by name. */
  save(write: (name: string, chunks: AsyncIterable<Uint8Array> | Uint8Array) => Promise<void>): Promise<void>;
  dispose(): void;
}

function adapterOf(
  model: PatchableModel,
  { lora: modules, rank, alpha, seed, model: base }: TrainArguments,
): Trained {
  const lora = new Lora(model, { modules, rank, seed, ...(alpha !== undefined && { alpha }) });
  return {
    words: `LoRA of rank ${rank} on ${lora.modules.length} layers`,
    parameters: lora.parameters,
    edits: () => [],
    save: (write) => saveAdapter(lora, model, { write }, { base }),
    dispose: () => lora.dispose(),
  };
}

function steeringOf(model: PatchableModel, layer: number, prompts: readonly Prompt[]): Trained {
  const vector = model.device.zeros([model.config.width]);
  return {
    words: `a vector at resid_post.${layer}`,
    parameters: { steering: vector },
    edits: (at) => [addVector(`resid_post.${layer}`, at, vector)],
    async save(write) {
      using vectors = new TaskVectors(vector.reshape([1, vector.size]), {
        model: model.name,
        site: "resid_post",
        layers: [layer],
        position: "-1",
        prompts: prompts.length,
        promptHash: hashPrompts(prompts),
        weights: model.storedDtypes[0] ?? "",
      });
      await write(STEERING, await encodeTaskVectors(vectors));
    },
    dispose: () => vector.dispose(),
  };
}

/** The last token before the answer. */
const beforeAnswer: OnePosition = (prompt) => prompt.span("answer").start - 1;

/** Where it is written. */
export interface TrainingFolder {
  readonly lock: FolderLock;
  /** Whether it holds a checkpoint to go on from. */
  kept(): boolean;
}

/** Throws CheckpointError for a checkpoint of another training. */
export async function checkKept(data: TrainingData, args: TrainArguments): Promise<void> {
  await checkTraining(await openFile(join(args.out, CHECKPOINT)), settingsOf(data, args));
}

/** Trains, scores before and after, and writes what was trained; goes on from the folder's checkpoint where there is one. */
export async function train(
  model: PatchableModel,
  data: TrainingData,
  args: TrainArguments,
  { lock, kept }: TrainingFolder,
): Promise<TrainReport> {
  const { prompts } = data;
  const trained =
    args.steering === undefined ? adapterOf(model, args) : steeringOf(model, args.steering, prompts);
  const { steps: total, warmUp, lr, weightDecay, maxGradNorm, microBatch } = args;
  const path = join(args.out, CHECKPOINT);
  const settings = settingsOf(data, args);
  using trainer = new Trainer(model, {
    parameters: trained.parameters,
    loss: { span: "answer" },
    edits: trained.edits(beforeAnswer),
    schedule: (step) => cosineSchedule(step, total, { warmUp }),
    learningRate: lr,
    weightDecay,
    maxGradNorm,
    ...(microBatch !== undefined && { microBatch }),
  });
  try {
    const score = () => scored(model, data, trained.edits(-1));
    const before = await score();
    const resumedAt = kept() ? await restoreTraining(trainer, await openFile(path), settings) : 0;
    if (resumedAt > 0) note(`going on from step ${resumedAt} of ${total}`);
    const log = await TrainingLog.begin(join(args.out, LOG), resumedAt);
    if (resumedAt === 0) log.add({ step: 0, accuracy: before.accuracy });
    const save = async () => {
      lock.check();
      await writeWhole(path, encodeTraining(trainer, settings));
    };
    const run = await steps(trainer, data.prompts, args, { log, save });
    const after = await score();
    log.add({ step: total, accuracy: after.accuracy });
    const files: string[] = [];
    await trained.save(async (name, chunks) => {
      lock.check();
      await writeWhole(join(args.out, name), chunks);
      files.push(name);
    });
    await rm(path, { force: true });
    const parameters = Object.values(trained.parameters).reduce((sum, { size }) => sum + size, 0);
    return {
      ...settingOf(model, args.seed),
      ...{ task: data.task, items: prompts.length, trained: trained.words, parameters, total, resumedAt },
      ...run,
      ...{ before, after, files: files.map((name) => join(args.out, name)) },
    };
  } finally {
    trained.dispose();
  }
}

/** What the numbers of a training depend on: with these alike, a checkpoint can be gone on from. */
function settingsOf({ prompts }: TrainingData, args: TrainArguments): TrainingSettings {
  const { model, task, split, template, query, shots, seed, steps, batch, microBatch, lr } = args;
  const { warmUp, weightDecay, maxGradNorm, lora, rank, alpha, steering } = args;
  return {
    ...readOptions(args),
    ...{ model, task, split, template, query, shots, seed, steps, batch, microBatch, lr },
    ...{ warmUp, weightDecay, maxGradNorm },
    ...(steering === undefined ? { lora, rank, alpha } : { steering }),
    prompts: hashPrompts(prompts),
  };
}

/** The steps that are left, with a checkpoint after each. */
async function steps(
  trainer: Trainer,
  prompts: readonly Prompt[],
  { steps: total, batch, seed, lr, warmUp }: TrainArguments,
  { log, save }: { readonly log: TrainingLog; readonly save: () => Promise<void> },
): Promise<Pick<TrainReport, "steps" | "seconds" | "tokensPerSecond">> {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  const done: StepReport[] = [];
  let tokens = 0;
  await withProgress("training", async (update) => {
    const first = trainer.optimizer.steps;
    for (let step = first; step < total; step++) {
      const chosen = shuffledBatch(prompts.length, batch, { step, seed }).map((i) => prompts[i]!);
      const { loss: lossTensor, gradNorm: normTensor } = trainer.step(chosen);
      const read = await trainer.device.read([lossTensor, normTensor]);
      const [loss, gradNorm] = read.map(([value]) => value!) as [number, number];
      lossTensor.dispose();
      normTensor.dispose();
      if (!(Number.isFinite(loss) && Number.isFinite(gradNorm))) {
        throw new XpatchError(
          `step ${step + 1}: the loss is ${loss}, the gradient's norm ${gradNorm}; try a smaller --lr`,
        );
      }
      // Before the checkpoint, so that no step that is kept lacks its row.
      log.add({ step: step + 1, loss, gradnorm: gradNorm, lr: lr * cosineSchedule(step, total, { warmUp }) });
      await save();
      done.push({ step: step + 1, loss, gradNorm });
      tokens += chosen.reduce((sum, { length }) => sum + length, 0);
      const left = (seconds() / done.length) * (total - step - 1);
      update(
        step + 1,
        total,
        `loss ${loss.toFixed(3)}  gradient ${gradNorm.toFixed(2)}  ${Math.round(tokens / seconds())} tokens/s  ${showTime(left)} left`,
      );
    }
  });
  return { steps: done, seconds: seconds(), tokensPerSecond: tokens / seconds() };
}

function showTime(seconds: number): string {
  const [minutes, rest] = [Math.floor(seconds / 60), Math.round(seconds % 60)];
  return minutes > 0 ? `${minutes} min ${rest} s` : `${rest} s`;
}

async function scored(
  model: PatchableModel,
  { tested, queries }: TrainingData,
  edits: readonly Edit[],
): Promise<ScoredAnswers> {
  return withProgress("asking held-out questions", async (update) => {
    const ids: number[] = [];
    while (ids.length < queries.length) {
      const batch = queries.slice(ids.length, ids.length + SCORED_AT_ONCE);
      const answers = await model.generate(batch, { maxNewTokens: 1, edits });
      ids.push(...answers.map((answer) => answer.ids[0]!));
      update(ids.length, queries.length);
    }
    return scoreTokens(model.tokenizer, tested, ids);
  });
}

export function formatTraining(report: TrainReport): string {
  const { task, items, trained, parameters, total, resumedAt, steps, before, after, files } = report;
  const [first, last] = [steps[0], steps.at(-1)];
  const rows = [
    ["trained", `${trained}, ${showCount(parameters)} numbers`],
    ["on", `${task}, ${items} items, ${total} steps${resumedAt > 0 ? `, from step ${resumedAt} on` : ""}`],
    ...(first && last ? [["loss", `${first.loss.toFixed(3)} → ${last.loss.toFixed(3)}`]] : []),
    ["speed", `${Math.round(report.tokensPerSecond)} tokens/s, ${report.seconds.toFixed(0)} s`],
    ["written to", files.join(", ")],
  ];
  const scores = [
    ["held-out questions", "accuracy", "correct", "distinct"],
    ...[["before", before] as const, ["after", after] as const].map(([when, score]) => [
      when,
      showPercent(score.accuracy),
      `${score.correct}/${score.total}`,
      `${score.distinct}`,
    ]),
  ];
  return `${showSetting(report)}\n\n${table(rows)}\n\n${table(scores, [1, 2, 3])}`;
}
