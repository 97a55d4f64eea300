import type { Checkpoint } from "./checkpoint.ts";
import { isObject } from "./json/config-reader.ts";

/**
 * What `readProcessorConfig` reads. The `image_processor` of a processor_config.json comes before a
 * preprocessor_config.json, as in transformers 5. Undefined where there is neither.
 */
export async function processorJson(checkpoint: Checkpoint): Promise<unknown> {
  const processor = await checkpoint.json("processor_config.json");
  if (isObject(processor) && isObject(processor["image_processor"])) return processor;
  return (await checkpoint.json("preprocessor_config.json")) ?? processor;
}
