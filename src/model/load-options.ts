import {
  aBoolean,
  aFunction,
  aKindOf,
  checkArgument,
  checkOptions,
  type Options,
  oneOf,
} from "../arguments.ts";
import { Device } from "../tensor/device.ts";
import type { IntermediateLayers } from "./checkpoint/config/canvas-tower-config.ts";
import { aCheckpointRef, CHECKPOINT_OPTIONS, type CheckpointOptions } from "./checkpoint/open-checkpoint.ts";
import { aQuantise } from "./checkpoint/weights/quantise.ts";
import type { WeightOptions } from "./checkpoint/weights/weights.ts";

/** The device that a model is loaded onto, and how its weights are kept there. */
export interface LoadOptions extends CheckpointOptions, WeightOptions, ReadOptions {
  device: Device;
}

/** How a checkpoint's config is to be understood. */
export interface ReadOptions {
  /**
   * Of Llama 3.2 Vision (`mllama`) alone: whether the projector reads what enters the layers that `intermediate_layers_indices`
   * names, as in Meta's own code and transformers 4, for which the published checkpoints were made (`"inputs"`, the default), or what
   * leaves them, as in transformers 5 (`"outputs"`), for checkpoints trained with that.
   */
  intermediateLayers?: IntermediateLayers;
}

/** Throws ArgumentError for what is no reference to a checkpoint, or no options to load it with. */
export function checkLoad(call: string, ref: unknown, options: unknown): void {
  checkArgument(call, "ref", ref, aCheckpointRef);
  const known: Options<LoadOptions> = {
    ...CHECKPOINT_OPTIONS,
    device: aKindOf(Device, "await openDevice()"),
    merge: aBoolean,
    onProgress: aFunction,
    quantise: aQuantise,
    intermediateLayers: oneOf("inputs", "outputs"),
  };
  checkOptions(call, options, known, { required: ["device"] });
}
