import { GradientError, ShapeError } from "../errors.ts";
import type { Storage } from "../tensor/buffer-pool.ts";
import type { Device } from "../tensor/device.ts";
import { DTYPE_BYTES, isFloat } from "../tensor/dtype.ts";
import { apply, type Operation, type OperationRecord } from "../tensor/operation.ts";
import type { Scope } from "../tensor/scope.ts";
import { sameShape, showShape } from "../tensor/shape.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { Node, type Place, placeOf } from "./node.ts";
import { type BackwardCall, isConstant, type Rule } from "./rule.ts";
import { ruleOf } from "./rules.ts";

/** An input of an applied operation. */
interface Input extends Place {
  /** Undefined for what no watched tensor flows into. */
  readonly node: Node | undefined;
  /** The value, where it comes from outside of the step's segment or the rule reads it. */
  value: Tensor | undefined;
}

/** An applied operation that watched tensors flow through. */
interface Step {
  readonly operation: Operation<unknown>;
  readonly attributes: unknown;
  /** Undefined for an operation that gradients do not go through: it matters only if one gets there. */
  readonly rule: Rule | undefined;
  readonly inputs: readonly Input[];
  readonly output: Place & { readonly node: Node };
  outputValue: Tensor | undefined;
}

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
  readonly node: Node;
  readonly place: Place;
}

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

  start(): void {
    this.#stop ??= this.#device.observe((record) => this.#note(record));
  }

  stop(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  /** Asks for the gradient of a float tensor: all that is computed from it (or from views of it) from now on counts. */
  watch(tensor: Tensor): Watched {
    if (!isFloat(tensor.dtype)) throw new GradientError(`only floats have gradients, found ${tensor}`);
    let node = this.#nodes.get(tensor.storage);
    if (!node) {
      node = new Node(elementsOf(tensor), undefined);
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
   * Throws GradientError where the result does not depend on anything watched, or comes through an operation without rule.
   */
  backward(result: Tensor, cotangent?: Tensor): void {
    this.stop();
    const node = this.#nodes.get(result.storage);
    if (!node) throw new GradientError("the result does not depend on anything whose gradient is asked for");
    if (cotangent && !sameShape(cotangent.shape, result.shape)) {
      throw new ShapeError(
        `backward: expected a cotangent ${showShape(result.shape)}, found ${showShape(cotangent.shape)}`,
      );
    }
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
    const nodes = inputs.map((input) => this.#nodes.get(input.storage));
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
      const outside = nodes[i]?.segment !== number;
      const read = needs.inputs?.includes(i);
      const value = outside
        ? this.#scope.enter(() => input.alias())
        : read
          ? this.#keep(segment, input)
          : undefined;
      return { ...placeOf(input), node, value };
    });
    const node = new Node(elementsOf(output), number);
    segment.steps.push({
      operation,
      attributes,
      rule: output === first ? undefined : rule,
      inputs: kept,
      output: { ...placeOf(output), node },
      outputValue: needs.output ? this.#keep(segment, output) : undefined,
    });
    this.#nodes.set(output.storage, node);
  }

  #keep(segment: Segment, tensor: Tensor): Tensor {
    segment.bytes += tensor.bytes;
    this.#bytes += tensor.bytes;
    return segment.values.enter(() => tensor.alias());
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

  /** Computes a segment anew: what its nodes hold, as one run of elements each. */
  #again({ steps }: Segment): ReadonlyMap<Node, Tensor> {
    const computed = new Map<Node, Tensor>();
    for (const { operation, attributes, rule, inputs, output } of steps) {
      if (!rule) continue; // nothing that leads on from here has a gradient
      const values = inputs.map((input) => inputValue(input, computed));
      if (!values.every((value) => value !== undefined)) continue;
      const made = apply(operation, values, attributes, this.#device);
      computed.set(output.node, made.view([output.node.count], [1], 0));
    }
    return computed;
  }
}

/** Carries the gradient of a step's output to its inputs. */
function backwardStep(device: Device, step: Step, computed: ReadonlyMap<Node, Tensor> | undefined): void {
  const { rule, operation, inputs } = step;
  if (!rule) {
    throw new GradientError(
      `gradients do not go through ${operation.name}, by which the result was computed`,
    );
  }
  const taken = new Set<number>();
  const gradients = device.scope(() => rule.backward(callOf(step, taken, computed)));
  for (const i of taken) inputs[i]!.node!.replace(gradients[i]!);
  for (const [i, gradient] of gradients.entries()) {
    const { node } = inputs[i]!;
    if (gradient && node && !taken.has(i)) node.add(inputs[i]!, gradient);
  }
  for (const gradient of gradients) gradient?.dispose();
}

function callOf(
  { rule, attributes, inputs, output, outputValue }: Step,
  taken: Set<number>,
  computed: ReadonlyMap<Node, Tensor> | undefined,
): BackwardCall<unknown> {
  const missing = (what: string) =>
    new GradientError(`the rule of ${rule!.operation.name} reads ${what}, which it does not name as needed`);
  return {
    attributes,
    inputs,
    cotangent: output.node.at(output)!,
    wanted: (i) => inputs[i]?.node !== undefined,
    value(i) {
      const value = inputValue(inputs[i]!, computed);
      if (!value) throw missing(`input ${i}`);
      return value;
    },
    output() {
      const base = computed?.get(output.node);
      const value = base ? base.view(output.shape, output.strides, output.offset) : outputValue;
      if (!value) throw missing("its output");
      return value;
    },
    takeSum(i) {
      const { node } = inputs[i]!;
      const sum = node?.whole(inputs[i]!);
      if (sum) taken.add(i);
      return sum;
    },
  };
}

function inputValue(input: Input, computed: ReadonlyMap<Node, Tensor> | undefined): Tensor | undefined {
  const base = input.node && computed?.get(input.node);
  if (base) return base.view(input.shape, input.strides, input.offset);
  return input.value?.disposed ? undefined : input.value;
}

/** Elements of the buffer that a tensor is all or part of. */
function elementsOf({ storage, dtype }: Tensor): number {
  return storage.used / DTYPE_BYTES[dtype];
}
