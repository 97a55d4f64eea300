import { aKindOf, aListOf, checkArgument } from "../../arguments.ts";
import { ArgumentError, ShapeError } from "../../errors.ts";
import { add, div, sqrt, square, sub } from "../../kernels/elementwise/elementwise.ts";
import { linear } from "../../kernels/matmul/linear.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { concat } from "../../kernels/movement/concat.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { parseSite, type SiteName } from "../../model/walk/sites.ts";
import { aModel, aPrompt } from "../../patching/arguments.ts";
import { type Edit, set } from "../../patching/edit.ts";
import type { OnePosition } from "../../patching/positions.ts";
import { run } from "../../patching/run.ts";
import { tap } from "../../patching/tap.ts";
import { showShape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { batches } from "./task-vectors.ts";

/** Most tokens of prompts in one pass that only reads activations. */
const BATCH_TOKENS = 1024;

/** Some directions of an activation, along which it can be exchanged for that of another prompt. */
export class Subspace {
  /** Orthonormal rows: f32 [rank, features]. */
  readonly basis: Tensor;
  readonly site: SiteName;
  /** Which token of each prompt. */
  readonly at: OnePosition;

  /** @param basis orthonormal rows; they are not made so */
  constructor(basis: Tensor, site: SiteName, at: OnePosition) {
    checkArgument("Subspace", "basis", basis, aKindOf(Tensor, "of [rank, features]"));
    if (basis.rank !== 2) {
      throw new ShapeError(`Subspace: expected a basis [rank, features], found ${showShape(basis.shape)}`);
    }
    this.basis = basis;
    this.site = site;
    this.at = at;
  }

  /** `base` with the component of `source` in place of its own; each [prompts, features]. */
  exchange(base: Tensor, source: Tensor): Tensor {
    return base.device.scope(() => exchange(this.basis, base, source));
  }

  /**
   * The interchange intervention: edits for a run of `bases` (one prompt or several), each of which then has of its activation
   * outside of the subspace what is its own, and within it what the source at the same place in the list has.
   *
   * Throws ArgumentError for lists of different lengths, and like `run`. The edits' tensors pass to the caller's scope.
   */
  swap(model: LanguageModel, bases: Prompt | readonly Prompt[], sources: Prompt | readonly Prompt[]): Edit[] {
    checkArgument("swap", "model", model, aModel);
    const [own, other] = [[bases].flat(), [sources].flat()] as [Prompt[], Prompt[]];
    checkArgument("swap", "bases", own, aListOf(aPrompt));
    checkArgument("swap", "sources", other, aListOf(aPrompt));
    if (own.length !== other.length) {
      throw new ArgumentError(
        `swap: expected a source for each base, found ${own.length} and ${other.length}`,
      );
    }
    const { site, at } = this;
    return model.device.scope(() => {
      const [base, source] = [own, other].map((prompts) => activationsAt(model, prompts, site, at));
      return editsOf(this.exchange(base!, source!), site, at);
    });
  }

  /** Frees the basis. */
  dispose(): void {
    this.basis.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The activation at one token of each prompt: [prompts, features]. Layers above it are not computed. */
export function activationsAt(
  model: LanguageModel,
  prompts: readonly Prompt[],
  site: SiteName,
  at: OnePosition,
): Tensor {
  const { layer } = parseSite(site);
  const options = { taps: { x: tap(site, at) }, ...(layer !== undefined && { stopAfter: layer }) };
  return model.device.scope(() => {
    const parts = [...batches(prompts, BATCH_TOKENS)].map((batch) => run(model, batch, options).x as Tensor);
    return parts.length === 1 ? parts[0]! : concat(parts);
  });
}

/** Puts a row [features] of `values` in place of what each prompt of a run has. */
export function editsOf(values: Tensor, site: SiteName, at: OnePosition): Edit[] {
  return Array.from({ length: values.dim(0) }, (_, prompt) => set(site, at, values.at(prompt), { prompt }));
}

/** base + (source − base) Rᵀ R for orthonormal rows R [rank, features]; the others are [prompts, features]. */
export function exchange(basis: Tensor, base: Tensor, source: Tensor): Tensor {
  return add(base, matmul(linear(sub(source, base), basis), basis));
}

/**
 * Orthonormal rows that span what the rows of `weights` [rank, features] do (Gram–Schmidt): of operations that gradients go
 * through. Each row is rid of its predecessors twice, since once leaves as much of them as it was alike.
 */
export function orthonormal(weights: Tensor): Tensor {
  const made: Tensor[] = [];
  for (let i = 0; i < weights.dim(0); i++) {
    let row = weights.rows(i, i + 1); // [1, features]
    if (i > 0) {
      const before = made.length === 1 ? made[0]! : concat(made); // [i, features]
      for (let pass = 0; pass < 2; pass++) row = sub(row, matmul(linear(row, before), before));
    }
    made.push(div(row, sqrt(sum(square(row), -1, { keepDims: true }))));
  }
  return made.length === 1 ? made[0]! : concat(made);
}
