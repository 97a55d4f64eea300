import { expect } from "vitest";
import { Tape } from "../../src/gradient/tape.ts";
import { cast } from "../../src/kernels/movement/copy.ts";
import type { Device } from "../../src/tensor/device.ts";
import type { DType } from "../../src/tensor/dtype.ts";
import { type Shape, sizeOf } from "../../src/tensor/shape.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, largest, randomArray } from "./compare.ts";

/** Row-major numbers in f64. */
export interface Numbers {
  readonly shape: Shape;
  readonly data: Float64Array;
}

/** A tensor of a test: `values` row-major, laid out in memory as `make` has it (default: contiguous). */
export interface TestInput {
  readonly shape: Shape;
  readonly values?: ArrayLike<number>;
  readonly dtype?: DType;
  /** A view of the shape with other strides: what is made of the contiguous tensor before the operation, and how to fill that. */
  readonly layout?: "transposed" | "sliced";
  /** Default true; integers never have one. */
  readonly gradient?: boolean;
}

export interface GradientCheck {
  readonly inputs: readonly TestInput[];
  /** The operation on the device. */
  readonly run: (...inputs: Tensor[]) => Tensor;
  /** The same in f64, row-major. */
  readonly reference: (...inputs: Numbers[]) => ArrayLike<number>;
  /** Of the largest gradient. Default 1e-4. */
  readonly tolerance?: number;
  readonly seed?: number;
}

/**
 * Compares what the tape says of an operation with central differences of its f64 reference, for a random cotangent; and its value
 * with the reference's.
 */
export async function checkGradients(
  device: Device,
  { inputs, run, reference, tolerance = 1e-4, seed = 1 }: GradientCheck,
): Promise<void> {
  await using scope = openScope(device);
  const laid = inputs.map((input, i) => scope.enter(() => layOut(device, input, seed + 17 * i)));
  const numbers = (await device.read(laid)).map(
    (values, i): Numbers => ({
      shape: inputs[i]!.shape,
      data: Float64Array.from(values as ArrayLike<number>),
    }),
  );
  const differentiable = inputs.map(
    ({ gradient = true, dtype = "f32" }) => gradient && dtype !== "u32" && dtype !== "i32",
  );
  const tape = new Tape(device);
  try {
    const watched = laid.map((tensor, i) => (differentiable[i] ? tape.watch(tensor) : undefined));
    const output = scope.enter(() => tape.record(() => run(...laid)));
    const cotangent = randomArray(output.size, seed + 1000);
    expectClose(await output.read(), reference(...numbers), { atol: 1e-4, rtol: 1e-4, label: "value" });
    scope.enter(() => tape.backward(output, device.tensor(cotangent, { shape: output.shape })));
    const loss = () => {
      const out = reference(...numbers);
      let total = 0;
      for (let i = 0; i < cotangent.length; i++) total += cotangent[i]! * out[i]!;
      return total;
    };
    for (const [i, each] of watched.entries()) {
      if (!each) continue;
      const found = await scope.enter(() => tape.gradient(each)).read();
      const { data } = numbers[i]!;
      const expected = Float64Array.from(data, (x, j) => {
        const h = 1e-5 * Math.max(1, Math.abs(x));
        data[j] = x + h;
        const above = loss();
        data[j] = x - h;
        const below = loss();
        data[j] = x;
        return (above - below) / (2 * h);
      });
      expect(found.length, `gradient of input ${i}`).toBe(expected.length);
      const atol = tolerance * Math.max(largest(expected), 1e-6);
      expectClose(found, expected, { atol, rtol: 0, label: `gradient of input ${i}` });
    }
  } finally {
    tape.dispose();
  }
}

function layOut(device: Device, { shape, values, dtype = "f32", layout }: TestInput, seed: number): Tensor {
  const numbers = values ?? randomArray(sizeOf(shape), seed);
  const make = (filled: ArrayLike<number>, of: Shape) => {
    const made = device.tensor(filled, {
      shape: of,
      dtype: dtype === "u32" || dtype === "i32" ? dtype : "f32",
    });
    return made.dtype === dtype ? made : cast(made, dtype);
  };
  if (layout === "transposed") {
    const [rows, columns] = shape.slice(-2) as [number, number];
    const moved = Float64Array.from({ length: numbers.length }, (_, i) => {
      const matrix = Math.floor(i / (rows * columns)) * rows * columns;
      const [column, row] = [Math.floor((i % (rows * columns)) / rows), i % rows];
      return numbers[matrix + row * columns + column]!;
    });
    return make(moved, [...shape.slice(0, -2), columns, rows]).transpose();
  }
  if (layout === "sliced") {
    // One row more at each end, and a column.
    const width = shape.at(-1)!;
    const rows = sizeOf(shape) / width;
    const wide = new Float64Array((rows + 2) * (width + 1)).fill(9);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < width; c++) wide[(r + 1) * (width + 1) + c] = numbers[r * width + c]!;
    }
    if (shape.length !== 2) throw new Error("only matrices are sliced");
    return make(wide, [rows + 2, width + 1])
      .slice(0, 1, rows + 1)
      .slice(1, 0, width);
  }
  return make(numbers, shape);
}

function openScope(device: Device) {
  const scope = device.openScope();
  return Object.assign(scope, { [Symbol.asyncDispose]: async () => scope.dispose() });
}
