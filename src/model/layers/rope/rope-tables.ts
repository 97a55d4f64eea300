import { type RopeTableOptions, ropeTable } from "../../../kernels/attention/rope.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Pass } from "../../walk/pass.ts";

/** Rotary position embedding of a stack: what turns queries and keys by where their rows are. */
export interface Rotary {
  /** What the rows of a pass are turned by. */
  angles(pass: Pass): Angles;
  dispose(): void;
}

/** As `rope` takes them. */
export interface Angles {
  /** u32 [rows], rows of the table. */
  readonly positions: Tensor;
  /** Cosines and sines, f32 [positions, rotaryDim]. */
  readonly table: Tensor;
}

interface Options extends Omit<RopeTableOptions, "length"> {
  /** What the first token's position counts as. Default 0. */
  readonly firstPosition?: number;
}

/** Cosines and sines by position, computed on the host for as many positions as have been asked for so far. */
export class RopeTables implements Rotary {
  readonly #device: Device;
  readonly #options: Options;
  readonly #scope;
  /** Ever longer ones. The earlier stay: a walk that is suspended may hold one, and together they take no more room. */
  readonly #tables: Tensor[] = [];

  constructor(device: Device, options: Options) {
    this.#device = device;
    this.#options = options;
    this.#scope = device.openScope();
  }

  angles(pass: Pass): Angles {
    const { firstPosition: first = 0 } = this.#options;
    const positions = first === 0 ? pass.positions : pass.table(this, (whole) => countedFrom(first, whole));
    return { positions, table: this.#upTo(pass.extent + first) };
  }

  /** f32 [positions, rotaryDim] with at least this many positions. */
  #upTo(positions: number): Tensor {
    const found = this.#tables.find((table) => table.dim(0) >= positions);
    if (found) return found;
    const length = 2 ** Math.ceil(Math.log2(Math.max(positions, 256)));
    const { cosSin } = ropeTable({ ...this.#options, length });
    const table = this.#scope.enter(() =>
      this.#device.tensor(cosSin, { shape: [length, this.#options.rotaryDim] }),
    );
    this.#tables.push(table);
    return table;
  }

  dispose(): void {
    this.#scope.dispose();
  }
}

/** The positions of a pass's rows, the first of which counts as `first`: u32 [rows]. */
function countedFrom(first: number, { rows, device }: Pass): Tensor {
  const positions = Uint32Array.from([...rows.entries()], ({ position }) => position + first);
  return device.tensor(positions, { dtype: "u32" });
}
