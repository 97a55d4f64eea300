import { CheckpointError } from "../../../errors.ts";
import type { ActivationKind } from "../../../kernels/elementwise/activation.ts";

/** Sizes of a CLIP or SigLIP tower's blocks. */
export interface EncoderConfig {
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly mlpWidth: number;
  readonly normEps: number;
  readonly activation: ActivationKind;
}

/** Throws CheckpointError for a width that does not divide into the heads; `names` are the config's for the two. */
export function requireWholeHeads(
  { width, heads }: { width: number; heads: number },
  where: string,
  names: readonly [width: string, heads: string] = ["hidden_size", "num_attention_heads"],
): void {
  if (width % heads === 0) return;
  throw new CheckpointError(
    `${where}: a width (${names[0]}) of ${width} does not divide into ${heads} heads (${names[1]})`,
  );
}
