import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { CheckpointError } from "../errors.ts";
import { decodeImage } from "../images/files/decode.ts";
import type { PixelValues } from "../images/preprocess.ts";
import type { ProcessorSettings } from "../images/processors/processor-config.ts";
import {
  type CanvasPicture,
  type CanvasTowerConfig,
  canvasPicture,
} from "../model/checkpoint/config/canvas-tower-config.ts";
import type { VisionSetup } from "../model/checkpoint/config/vision-setup.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { type PromptImage, picturesOf } from "../model/prompt/prompt-image.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { PatchableModel } from "../patching/model.ts";
import { tap } from "../patching/tap.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkActivations, readActivations } from "./activations.ts";
import type { CaseFolder } from "./case-folder.ts";
import { type Check, checkEqual, checkTensor } from "./checks.ts";
import type { GoldenFile } from "./golden-file.ts";
import { OMITTED } from "./thinned.ts";

/**
 * Pixel values that the goldens have by item and picture, [items, pictures, tiles, 3, side, side], of canvases (Llama 3.2 Vision);
 * tiles and pictures that are not there are zeros. Throws CheckpointError where the shape does not fit.
 */
export async function readCanvases(
  goldens: GoldenFile,
  name: string,
  files: readonly string[],
  folder: string,
  processor: ProcessorSettings,
  byItem: readonly (readonly string[])[] = [files],
): Promise<PixelValues[]> {
  const key = `${name}/in.pixel_values`;
  const { shape, values } = await goldens.read(key, 6);
  const [items, pictures, tiles, , side] = shape as [number, number, number, number, number];
  if (items !== byItem.length || byItem.some((own) => own.length > pictures)) {
    throw new CheckpointError(
      `${key}: expected the tiles of ${files.length} images, found [${shape.join(", ")}]`,
    );
  }
  const size = 3 * side * side;
  const found: PixelValues[] = [];
  for (const [item, own] of byItem.entries()) {
    for (const [i, file] of own.entries()) {
      const { width, height } = await decodeImage(await readFile(join(folder, file)));
      const picture: PixelValues = {
        data: new Float32Array(),
        shape: [3, side, side],
        tiling: { count: 0, width, height },
      };
      const count = canvasPicture(
        picture,
        processor as { canvas: NonNullable<ProcessorSettings["canvas"]> },
      ).tiles;
      const start = (item * pictures + i) * tiles * size;
      const data = values.slice(start, start + count * size) as Float32Array<ArrayBuffer>;
      found.push({ ...picture, data, tiling: { count, width, height } });
    }
  }
  return found;
}

/** The pictures of each item, and after them those that are none, with which transformers makes them as many in each. */
export async function filledUp(
  goldens: GoldenFile,
  name: string,
  images: readonly PixelValues[][],
  { canvas }: ProcessorSettings,
): Promise<PixelValues[][]> {
  const ids = `${name}/in.aspect_ratio_ids`;
  if (!canvas || !goldens.has(ids)) return [...images];
  const most = goldens.shape(ids)[1]!;
  const { side } = canvas;
  const none: PixelValues = {
    data: new Float32Array(),
    shape: [3, side, side],
    tiling: { count: 0, width: 0, height: 0 },
  };
  return images.map((own) => [...own, ...Array.from({ length: most - own.length }, () => none)]);
}

type Setup = VisionSetup<CanvasTowerConfig>;
type Canvas = { canvas: NonNullable<ProcessorSettings["canvas"]> };

const pictureOf = (picture: PromptImage, { processor }: Pick<Setup, "processor">): CanvasPicture =>
  canvasPicture(picture, processor as Canvas);

/** Which canvas pictures have, which of its tiles count, and which tiles tokens see. */
export async function checkCanvasInputs(
  { goldens }: CaseFolder,
  name: string,
  prompts: readonly Prompt[],
  columns: readonly (readonly number[])[],
  { config, network }: PatchableModel,
): Promise<Check[]> {
  const ids = `${name}/in.aspect_ratio_ids`;
  const { cross } = config;
  if (!cross?.replaces || !goldens.has(ids)) return [];
  const setup = config.vision as Setup;
  const { tiles, tileRows } = setup.tower;
  const pictures = prompts.map((prompt) => picturesOf(prompt).map((picture) => pictureOf(picture, setup)));
  const ourIds = pictures.flat().map(({ id }) => id);
  const checks: Check[] = [checkEqual(ids, ourIds, [...(await goldens.read(ids, 2)).values])];
  const mask = `${name}/in.aspect_ratio_mask`;
  const each = Array.from({ length: tiles }, (_, tile) => tile);
  const ourMask = pictures.flat().flatMap(({ own }) => each.map((tile) => (tile < own ? 1 : 0)));
  checks.push(checkEqual(mask, ourMask, [...(await goldens.read(mask, 3)).values]));
  const seen = `${name}/in.cross_attention_mask`;
  const { shape, values } = await goldens.read(seen, 4);
  const [, extent, images] = shape as [number, number, number];
  const rule = network.stack.blocks[cross.layers[0]!]!.crossRule!;
  for (const [b, prompt] of prompts.entries()) {
    const layouts = picturesOf(prompt).map((picture) => setup.layout(picture));
    const ranges = setup.contextRows!(layouts);
    const total = layouts.reduce((sum, { latents }) => sum + latents!, 0);
    const ours = prompt.ids.map((_, position) => {
      const { start, end } = rule(position, { prompt });
      // What sees no picture reads everything.
      if (start === 0 && end === total && !isSeen(prompt, position, setup)) return [];
      return ranges.flatMap(([own], image) =>
        each
          .filter(
            (tile) =>
              own!.start + tile * tileRows >= start &&
              own!.start + (tile + 1) * tileRows <= Math.min(end, own!.end),
          )
          .map((tile) => image * tiles + tile),
      );
    });
    const theirs = columns[b]!.map((column) => {
      const at = (b * extent + column) * images * tiles;
      return [...values.subarray(at, at + images * tiles)].flatMap((sees, i) => (sees ? [i] : []));
    });
    checks.push(checkEqual(`${seen}, prompt ${b}`, ours, theirs));
  }
  return checks;
}

/** Whether a token comes behind the first picture, or is its own. */
function isSeen({ ids }: Prompt, position: number, { imageTokenId }: Setup): boolean {
  const first = ids.indexOf(imageTokenId);
  return first >= 0 && position >= first;
}

/** The activations of both encoders, what is read of them and what the projector makes of that, and gates. */
export async function checkCanvasVision(
  { goldens, tolerance }: CaseFolder,
  name: string,
  prompts: readonly Prompt[],
  model: PatchableModel,
): Promise<Check[]> {
  const setup = model.config.vision as Setup;
  const { tiles, tileRows, paddedRows } = setup.tower;
  const places = prompts.flatMap((prompt) =>
    picturesOf(prompt).map((picture, image) => ({ prompt, picture, image })),
  );
  // The goldens have padding behind each tile, here it is behind all.
  const rows = places.map(({ picture }) => {
    const { own } = pictureOf(picture, setup);
    const all = Array.from({ length: tiles * paddedRows }, (_, i) => i);
    const isOwn = (i: number) => i < own * paddedRows && i % paddedRows < tileRows;
    return [...all.filter(isOwn), ...all.filter((i) => !isOwn(i))];
  });
  const latents = places.map(() => Array.from({ length: tiles * tileRows }, (_, i) => i));
  const { sites } = model;
  const found = [
    ...(await readActivations(goldens, `${name}/`, rows, { sites, stack: "vision" })),
    ...(await readActivations(goldens, `${name}/`, rows, { sites, stack: "global" })),
    ...(await readActivations(goldens, `${name}/projector.`, latents, {
      sites,
      stack: "vision",
      names: { in: "vision.features", out: "projector" },
    })),
  ];
  const values: Float32Array[][] = [];
  for (const { site } of found) {
    const own: Float32Array[] = [];
    for (const { prompt, image } of places) {
      const { x } = model.run(prompt, { taps: { x: tap(site, "all", { image }) }, stopAfter: 0 });
      own.push(await (x as Tensor<"f32">).read());
      x.dispose();
    }
    values.push(own);
  }
  return [
    ...checkActivations(found, values, tolerance),
    ...(await checkGates(goldens, name, model, tolerance)),
  ];
}

/** Tanh of the vision side's gates, under the names of their modules. */
const GATES: readonly (readonly [golden: RegExp, tensor: string])[] = [
  [/^vision\.pre_tile_gate$/, "pre_tile_positional_embedding.gate"],
  [/^vision\.position_gate$/, "gated_positional_embedding.gate"],
  [/^vision\.post_tile_gate$/, "post_tile_positional_embedding.gate"],
  [/^vision\.global\.attn_gate\.(\d+)$/, "global_transformer.layers.N.gate_attn"],
  [/^vision\.global\.mlp_gate\.(\d+)$/, "global_transformer.layers.N.gate_ffn"],
];

async function checkGates(
  goldens: GoldenFile,
  name: string,
  { loaded }: PatchableModel,
  tolerance: CaseFolder["tolerance"],
): Promise<Check[]> {
  const checks: Check[] = [];
  for (const golden of goldens.names.filter((each) => each.startsWith(`${name}/vision.`))) {
    for (const [pattern, module] of GATES) {
      const match = pattern.exec(golden.slice(name.length + 1));
      if (!match) continue;
      const ending = module.replace("N", match[1] ?? "");
      const [, parameter] = [...loaded.parameters].find(([key]) => key.endsWith(ending))!;
      const alpha = (await (parameter.tensors[0] as Tensor).read()) as ArrayLike<number>;
      const { values } = await goldens.read(golden, 1);
      checks.push(checkTensor(golden, [Array.from(alpha, Math.tanh)], [values], tolerance));
    }
  }
  return checks;
}

/** The layers that have cross-attention in place of self-attention; the goldens have what it and the MLP add before the gates. */
export async function checkCrossLayers(
  { goldens, tolerance }: CaseFolder,
  name: string,
  prompts: readonly Prompt[],
  model: PatchableModel,
): Promise<Check[]> {
  const { cross } = model.config;
  const tokenGate = `${name}/cross_token_gate`;
  if (!cross?.replaces || prompts.length !== 1 || !goldens.has(tokenGate)) return [];
  const [prompt] = prompts as [Prompt];
  const setup = model.config.vision as Setup;
  const { length } = prompt;
  const read = async (site: SiteName, image?: number) => {
    const { x } = model.run(prompt, { taps: { x: tap(site, "all", { image }) } });
    const values = await (x as Tensor<"f32">).read();
    x.dispose();
    return values;
  };
  const open = [...(await goldens.read(tokenGate)).values];
  const checks: Check[] = [
    checkEqual(
      tokenGate,
      prompt.ids.map((_, position) => (isSeen(prompt, position, setup) ? 1 : 0)),
      open,
    ),
  ];
  const compare = (key: string, found: ArrayLike<number>, expected: ArrayLike<number>) =>
    checks.push(checkTensor(key, [found], [expected], tolerance));
  // Where our keys are among those of the goldens, which has the pictures one after the other.
  const layouts = picturesOf(prompt).map((picture) => setup.layout(picture));
  const [latents, count] = [setup.fixed!.latents!, layouts.length];
  const ranges = setup.contextRows!(layouts);
  const keys = new Array<number>(count * latents);
  ranges.forEach((own, image) => {
    let row = image * latents;
    for (const { start, end } of own) for (let i = start; i < end; i++) keys[i] = row++;
  });
  for (const layer of cross.layers) {
    const golden = async (part: string) => (await goldens.read(`${name}/cross_${part}.${layer}`)).values;
    const gates = { attn: (await golden("attn_gate"))[0]!, mlp: (await golden("mlp_gate"))[0]! };
    const factors = { attn: open.map(() => gates.attn), mlp: open.map((isOpen) => isOpen * gates.mlp) };
    for (const half of ["attn", "mlp"] as const) {
      compare(`${name}/cross_${half}_gate.${layer}`, await read(`x${half}_gate.${layer}`), factors[half]);
      const out = await golden(`${half}_out`);
      const width = out.length / length;
      const site: SiteName = half === "attn" ? `xattn_out.${layer}` : `mlp_out.${layer}`;
      const gated = Float32Array.from(out, (x, i) =>
        x === OMITTED ? x : x * factors[half][Math.floor(i / width)]!,
      );
      compare(`${name}/cross_${half}_out.${layer}`, await read(site), gated);
    }
    const pattern = await golden("attn_pattern"); // [heads, T, keys]
    const columns = count * latents;
    const inOurs = Float32Array.from(pattern, (_, i) => pattern[i - (i % columns) + keys[i % columns]!]!);
    compare(`${name}/cross_attn_pattern.${layer}`, await read(`xattn_pattern.${layer}`), inOurs);
    const { headDim } = cross;
    const byRow = (values: ArrayLike<number>, heads: number, rows: number) =>
      Float32Array.from(values, (_, i) => {
        const [row, head, at] = [
          Math.floor(i / (heads * headDim)),
          Math.floor(i / headDim) % heads,
          i % headDim,
        ];
        return values[(head * rows + row) * headDim + at]!;
      });
    compare(
      `${name}/cross_q_norm.${layer}`,
      await read(`xattn_q_norm.${layer}`),
      byRow(await golden("q_norm"), cross.heads, length),
    );
    const ours: number[] = [];
    for (let image = 0; image < count; image++) ours.push(...(await read(`xattn_k_norm.${layer}`, image)));
    compare(`${name}/cross_k_norm.${layer}`, ours, byRow(await golden("k_norm"), cross.kvHeads, columns));
  }
  return checks;
}
