import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Tape } from "#src/gradient/tape";
import { add, div, mul, square, sub } from "#src/kernels/elementwise/elementwise";
import { linear } from "#src/kernels/matmul/linear";
import { matmul } from "#src/kernels/matmul/matmul";
import { concat } from "#src/kernels/movement/concat";
import { gatherRows, takeAlongAxis } from "#src/kernels/movement/gather";
import { mean, sum } from "#src/kernels/reduction/reduce";
import { logSoftmax } from "#src/kernels/reduction/softmax";
import { readTensor } from "#src/model/checkpoint/entries/tensor-entry";
import { SafetensorsFile } from "#src/model/checkpoint/safetensors/safetensors";
import { encodeSafetensors } from "#src/model/checkpoint/safetensors/safetensors-writer";
import type { Prompt } from "#src/model/prompt/prompt";
import { loadModel, type PatchableModel } from "#src/patching/model";
import { type Tap, tap } from "#src/patching/tap";
import { openFile } from "#src/platform/node-file";
import type { Device } from "#src/tensor/device";
import type { Tensor } from "#src/tensor/tensor";
import { AdamW } from "#src/training/adamw";
import { Lora } from "#src/training/lora";
import { weightTensors } from "#src/training/trainer";
import { bestAndMedian, rounded } from "./harness.ts";
import type { JobResult } from "./jobs.ts";

/** Layers whose residual stream should be what the written name makes, and how many positions up to the cue's end. */
const ALIGNED = Array.from({ length: 22 }, (_, i) => i + 4);
const TAIL = 4;
const IMAGE_TOKEN = 16;
const IMAGE_TOKENS = 9;
/** The teacher's components are guessed from what comes out of this block. */
const DISTILLED_BLOCK = 3;
const SHARPNESS = 2;

const LOSSES = ["caption", "aligned", "naming", "distilled", "text"] as const;
type Losses = Record<(typeof LOSSES)[number] | "norm", number>;

/** What weights/recipe/joint.py --record writes. */
interface Recorded {
  readonly total_steps: number;
  readonly rank: number;
  readonly torch: string;
  readonly threads: number;
  readonly concepts: readonly string[];
  readonly queries: readonly number[][];
  readonly captions: { readonly before: number[]; readonly after: number[][]; readonly cue: number };
  readonly spelt: readonly number[][];
  readonly flags: number;
  readonly steps: readonly RecordedStep[];
}

interface RecordedStep {
  readonly concepts: readonly number[];
  readonly lesson_concepts: readonly number[];
  readonly texts: readonly { readonly ids: number[]; readonly learnt: number[] }[];
  readonly losses: Losses;
  readonly seconds: number;
}

/**
 * The joint stage of weights/recipe, run by xpatch from the same start on the same draws as PyTorch's recording in `folder`:
 * the losses of both, step by step, and the time of a step.
 */
export async function jointStage(device: Device, folder: string): Promise<JobResult> {
  const recorded: Recorded = JSON.parse(readFileSync(join(folder, "steps.json"), "utf8"));
  const file = await SafetensorsFile.open(await openFile(join(folder, "steps.safetensors")));
  const values = async (name: string) => new Float32Array((await readTensor(file.entry(name))).buffer);
  const start = new Map<string, Float32Array<ArrayBuffer>>();
  for (const name of file.names) {
    if (name.startsWith("start/")) start.set(name.slice("start/".length), await values(name));
  }
  const shapeOf = (name: string) => file.entry(name).shape;
  const modelFolder = await writeModel(start, (name) => shapeOf(`start/${name}`));
  try {
    using model = await loadModel(join(modelFolder, "vlm"), { device });
    using stage = await JointStage.begin(model, recorded, start);
    const found: Losses[] = [];
    const seconds: number[] = [];
    for (const [n, step] of recorded.steps.entries()) {
      const side = shapeOf(`${n}/pictures`)[2]!;
      const began = performance.now();
      found.push(
        await stage.step(n, step, {
          side,
          pictures: await values(`${n}/pictures`),
          lessonPictures: await values(`${n}/lesson_pictures`),
          seen: await values(`${n}/seen`),
        }),
      );
      seconds.push((performance.now() - began) / 1000);
    }
    return compare(recorded, found, seconds);
  } finally {
    await file.close();
    rmSync(modelFolder, { recursive: true });
  }
}

function compare(recorded: Recorded, found: readonly Losses[], seconds: readonly number[]): JobResult {
  const total = (losses: Losses) =>
    losses.aligned + 0.5 * (losses.caption + losses.naming + losses.distilled + losses.text);
  const off = (a: number, b: number) => Math.abs(a - b) / Math.abs(b);
  const theirs = recorded.steps.map(({ losses }) => losses);
  const largest = (name: keyof Losses) =>
    Math.max(...found.map((own, n) => off(own[name], theirs[n]![name])));
  const ours = bestAndMedian(seconds);
  const torch = bestAndMedian(recorded.steps.map((step) => step.seconds));
  return {
    name: "joint",
    steps: found.length,
    torch: `${recorded.torch}, ${recorded.threads} threads`,
    /** Largest relative difference of any step. */
    offBy: {
      total: Math.max(...found.map((own, n) => off(total(own), total(theirs[n]!)))),
      ...Object.fromEntries([...LOSSES, "norm" as const].map((name) => [name, largest(name)])),
    },
    medianSeconds: rounded(ours.medianMs),
    torchMedianSeconds: rounded(torch.medianMs),
    losses: found.map((own, n) => ({ xpatch: total(own), torch: total(theirs[n]!) })),
  };
}

/** A folder with the start as models to load: `llm`, and `vlm` with tower and projector in f32 on top. */
async function writeModel(
  start: ReadonlyMap<string, Float32Array<ArrayBuffer>>,
  shape: (name: string) => readonly number[],
): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), "joint-stage-"));
  const weights = fileURLToPath(new URL("../../weights/", import.meta.url));
  cpSync(join(weights, "llm"), join(folder, "llm"), { recursive: true });
  mkdirSync(join(folder, "vlm"));
  for (const name of ["config.json", "preprocessor_config.json"]) {
    cpSync(join(weights, "vlm", name), join(folder, "vlm", name));
  }
  const assembly = JSON.parse(readFileSync(join(weights, "vlm", "assembly.json"), "utf8"));
  writeFileSync(join(folder, "vlm", "assembly.json"), JSON.stringify({ ...assembly, adapters: ["../llm"] }));
  const tensors = [...start.keys()].filter(isVision).map((name) => ({
    name,
    stored: "F32",
    shape: shape(name),
    data: new Uint8Array(start.get(name)!.buffer),
  }));
  writeFileSync(join(folder, "vlm", "model.safetensors"), await encodeSafetensors(tensors));
  return folder;
}

function isVision(name: string): boolean {
  return /^(vision_tower|multi_modal_projector)\./.test(name);
}

interface Drawn {
  readonly side: number;
  /** Normalised, [pictures, 3, side, side]. */
  readonly pictures: Float32Array<ArrayBuffer>;
  readonly lessonPictures: Float32Array<ArrayBuffer>;
  /** [views that are no flags, components] */
  readonly seen: Float32Array<ArrayBuffer>;
}

/** Tower, projector, the head of the lessons and a LoRA, trained together. */
class JointStage {
  readonly #model: PatchableModel;
  readonly #recorded: Recorded;
  readonly #lora: Lora;
  readonly #vision: Readonly<Record<string, Tensor>>;
  readonly #head: { weight: Tensor; bias: Tensor };
  readonly #optimizer: AdamW;
  /** What the language model holds after each written name, by aligned layer: f32 [concepts][TAIL * width]. */
  readonly #written: readonly (readonly Float32Array[])[];
  /** Mean square norm of those, by layer. */
  readonly #sizes: readonly number[];
  /** Rows of the embedding that names are told apart by. */
  readonly #rows: Tensor;
  readonly #rowOf: ReadonlyMap<number, number>;

  static async begin(
    model: PatchableModel,
    recorded: Recorded,
    start: ReadonlyMap<string, Float32Array<ArrayBuffer>>,
  ): Promise<JointStage> {
    const written = await writtenStates(model, recorded.queries);
    return new JointStage(model, recorded, start, written);
  }

  private constructor(
    model: PatchableModel,
    recorded: Recorded,
    start: ReadonlyMap<string, Float32Array<ArrayBuffer>>,
    written: readonly (readonly Float32Array[])[],
  ) {
    const { device } = model;
    this.#model = model;
    this.#recorded = recorded;
    this.#written = written;
    this.#sizes = written.map((each) => {
      const squares = each.reduce((all, values) => all + values.reduce((own, x) => own + x * x, 0), 0);
      return squares / each.length / TAIL;
    });
    const modules = [...start.keys()].filter((name) => name.endsWith(".lora_A"));
    const named = modules.map((name) => `language_model.${name.slice(0, -".lora_A".length)}`);
    this.#lora = new Lora(model, { rank: recorded.rank, alpha: 2 * recorded.rank, modules: named });
    for (const [i, name] of modules.entries()) {
      const a = this.#lora.parameters[`${named[i]}.lora_A.weight`]!;
      device.write(a, new Uint8Array(start.get(name)!.buffer));
    }
    // The last block's output is what the projector reads: the norm behind it is not trained.
    const vision = [...start.keys()].filter((name) => isVision(name) && !name.includes("post_layernorm"));
    this.#vision = weightTensors(model, vision);
    const bias = device.tensor(start.get("head.bias")!);
    const weight = device.tensor(start.get("head.weight")!, {
      shape: [bias.size, start.get("head.weight")!.length / bias.size],
    });
    this.#head = { weight, bias };
    this.#optimizer = new AdamW(
      device,
      { ...this.#lora.parameters, ...this.#vision, "head.weight": weight, "head.bias": bias },
      {
        learningRate: 3e-4,
        weightDecay: 0,
        maxGradNorm: 1,
        each: (name) =>
          name.startsWith("multi_modal_projector")
            ? { weightDecay: 0.05 }
            : isVision(name) || name.startsWith("head")
              ? { learningRate: 1.5e-4, weightDecay: 0.05 }
              : {},
      },
    );
    const vocabulary = [...new Set(recorded.spelt.flat())].sort((a, b) => a - b);
    this.#rowOf = new Map(vocabulary.map((id, row) => [id, row]));
    this.#rows = device.scope(() =>
      gatherRows(model.weight("W_E"), device.tensor(vocabulary, { dtype: "u32" })),
    );
  }

  async step(n: number, { concepts, lesson_concepts, texts }: RecordedStep, drawn: Drawn): Promise<Losses> {
    const { device } = this.#model;
    const { parameters: adapter } = this.#lora;
    const head = { "head.weight": this.#head.weight, "head.bias": this.#head.bias };
    const scope = device.openScope();
    try {
      const parts = scope.enter(() => [
        this.#back({ ...adapter, ...this.#vision }, () => this.#captioned(concepts, drawn)),
        this.#back({ ...this.#vision, ...head }, () => this.#lessons(lesson_concepts, drawn)),
        this.#back(adapter, () => this.#texts(texts)),
      ]);
      const norm = scope.enter(() => {
        const gradients: Record<string, Tensor> = {};
        for (const part of parts) {
          for (const [name, gradient] of Object.entries(part.gradients)) {
            const before = gradients[name];
            gradients[name] = before ? add(before, gradient) : gradient;
          }
        }
        return this.#optimizer.step(gradients, this.#rate(n));
      });
      const named: [string, Tensor][] = parts.flatMap(({ losses }) => Object.entries(losses));
      named.push(["norm", norm]);
      const read = await device.read(named.map(([, tensor]) => tensor));
      return Object.fromEntries(named.map(([name], i) => [name, read[i]![0]])) as Losses;
    } finally {
      scope.dispose();
    }
  }

  /** Linear warm-up, then a cosine to zero. */
  #rate(step: number): number {
    const { total_steps } = this.#recorded;
    return Math.min(1, (step + 1) / 30) * 0.5 * (1 + Math.cos((Math.PI * step) / total_steps));
  }

  #back(
    of: Readonly<Record<string, Tensor>>,
    fn: () => { losses: Record<string, Tensor>; loss: Tensor },
  ): { losses: Record<string, Tensor>; gradients: Record<string, Tensor> } {
    using tape = new Tape(this.#model.device);
    const watched = Object.entries(of).map(([name, tensor]) => [name, tape.watch(tensor)] as const);
    const { losses, loss } = tape.record(fn);
    tape.backward(loss);
    const gradients = watched.map(([name, each]) => [name, tape.gradient(each).alias()]);
    return { losses, gradients: Object.fromEntries(gradients) };
  }

  /** The name behind a picture, and the residual stream up to there, which should be the written name's. */
  #captioned(concepts: readonly number[], { pictures, side }: Drawn) {
    const { before, after, cue } = this.#recorded.captions;
    const placeholders = Array<number>(IMAGE_TOKENS).fill(IMAGE_TOKEN);
    const prompts = this.#pictured(pictures, side, (i) => [
      ...before,
      ...placeholders,
      ...after[concepts[i]!]!,
    ]);
    const first = before.length + IMAGE_TOKENS + cue; // of the name
    const positions = Array.from({ length: TAIL }, (_, i) => first - TAIL + i);
    const taps: Record<string, Tap<number[]>> = {};
    for (const layer of ALIGNED) taps[`${layer}`] = tap(`resid_post.${layer}`, positions);
    const run = this.#model.run(prompts, { taps, logits: "all" });
    const caption = answerLoss(
      prompts,
      run.logits as Tensor[],
      prompts.map(({ ids }) => ids.slice(first).map((_, i) => first + i)),
    );
    const distances = ALIGNED.map((layer, i) => {
      const tail = concat(run[`${layer}`] as unknown as Tensor[], 0); // [prompts * TAIL, width]
      const target = tail.device.tensor(joined(concepts.map((concept) => this.#written[i]![concept]!)), {
        shape: tail.shape,
      });
      return mul(sum(square(sub(tail, target))), 1 / (concepts.length * TAIL * this.#sizes[i]!));
    });
    const aligned = mul(
      distances.reduce((a, b) => add(a, b)),
      1 / ALIGNED.length,
    );
    return { losses: { caption, aligned }, loss: add(mul(caption, 0.5), aligned) };
  }

  /** What the tower goes on learning without the language model. */
  #lessons(concepts: readonly number[], { lessonPictures, side, seen }: Drawn) {
    const { device } = this.#model;
    const { spelt, flags } = this.#recorded;
    const prompts = this.#pictured(lessonPictures, side, () => Array(IMAGE_TOKENS).fill(IMAGE_TOKEN));
    const run = this.#model.run(prompts, {
      taps: { features: tap("projector"), hidden: tap(`vision.resid_post.${DISTILLED_BLOCK}`) },
      stopAfter: 0,
    });
    const named = concat((run.features as Tensor[]).slice(0, concepts.length), 0); // [named * 9, width]
    const targets = concepts.flatMap((concept) => spelt[concept]!.map((id) => this.#rowOf.get(id)!));
    const rows = this.#rows;
    const lengths = sum(square(rows), 1); // [vocabulary]
    const scores = mul(sub(mul(matmul(named, rows.transpose()), 2), lengths), SHARPNESS);
    const nearest = crossEntropy(scores, targets);
    const goal = gatherRows(rows, device.tensor(targets, { dtype: "u32" }));
    const distance = mul(
      sum(square(sub(named, goal))),
      rows.shape[0]! / targets.length, // a mean over both
    );
    const naming = add(nearest, mul(div(distance, sum(lengths)), 0.5));
    const summaries = (run.hidden as Tensor[]).slice(flags).map((tokens) => {
      const [first, others] = [tokens.slice(0, 0, 1), tokens.slice(0, 1)];
      return concat([first, mean(others, 0, { keepDims: true })], 1);
    });
    const guess = linear(concat(summaries, 0), this.#head.weight, { bias: this.#head.bias });
    const distilled = mean(square(sub(guess, device.tensor(seen, { shape: guess.shape }))));
    return { losses: { naming, distilled }, loss: mul(add(naming, distilled), 0.5) };
  }

  #texts(texts: RecordedStep["texts"]) {
    const prompts = texts.map(({ ids }) => this.#model.promptFromIds(ids));
    const { logits } = this.#model.run(prompts, { logits: "all" });
    const text = answerLoss(
      prompts,
      logits as Tensor[],
      texts.map(({ learnt }) => learnt),
    );
    return { losses: { text }, loss: mul(text, 0.5) };
  }

  #pictured(pictures: Float32Array<ArrayBuffer>, side: number, ids: (i: number) => number[]): Prompt[] {
    const size = 3 * side * side;
    return Array.from({ length: pictures.length / size }, (_, i) => {
      const data = pictures.slice(i * size, (i + 1) * size);
      return this.#model.promptFromIds(ids(i), [{ data, shape: [3, side, side] }]);
    });
  }

  [Symbol.dispose](): void {
    this.#optimizer.dispose();
    this.#lora.dispose();
    this.#rows.dispose();
  }
}

/** The residual stream after written names, at the last positions: [layers][names] of [TAIL * width]. */
async function writtenStates(model: PatchableModel, queries: readonly number[][]): Promise<Float32Array[][]> {
  const found: Float32Array[][] = ALIGNED.map(() => []);
  const positions = Array.from({ length: TAIL }, (_, i) => i - TAIL);
  const taps: Record<string, Tap<number[]>> = {};
  for (const layer of ALIGNED) taps[`${layer}`] = tap(`resid_post.${layer}`, positions);
  for (let from = 0; from < queries.length; from += 50) {
    const prompts = queries.slice(from, from + 50).map((ids) => model.promptFromIds(ids));
    const scope = model.device.openScope();
    const run = scope.enter(() => model.run(prompts, { taps, stopAfter: ALIGNED.at(-1)! }));
    const tensors = ALIGNED.flatMap((layer) => run[`${layer}`] as unknown as Tensor[]);
    const values = (await model.device.read(tensors)) as Float32Array[];
    ALIGNED.forEach((_, i) => {
      found[i]!.push(...values.slice(i * prompts.length, (i + 1) * prompts.length));
    });
    scope.dispose();
  }
  return found;
}

/** Mean cross entropy of the tokens at `learnt` positions of all prompts together. */
function answerLoss(
  prompts: readonly Prompt[],
  logits: readonly Tensor[],
  learnt: readonly (readonly number[])[],
): Tensor {
  const asked = logits.map((all, i) => {
    const before = learnt[i]!.map((position) => position - 1);
    return gatherRows(all, all.device.tensor(before, { dtype: "u32" }));
  });
  return crossEntropy(
    concat(asked, 0),
    prompts.flatMap(({ ids }, i) => learnt[i]!.map((position) => ids[position]!)),
  );
}

/** Of scores [rows, classes]. */
function crossEntropy(scores: Tensor, targets: readonly number[]): Tensor {
  const index = scores.device.tensor(targets, { dtype: "u32", shape: [targets.length, 1] });
  return mul(mean(takeAlongAxis(logSoftmax(scores), index, 1)), -1);
}

function joined(parts: readonly Float32Array[]): Float32Array<ArrayBuffer> {
  const all = new Float32Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
