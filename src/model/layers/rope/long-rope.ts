import { ropeFrequencies, ropeMagnitude } from "../../../kernels/attention/rope.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { RopeConfig } from "../../checkpoint/config/rope-config.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Angles, Rotary } from "./rope-tables.ts";

/** Cosines and sines of a row are made of these. */
interface Turns {
  /** Radians per position, for each pair of dimensions of a head: [rotaryDim / 2]. */
  readonly frequencies: Float32Array;
  readonly magnitude: number;
}

/**
 * Rotary embedding whose scaling depends on how long a prompt is (LongRoPE, Ding et al. 2024, arXiv 2402.13753): all rows of a
 * prompt beyond `beyond.tokens` turn by another scaling, the first ones too. Each prompt of a batch has its own. No prompt grows
 * past that length while it is continued: see `checkGrowth`.
 */
export class LongRope implements Rotary {
  readonly #within: Turns;
  readonly #beyond: Turns;
  readonly #tokens: number;

  constructor({ theta, rotaryDim, scaling, beyond }: Required<Omit<RopeConfig, "firstPosition">>) {
    const turns = (scaling: Required<RopeConfig>["scaling"]): Turns => ({
      frequencies: ropeFrequencies({ rotaryDim, theta, scaling }),
      magnitude: ropeMagnitude(scaling),
    });
    this.#within = turns(scaling);
    this.#beyond = turns(beyond.scaling);
    this.#tokens = beyond.tokens;
  }

  angles(pass: Pass): Angles {
    return { positions: pass.rowNumbers, table: pass.table(this, (whole) => this.#table(whole)) };
  }

  /** Cosines and sines by row: f32 [rows, rotaryDim]. */
  #table(pass: Pass): Tensor {
    const half = this.#within.frequencies.length;
    const cosSin = new Float32Array(pass.rows.length * 2 * half);
    for (const { row, sequence, position } of pass.rows.entries()) {
      const isLong = pass.prompt(sequence)!.length > this.#tokens;
      const { frequencies, magnitude } = isLong ? this.#beyond : this.#within;
      for (let i = 0; i < half; i++) {
        // Rounded as transformers does; see `ropeTable`.
        const angle = Math.fround(position * frequencies[i]!);
        cosSin[row * 2 * half + i] = magnitude * Math.cos(angle);
        cosSin[row * 2 * half + half + i] = magnitude * Math.sin(angle);
      }
    }
    return pass.device.tensor(cosSin, { shape: [pass.rows.length, 2 * half] });
  }

  dispose(): void {} // its tables go with their passes
}
