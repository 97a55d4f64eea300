import type { Tensor } from "../../../tensor/tensor.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Angles, Rotary } from "./rope-tables.ts";

export interface AxisRopeOptions {
  /** Radians per step, for each pair of dimensions of a head: f32 [rotaryDim / 2]. */
  readonly frequencies: Float32Array;
  /** Which coordinate of a row turns each pair. */
  readonly axes: readonly number[];
  /** The coordinates of a pass's rows, one array an axis. */
  coordinates(pass: Pass): readonly ArrayLike<number>[];
}

/**
 * Rotary embedding by several coordinates: rows and columns of a picture, or time, row and column in a prompt (M-RoPE,
 * Wang et al. 2024, arXiv 2409.12191). Angles are made on the host, for the rows of each pass.
 */
export class AxisRope implements Rotary {
  readonly #options: AxisRopeOptions;

  constructor(options: AxisRopeOptions) {
    this.#options = options;
  }

  angles(pass: Pass): Angles {
    return { positions: pass.rowNumbers, table: pass.table(this, (whole) => this.#table(whole)) };
  }

  /** Cosines and sines by row: f32 [rows, rotaryDim]. */
  #table(pass: Pass): Tensor {
    const { frequencies, axes } = this.#options;
    const coordinates = this.#options.coordinates(pass);
    const half = frequencies.length;
    const cosSin = new Float32Array(pass.rows.length * 2 * half);
    for (let row = 0; row < pass.rows.length; row++) {
      for (let i = 0; i < half; i++) {
        // Rounded as transformers does; see `ropeTable`.
        const angle = Math.fround(coordinates[axes[i]!]![row]! * frequencies[i]!);
        cosSin[row * 2 * half + i] = Math.cos(angle);
        cosSin[row * 2 * half + half + i] = Math.sin(angle);
      }
    }
    return pass.device.tensor(cosSin, { shape: [pass.rows.length, 2 * half] });
  }

  dispose(): void {} // its tables go with their passes
}
