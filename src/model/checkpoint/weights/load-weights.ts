import { CheckpointError } from "../../../errors.ts";
import { toPreferredLayout } from "../../../kernels/matmul/linear.ts";
import { Matrix } from "../../../kernels/matmul/matrix.ts";
import { cast, contiguous } from "../../../kernels/movement/copy.ts";
import { sum } from "../../../kernels/reduction/reduce.ts";
import type { Device } from "../../../tensor/device.ts";
import { type Operand, Packed } from "../../../tensor/packed/packed.ts";
import type { PackedFormat } from "../../../tensor/packed/packed-format.ts";
import type { Scope } from "../../../tensor/scope.ts";
import type { Shape } from "../../../tensor/shape.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Checkpoint } from "../checkpoint.ts";
import type { PackedSource } from "../entries/packed-source.ts";
import { comparedWith, sameTensor } from "../entries/same-tensor.ts";
import type { TensorEntry } from "../entries/tensor-entry.ts";
import { floatRuns, turnedRuns } from "../packing/float-runs.ts";
import { packing } from "../packing/pack.ts";
import { reordered } from "../packing/reorder-rows.ts";
import { checkWeights, noLinearLayer } from "./check-weights.ts";
import { Linear } from "./linear-layer.ts";
import { type LowRankUpdate, merged } from "./low-rank.ts";
import {
  type LinearModule,
  type LoadedParts,
  layerParameter,
  type Parameter,
  packedParameter,
  plainParameter,
  turned,
} from "./parameters.ts";
import { type MatrixRole, QuantiseChoice } from "./quantise.ts";
import { consecutive, type RowPart } from "./row-parts.ts";
import { Uploader } from "./upload.ts";
import {
  asStored,
  type LinearOptions,
  type LinearShape,
  linearOptions,
  type WeightOptions,
  type Weights,
} from "./weights.ts";

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

class Load implements Weights {
  readonly device: Device;
  readonly #checkpoint: Checkpoint;
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
    this.#checkpoint = checkpoint;
    this.device = device;
    this.#memory = memory;
    this.#upload = new Uploader(device, memory, totalBytes, onProgress);
    this.#merge = merge;
    this.#choice = new QuantiseChoice(quantise);
  }

  has(name: string): boolean {
    return this.#checkpoint.has(name);
  }

  async tensor(name: string, shape: Shape): Promise<Tensor> {
    const tensor = await this.#upload.tensor(this.#checkpoint.entry(name), shape);
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
    const entries = parts.map(({ name }) => this.#checkpoint.entry(name));
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
      const joined = layerParameter(layers, "weight", parts);
      this.parameters.set(`${name}.weight`, transposed ? turned(joined) : joined);
    }
    const shares = layers.map((layer, i) => ({ layer, part: parts[i]! }));
    this.linears.set(name, { shape, layers: shares, ...(transposed && { transposed }) });
    if (offset) {
      this.parameters.set(`${name}.bias`, layerParameter(layers, "bias", parts));
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
    const entry = this.#checkpoint.entry(`${name}.weight`);
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
    const own = this.#checkpoint.entry(`${embedding}.weight`);
    const other = this.#checkpoint.entry(`${head}.weight`);
    const free = this.#checkpoint.updatesOf(other.name).length === 0;
    let stored: Operand;
    if (this.#choice.isAny || own.packed || other.packed) {
      if (free && (await sameTensor(own, other))) return await tied(embedding);
      stored = await this.#matrix(embedding, shape, { role: "embedding" });
    } else {
      const compared = comparedWith(own, other);
      stored = await this.#upload.tensor(compared.entry, shape);
      if (compared.same() && free) return both(await this.#linear(embedding, shape, stored));
    }
    if (this.#checkpoint.updatesOf(own.name).length > 0) throw noLinearLayer(this.#checkpoint, own.name);
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
    const parameter = weight instanceof Packed ? packedParameter(weight) : layerParameter([layer], "weight");
    this.parameters.set(`${name}.weight`, transposed ? turned(parameter) : parameter);
    if (bias) this.parameters.set(`${name}.bias`, layerParameter([layer], "bias"));
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
    const { dtype } = this.#checkpoint.entry(bad);
    const adapters = this.#checkpoint.updatesOf(bad).map(({ adapter }) => adapter);
    throw new CheckpointError(
      `${this.#checkpoint.name}: with ${[...new Set(adapters)].join(", ")} merged into it, ${bad} has values beyond the ` +
        `range of ${dtype}; merge: false leaves the weights as they are`,
    );
  }

  async #updates(weight: string): Promise<LowRankUpdate[]> {
    const updates: LowRankUpdate[] = [];
    for (const { a, b, scale } of this.#checkpoint.updatesOf(weight)) {
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
