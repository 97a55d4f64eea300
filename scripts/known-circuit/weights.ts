/** Matrices to be written entry by entry, and the files of a checkpoint made of them. */

import { writeSafetensors } from "../../src/index.ts";

/** A matrix [rows, columns] of zeros to write into. */
export class Matrix {
  readonly shape: readonly [number, number];
  readonly values: Float64Array;

  constructor(rows: number, columns: number) {
    this.shape = [rows, columns];
    this.values = new Float64Array(rows * columns);
  }

  set(row: number, column: number, value: number): void {
    const [rows, columns] = this.shape;
    if (!(row >= 0 && row < rows && column >= 0 && column < columns)) {
      throw new RangeError(`[${row}, ${column}] lies outside of a matrix [${rows}, ${columns}]`);
    }
    this.values[row * columns + column] = value;
  }
}

/** Reflects vectors, in place: x − 2 (x · n) n for unit vectors n that a seed draws, one after the other. */
export class Rotation {
  readonly #normals: readonly Float64Array[];

  constructor(width: number, seed: number) {
    let state = seed >>> 0;
    const next = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 31 - 1;
    };
    this.#normals = Array.from({ length: 4 }, () => {
      const drawn = Float64Array.from({ length: width }, next);
      const norm = Math.hypot(...drawn);
      return drawn.map((value) => value / norm);
    });
  }

  /** Rotates every row of a matrix whose rows lie in, or are read against, the residual stream. */
  rows({ values, shape: [rows, columns] }: Matrix): void {
    for (let row = 0; row < rows; row++) this.#rotate(values, row * columns, 1);
  }

  /** Rotates every column of a matrix that writes into the residual stream. */
  columns({ values, shape: [, columns] }: Matrix): void {
    for (let column = 0; column < columns; column++) this.#rotate(values, column, columns);
  }

  #rotate(values: Float64Array, start: number, stride: number): void {
    for (const normal of this.#normals) {
      let product = 0;
      normal.forEach((n, i) => {
        product += n * values[start + i * stride]!;
      });
      if (product === 0) continue;
      normal.forEach((n, i) => {
        values[start + i * stride]! -= 2 * product * n;
      });
    }
  }
}

/** A float32 safetensors file of matrices and vectors by name. */
export async function safetensorsOf(
  tensors: ReadonlyMap<string, Matrix | Float64Array>,
): Promise<Uint8Array> {
  const listed = [...tensors].map(([name, tensor]) => {
    const { shape, values } = tensor instanceof Matrix ? tensor : { shape: [tensor.length], values: tensor };
    return { name, stored: "F32", shape, data: new Uint8Array(Float32Array.from(values).buffer) };
  });
  const chunks: Uint8Array[] = [];
  for await (const chunk of writeSafetensors(listed, { format: "pt" })) chunks.push(chunk);
  const file = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    file.set(chunk, at);
    at += chunk.length;
  }
  return file;
}
