import { argmax } from "#src/kernels/reduction/reduce";
import type { Prompt } from "#src/model/prompt/prompt";
import type { PatchableModel } from "#src/patching/model";
import type { RunOptions } from "#src/patching/run";
import type { Tap } from "#src/patching/tap";
import type { Device } from "#src/tensor/device";
import type { Tensor } from "#src/tensor/tensor";

/** A prompt of so many tokens; which ones makes no difference to the time. */
export function promptOf(model: PatchableModel, tokens: number): Prompt {
  return model.promptFromIds(Array.from({ length: tokens }, (_, i) => (i * 379) % model.config.vocab));
}

export function nextToken(
  model: PatchableModel,
  prompt: Prompt,
  options: RunOptions<Record<string, Tap>> = {},
): Tensor {
  return argmax(model.run(prompt, options).logits!, -1);
}

/** Records some tensors, reads them all at once, and gives their memory back. */
export async function readOnce(device: Device, record: () => Tensor[]): Promise<ArrayLike<number>[]> {
  const scope = device.openScope();
  try {
    return await device.read(scope.enter(record));
  } finally {
    scope.dispose();
  }
}
