import { CheckpointError } from "../../../errors.ts";
import { toPreferredLayout } from "../../../kernels/matmul/linear.ts";
import { Matrix } from "../../../kernels/matmul/matrix.ts";
import { cast, contiguous } from "../../../kernels/movement/copy.ts";
import { sum } from "../../../kernels/reduction/reduce.ts";
import type { Device } from "../../../tensor/device.ts";
import { isFloat } from "../../../tensor/dtype.ts";
import { type Operand, Packed } from "../../../tensor/packed/packed.ts";
import type { PackedFormat } from "../../../tensor/packed/packed-format.ts";
import type { Scope } from "../../../tensor/scope.ts";
import { type Shape, sameShape, showShape } from "../../../tensor/shape.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Checkpoint } from "../checkpoint.ts";
import type { PackedSource } from "../entries/packed-source.ts";
import { comparedWith, sameTensor } from "../entries/same-tensor.ts";
import { readTensor, type TensorEntry } from "../entries/tensor-entry.ts";
import { floatRuns, turnedRuns } from "../packing/float-runs.ts";
import { packing } from "../packing/pack.ts";
import { reordered } from "../packing/reorder-rows.ts";
import { Linear } from "./linear-layer.ts";
import { type LowRankUpdate, merged } from "./low-rank.ts";
import {
  joinedParameter,
  type LinearModule,
  type LoadedParts,
  type Parameter,
  packedParameter,
  plainParameter,
  turned,
} from "./parameters.ts";
import { type MatrixRole, type Quantise, QuantiseChoice } from "./quantise.ts";
import { consecutive, type RowPart } from "./row-parts.ts";
import { adviceFor, strayTensors } from "./stray-tensors.ts";
import { type LoadProgress, Uploader } from "./upload.ts";

/** Problems that a message spells out. */
const MAX_LISTED = 8;

export type { LoadProgress };

export type LinearShape = readonly [out: number, width: number];

export interface LinearOptions {
  readonly bias?: boolean;
  /** Whether the file has the weight as [in, out] (GPT-2's Conv1D). */
  readonly transposed?: boolean;
}

/** How a family gets at its tensors: by name and expected shape. */
export interface Weights {
  readonly device: Device;
  /** True when the checkpoint has a tensor of that name. */
  has(name: string): boolean;
  tensor(name: string, shape: Shape): Promise<Tensor>;
  /** `<name>.weight` [vocab, width], of which rows are read by their ids. */
  embedding(name: string, shape: readonly [vocab: number, width: number]): Promise<Matrix>;
  /** Matrices [rows, width] one under the other, which have to be of one dtype. */
  stacked(parts: readonly { readonly name: string; readonly rows: number }[], width: number): Promise<Tensor>;
  /** The same elements under another shape. */
  reshape(tensor: Tensor, shape: Shape): Tensor;
  /** Its rows from `start` on. */
  rowsFrom(tensor: Tensor, start: number): Tensor;
  /** `<name>.weight` [out, in] and, if asked for, `<name>.bias` [out]. */
  linear(name: string, shape: LinearShape, options?: boolean | LinearOptions): Promise<Linear>;
  /** The layers that one matrix holds, each with the rows that its part takes; `shape` is that of them all. */
  fused<const Parts extends readonly RowPart[]>(
    name: string,
    shape: LinearShape,
    parts: Parts,
    options?: LinearOptions,
  ): Promise<{ [I in keyof Parts]: Linear }>;
  /**
   * Embedding and output matrix [vocab, width] of a config that ties them. As in transformers 5 one that is missing is the
   * other, and where the file has both and they differ, they are not tied.
   */
  tied(
    embedding: string,
    head: string,
    shape: readonly [vocab: number, width: number],
  ): Promise<{ embedding: Matrix; unembedding: Linear }>;
  /** Modules and tensors that the file may have and this model has no use for; others inside of what it reads are refused. */
  skip(...modules: string[]): void;
}

export interface WeightOptions {
  /**
   * Whether adapters become part of the weights: `W + scale · B A` is computed in f32 and stored in the weight's dtype.
   * Otherwise, and in layers that are kept in few bits, each layer adds what they make of its input, in f32. Default true.
   */
  merge?: boolean;
  /**
   * Weights to keep in 4 or 8 bits on the device, quantised as they are read; kernels unpack them as they go. Matrices that the
   * checkpoint has quantised stay as they are in any case.
   *
   * @example await loadModel("xpatch:vlm", { device, quantise: { linear: "nf4", modules: { "layers.0": "int8" } } });
   */
  quantise?: Quantise;
  /** Called as weights arrive. */
  onProgress?: (progress: LoadProgress) => void;
}

/** What a model asks a checkpoint for. */
export interface CheckedWeights {
  readonly bytes: number;
  readonly entries: readonly TensorEntry[];
  /** Names of the weights that the file has as [in, out]. */
  readonly transposed: ReadonlySet<string>;
  /** Matrices [out, in] that `quantise` asks to be kept in few bits, by name. */
  readonly quantised: ReadonlyMap<string, QuantisedMatrix>;
}

export interface QuantisedMatrix {
  readonly shape: LinearShape;
  readonly format: PackedFormat;
}

/** Finds out whether everything that `build` asks for is there in the right shape; see {@link loadWeights}. */
export async function checkWeights(
  checkpoint: Checkpoint,
  device: Device,
  build: (weights: Weights) => Promise<unknown>,
  quantise?: Quantise,
): Promise<CheckedWeights> {
  const choice = new QuantiseChoice(quantise);
  const check = new Check(checkpoint, device, choice);
  await build(check);
  choice.finish();
  await check.finish();
  return check;
}

/**
 * Loads a model's weights, dtype as stored, with bounded host memory. `build` is called twice: first to find out whether
 * everything that it asks for is there in the right shape, before any byte of a tensor is read, then to load.
 *
 * The tensors live in `memory`, which the caller disposes of. Throws one CheckpointError that lists all missing tensors (with
 * the nearest present names), wrong shapes and dtypes, or tensors of the file that would change the model but have no place in
 * it.
 */
export async function loadWeights<T>(
  checkpoint: Checkpoint,
  device: Device,
  build: (weights: Weights) => Promise<T>,
  options: WeightOptions = {},
): Promise<{ built: T; memory: Scope } & LoadedParts> {
  const { bytes, entries } = await checkWeights(checkpoint, device, build);
  for (const entry of entries) entry.expect?.();
  const memory = device.openScope();
  try {
    const load = new Load(checkpoint, device, memory, bytes, options);
    const built = await build(load);
    load.checkChoice();
    await checkpoint.verify();
    await load.checkMerged();
    await device.sync(); // reports what went wrong on the GPU while the checkpoint's name is still at hand
    device.trim(); // weights that changed their layout have left large buffers behind
    return { built, memory, parameters: load.parameters, linears: load.linears };
  } catch (error) {
    memory.dispose();
    throw error;
  }
}

abstract class WeightsBase implements Weights {
  readonly device: Device;
  protected readonly checkpoint: Checkpoint;

  constructor(checkpoint: Checkpoint, device: Device) {
    this.checkpoint = checkpoint;
    this.device = device;
  }

  has(name: string): boolean {
    return this.checkpoint.has(name);
  }

  abstract tensor(name: string, shape: Shape): Promise<Tensor>;
  abstract embedding(...args: Parameters<Weights["embedding"]>): Promise<Matrix>;
  abstract stacked(...args: Parameters<Weights["stacked"]>): Promise<Tensor>;
  abstract reshape(tensor: Tensor, shape: Shape): Tensor;
  abstract rowsFrom(tensor: Tensor, start: number): Tensor;
  abstract linear(...args: Parameters<Weights["linear"]>): Promise<Linear>;
  abstract fused<const Parts extends readonly RowPart[]>(
    name: string,
    shape: LinearShape,
    parts: Parts,
    options?: LinearOptions,
  ): Promise<{ [I in keyof Parts]: Linear }>;
  abstract tied(...args: Parameters<Weights["tied"]>): ReturnType<Weights["tied"]>;
  abstract skip(...modules: string[]): void;
}

class Check extends WeightsBase {
  readonly #names = new Set<string>();
  readonly #linear = new Set<string>();
  /** In the order in which they are loaded. */
  readonly entries: TensorEntry[] = [];
  /** Weights that the file has as [in, out]. */
  readonly transposed = new Set<string>();
  /** Asked for where they are there. */
  readonly #optional = new Set<string>();
  readonly #skipped: string[] = [];
  readonly #misfits: string[] = [];
  readonly #choice: QuantiseChoice;
  readonly quantised = new Map<string, QuantisedMatrix>();
  bytes = 0;

  constructor(checkpoint: Checkpoint, device: Device, choice: QuantiseChoice) {
    super(checkpoint, device);
    this.#choice = choice;
  }

  #quantise(name: string, shape: LinearShape, role: MatrixRole): void {
    const format = this.#choice.formatOf(name, role);
    if (format) this.quantised.set(`${name}.weight`, { shape, format });
    else this.quantised.delete(`${name}.weight`);
  }

  async tensor(name: string, shape: Shape): Promise<Tensor> {
    this.#names.add(name);
    if (this.has(name)) {
      const entry = this.checkpoint.entry(name);
      this.#add(entry);
      if (entry.problem) throw new CheckpointError(entry.problem);
      if (!sameShape(entry.shape, shape)) {
        this.#misfits.push(`${name} is ${showShape(entry.shape)} instead of ${showShape(shape)}`);
      } else if (!isFloat(entry.dtype)) {
        this.#misfits.push(`${name} is ${entry.stored} instead of floats`);
      }
    }
    return PLACEHOLDER;
  }

  async embedding(name: string, shape: readonly [number, number]): Promise<Matrix> {
    await this.tensor(`${name}.weight`, shape);
    this.#quantise(name, shape, "embedding");
    return PLACEHOLDER_MATRIX;
  }

  async stacked(parts: Parameters<Weights["stacked"]>[0], width: number): Promise<Tensor> {
    for (const { name, rows } of parts) await this.tensor(name, [rows, width]);
    const entries = parts.flatMap(({ name }) => (this.has(name) ? [this.checkpoint.entry(name)] : []));
    for (const { name, dtype, byteLength } of entries) {
      if (dtype !== entries[0]!.dtype) {
        this.#misfits.push(`${name} is ${dtype}, but ${entries[0]!.name} ${entries[0]!.dtype}`);
      }
      // The next one begins where this one ends, which has to be a whole word.
      if (byteLength % 4 !== 0) this.#misfits.push(`${name} has ${byteLength} bytes, no multiple of 4`);
    }
    return PLACEHOLDER;
  }

  #add(entry: TensorEntry): void {
    this.entries.push(entry);
    this.bytes += entry.byteLength;
  }

  reshape(tensor: Tensor): Tensor {
    return tensor;
  }

  rowsFrom(tensor: Tensor): Tensor {
    return tensor;
  }

  async linear(name: string, shape: LinearShape, options: boolean | LinearOptions = {}): Promise<Linear> {
    const { bias, transposed } = linearOptions(options);
    const weight = `${name}.weight`;
    // Packed matrices are [out, in], however their family stores others.
    const isPacked = this.has(weight) && this.checkpoint.entry(weight).packed !== undefined;
    await this.tensor(weight, asStored(shape, transposed && !isPacked));
    this.#quantise(name, shape, "linear");
    this.#linear.add(weight);
    if (transposed) this.transposed.add(weight);
    for (const { a, b, adapter } of this.checkpoint.updatesOf(weight)) {
      this.#add(a);
      this.#add(b);
      // That the two fit each other was seen when the adapter was opened.
      if (b.shape[0] !== shape[0] || a.shape[1] !== shape[1]) {
        this.#misfits.push(
          `${adapter} changes a layer ${showShape(shape)} in place of ${name}, with ${showShape(a.shape)} and ${showShape(b.shape)}`,
        );
      }
    }
    if (bias) await this.tensor(`${name}.bias`, [shape[0]]);
    return new Linear(PLACEHOLDER_MATRIX);
  }

  async fused<const Parts extends readonly RowPart[]>(
    name: string,
    shape: LinearShape,
    parts: Parts,
    options?: LinearOptions,
  ) {
    const layer = await this.linear(name, shape, options);
    return parts.map(() => layer) as { [I in keyof Parts]: Linear };
  }

  async tied(embedding: string, head: string, shape: readonly [number, number]) {
    const [first, second] = this.has(`${embedding}.weight`) ? [embedding, head] : [head, embedding];
    const unembedding = await this.linear(this.has(`${first}.weight`) ? first : embedding, shape);
    const { bytes } = this; // what a second one has is found out as it loads
    if (this.has(`${second}.weight`)) await this.linear(second, shape);
    this.bytes = bytes;
    for (const name of [embedding, head]) if (this.has(`${name}.weight`)) this.#quantise(name, shape, "tied");
    for (const name of [embedding, head]) this.#optional.add(`${name}.weight`);
    return { embedding: PLACEHOLDER_MATRIX, unembedding };
  }

  skip(...modules: string[]): void {
    this.#skipped.push(...modules);
  }

  async finish(): Promise<void> {
    this.checkpoint.require(this.#names);
    const unused = this.checkpoint.updated.find((weight) => !this.#linear.has(weight));
    if (unused !== undefined) throw noLinearLayer(this.checkpoint, unused);
    if (this.#misfits.length > 0) {
      throw new CheckpointError(
        `${this.checkpoint.name}: the config does not fit the tensors: ${listed(this.#misfits)}`,
      );
    }
    await this.#refuseStrays();
  }

  async #refuseStrays(): Promise<void> {
    const asked = new Set([...this.#names, ...this.#optional]);
    const strays: string[] = [];
    for (const name of strayTensors(this.checkpoint.names, asked, this.#skipped)) {
      if (!(name.endsWith(".bias") && (await isZero(this.checkpoint.entry(name))))) strays.push(name);
    }
    if (strays.length === 0) return;
    const advice = [...new Set(strays.map(adviceFor))].join("; ");
    throw new CheckpointError(
      `${this.checkpoint.name}: expected nothing beside what the model reads, found ${listed(strays)} (${advice}): ` +
        "without it the model would be another",
    );
  }
}

function noLinearLayer(checkpoint: Checkpoint, weight: string): CheckpointError {
  const { adapter } = checkpoint.updatesOf(weight)[0]!;
  return new CheckpointError(`${adapter} changes ${weight}, which is no linear layer of this model`);
}

/** Whether a bias adds nothing. */
async function isZero(entry: TensorEntry): Promise<boolean> {
  if (entry.problem || entry.shape.length !== 1) return false;
  return (await readTensor(entry)).every((byte) => byte === 0);
}

function listed(problems: readonly string[]): string {
  const more = problems.length - MAX_LISTED;
  return problems.slice(0, MAX_LISTED).join("; ") + (more > 0 ? `; and ${more} more` : "");
}

function linearOptions(options: boolean | LinearOptions): LinearOptions {
  return typeof options === "boolean" ? { bias: options } : options;
}

/** The shape that the file has for a weight [out, in]. */
function asStored([out, width]: LinearShape, transposed = false): Shape {
  return transposed ? [width, out] : [out, width];
}

/** Stands for a tensor while names and shapes are checked; a builder only passes it on. */
const PLACEHOLDER = Object.freeze({}) as Tensor;
const PLACEHOLDER_MATRIX = Object.freeze({}) as Matrix;

class Load extends WeightsBase {
  /** What the checkpoint's tensors have become. */
  readonly parameters = new Map<string, Parameter>();
  readonly linears = new Map<string, LinearModule>();
  readonly #memory: Scope;
  readonly #upload: Uploader;
  readonly #merge: boolean;
  readonly #choice: QuantiseChoice;
  /** Sums of merged weights, by name: not finite where an element is not. */
  readonly #sums = new Map<string, Tensor<"f32">>();

  constructor(
    checkpoint: Checkpoint,
    device: Device,
    memory: Scope,
    totalBytes: number,
    { merge = true, onProgress, quantise }: WeightOptions,
  ) {
    super(checkpoint, device);
    this.#memory = memory;
    this.#upload = new Uploader(device, memory, totalBytes, onProgress);
    this.#merge = merge;
    this.#choice = new QuantiseChoice(quantise);
  }

  async tensor(name: string, shape: Shape): Promise<Tensor> {
    const tensor = await this.#upload.tensor(this.checkpoint.entry(name), shape);
    this.parameters.set(name, plainParameter(tensor));
    return tensor;
  }

  async embedding(name: string, shape: readonly [number, number]): Promise<Matrix> {
    const weight = `${name}.weight`;
    const operand = await this.#matrix(name, shape, { role: "embedding" });
    this.parameters.set(weight, parameterOf(operand));
    return new Matrix(operand);
  }

  async stacked(parts: Parameters<Weights["stacked"]>[0], width: number): Promise<Tensor> {
    const entries = parts.map(({ name }) => this.checkpoint.entry(name));
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    const { dtype, name } = entries[0]!;
    const tensor = this.#memory.enter(() => this.device.empty([rows, width], dtype, name));
    let [offset, row] = [0, 0];
    for (const [i, entry] of entries.entries()) {
      await this.#upload.fill(tensor, entry, offset);
      offset += entry.byteLength;
      const start = row;
      row += parts[i]!.rows;
      this.parameters.set(entry.name, plainParameter(this.#memory.enter(() => tensor.rows(start, row))));
    }
    return tensor;
  }

  reshape(tensor: Tensor, shape: Shape): Tensor {
    return this.#memory.enter(() => tensor.reshape(shape));
  }

  rowsFrom(tensor: Tensor, start: number): Tensor {
    return this.#memory.enter(() => tensor.rows(start, tensor.dim(0)));
  }

  skip(): void {}

  async linear(name: string, shape: LinearShape, options: boolean | LinearOptions = {}): Promise<Linear> {
    const { bias, transposed } = linearOptions(options);
    return this.#linear(name, shape, await this.#matrix(name, shape, { transposed }), { bias, transposed });
  }

  async fused<const Parts extends readonly RowPart[]>(
    name: string,
    shape: LinearShape,
    parts: Parts,
    { bias, transposed }: LinearOptions = {},
  ) {
    const order = parts.flatMap(({ rows }) => rows);
    const stored = await this.#matrix(name, shape, { transposed, order });
    const { weight, updates } = await this.#updated(name, stored);
    const offset = bias ? await this.tensor(`${name}.bias`, [shape[0]]) : undefined;
    const inOrder = consecutive(...parts.map(({ rows }) => rows.length));
    const layers = parts.map((part, i) => {
      const own = (whole: Tensor) => this.#memory.enter(() => part.take(whole));
      return this.#layer(
        weight instanceof Packed ? rowsOf(weight, inOrder[i]!, this.#memory) : own(weight),
        offset && own(offset),
        // The layers share what the updates make of their input at first.
        updates.map(({ a, b, scale }) => ({ a: this.#memory.enter(() => a.alias()), b: own(b), scale })),
      );
    });
    if (weight instanceof Packed) this.parameters.set(`${name}.weight`, packedParameter(weight));
    else {
      const joined = joinedParameter(
        layers.map((layer) => layer.weight.tensor!),
        parts,
      );
      this.parameters.set(`${name}.weight`, transposed ? turned(joined) : joined);
    }
    const shares = layers.map((layer, i) => ({ layer, part: parts[i]! }));
    this.linears.set(name, { shape, layers: shares, ...(transposed && { transposed }) });
    if (offset) {
      const biases = layers.map((layer) => layer.bias!);
      this.parameters.set(`${name}.bias`, joinedParameter(biases, parts));
    }
    for (const whole of [weight, ...(offset ? [offset] : []), ...updates.flatMap(({ a, b }) => [a, b])]) {
      whole.dispose(); // views of it stay
    }
    return layers as { [I in keyof Parts]: Linear };
  }

  /**
   * A weight [out, in], as stored or turned, or packed; then with its rows in the given order, which layers that share it
   * take consecutive parts of.
   */
  async #matrix(
    name: string,
    shape: LinearShape,
    { transposed = false, order, role = "linear" }: MatrixOptions = {},
  ): Promise<Operand> {
    const entry = this.checkpoint.entry(`${name}.weight`);
    const packed = packedSource(entry, shape, this.#choice.formatOf(name, role), transposed);
    if (packed) {
      const inOrder = order?.every((row, i) => row === i) ?? true;
      const source = inOrder ? packed : reordered(entry.name, packed, order!);
      return await this.#upload.packed(source, shape, entry.byteLength);
    }
    const stored = await this.#upload.tensor(entry, asStored(shape, transposed));
    if (!transposed) return stored;
    const turned = this.#memory.enter(() => contiguous(stored.transpose()));
    stored.dispose();
    return turned;
  }

  async tied(embedding: string, head: string, shape: readonly [number, number]) {
    const [first, second] = this.has(`${embedding}.weight`) ? [embedding, head] : [head, embedding];
    // A tied model reads the embedding as a matrix too, so both uses share the layout that suits the matrix product.
    const both = (unembedding: Linear) => {
      // As a linear layer it is the one that makes the logits, whatever the file calls its weight.
      const module = this.linears.get(first)!;
      this.linears.delete(first);
      this.linears.set(head, module);
      return { embedding: unembedding.weight, unembedding };
    };
    const tied = async (name: string) =>
      both(await this.#linear(name, shape, await this.#matrix(name, shape, { role: "tied" })));
    if (!this.has(`${second}.weight`)) return await tied(first);
    const own = this.checkpoint.entry(`${embedding}.weight`);
    const other = this.checkpoint.entry(`${head}.weight`);
    const free = this.checkpoint.updatesOf(other.name).length === 0;
    let stored: Operand;
    if (this.#choice.isAny || own.packed || other.packed) {
      if (free && (await sameTensor(own, other))) return await tied(embedding);
      stored = await this.#matrix(embedding, shape, { role: "embedding" });
    } else {
      const compared = comparedWith(own, other);
      stored = await this.#upload.tensor(compared.entry, shape);
      if (compared.same() && free) return both(await this.#linear(embedding, shape, stored));
    }
    if (this.checkpoint.updatesOf(own.name).length > 0) throw noLinearLayer(this.checkpoint, own.name);
    this.#upload.totalBytes += other.byteLength;
    this.parameters.set(own.name, parameterOf(stored));
    return { embedding: new Matrix(stored), unembedding: await this.linear(head, shape) };
  }

  /** The linear layer whose weight, as stored, is this one. */
  async #linear(
    name: string,
    shape: LinearShape,
    stored: Operand,
    { bias, transposed }: LinearOptions = {},
  ): Promise<Linear> {
    const { weight, updates } = await this.#updated(name, stored);
    const offset = bias ? await this.tensor(`${name}.bias`, [shape[0]]) : undefined;
    const layer = this.#layer(weight, offset, updates);
    const parameter = parameterOf(layer.weight.operand);
    this.parameters.set(`${name}.weight`, transposed ? turned(parameter) : parameter);
    this.linears.set(name, { shape, layers: [{ layer }], ...(transposed && { transposed }) });
    return layer;
  }

  /** A weight [out, in] with adapters merged into it, or with those that are not to be merged (or cannot be) beside it. */
  async #updated(name: string, stored: Operand): Promise<{ weight: Operand; updates: LowRankUpdate[] }> {
    const updates = await this.#updates(`${name}.weight`);
    if (!this.#merge || updates.length === 0 || stored instanceof Packed) return { weight: stored, updates };
    const weight = this.#memory.enter(() => mergedAsStored(stored, updates));
    this.#sums.set(
      `${name}.weight`,
      this.#memory.enter(() => sumOf(weight)),
    );
    return { weight, updates: [] };
  }

  #layer(weight: Operand, bias: Tensor | undefined, updates: readonly LowRankUpdate[]): Linear {
    const preferred = updates.map(({ a, b, scale }) => ({
      a: this.#preferred(a),
      b: this.#preferred(b),
      scale,
    }));
    const operand = weight instanceof Packed ? weight : this.#preferred(weight);
    return new Linear(new Matrix(operand), bias, preferred);
  }

  /** Throws CheckpointError when a merged weight is beyond the range of its dtype. */
  async checkMerged(): Promise<void> {
    const names = [...this.#sums.keys()];
    const sums = await this.device.read([...this.#sums.values()]);
    for (const tensor of this.#sums.values()) tensor.dispose();
    const bad = names.find((_, i) => !Number.isFinite(sums[i]![0]));
    if (bad === undefined) return;
    const { dtype } = this.checkpoint.entry(bad);
    const adapters = this.checkpoint.updatesOf(bad).map(({ adapter }) => adapter);
    throw new CheckpointError(
      `${this.checkpoint.name}: with ${[...new Set(adapters)].join(", ")} merged into it, ${bad} has values beyond the ` +
        `range of ${dtype}; merge: false leaves the weights as they are`,
    );
  }

  async #updates(weight: string): Promise<LowRankUpdate[]> {
    const updates: LowRankUpdate[] = [];
    for (const { a, b, scale } of this.checkpoint.updatesOf(weight)) {
      updates.push({
        a: await this.#upload.tensor(a, a.shape),
        b: await this.#upload.tensor(b, b.shape),
        scale,
      });
    }
    return updates;
  }

  /** The matrix in the layout that suits the device, in place of the one given. */
  #preferred(stored: Tensor): Tensor {
    const weight = this.#memory.enter(() => toPreferredLayout(stored));
    if (weight !== stored) stored.dispose();
    return weight;
  }

  /** Throws ArgumentError for names that `quantise` gives and no matrix has. */
  checkChoice(): void {
    this.#choice.finish();
  }
}

interface MatrixOptions {
  readonly transposed?: boolean | undefined;
  readonly order?: readonly number[];
  readonly role?: MatrixRole;
}

/** How a matrix comes packed: as it is stored, or in a format that is asked for; undefined for one of floats. */
function packedSource(
  entry: TensorEntry,
  shape: LinearShape,
  format: PackedFormat | undefined,
  transposed: boolean,
): PackedSource | undefined {
  if (!format) return entry.packed;
  if (entry.packed) {
    throw new CheckpointError(
      `${entry.name} is stored in ${entry.packed.format.kind}; quantising that to ${format.kind} would lose twice: load it as ` +
        'it is ("stored"), or quantise the model that it was made from',
    );
  }
  const runs = transposed ? () => turnedRuns(entry, shape) : (run: number) => floatRuns(entry, run);
  return packing(entry.name, format, shape, runs);
}

function rowsOf(matrix: Packed, { rows }: RowPart, memory: Scope): Packed {
  return memory.enter(() => matrix.rows(rows[0]!, rows[0]! + rows.length));
}

function parameterOf(operand: Operand): Parameter {
  return operand instanceof Packed ? packedParameter(operand) : plainParameter(operand);
}

function sumOf(weight: Tensor): Tensor<"f32"> {
  return weight.device.scope(() => sum(weight)) as Tensor<"f32">;
}

/** The weight with its updates in it, in its own dtype, in place of all of them. */
function mergedAsStored(stored: Tensor, updates: readonly LowRankUpdate[]): Tensor {
  const whole = stored.device.scope(() => cast(merged(stored, updates), stored.dtype));
  stored.dispose();
  for (const { a, b } of updates) {
    a.dispose();
    b.dispose();
  }
  return whole;
}
