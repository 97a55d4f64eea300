import { CheckpointError } from "../../errors.ts";
import type { JsonObject } from "../checkpoint/json/config-reader.ts";
import type { Family } from "./family.ts";
import { blip2 } from "./pictures/blip2.ts";
import { fuyu } from "./pictures/fuyu.ts";
import { gemma3 } from "./pictures/gemma3.ts";
import { idefics } from "./pictures/idefics.ts";
import { idefics2 } from "./pictures/idefics2.ts";
import { idefics3, smolvlm } from "./pictures/idefics3.ts";
import { instructblip } from "./pictures/instructblip.ts";
import { internvl } from "./pictures/internvl.ts";
import { llava } from "./pictures/llava.ts";
import { llavaNext } from "./pictures/llava-next.ts";
import { llavaOnevision } from "./pictures/llava-onevision.ts";
import { mllama } from "./pictures/mllama.ts";
import { paligemma } from "./pictures/paligemma.ts";
import { qwen25Vl } from "./pictures/qwen2-5-vl.ts";
import { qwen2Vl } from "./pictures/qwen2-vl.ts";
import { qwen3Vl } from "./pictures/qwen3-vl.ts";
import { t5 } from "./text/t5.ts";
import { TEXT_FAMILIES } from "./text/text-families.ts";

/** All that `loadModel` takes. */
export const FAMILIES: readonly Family[] = [
  ...[...TEXT_FAMILIES, t5],
  ...[llava, llavaNext, paligemma, qwen2Vl, qwen25Vl, idefics],
  ...[mllama, qwen3Vl],
  ...[idefics2],
  ...[idefics3, smolvlm, internvl],
  ...[gemma3, llavaOnevision],
  ...[blip2, instructblip],
  ...[fuyu],
];

/** The family of a config.json. Throws CheckpointError, listing what is supported. */
export function familyOf(config: JsonObject, where: string): Family {
  const type = config["model_type"];
  const family = FAMILIES.find((f) => f.modelType === type);
  if (family) return family;
  const architectures = Array.isArray(config["architectures"])
    ? ` (${config["architectures"].join(", ")})`
    : "";
  throw new CheckpointError(
    `${where}: models of model_type ${JSON.stringify(type)}${architectures} are not supported; supported are ` +
      FAMILIES.map((f) => f.modelType).join(", "),
  );
}
