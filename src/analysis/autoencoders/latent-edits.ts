import { aListOf, aNumber, checkArgument, either } from "../../arguments.ts";
import { ArgumentError } from "../../errors.ts";
import { add, mul, sub } from "../../kernels/elementwise/elementwise.ts";
import { somePositions } from "../../patching/arguments.ts";
import { type Edit, transform } from "../../patching/edit.ts";
import type { Positions } from "../../patching/positions.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { aSparseAutoencoder, checkLatents, type SparseAutoencoder } from "./sparse-autoencoder.ts";

/*
 * Edits of latents within the forward pass. The activation x becomes x + (f' − f) · W_dec: what the autoencoder does not
 * reconstruct (its error) stays as it was, so that an edit that changes no latent changes nothing. That is SAELens with
 * `use_error_term`, and what Templeton et al. 2024 ("Scaling Monosemanticity") call clamping. They are edits of the autoencoder's
 * site like any others: runs, generation, resumed runs and gradients take them, and `reach` knows what they can change.
 */

/** Which prompt of several an edit is of; all unless given. */
export interface LatentEditOptions {
  readonly prompt?: number;
}

/** One latent or several, each once. */
export type Latents = number | readonly number[];

/** Makes latents what is given, one number for all or one for each: clamping. */
export function setLatents(
  sae: SparseAutoencoder,
  latents: Latents,
  at: Positions,
  value: number | readonly number[],
  options: LatentEditOptions = {},
): Edit {
  return edit("setLatents", sae, latents, at, value, options, (f, given) => sub(given, f()));
}

/** Adds to latents, whether they are active or not: the latent's direction, so many times. */
export function addToLatents(
  sae: SparseAutoencoder,
  latents: Latents,
  at: Positions,
  amount: number | readonly number[],
  options: LatentEditOptions = {},
): Edit {
  return edit("addToLatents", sae, latents, at, amount, options, (_, given) => given);
}

/** Multiplies latents. */
export function scaleLatents(
  sae: SparseAutoencoder,
  latents: Latents,
  at: Positions,
  factor: number | readonly number[],
  options: LatentEditOptions = {},
): Edit {
  return edit("scaleLatents", sae, latents, at, factor, options, (f, given) => mul(f(), sub(given, 1)));
}

/** Takes latents out: ablation. */
export function ablateLatents(
  sae: SparseAutoencoder,
  latents: Latents,
  at: Positions,
  options: LatentEditOptions = {},
): Edit {
  return edit("ablateLatents", sae, latents, at, 0, options, (f) => mul(f(), -1));
}

/** @param change from latents f [rows, n], if it asks for them, and the numbers given for each row [rows, n], to by how much f changes */
function edit(
  call: string,
  sae: SparseAutoencoder,
  latents: Latents,
  at: Positions,
  given: number | readonly number[],
  options: LatentEditOptions,
  change: (f: () => Tensor, given: Tensor) => Tensor,
): Edit {
  checkArgument(call, "sae", sae, aSparseAutoencoder);
  const ids = typeof latents === "number" ? [latents] : latents;
  checkLatents(call, ids, sae);
  checkArgument(call, "at", at, somePositions);
  checkArgument(call, "value", given, either(aNumber, aListOf(aNumber)));
  const numbers = typeof given === "number" ? ids.map(() => given) : [...given];
  if (numbers.length !== ids.length) {
    throw new ArgumentError(
      `${call}: expected ${ids.length} numbers, one for each latent, found ${numbers.length}`,
    );
  }
  const edited = (x: Tensor) => {
    const wanted = x.device.tensor(numbers).broadcastTo([x.dim(0), ids.length]);
    return add(
      x,
      sae.changeOf(
        x,
        ids,
        change(() => sae.encodeSome(x, ids), wanted),
      ),
    );
  };
  return transform(sae.site, at, edited, options);
}
