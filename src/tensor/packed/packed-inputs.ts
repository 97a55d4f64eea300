import type { Tensor } from "../tensor.ts";
import { Packed, type PackedLayout } from "./packed.ts";
import type { PartName } from "./packed-format.ts";

/** What a record says of a packed operand, whose parts are among its inputs. */
export interface Flat {
  readonly layout: PackedLayout;
  /** In the order of the inputs. */
  readonly parts: readonly PartName[];
}

/** A packed operand as inputs and attributes of an operation. */
export function flat({ layout, parts }: Packed): { inputs: Tensor[]; attributes: Flat } {
  return { inputs: [...parts.values()], attributes: { layout, parts: [...parts.keys()] } };
}

/** The operand again, from the first of some inputs, which it does not own: it needs no disposal. */
export function packedFrom({ layout, parts }: Flat, inputs: readonly Tensor[]): Packed {
  return new Packed(layout, new Map(parts.map((name, i) => [name, inputs[i]!])));
}
