import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { Tape, type Watched } from "../../src/gradient/tape.ts";
import { matmul } from "../../src/kernels/matmul/matmul.ts";
import { concat } from "../../src/kernels/movement/concat.ts";
import { copy } from "../../src/kernels/movement/copy.ts";
import { gatherRows } from "../../src/kernels/movement/gather.ts";
import { scaleRows, setRows } from "../../src/kernels/movement/row-edits.ts";
import type { Device } from "../../src/tensor/device.ts";
import { contiguousStrides, isContiguous, type Shape, sizeOf } from "../../src/tensor/shape.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, largest, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";

// Random programs of views and operations, on the device and in an interpreter in f64: gradients of inputs and of middle results
// are what central differences of the interpreter say.

let device: Device;
beforeAll(async () => {
  device = await testDevice();
});

const KINDS = [
  ...(["slice", "permute", "reshape", "at", "broadcastTo"] as const),
  ...(["copy", "concat", "product", "gather", "set", "scale"] as const),
  ...(["dispose", "cut", "watch"] as const),
];

interface Step {
  readonly kind: (typeof KINDS)[number];
  /** What the step is done to, by its number among the values there are; and choices of its own. */
  readonly on: number;
  readonly b: number;
  readonly c: number;
}

/** What both kinds of values have. */
interface Value<T> {
  readonly shape: Shape;
  readonly strides: readonly number[];
  slice(axis: number, start: number, end: number): T;
  permute(order: readonly number[]): T;
  reshape(shape: Shape): T;
  at(i: number): T;
  broadcastTo(shape: Shape): T;
}

interface Machine<T> {
  copy(x: T): T;
  concat(x: T, y: T): T;
  /** x^T x */
  product(x: T): T;
  gather(x: T, ids: number[]): T;
  set(x: T, row: number, value: T): T;
  scale(x: T, row: number): T;
  dispose(x: T): void;
  cut(): void;
  watch(x: T): void;
}

function execute<T extends Value<T>>(steps: readonly Step[], inputs: readonly T[], machine: Machine<T>): T {
  const values = [...inputs];
  let products = 0;
  for (const { kind, on, b, c } of steps) {
    const index = on % values.length;
    const x = values[index]!;
    const { shape } = x;
    const [first] = shape as [number];
    const rank = shape.length;
    const [matrix, small] = [rank === 2, sizeOf(shape) <= 24];
    if (kind === "slice") {
      const axis = b % rank;
      const start = c % shape[axis]!;
      values.push(x.slice(axis, start, start + 1 + ((b + c) % (shape[axis]! - start))));
    }
    if (kind === "permute") values.push(x.permute(shape.map((_, i) => (i + 1 + b) % rank)));
    if (kind === "reshape" && isContiguous(shape, x.strides)) {
      values.push(x.reshape(rank > 1 ? [sizeOf(shape)] : first % 2 === 0 ? [2, first / 2] : [1, first]));
    }
    if (kind === "at" && rank > 1) values.push(x.at(b % first));
    if (kind === "broadcastTo" && rank < 3 && small) values.push(x.broadcastTo([2, ...shape]));
    if (kind === "copy") values.push(machine.copy(x));
    if (kind === "concat" && small) {
      const others = values.filter((y) => y.shape.join() === shape.join());
      values.push(machine.concat(x, others[b % others.length]!));
    }
    if (kind === "product" && matrix && products++ < 2) values.push(machine.product(x));
    if (kind === "gather" && matrix) values.push(machine.gather(x, [b % first, c % first, b % first]));
    if (kind === "set" && matrix) values.push(machine.set(x, b % first, x.at(c % first)));
    if (kind === "scale" && matrix) values.push(machine.scale(x, b % first));
    if (kind === "dispose" && values.length > 1) machine.dispose(values.splice(index, 1)[0]!);
    if (kind === "cut") machine.cut();
    if (kind === "watch" && shape.every((n, i) => n === 1 || x.strides[i] !== 0)) machine.watch(x);
  }
  return values.at(-1)!;
}

/** A number is changed in the buffer that is made as the `buffer`th. */
interface Change {
  readonly buffer: number;
  readonly at: number;
  readonly by: number;
}

class Interpreter implements Machine<Numbers> {
  readonly watched: Numbers[] = [];
  readonly #change: Change | undefined;
  #made = 0;

  constructor(change?: Change) {
    this.#change = change;
  }

  make(shape: Shape, at: (i: number) => number): Numbers {
    const data = Float64Array.from({ length: sizeOf(shape) }, (_, i) => at(i));
    const buffer = this.#made++;
    if (this.#change?.buffer === buffer) data[this.#change.at]! += this.#change.by;
    return new Numbers(data, buffer, shape, contiguousStrides(shape), 0);
  }

  copy(x: Numbers) {
    const values = x.values();
    return this.make(x.shape, (i) => values[i]!);
  }

  concat(x: Numbers, y: Numbers) {
    const values = [...x.values(), ...y.values()];
    return this.make([2 * x.shape[0]!, ...x.shape.slice(1)], (i) => values[i]!);
  }

  product(x: Numbers) {
    const [rows, width] = x.shape as [number, number];
    const v = x.values();
    return this.make([width, width], (i) => {
      let total = 0;
      for (let r = 0; r < rows; r++)
        total += v[r * width + Math.floor(i / width)]! * v[r * width + (i % width)]!;
      return total;
    });
  }

  gather(x: Numbers, ids: number[]) {
    const width = x.shape[1]!;
    const values = x.values();
    return this.make([ids.length, width], (i) => values[ids[Math.floor(i / width)]! * width + (i % width)]!);
  }

  set(x: Numbers, row: number, value: Numbers) {
    const width = x.shape[1]!;
    const [old, put] = [x.values(), value.values()];
    return this.make(x.shape, (i) => (Math.floor(i / width) === row ? put[i % width]! : old[i]!));
  }

  scale(x: Numbers, row: number) {
    const width = x.shape[1]!;
    const values = x.values();
    return this.make(x.shape, (i) => values[i]! * (Math.floor(i / width) === row ? 0.5 : 1));
  }

  dispose() {}

  cut() {}

  watch(x: Numbers) {
    this.watched.push(x);
  }
}

class Numbers implements Value<Numbers> {
  readonly data: Float64Array;
  readonly buffer: number;
  readonly shape: Shape;
  readonly strides: readonly number[];
  readonly offset: number;

  constructor(data: Float64Array, buffer: number, shape: Shape, strides: readonly number[], offset: number) {
    this.data = data;
    this.buffer = buffer;
    this.shape = shape;
    this.strides = strides;
    this.offset = offset;
  }

  /** Where each element lies in the buffer, row-major. */
  places(): number[] {
    return this.shape.reduce(
      (places, n, axis) =>
        places.flatMap((place) => Array.from({ length: n }, (_, i) => place + i * this.strides[axis]!)),
      [this.offset],
    );
  }

  values(): number[] {
    return this.places().map((place) => this.data[place]!);
  }

  #view(shape: Shape, strides: readonly number[], offset = this.offset) {
    return new Numbers(this.data, this.buffer, shape, strides, offset);
  }

  slice(axis: number, start: number, end: number) {
    const offset = this.offset + start * this.strides[axis]!;
    return this.#view(this.shape.with(axis, end - start), this.strides, offset);
  }

  permute(order: readonly number[]) {
    return this.#view(
      order.map((axis) => this.shape[axis]!),
      order.map((axis) => this.strides[axis]!),
    );
  }

  reshape(shape: Shape) {
    return this.#view(shape, contiguousStrides(shape));
  }

  at(i: number) {
    return this.#view(this.shape.slice(1), this.strides.slice(1), this.offset + i * this.strides[0]!);
  }

  broadcastTo(shape: Shape) {
    return this.#view(
      shape,
      [...shape.slice(this.shape.length).map(() => 0), ...this.strides].slice(-shape.length),
    );
  }
}

/** The device, with a tape that records. */
function recorder(tape: Tape): Machine<Tensor> & { readonly watched: Watched[] } {
  const watched: Watched[] = [];
  return {
    watched,
    copy,
    concat: (x, y) => concat([x, y]),
    product: (x) => matmul(x.transpose(), x),
    gather: (x, ids) => gatherRows(x, device.tensor(Uint32Array.from(ids))),
    set: (x, row, value) => setRows(x, [row], value),
    scale: (x, row) => scaleRows(x, [row], 0.5),
    dispose: (x) => x.dispose(),
    cut: () => tape.cut(),
    watch: (x) => void watched.push(tape.watch(x)),
  };
}

test("gradients of random programs are what central differences say, with values kept and computed anew", async () => {
  const step = fc.record({
    kind: fc.constantFrom(...KINDS),
    on: fc.nat(99),
    b: fc.nat(11),
    c: fc.nat(11),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 4, maxLength: 18 }),
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 4 }),
      async (steps, rows, width) => {
        const shapes: Shape[] = [
          [rows, width],
          [width, 2],
        ];
        const numbers = shapes.map((shape, i) => randomArray(sizeOf(shape), 5 + i));
        const run = (change?: Change) => {
          const interpreter = new Interpreter(change);
          const inputs = shapes.map((shape, i) => interpreter.make(shape, (j) => numbers[i]![j]!));
          for (const input of inputs) interpreter.watch(input);
          return { result: execute(steps, inputs, interpreter), watched: interpreter.watched };
        };
        const { result, watched } = run();
        const cotangent = randomArray(sizeOf(result.shape), 9);
        const loss = (change: Change) =>
          run(change)
            .result.values()
            .reduce((total, y, i) => total + y * cotangent[i]!, 0);
        const expected = watched.map((x) =>
          x.places().map((at) => {
            const [above, below] = [1e-5, -1e-5].map((by) => loss({ buffer: x.buffer, at, by }));
            return (above! - below!) / 2e-5;
          }),
        );

        const found: Float32Array[][] = [];
        for (const keepBytes of [Number.POSITIVE_INFINITY, 0]) {
          const scope = device.openScope();
          try {
            const gradients = scope.enter(() => {
              using tape = new Tape(device, { keepBytes });
              const inputs = shapes.map((shape, i) => device.tensor(numbers[i]!, { shape }));
              const machine = recorder(tape);
              for (const input of inputs) machine.watch(input);
              const out = tape.record(() => execute(steps, inputs, machine));
              tape.backward(out, device.tensor(cotangent, { shape: out.shape }));
              return machine.watched.map((each) => tape.gradient(each));
            });
            found.push((await device.read(gradients)) as Float32Array[]);
          } finally {
            scope.dispose();
          }
        }
        expected.forEach((gradient, i) => {
          const atol = 1e-4 * Math.max(1e-3, largest(gradient));
          expectClose(found[0]![i]!, gradient, { atol, rtol: 0, label: `gradient of ${i}` });
        });
        expect(found[1]).toEqual(found[0]);
      },
    ),
    { numRuns: 200, seed: 1 },
  );
});
