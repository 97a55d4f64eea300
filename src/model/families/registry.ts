import { CheckpointError } from "../../errors.ts";
import { nearest } from "../../nearest.ts";
import type { JsonObject } from "../checkpoint/json/config-reader.ts";
import { DUAL_ENCODER_KINDS } from "./dual-encoder-kinds.ts";
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

/** The family of a config.json. Throws CheckpointError, naming the nearest that are supported. */
export function familyOf(config: JsonObject, where: string): Family {
  const type = config["model_type"];
  const family = FAMILIES.find((f) => f.modelType === type);
  if (family) return family;
  const architectures = Array.isArray(config["architectures"])
    ? ` (${config["architectures"].join(", ")})`
    : "";
  throw new CheckpointError(
    `${where}: models of model_type ${JSON.stringify(type)}${architectures} are not supported${wayOut(config)}`,
  );
}

function wayOut(config: JsonObject): string {
  const type = config["model_type"];
  if (DUAL_ENCODER_KINDS.some((kind) => kind === type)) return " by loadModel; loadDualEncoder takes them";
  const pictures = "vision_config" in config;
  const ofKind = FAMILIES.filter(
    ({ imageRules, modelType }) =>
      (imageRules !== undefined) === pictures &&
      (modelType === "t5") === (config["is_encoder_decoder"] === true),
  );
  const byName = typeof type === "string" ? nearestFamily(type, FAMILIES) : undefined;
  const byKind = (typeof type === "string" ? nearestFamily(type, ofKind) : undefined) ?? ofKind[0];
  const kind = pictures
    ? "with pictures"
    : config["is_encoder_decoder"] === true
      ? "encoder and decoder"
      : "of texts";
  const hints = [
    ...(byName ? [`the nearest by name is ${byName.modelType}`] : []),
    ...(byKind && byKind !== byName ? [`of its kind (${kind}) there is ${byKind.modelType}`] : []),
    `docs/families/README.md lists all that are`,
  ];
  return `; ${hints.join("; ")}`;
}

/** The one whose name the type begins with; else one that begins with the type; else one that is a few letters off. */
function nearestFamily(type: string, families: readonly Family[]): Family | undefined {
  const names = families.map(({ modelType }) => modelType);
  const longestFirst = [...names].sort((a, b) => b.length - a.length);
  const name =
    longestFirst.find((known) => type.startsWith(known)) ??
    names.find((known) => type !== "" && known.startsWith(type)) ??
    nearest(type, names, Math.floor(type.length / 3));
  return families.find(({ modelType }) => modelType === name);
}
