import { aKindOf, aString, checkArgument, checkOptions } from "../arguments.ts";
import { CheckpointError } from "../errors.ts";
import { modulePath } from "../model/checkpoint/entries/module-names.ts";
import { ADAPTER_CONFIG, ADAPTER_PREFIX, ADAPTER_WEIGHTS } from "../model/checkpoint/lora/adapter.ts";
import { writeSafetensors } from "../model/checkpoint/safetensors/safetensors-writer.ts";
import { type FolderSink, jsonFile } from "../model/checkpoint/source/folder-sink.ts";
import { LanguageModel } from "../model/language-model.ts";
import { encode } from "../tensor/dtype.ts";
import { Lora } from "./lora.ts";

/** What {@link saveAdapter} notes besides. */
export interface SaveAdapterOptions {
  /** What the adapter goes on, for whoever loads it: a folder or hub id. Default: where the model came from. */
  readonly base?: string;
}

/**
 * Writes an adapter in the layout of PEFT, which `loadModel(ref, { adapters: [folder] })` and PEFT's `from_pretrained` read: f32, the
 * modules under transformers' paths. adapter_config.json comes last, so a folder that has it is complete.
 *
 * Throws CheckpointError for modules whose path in transformers is not known, for numbers that are not finite, and, unless `base`
 * says what stands for them all, on a model that has adapters already.
 */
export async function saveAdapter(
  lora: Lora,
  model: LanguageModel,
  sink: FolderSink,
  options: SaveAdapterOptions = {},
): Promise<void> {
  checkArgument("saveAdapter", "lora", lora, aKindOf(Lora, "new Lora(model, …)"));
  checkArgument("saveAdapter", "model", model, aKindOf(LanguageModel, "await loadModel(…)"));
  checkOptions("saveAdapter", options, { base: aString });
  if (options.base === undefined && model.adapters.length > 0) {
    throw new CheckpointError(
      `saveAdapter: ${model.name} was loaded with ${model.adapters.join(", ")}; expected the option base, what all of that is`,
    );
  }
  const paths = new Map(lora.modules.map((module) => [module, pathOf(model, module)]));
  const tensors = [...paths].flatMap(([module, path]) =>
    ["lora_A", "lora_B"].map((half) => {
      const { shape, ...tensor } = tensorOf(lora, `${module}.${half}.weight`);
      return { name: `${ADAPTER_PREFIX}${path}.${half}.weight`, stored: "F32", shape, ...tensor };
    }),
  );
  await sink.write(ADAPTER_WEIGHTS, writeSafetensors(tensors, { format: "pt" }));
  await sink.write(
    ADAPTER_CONFIG,
    jsonFile({
      peft_type: "LORA",
      task_type: model.config.encoder ? "SEQ_2_SEQ_LM" : "CAUSAL_LM",
      base_model_name_or_path: options.base ?? model.name,
      r: lora.rank,
      lora_alpha: lora.alpha,
      lora_dropout: 0,
      bias: "none",
      fan_in_fan_out: lora.modules.some((module) => model.loaded.linears.get(module)?.transposed),
      target_modules: targetsOf(model, paths),
      inference_mode: true,
    }),
  );
}

function pathOf({ family, name, loaded }: LanguageModel, module: string): string {
  if (!loaded.linears.has(module)) {
    throw new CheckpointError(
      `saveAdapter: ${name} has no linear layer ${module}; the adapter is of another model`,
    );
  }
  const path = modulePath(family, module);
  if (path !== undefined) return path;
  throw new CheckpointError(
    `saveAdapter: what transformers calls ${module} of a ${family} is not known, so the adapter cannot be saved for PEFT`,
  );
}

/** A half of an adapter; its numbers are read when their turn comes. */
function tensorOf({ parameters }: Lora, name: string) {
  const tensor = parameters[name]!;
  async function* data() {
    const values = await tensor.read();
    if (!values.every((value) => Number.isFinite(value))) {
      throw new CheckpointError(`saveAdapter: ${name} holds infinities or NaN`);
    }
    yield encode(values, "f32");
  }
  return { shape: tensor.shape, data };
}

/**
 * `target_modules`: last names (`q_proj`) where those mean just the adapter's modules, else whole paths. A tower may have blocks
 * beyond those that are loaded, so with pictures it is whole paths.
 */
function targetsOf({ config, loaded }: LanguageModel, paths: ReadonlyMap<string, string>): string[] {
  const last = (module: string) => module.slice(module.lastIndexOf(".") + 1);
  const ends = new Set([...paths.keys()].map(last));
  const meant = [...loaded.linears.keys()].filter((module) => ends.has(last(module)));
  const same = !config.vision && meant.every((module) => paths.has(module));
  return same ? [...ends] : [...paths.values()];
}
