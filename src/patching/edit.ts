import { aNumber, checkOptions } from "../arguments.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkEdit, EDIT_OPTIONS } from "./arguments.ts";
import type { Positions } from "./positions.ts";
import type { Part } from "./tap.ts";

/** What an edit does with each row x that it selects; v is its value (for that row). */
export type EditOperation =
  /** v */
  | "set"
  /** x + amount * v */
  | "add"
  /** amount * x */
  | "scale"
  /** 0 */
  | "zero"
  /** (1 - amount) * x + amount * v */
  | "interpolate"
  /** x without its component along v */
  | "projectOut"
  /** the component of x along v */
  | "projectOnto"
  /** what a function makes of it */
  | "transform";

/** A vector [features], or a row for each edited position [positions, features]. */
export type EditValue = Tensor | Float32Array | readonly number[];

/**
 * What {@link transform} makes of activations: x f32 [rows, features] → [rows, features], by operations on the device. Each row has to
 * come of its own alone, since which rows are computed together depends on the batch, and on what a resumed run has to compute.
 */
export type RowTransform = (x: Tensor) => Tensor;

/**
 * Changes an activation within the forward pass. A value like a tap, and plain data unless it holds a tensor or a function.
 * Make one with the functions below.
 */
export interface Edit extends Part {
  readonly kind: "edit";
  /** What is done there; `meanAblate` is a `set`. */
  readonly operation: EditOperation;
  /** The activation that is edited. */
  readonly site: SiteName;
  /** The positions of the prompt that are edited. */
  readonly at: Positions;
  /** What the operation takes: a row for all positions, or a row for each. */
  readonly value?: EditValue;
  /** Factor of `scale` and `addVector`, share of `interpolate`. */
  readonly amount?: number;
  readonly transform?: RowTransform;
  /** With several prompts: the index of the one to edit. All unless given. */
  readonly prompt?: number;
}

/** Which part of an activation is edited, and, with several prompts, of which prompt. */
export interface EditOptions extends Part {
  readonly prompt?: number;
}

/** `call` is the function's name; of its options those are checked here that are no part of the edit yet. */
function edit(
  call: string,
  operation: EditOperation,
  {
    site,
    at,
    options = {},
    ...rest
  }: Pick<Edit, "site" | "at" | "value" | "amount" | "transform"> & { options?: EditOptions },
): Edit {
  checkOptions(call, options, EDIT_OPTIONS);
  const made: Edit = { kind: "edit", operation, site, at, ...rest, ...options };
  checkEdit(call, made);
  return made;
}

/** Puts `value` in place of the activation: patching proper. */
export function set(site: SiteName, at: Positions, value: EditValue, options: EditOptions = {}): Edit {
  return edit("set", "set", { site, at, value, options });
}

/** Adds `scale * value` (default 1): steering. */
export function addVector(
  site: SiteName,
  at: Positions,
  value: EditValue,
  options: EditOptions & { scale?: number } = {},
): Edit {
  checkOptions("addVector", options, { ...EDIT_OPTIONS, scale: aNumber });
  const { scale: amount = 1, ...others } = options;
  return edit("addVector", "add", { site, at, value, amount, options: others });
}

/** Multiplies by a factor. */
export function scale(site: SiteName, at: Positions, factor: number, options: EditOptions = {}): Edit {
  return edit("scale", "scale", { site, at, amount: factor, options });
}

/** Zero-ablation. */
export function zero(site: SiteName, at: Positions, options: EditOptions = {}): Edit {
  return edit("zero", "zero", { site, at, options });
}

/** Mean-ablation: puts the mean activation, which the caller has measured, in place of this one. */
export function meanAblate(site: SiteName, at: Positions, mean: EditValue, options: EditOptions = {}): Edit {
  return edit("meanAblate", "set", { site, at, value: mean, options });
}

/**
 * Takes the component along a direction out. The direction may have any length but 0: numbers that are all 0 or not finite
 * throw SiteError when the edit is used; of a tensor, which only generation reads for that, they make the activation NaN.
 */
export function projectOut(
  site: SiteName,
  at: Positions,
  direction: EditValue,
  options: EditOptions = {},
): Edit {
  return edit("projectOut", "projectOut", { site, at, value: direction, options });
}

/** Leaves only the component along a direction, for which {@link projectOut} has the rules. */
export function projectOnto(
  site: SiteName,
  at: Positions,
  direction: EditValue,
  options: EditOptions = {},
): Edit {
  return edit("projectOnto", "projectOnto", { site, at, value: direction, options });
}

/** Moves the activation towards `value`: 0 leaves it, 1 replaces it. */
export function interpolate(
  site: SiteName,
  at: Positions,
  value: EditValue,
  t: number,
  options: EditOptions = {},
): Edit {
  return edit("interpolate", "interpolate", { site, at, value, amount: t, options });
}

/**
 * Puts in place of the activation what a function makes of it: `transform("resid_post.3", -1, (x) => mul(x, tanh(x)))`. It is called
 * once a pass with all edited rows that the pass computes, and what it makes beside its result is freed. Gradients go through it as far as they go
 * through its operations. Not for scores and patterns, whose features are keys.
 *
 * Throws SiteError, when it is applied, for a result of another shape.
 */
export function transform(site: SiteName, at: Positions, fn: RowTransform, options: EditOptions = {}): Edit {
  return edit("transform", "transform", { site, at, transform: fn, options });
}
