import { patchRows, placesInBlocks } from "../../images/patch-rows.ts";
import { ropeFrequencies } from "../../kernels/attention/rope.ts";
import { activation } from "../../kernels/elementwise/activation.ts";
import { linear } from "../../kernels/matmul/linear.ts";
import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { PatchTowerConfig } from "../checkpoint/config/patch-tower-config.ts";
import type { Picture, VisionSetup } from "../checkpoint/config/vision-setup.ts";
import type { Linear } from "../checkpoint/weights/linear-layer.ts";
import { thirds } from "../checkpoint/weights/row-parts.ts";
import type { Weights } from "../checkpoint/weights/weights.ts";
import { pixelValues } from "../prompt/prompt-image.ts";
import { takeRows } from "../walk/forward.ts";
import { passOverImages } from "../walk/input-passes.ts";
import type { AttentionRule } from "../walk/masks.ts";
import type { Pass } from "../walk/pass.ts";
import { type Block, Stack } from "../walk/stack.ts";
import { AxisRope } from "./axis-rope.ts";
import { block } from "./block.ts";
import type { ImageFeatures } from "./image-decoder.ts";
import type { Mlp } from "./mlp.ts";
import type { Norm } from "./norm.ts";

type Setup = VisionSetup<PatchTowerConfig>;

/** Where the towers of Qwen2-VL and Qwen2.5-VL differ. */
export interface PatchTowerKind {
  norm(name: string): Promise<Norm>;
  mlp(prefix: string): Promise<Mlp>;
  /** The attention mask of a block. */
  rule(index: number): AttentionRule;
}

/**
 * The vision transformer of Qwen2-VL (Wang et al. 2024, arXiv 2409.12191): patches of a picture of any size, without learned
 * positions, turned by row and column; blocks of patches are merged into one feature each. A sequence a picture.
 */
export async function readPatchFeatures(
  w: Weights,
  setup: Setup,
  prefix: string,
  kind: PatchTowerKind,
): Promise<ImageFeatures> {
  const { width, heads, layers, outWidth, patches } = setup.tower;
  const { size, frames, merge } = patches;
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
        attentionNorm: await kind.norm(`${layer}norm1`),
        attention: {
          ...{ q: qkv[0], k: qkv[1], v: qkv[2] },
          o: await w.linear(`${layer}attn.proj`, [width, width], true),
          headDim: width / heads,
          rope,
        },
        mlpNorm: await kind.norm(`${layer}norm2`),
        mlp: await kind.mlp(`${layer}mlp.`),
      }),
    );
  }
  const joined = width * merge ** 2;
  return patchFeatures(setup, {
    patchWeight,
    stack: new Stack(w.device, blocks),
    norm: await kind.norm(`${prefix}merger.ln_q`),
    in: await w.linear(`${prefix}merger.mlp.0`, [joined, joined], true),
    out: await w.linear(`${prefix}merger.mlp.2`, [outWidth, joined], true),
  });
}

interface Parts {
  /** [width, 3 * frames * size * size] */
  readonly patchWeight: Tensor;
  readonly stack: Stack;
  /** The merger's norm, of each patch by itself, and its MLP. */
  readonly norm: Norm;
  readonly in: Linear;
  readonly out: Linear;
}

function patchFeatures(setup: Setup, { patchWeight, stack, norm, ...merger }: Parts): ImageFeatures {
  const { width, patches } = setup.tower;
  return function* (images, pass) {
    const tower = passOverImages(pass, (image) => setup.layout(image).towerRows);
    const embedded = yield* tower.sites().pass(
      "vision.embed",
      pass.device.scope(() => linear(pass.pixels(uploadPatches(pass.device, images, setup)), patchWeight)),
    );
    const x = yield* stack.run(embedded, tower); // [patches, width]
    const blocks = norm(x).reshape([x.dim(0) / patches.merge ** 2, width * patches.merge ** 2]);
    const features = merger.out.apply(activation(merger.in.apply(blocks), "gelu")); // [places, outWidth]
    return yield* passOverImages(pass, (image) => setup.layout(image).tokens)
      .sites()
      .pass("projector", takeRows(features, rowsInPrompt(images, setup)));
  };
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
