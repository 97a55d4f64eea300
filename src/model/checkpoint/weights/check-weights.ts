import { CheckpointError } from "../../../errors.ts";
import type { Matrix } from "../../../kernels/matmul/matrix.ts";
import type { Device } from "../../../tensor/device.ts";
import { isFloat } from "../../../tensor/dtype.ts";
import type { PackedFormat } from "../../../tensor/packed/packed-format.ts";
import { type Shape, sameShape, showShape } from "../../../tensor/shape.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Checkpoint } from "../checkpoint.ts";
import { readTensor, type TensorEntry } from "../entries/tensor-entry.ts";
import { Linear } from "./linear-layer.ts";
import { type MatrixRole, type Quantise, QuantiseChoice } from "./quantise.ts";
import type { RowPart } from "./row-parts.ts";
import { adviceFor, strayTensors } from "./stray-tensors.ts";
import { asStored, type LinearOptions, type LinearShape, linearOptions, type Weights } from "./weights.ts";

/** Problems that a message spells out. */
const MAX_LISTED = 8;

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

/** Finds out whether everything that `build` asks for is there in the right shape; see `loadWeights`. */
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

class Check implements Weights {
  readonly device: Device;
  readonly #checkpoint: Checkpoint;
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
    this.#checkpoint = checkpoint;
    this.device = device;
    this.#choice = choice;
  }

  #quantise(name: string, shape: LinearShape, role: MatrixRole): void {
    const format = this.#choice.formatOf(name, role);
    if (format) this.quantised.set(`${name}.weight`, { shape, format });
    else this.quantised.delete(`${name}.weight`);
  }

  has(name: string): boolean {
    return this.#checkpoint.has(name);
  }

  async tensor(name: string, shape: Shape): Promise<Tensor> {
    this.#names.add(name);
    if (this.has(name)) {
      const entry = this.#checkpoint.entry(name);
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
    const entries = parts.flatMap(({ name }) => (this.has(name) ? [this.#checkpoint.entry(name)] : []));
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
    const isPacked = this.has(weight) && this.#checkpoint.entry(weight).packed !== undefined;
    await this.tensor(weight, asStored(shape, transposed && !isPacked));
    this.#quantise(name, shape, "linear");
    this.#linear.add(weight);
    if (transposed) this.transposed.add(weight);
    for (const { a, b, adapter } of this.#checkpoint.updatesOf(weight)) {
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
    this.#checkpoint.require(this.#names);
    const unused = this.#checkpoint.updated.find((weight) => !this.#linear.has(weight));
    if (unused !== undefined) throw noLinearLayer(this.#checkpoint, unused);
    if (this.#misfits.length > 0) {
      throw new CheckpointError(
        `${this.#checkpoint.name}: the config does not fit the tensors: ${listed(this.#misfits)}`,
      );
    }
    await this.#refuseStrays();
  }

  async #refuseStrays(): Promise<void> {
    const asked = new Set([...this.#names, ...this.#optional]);
    const strays: string[] = [];
    for (const name of strayTensors(this.#checkpoint.names, asked, this.#skipped)) {
      if (!(name.endsWith(".bias") && (await isZero(this.#checkpoint.entry(name))))) strays.push(name);
    }
    if (strays.length === 0) return;
    const advice = [...new Set(strays.map(adviceFor))].join("; ");
    throw new CheckpointError(
      `${this.#checkpoint.name}: expected nothing beside what the model reads, found ${listed(strays)} (${advice}): ` +
        "without it the model would be another",
    );
  }
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

/** Stands for a tensor while names and shapes are checked; a builder only passes it on. */
const PLACEHOLDER = Object.freeze({}) as Tensor;
const PLACEHOLDER_MATRIX = Object.freeze({}) as Matrix;

/** Of an adapter for a weight that no linear layer has. */
export function noLinearLayer(checkpoint: Checkpoint, weight: string): CheckpointError {
  const { adapter } = checkpoint.updatesOf(weight)[0]!;
  return new CheckpointError(`${adapter} changes ${weight}, which is no linear layer of this model`);
}
