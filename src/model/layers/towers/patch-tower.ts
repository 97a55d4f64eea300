import { patchRows, placesInBlocks } from "../../../images/patch-rows.ts";
import { ropeFrequencies } from "../../../kernels/attention/rope.ts";
import { add } from "../../../kernels/elementwise/elementwise.ts";
import { linear } from "../../../kernels/matmul/linear.ts";
import { concat } from "../../../kernels/movement/concat.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { PatchTowerConfig } from "../../checkpoint/config/patch-tower-config.ts";
import type { Picture, VisionSetup } from "../../checkpoint/config/vision-setup.ts";
import { thirds } from "../../checkpoint/weights/row-parts.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { pixelValues } from "../../prompt/prompt-image.ts";
import { takeRows } from "../../walk/forward.ts";
import { passOverImages, placesOfImages } from "../../walk/input-passes.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import { type Block, Stack } from "../../walk/stack.ts";
import { block } from "../block.ts";
import type { ImageFeatures } from "../bridges/image-decoder.ts";
import { type Merger, type MergerNames, readMerger } from "../bridges/patch-merger.ts";
import type { Mlp } from "../mlp.ts";
import type { Norm } from "../norm.ts";
import { AxisRope } from "../rope/axis-rope.ts";
import { betweenEnds, resampled } from "./position-table.ts";

type Setup = VisionSetup<PatchTowerConfig>;

/** Where the towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL differ. */
export interface PatchTowerKind {
  /** Of rows of this width. */
  norm(name: string, width: number): Promise<Norm>;
  mlp(prefix: string): Promise<Mlp>;
  /** The attention mask of a block. */
  rule(index: number): AttentionRule;
  readonly merger: MergerNames;
  /** Default false. */
  readonly patchBias?: boolean;
  /** Entries of a square table of learned positions; absent where there is none. */
  readonly positions?: number;
  /** Blocks whose output is made features for the stream between layers of the language model, in order (Qwen3-VL). */
  readonly deepstack?: readonly number[];
}

/**
 * The vision transformer of Qwen2-VL (Wang et al. 2024, arXiv 2409.12191): patches of a picture of any size, turned by row and
 * column; blocks of patches are merged into one feature each. A sequence a picture. Qwen3-VL's has learned positions as well.
 */
export async function readPatchFeatures(
  w: Weights,
  setup: Setup,
  prefix: string,
  kind: PatchTowerKind,
): Promise<ImageFeatures> {
  const { width, heads, layers, patches } = setup.tower;
  const { size, frames } = patches;
  const kernel = await w.tensor(`${prefix}patch_embed.proj.weight`, [width, 3, frames, size, size]);
  const patchWeight = w.reshape(kernel, [width, 3 * frames * size * size]);
  const rope = towerRope(setup);
  const blocks: Block[] = [];
  for (let i = 0; i < layers; i++) {
    const layer = `${prefix}blocks.${i}.`;
    const qkv = await w.fused(`${layer}attn.qkv`, [3 * width, width], thirds(width), { bias: true });
    blocks.push(
      block({
        rule: kind.rule(i),
        attentionNorm: await kind.norm(`${layer}norm1`, width),
        attention: {
          ...{ q: qkv[0], k: qkv[1], v: qkv[2] },
          o: await w.linear(`${layer}attn.proj`, [width, width], true),
          headDim: width / heads,
          rope,
        },
        mlpNorm: await kind.norm(`${layer}norm2`, width),
        mlp: await kind.mlp(`${layer}mlp.`),
      }),
    );
  }
  const merger = (name: string, options = {}) =>
    readMerger(w, setup.tower, `${prefix}${name}.`, kind.merger, kind.norm, options);
  const deepstack: Merger[] = [];
  for (const number of (kind.deepstack ?? []).keys()) {
    deepstack.push(await merger(`deepstack_merger_list.${number}`, { normsBlocks: true }));
  }
  return patchFeatures(setup, {
    patchWeight,
    ...(kind.patchBias && { patchBias: await w.tensor(`${prefix}patch_embed.proj.bias`, [width]) }),
    ...(kind.positions && {
      positions: await w.tensor(`${prefix}pos_embed.weight`, [kind.positions, width]),
    }),
    stack: new Stack(w.device, blocks),
    merge: await merger("merger"),
    deepstack: deepstack.map((merge, i) => ({ merge, block: kind.deepstack![i]! })),
  });
}

interface Parts {
  /** [width, 3 * frames * size * size] */
  readonly patchWeight: Tensor;
  /** [width] */
  readonly patchBias?: Tensor;
  /** [side * side, width] */
  readonly positions?: Tensor;
  readonly stack: Stack;
  readonly merge: Merger;
  /** What is made of the output of some blocks. */
  readonly deepstack: readonly { readonly block: number; readonly merge: Merger }[];
}

function patchFeatures(setup: Setup, parts: Parts): ImageFeatures {
  const { stack, merge, deepstack } = parts;
  return function* (images, pass) {
    const tower = passOverImages(pass, (image) => setup.layout(image).towerRows);
    const embedded = yield* tower.sites().pass(
      "vision.embed",
      pass.device.scope(() => embed(images, pass, setup, parts)),
    );
    const inside = new Map<number, Tensor>();
    const x = yield* stack.run(embedded, tower, {
      onStream(index, stream) {
        if (deepstack.some(({ block }) => block === index - 1)) inside.set(index - 1, stream.alias());
      },
    }); // [patches, width]
    const rows = rowsInPrompt(images, setup);
    const { rows: named } = passOverImages(pass, (image) => setup.layout(image).tokens);
    if (deepstack.length > 0) {
      const layers = deepstack.map(({ block, merge }) => takeRows(merge(inside.get(block)!), rows));
      pass.add({ layers, named, places: placesOfImages(pass, setup) });
    }
    return yield* pass.sites(undefined, { rows: named }).pass("projector", takeRows(merge(x), rows));
  };
}

/** What enters the first block: [patches, width]. */
function embed(
  images: readonly Picture[],
  pass: Pass,
  setup: Setup,
  { patchWeight, patchBias, positions }: Parts,
): Tensor {
  const pixels = pass.pixels(uploadPatches(pass.device, images, setup));
  const patches = linear(pixels, patchWeight, patchBias ? { bias: patchBias } : {});
  return positions ? add(patches, positionsOf(images, setup, positions)) : patches;
}

/** Learned positions of the tower's rows, resampled to the patches of each picture: [patches, width]. */
function positionsOf(images: readonly Picture[], setup: Setup, table: Tensor): Tensor {
  const { merge } = setup.tower.patches;
  const parts = images.map((image) => {
    const grid = setup.layout(image).grid!;
    const [rows, columns] = [grid.rows * merge, grid.columns * merge];
    const places = placesOf(image, setup);
    const order = Array.from(places.rows, (row, i) => row * columns + places.columns[i]!);
    return takeRows(resampled(table, { rows, columns }, betweenEnds), order);
  });
  return parts.length === 1 ? parts[0]! : concat(parts);
}

/** The patches of pictures in the order of the tower's rows: f32 [patches, 3 * frames * size * size]. */
function uploadPatches(device: Device, images: readonly Picture[], setup: Setup): Tensor {
  const { size, frames } = setup.tower.patches;
  const parts = images.map((image) =>
    patchRows(pixelValues(image, setup.processor), { size, frames }, placesOf(image, setup)),
  );
  const values = 3 * frames * size * size;
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return device.tensor(all, { shape: [all.length / values, values] });
}

/** Where the patches of the tower's rows of a picture lie in it. */
function placesOf(image: Picture, { layout, tower }: Setup) {
  const { grid, order } = layout(image);
  return placesInBlocks(grid!, tower.patches.merge, order);
}

/** Rows of the merged features, in the order of the prompt's places. */
function rowsInPrompt(images: readonly Picture[], { layout }: Setup): number[] {
  const rows: number[] = [];
  let first = 0;
  for (const image of images) {
    const { tokens, order } = layout(image);
    for (let i = 0; i < tokens; i++) rows[first + (order?.[i] ?? i)] = first + i;
    first += tokens;
  }
  return rows;
}

/** Half of the frequencies turn with a patch's row, the same ones again with its column. */
function towerRope(setup: Setup): AxisRope {
  const { width, heads, theta } = setup.tower;
  const frequencies = ropeFrequencies({ rotaryDim: width / heads / 2, theta });
  return new AxisRope({
    frequencies: Float32Array.of(...frequencies, ...frequencies),
    axes: [...frequencies].map(() => 0).concat([...frequencies].map(() => 1)),
    coordinates(pass: Pass) {
      const rows = new Uint32Array(pass.rows.length);
      const columns = new Uint32Array(pass.rows.length);
      for (const { row, sequence, position, count } of pass.rows.spans) {
        const places = placesOf(pass.image(sequence)!, setup);
        rows.set(places.rows.subarray(position, position + count), row);
        columns.set(places.columns.subarray(position, position + count), row);
      }
      return [rows, columns];
    },
  });
}
