import { aKindOf, aListOf, aNumber, checkArgument, checkOptions, type Options } from "../../arguments.ts";
import { CheckpointError, ShapeError, SiteError } from "../../errors.ts";
import { linear } from "../../kernels/matmul/linear.ts";
import { readTensor } from "../../model/checkpoint/entries/tensor-entry.ts";
import { SafetensorsFile } from "../../model/checkpoint/safetensors/safetensors.ts";
import { encodeSafetensors } from "../../model/checkpoint/safetensors/safetensors-writer.ts";
import { memorySource } from "../../model/checkpoint/source/sources.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { aModel, aPrompt, somePositions } from "../../patching/arguments.ts";
import { Device } from "../../tensor/device.ts";
import { showShape } from "../../tensor/shape.ts";
import { Tensor } from "../../tensor/tensor.ts";
import { checkLayers } from "../layers.ts";
import type { LensCells } from "./lens-cells.ts";
import { aCellCount, decodeStream, type LensOptions, readLens } from "./logit-lens.ts";

/** Where a tuned lens comes from; travels with it when it is saved. */
export interface TunedLensOrigin {
  /** The model's name: a folder, URL or hub id. */
  readonly model: string;
  readonly layers: readonly number[];
  /** Token positions that it was fitted to, of how many prompts, and a hash of their token ids. */
  readonly positions: number;
  readonly prompts: number;
  readonly promptHash: string;
  readonly ridge: number;
  /** Dtype of the model's weights. */
  readonly weights: string;
}

const READ: Options<Pick<LensOptions, "at" | "layers" | "k">> = {
  at: somePositions,
  layers: aListOf(aNumber),
  k: aCellCount,
};

/**
 * A tuned lens (Belrose et al. 2023, arXiv 2303.08112): for each layer an affine map from its residual stream to what the last
 * layer makes of it, behind which the model's own final norm and unembedding read it. {@link fitTunedLens} makes one.
 */
export class TunedLens {
  /** What the map of each layer adds to the stream x: A x + b. A: f32 [layers, width, width]. */
  readonly maps: Tensor;
  /** b: f32 [layers, width] */
  readonly biases: Tensor;
  readonly origin: TunedLensOrigin;

  constructor(maps: Tensor, biases: Tensor, origin: TunedLensOrigin) {
    this.maps = maps;
    this.biases = biases;
    this.origin = origin;
  }

  /** The residual stream behind a layer as the last layer's: x [rows, width] → x + A x + b. Throws SiteError for other layers. */
  translate(layer: number, x: Tensor): Tensor {
    checkArgument("translate", "x", x, aKindOf(Tensor, "from a tap"));
    const index = this.origin.layers.indexOf(layer);
    if (index < 0) {
      throw new SiteError(
        `no tuned lens of layer ${layer}; there are those of ${this.origin.layers.join(", ")}`,
      );
    }
    const width = this.biases.dim(1);
    if (x.rank !== 2 || x.dim(1) !== width) {
      throw new ShapeError(
        `tuned lens: expected a residual stream [rows, ${width}], found ${showShape(x.shape)}`,
      );
    }
    return x.device.scope(() => linear(x, this.maps.at(index), { bias: this.biases.at(index), add: x }));
  }

  /** What a layer's residual stream x [rows, width] says: logits [rows, vocab]. */
  decode(model: LanguageModel, layer: number, x: Tensor): Tensor {
    checkArgument("decode", "model", model, aModel);
    return x.device.scope(() => decodeStream(model, this.translate(layer, x)));
  }

  /** The lens over a prompt, as `logitLens` has it: a cell for each layer and position; `.table()` is its text. */
  async read(
    model: LanguageModel,
    prompt: Prompt,
    options: Pick<LensOptions, "at" | "layers" | "k"> = {},
  ): Promise<LensCells> {
    checkArgument("read", "model", model, aModel);
    checkArgument("read", "prompt", prompt, aPrompt);
    checkOptions("read", options, READ);
    const { at = -1, layers = this.origin.layers, k = 5 } = options;
    checkLayers(model, layers, "tuned lens");
    const decode = (x: Tensor, layer: number) => this.decode(model, layer, x);
    return readLens(model, prompt, { site: "resid_post", at, layers, k }, decode);
  }

  /** Frees the maps and biases. */
  dispose(): void {
    this.maps.dispose();
    this.biases.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const FORMAT = "xpatch.tuned_lens.1";
const NUMBERS = ["positions", "prompts", "ridge"] as const;
const WORDS = ["model", "promptHash", "weights"] as const;

/** A tuned lens as the bytes of a safetensors file: `maps` [layers, width, width], `biases` [layers, width], its origin as metadata. */
export async function encodeTunedLens(lens: TunedLens): Promise<Uint8Array<ArrayBuffer>> {
  checkArgument("encodeTunedLens", "lens", lens, aKindOf(TunedLens, "await fitTunedLens(…)"));
  const { maps, biases, origin } = lens;
  const values = await maps.device.read([maps, biases]);
  const metadata: Record<string, string> = { format: FORMAT };
  for (const [key, value] of Object.entries(origin)) metadata[key] = String(value);
  return encodeSafetensors(
    [maps, biases].map(({ shape }, i) => {
      const { buffer, byteOffset, byteLength } = values[i]!;
      return {
        name: ["maps", "biases"][i]!,
        stored: "F32",
        shape,
        data: new Uint8Array(buffer, byteOffset, byteLength),
      };
    }),
    metadata,
  );
}

/** The inverse of {@link encodeTunedLens}. Throws CheckpointError for other files. */
export async function decodeTunedLens(
  bytes: Uint8Array<ArrayBuffer>,
  device: Device,
  name = "tuned lens",
): Promise<TunedLens> {
  checkArgument("decodeTunedLens", "bytes", bytes, {
    words: "a file's bytes, a Uint8Array",
    holds: ArrayBuffer.isView,
  });
  checkArgument("decodeTunedLens", "device", device, aKindOf(Device, "await openDevice()"));
  const file = await SafetensorsFile.open(memorySource(bytes, name));
  const { metadata } = file;
  if (metadata.get("format") !== FORMAT || !file.has("maps") || !file.has("biases")) {
    throw new CheckpointError(`${name}: not a file of a tuned lens (no metadata format ${FORMAT})`);
  }
  const field = (key: string): string => {
    const value = metadata.get(key);
    if (value === undefined) throw new CheckpointError(`${name}: the metadata lack ${key}`);
    return value;
  };
  const layers = field("layers").split(",").map(Number);
  const origin = {
    ...Object.fromEntries(WORDS.map((key) => [key, field(key)])),
    ...Object.fromEntries(NUMBERS.map((key) => [key, Number(field(key))])),
    layers,
  } as unknown as TunedLensOrigin;
  const width = file.entry("biases").shape[1] ?? 0;
  const tensorOf = async (key: string, shape: readonly number[]) => {
    const entry = file.entry(key);
    if (entry.dtype !== "f32" || showShape(entry.shape) !== showShape(shape)) {
      throw new CheckpointError(
        `${name}: expected ${key} f32 ${showShape(shape)}, found ${entry.stored} ${showShape(entry.shape)}`,
      );
    }
    const { buffer, byteOffset, byteLength } = await readTensor(entry);
    return { values: new Float32Array(buffer, byteOffset, byteLength / 4), shape };
  };
  const maps = await tensorOf("maps", [layers.length, width, width]);
  const biases = await tensorOf("biases", [layers.length, width]);
  return new TunedLens(device.tensor(maps.values, maps), device.tensor(biases.values, biases), origin);
}
