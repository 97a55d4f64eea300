import { CheckpointError } from "../../errors.ts";
import type { JsonObject } from "../checkpoint/json/config-reader.ts";
import { blip2 } from "./blip2.ts";
import type { Family } from "./family.ts";
import { fuyu } from "./fuyu.ts";
import { gemma3 } from "./gemma3.ts";
import { idefics } from "./idefics.ts";
import { idefics2 } from "./idefics2.ts";
import { idefics3, smolvlm } from "./idefics3.ts";
import { instructblip } from "./instructblip.ts";
import { internvl } from "./internvl.ts";
import { llava } from "./llava.ts";
import { llavaNext } from "./llava-next.ts";
import { llavaOnevision } from "./llava-onevision.ts";
import { mllama } from "./mllama.ts";
import { paligemma } from "./paligemma.ts";
import { qwen25Vl } from "./qwen2-5-vl.ts";
import { qwen2Vl } from "./qwen2-vl.ts";
import { qwen3Vl } from "./qwen3-vl.ts";
import { t5 } from "./t5.ts";
import { TEXT_FAMILIES } from "./text-families.ts";

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
