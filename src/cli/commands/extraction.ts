import { type ExtractOptions, extractTaskVectors, type TaskVectors } from "../../analysis/task-vectors.ts";
import type { PatchableModel } from "../../patching/model.ts";
import type { VectorSource } from "../../tasks/specification.ts";
import { withProgress } from "../terminal/progress.ts";

/** Tokens of prompts in one pass: few, so that progress is seen. */
const BATCH_TOKENS = 256;

/** Extracts task vectors under a progress bar that follows what the device has done. */
export function extractVectors(
  model: PatchableModel,
  { prompts, at }: VectorSource,
  options: Pick<ExtractOptions, "layers"> = {},
): Promise<TaskVectors> {
  return withProgress("extracting task vectors", async (update) => {
    const passes: Promise<void>[] = [];
    const onProgress = (done: number) => {
      passes.push(model.device.sync().then(() => update(done, prompts.length)));
    };
    const extracted = extractTaskVectors(model, prompts, {
      ...options,
      at,
      batchTokens: BATCH_TOKENS,
      onProgress,
    });
    await Promise.all(passes);
    return extracted;
  });
}
