import { DTypeError, GradientError, ShapeError } from "../errors.ts";
import type { Storage } from "../tensor/buffer-pool.ts";
import type { Device } from "../tensor/device.ts";
import { isFloat } from "../tensor/dtype.ts";
import { apply, type Operation, type OperationRecord } from "../tensor/operation.ts";
import type { Scope } from "../tensor/scope.ts";
import { sameShape, showShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Node, type Place, placeOf } from "./node.ts";
import { isConstant } from "./rule.ts";
import { ruleOf } from "./rules.ts";
import {
  backwardStep,
  type Computed,
  type Input,
  inputValue,
  type Kept,
  keep,
  refusal,
  type Step,
} from "./step.ts";

/** Stands for what changed a tensor while the tape was stopped. */
const UNRECORDED: Operation<unknown> = {
  name: "a change in place that was not recorded",
  run: ([target]) => target!,
};

/** A run of steps whose values can be forgotten and computed anew from what entered it. */
interface Segment {
  readonly steps: Step[];
  /** Holds the values that rules read. */
  readonly values: Scope;
  /** Bytes of those. */
  bytes: number;
  forgotten: boolean;
}

/** A tensor whose gradient is asked for. */
export interface Watched {
  /** @internal */
  readonly node: Node;
  /** @internal */
  readonly place: Place;
}

/** How much a tape keeps. */
export interface TapeOptions {
  /**
   * Bytes of activations that are kept for the way back. Beyond them the earliest segments keep only what enters them, and
   * are computed a second time (Chen et al. 2016, arXiv 1604.06174). Default: as many as it takes.
   */
  readonly keepBytes?: number;
}

/**
 * Notes the operations that watched tensors flow through, and goes back through them: reverse-mode differentiation over the
 * records that a device tells its observers. What does not depend on a watched tensor is not noted.
 *
 * Of each operation are kept the values that its rule reads, and what entered its segment; {@link cut} ends a segment where few
 * values are alive, such as between blocks.
 */
export class Tape {
  readonly #device: Device;
  readonly #keepBytes: number;
  /** By the buffer that they are in at the moment. */
  readonly #nodes = new Map<Storage, Node>();
  readonly #segments: Segment[] = [];
  /** Holds what enters segments, and gradients. */
  readonly #scope: Scope;
  #gone = false;
  #stop: (() => void) | undefined;
  #bytes = 0;

  constructor(device: Device, { keepBytes = Number.POSITIVE_INFINITY }: TapeOptions = {}) {
    this.#device = device;
    this.#keepBytes = keepBytes;
    this.#scope = device.openScope();
    this.cut();
  }

  /** Bytes of activations kept for the way back. */
  get keptBytes(): number {
    return this.#bytes;
  }

  /** Number of operations noted. */
  get length(): number {
    return this.#segments.reduce((count, { steps }) => count + steps.length, 0);
  }

  /** Runs `fn` and notes what it does. */
  record<T>(fn: () => T): T {
    this.start();
    try {
      return fn();
    } finally {
      this.stop();
    }
  }

  /** Begins to note what is computed; does nothing if it does so already. */
  start(): void {
    if (this.#stop) return;
    const { boundaryObservers } = this.#device;
    const cut = () => this.cut();
    const stop = this.#device.observe((record) => this.#note(record));
    boundaryObservers.add(cut);
    this.#stop = () => {
      stop();
      boundaryObservers.delete(cut);
    };
  }

  /** Stops noting. What has been noted stays. */
  stop(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  /**
   * Asks for the gradient of a float tensor: all that is computed from it (or from views of it) counts, from now on, or all along
   * for what was itself computed from something watched.
   *
   * Throws GradientError for integers, and for views that repeat elements.
   */
  watch(tensor: Tensor): Watched {
    if (!isFloat(tensor.dtype)) throw new GradientError(`only floats have gradients, found ${tensor}`);
    if (tensor.size > 0 && tensor.shape.some((n, axis) => n > 1 && tensor.strides[axis] === 0)) {
      throw new GradientError(
        `${tensor} repeats elements, so that they have one gradient: watch what was broadcast`,
      );
    }
    let node = this.#nodeOf(tensor);
    if (!node) {
      node = new Node(tensor, undefined);
      this.#nodes.set(tensor.storage, node);
    }
    node.watched = true;
    this.#scope.enter(() => tensor.alias()); // its buffer stays its own
    return { node, place: placeOf(tensor) };
  }

  /** Ends a segment: what is alive now is kept if it is used later, the rest may be computed anew. */
  cut(): void {
    if (this.#segments.at(-1)?.steps.length === 0) return;
    this.#segments.push({ steps: [], values: this.#device.openScope(), bytes: 0, forgotten: false });
    for (const segment of this.#segments.slice(0, -1)) {
      if (this.#bytes <= this.#keepBytes) break;
      this.#forget(segment);
    }
  }

  /**
   * Goes back from `result`, whose gradient is `cotangent` (default: 1 for each element), and adds to the gradients of what is
   * watched. Once for a tape.
   *
   * Throws GradientError where the result does not depend on anything watched, comes through an operation without rule, or a
   * value that a rule reads has been changed in place since.
   */
  backward(result: Tensor, cotangent?: Tensor): void {
    this.stop();
    if (this.#gone) throw new GradientError("a tape goes back once: record another one");
    const node = this.#nodeOf(result);
    if (!node) throw new GradientError("the result does not depend on anything whose gradient is asked for");
    if (cotangent && !sameShape(cotangent.shape, result.shape)) {
      throw new ShapeError(
        `backward: expected a cotangent ${showShape(result.shape)}, found ${showShape(cotangent.shape)}`,
      );
    }
    if (cotangent && !isFloat(cotangent.dtype)) {
      throw new DTypeError(`backward: expected a cotangent of floats, found ${cotangent}`);
    }
    this.#gone = true;
    this.#scope.enter(() => {
      const seed =
        cotangent ?? this.#device.tensor(new Float32Array(result.size).fill(1), { shape: result.shape });
      node.add(placeOf(result), seed);
      if (!cotangent) seed.dispose();
    });
    for (const segment of this.#segments.toReversed()) this.#backThrough(segment);
  }

  /** The gradient of a watched tensor: f32 of its shape, 0 where the result does not depend on it. Made in the current scope. */
  gradient({ node, place }: Watched): Tensor {
    return node.at(place) ?? this.#device.zeros(place.shape);
  }

  /** The same of what the result was supposed to be computed with. Throws GradientError where nothing read it. */
  gradientOfUsed(name: string, watched: Watched): Tensor {
    if (watched.node.used) return this.gradient(watched);
    throw new GradientError(
      `${name}: nothing that was computed reads it as it is, so that it has no gradient`,
    );
  }

  /** Stops, and frees what it keeps. */
  dispose(): void {
    this.stop();
    for (const { values } of this.#segments) values.dispose();
    this.#scope.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #note({ operation, inputs, attributes, output }: OperationRecord): void {
    const [first] = inputs;
    if (first && output !== first && output.storage === first.storage) return; // a view: its node is that of the buffer
    const nodes = inputs.map((input) => this.#nodeOf(input, input === output));
    const flows = nodes.some((node, i) => node !== undefined && isFloat(inputs[i]!.dtype));
    const rule = ruleOf(operation as Operation<never>);
    if (!flows || !isFloat(output.dtype) || (rule && isConstant(rule, attributes))) {
      // Nothing watched is in this buffer (any more).
      this.#nodes.delete(output.storage);
      return;
    }
    const segment = this.#segments.at(-1)!;
    const number = this.#segments.length - 1;
    const wanted = (i: number) => nodes[i] !== undefined && isFloat(inputs[i]!.dtype);
    const shapes = inputs.map(({ shape, strides, dtype }) => ({ shape, strides, dtype }));
    const needs = rule?.needs(attributes, wanted, shapes) ?? {};
    const kept = inputs.map((input, i): Input => {
      const node = wanted(i) ? nodes[i] : undefined;
      if (node) node.used = true;
      const outside = nodes[i]?.segment !== number;
      const read = needs.inputs?.includes(i);
      const value = outside
        ? this.#scope.enter(() => keep(input))
        : read
          ? this.#keep(segment, input)
          : undefined;
      return { ...placeOf(input), node, kept: value };
    });
    const node = new Node(output, number);
    segment.steps.push({
      operation,
      attributes,
      rule: output === first ? undefined : rule,
      inputs: kept,
      output: { ...placeOf(output), node },
      outputKept: needs.output ? this.#keep(segment, output) : undefined,
    });
    this.#nodes.set(output.storage, node);
  }

  /** What is known of a tensor's buffer; `changed` where the operation at hand has just written it. */
  #nodeOf(tensor: Tensor, changed = false): Node | undefined {
    const { storage } = tensor;
    const node = this.#nodes.get(storage);
    if (!node) return undefined;
    if (node.loan !== storage.loans) {
      this.#nodes.delete(storage); // that tensor is gone, and this is another one
      return undefined;
    }
    if (changed || node.segment === undefined || node.writes === storage.writes) return node;
    const number = this.#segments.length - 1;
    const other = new Node(tensor, number);
    this.#segments[number]!.steps.push({
      operation: UNRECORDED,
      attributes: undefined,
      rule: undefined,
      inputs: [],
      output: { ...placeOf(tensor), node: other },
      outputKept: undefined,
    });
    this.#nodes.set(storage, other);
    return other;
  }

  #keep(segment: Segment, tensor: Tensor): Kept {
    segment.bytes += tensor.bytes;
    this.#bytes += tensor.bytes;
    return segment.values.enter(() => keep(tensor));
  }

  #forget(segment: Segment): void {
    if (segment.forgotten) return;
    segment.forgotten = true;
    segment.values.dispose();
    this.#bytes -= segment.bytes;
  }

  #backThrough(segment: Segment): void {
    const reached = segment.steps.some(({ output }) => output.node.reached);
    const memory = this.#device.openScope();
    try {
      const computed = reached && segment.forgotten ? memory.enter(() => this.#again(segment)) : undefined;
      for (const step of segment.steps.toReversed()) {
        const { node } = step.output;
        if (!node.reached) continue;
        this.#scope.enter(() => backwardStep(this.#device, step, computed));
        if (!node.watched) node.clear();
      }
    } finally {
      memory.dispose();
      segment.values.dispose();
    }
  }

  /** Computes a segment anew. */
  #again({ steps }: Segment): Computed {
    const computed = new Map<Node, Tensor | GradientError>();
    for (const { operation, attributes, rule, inputs, output } of steps) {
      const values = inputs.map((input) => inputValue(operation, input, computed));
      const lost = rule ? values.find((value) => value instanceof GradientError) : refusal(operation);
      if (lost) computed.set(output.node, lost);
      else {
        const made = apply(operation, values as Tensor[], attributes, this.#device);
        computed.set(output.node, made.view([output.node.count], [1], 0));
      }
    }
    return computed;
  }
}
