import { patchRows, placesInBlocks } from "../../../images/patch-rows.ts";
import { ropeFrequencies } from "../../../kernels/attention/rope.ts";
import type { ActivationKind } from "../../../kernels/elementwise/activation.ts";
import { linear } from "../../../kernels/matmul/linear.ts";
import type { Device } from "../../../tensor/device.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Picture, TowerConfig, VisionSetup } from "../../checkpoint/config/vision-setup.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { pixelValues } from "../../prompt/prompt-image.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import { full } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import { type Block, Stack } from "../../walk/stack.ts";
import { block } from "../block.ts";
import type { ImageFeatures } from "../bridges/image-decoder.ts";
import { gatedMlp } from "../mlp.ts";
import { readRmsNorm } from "../norm.ts";
import { AxisRope } from "../rope/axis-rope.ts";
import { blocksInUse } from "./vision-tower.ts";

/** A vision transformer over pictures of any size. */
export interface PixtralTowerConfig extends TowerConfig {
  /** Base of the rotary frequencies. */
  readonly theta: number;
  readonly activation: ActivationKind;
}

type Setup = VisionSetup<PixtralTowerConfig>;

/** Of all norms, whatever a config says. */
const NORM = { eps: 1e-5 };

/** The weight by which a file's spelling of the tower's names is told. */
export const PIXTRAL_PROBE = "patch_conv.weight";

/**
 * Pixtral's vision transformer (Agrawal et al. 2024, arXiv 2410.07073): blocks like Llama's over the patches of a picture, which
 * are turned by row and column; a sequence a picture. Gives the stream that enters block `featureLayer`, or leaves the last:
 * [patches, width]. Sites: vision.*.
 */
export async function readPixtralTower(w: Weights, setup: Setup, prefix: string): Promise<ImageFeatures> {
  const { width, heads, layers, mlpWidth, patchSize: size, activation } = setup.tower;
  const kernel = await w.tensor(prefix + PIXTRAL_PROBE, [width, 3, size, size]);
  const patchWeight = w.reshape(kernel, [width, 3 * size * size]);
  const preNorm = await readRmsNorm(w, `${prefix}ln_pre`, width, NORM);
  const rope = towerRope(setup);
  const blocks: Block[] = [];
  for (let i = 0; i < layers; i++) {
    const layer = `${prefix}transformer.layers.${i}.`;
    const projection = (name: string) => w.linear(`${layer}attention.${name}_proj`, [width, width]);
    const mlp = {
      gate: await w.linear(`${layer}feed_forward.gate_proj`, [mlpWidth, width]),
      up: await w.linear(`${layer}feed_forward.up_proj`, [mlpWidth, width]),
      down: await w.linear(`${layer}feed_forward.down_proj`, [width, mlpWidth]),
    };
    blocks.push(
      block({
        rule: full,
        attentionNorm: await readRmsNorm(w, `${layer}attention_norm`, width, NORM),
        attention: {
          q: await projection("q"),
          k: await projection("k"),
          v: await projection("v"),
          o: await projection("o"),
          headDim: width / heads,
          rope,
        },
        mlpNorm: await readRmsNorm(w, `${layer}ffn_norm`, width, NORM),
        mlp: gatedMlp(mlp, activation),
      }),
    );
  }
  const stack = new Stack(w.device, blocks);
  const { featureLayer } = setup;
  return function* (images, pass) {
    const own = passOverImages(pass, (image) => setup.layout(image).towerRows);
    const embedded = yield* own.sites().pass(
      "vision.embed",
      pass.device.scope(() => linear(pass.pixels(uploadPatches(pass.device, images, setup)), patchWeight)),
    );
    let wanted: Tensor | undefined;
    yield* stack.run(preNorm(embedded), own, {
      blocks: Math.max(featureLayer, blocksInUse(own, layers)),
      onStream(index, x) {
        if (index === featureLayer) wanted = x.alias();
      },
    });
    return wanted!;
  };
}

/** The patches of pictures, row by row: f32 [patches, 3 * size * size]. */
function uploadPatches(
  device: Device,
  images: readonly Picture[],
  { layout, tower, processor }: Setup,
): Tensor {
  const size = tower.patchSize;
  const parts = images.map((image) => {
    const places = placesInBlocks(layout(image).grid!, 1);
    return patchRows(pixelValues(image, processor), { size, frames: 1 }, places);
  });
  const all = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return device.tensor(all, { shape: [all.length / (3 * size * size), 3 * size * size] });
}

/** Of the frequencies of a head, every other one, from the first, turns with the row, and the others with the column. */
function towerRope({ tower: { width, heads, theta }, layout }: Setup): AxisRope {
  const frequencies = ropeFrequencies({ rotaryDim: width / heads, theta });
  const every = (first: number) => frequencies.filter((_, i) => i % 2 === first);
  return new AxisRope({
    frequencies: Float32Array.of(...every(0), ...every(1)),
    axes: [...every(0)].map(() => 0).concat([...every(1)].map(() => 1)),
    coordinates(pass: Pass) {
      const rows = new Uint32Array(pass.rows.length);
      const columns = new Uint32Array(pass.rows.length);
      for (const { row, sequence, position } of pass.rows.entries()) {
        const { grid } = layout(pass.image(sequence)!);
        rows[row] = Math.floor(position / grid!.columns);
        columns[row] = position % grid!.columns;
      }
      return [rows, columns];
    },
  });
}
