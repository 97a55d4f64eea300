import {
  type ExtractOptions,
  extractTaskVectors,
  type TaskVectors,
} from "../../analysis/vectors/task-vectors.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { PatchableModel } from "../../patching/model.ts";
import type { VectorSource } from "../../tasks/specification.ts";
import { withProgress } from "../terminal/progress.ts";

/** Tokens of prompts in one pass: few, so that progress is seen. */
const BATCH_TOKENS = 256;

/** Extracts a task's vectors under a progress bar. */
export function extractVectors(
  model: PatchableModel,
  { prompts, at }: VectorSource,
  options: Pick<ExtractOptions, "layers" | "site"> = {},
): Promise<TaskVectors> {
  return extractWithProgress(model, prompts, { ...options, at, batchTokens: BATCH_TOKENS });
}

/** `extractTaskVectors` under a progress bar that follows what the device has done. */
export function extractWithProgress(
  model: PatchableModel,
  prompts: readonly Prompt[],
  options: Omit<ExtractOptions, "onProgress">,
): Promise<TaskVectors> {
  return withProgress("extracting task vectors", async (update) => {
    const passes: Promise<void>[] = [];
    const onProgress = (done: number) => {
      // An error belongs to what it spoilt, and whoever reads the vectors gets it.
      const seen = () => update(done, prompts.length);
      passes.push(model.device.sync().then(seen, () => {}));
    };
    const extracted = extractTaskVectors(model, prompts, { ...options, onProgress });
    await Promise.all(passes);
    return extracted;
  });
}
