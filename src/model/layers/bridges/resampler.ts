import { concat } from "../../../kernels/movement/concat.ts";
import { cast } from "../../../kernels/movement/copy.ts";
import { gatherRows } from "../../../kernels/movement/gather.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { Picture } from "../../checkpoint/config/vision-setup.ts";
import { imageRowCount, tileRows, type VisionSetup } from "../../checkpoint/config/vision-setup.ts";
import type { Weights } from "../../checkpoint/weights/weights.ts";
import { passOverImages } from "../../walk/input-passes.ts";
import { partsOf } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { Walk } from "../../walk/site-events.ts";
import { type Block, Stack } from "../../walk/stack.ts";
import type { KeyRows } from "../attention/attention-layer.ts";
import { type BlockParts, block } from "../block.ts";
import { plainMlp } from "../mlp.ts";
import { type Norm, perHead, readLayerNorm } from "../norm.ts";

/** PyTorch's default. */
const NORM_EPS = 1e-5;

/**
 * A perceiver resampler (Jaegle et al. 2021, arXiv 2103.03206, as in Flamingo): learned latents attend to an image's rows in the
 * tower and to each other, so that every image becomes as many rows. Of an image in tiles each has latents of its own.
 */
export class Resampler {
  readonly #latents: Tensor;
  readonly #stack: Stack;
  readonly #norm: Norm;

  /** latents: [latents, width] */
  constructor(latents: Tensor, stack: Stack, norm: Norm) {
    this.#latents = latents;
    this.#stack = stack;
    this.#norm = norm;
  }

  /**
   * x: [rows of all images in the tower, width] → [latents of all images, width]. `pass` is that of the prompts. Sites:
   * resampler.<site>.N, resampler.out.
   */
  *run(x: Tensor, pass: Pass, setup: VisionSetup): Walk<Tensor> {
    const count = (rows: Parameters<typeof imageRowCount>[1]) => (image: unknown) =>
      imageRowCount(setup.layout(image as Picture), rows);
    const own = passOverImages(pass, count("latents"), {
      prefix: "resampler.",
      keysOf: count("tower and latents"),
    });
    const { rows } = passOverImages(pass, count("tower"));
    own.context.fill({ x, rows, named: rows });
    const sets = own.rows.length / this.#latents.dim(0); // one a tile
    const start = concat(Array.from({ length: sets }, () => cast(this.#latents, "f32"))); // [sets * latents, width]
    const latents = yield* this.#stack.run(start, own);
    return yield* own.sites().pass("resampler.out", this.#norm(latents));
  }
}

/**
 * A block of a resampler. Latents attend to the rows of their tile in the tower (of their image, where it is not cut) and then
 * to each other; both go through norms.
 */
export function resamplerBlock(
  { contextNorm, ...parts }: Omit<BlockParts, "rule" | "keyRows"> & { readonly contextNorm: Norm },
  { resampler, layout }: VisionSetup,
): Block {
  const { latents } = resampler!;
  const tilesOf = (image: Picture) => tileRows(layout(image));
  return block({
    ...parts,
    rule: partsOf((image) => tilesOf(image).map((rows) => ({ rows: latents, keys: rows + latents }))),
    keyRows: (x, pass) => keyRows(x, pass, contextNorm, tilesOf),
  });
}

/** Tile by tile, its rows in the tower, then its latents, both through their norms. */
function keyRows(
  latents: Tensor,
  pass: Pass,
  contextNorm: Norm,
  tilesOf: (image: Picture) => number[],
): KeyRows {
  const { x, rows: towers } = pass.context.source!;
  const both = concat([contextNorm(x), latents]);
  const order = pass.table(keyRows, ({ rows, device }) => {
    const range = (start: number, length: number) => Array.from({ length }, (_, i) => start + i);
    const ids = rows.spans.flatMap(({ sequence, row, count }) => {
      const tiles = tilesOf(pass.image(sequence)!);
      const each = count / tiles.length;
      let end = towers.of(sequence)[0]!.row;
      return tiles.flatMap((length, tile) => {
        end += length;
        return [...range(end - length, length), ...range(x.dim(0) + row + tile * each, each)];
      });
    });
    return device.tensor(Uint32Array.from(ids), { dtype: "u32" });
  });
  return { x: gatherRows(both, order), rows: pass.keys.own };
}

/** Idefics' resampler under `prefix`, in Hugging Face's names. */
export async function readResampler(w: Weights, setup: VisionSetup, prefix: string): Promise<Resampler> {
  const { layers, latents, width, heads, headDim, mlpWidth, qkNorm } = setup.resampler!;
  const norm = (name: string, size = width) => readLayerNorm(w, `${prefix}${name}`, size, NORM_EPS);
  const ofHeads = async (name: string) => perHead(await norm(name, headDim), headDim);
  const inner = heads * headDim;
  const blocks: Block[] = [];
  for (let i = 0; i < layers; i++) {
    const [attention, mlp] = [`blocks.${i}.0.`, `blocks.${i}.1.`];
    const projection = (name: string) => w.linear(`${prefix}${attention}${name}`, [inner, width]);
    const parts = {
      contextNorm: await norm(`${attention}context_layer_norm`),
      attentionNorm: await norm(`${attention}latents_layer_norm`),
      attention: {
        q: await projection("q_proj"),
        k: await projection("k_proj"),
        v: await projection("v_proj"),
        o: await w.linear(`${prefix}${attention}output_proj`, [width, inner]),
        headDim,
        ...(qkNorm && {
          qNorm: await ofHeads(`${attention}q_layer_norm`),
          kNorm: await ofHeads(`${attention}k_layer_norm`),
        }),
      },
      mlpNorm: await norm(`${mlp}ln`),
      mlp: plainMlp(
        {
          in: await w.linear(`${prefix}${mlp}fc`, [mlpWidth, width]),
          out: await w.linear(`${prefix}${mlp}c_proj`, [width, mlpWidth]),
        },
        "relu",
      ),
    };
    blocks.push(resamplerBlock(parts, setup));
  }
  return new Resampler(
    await w.tensor(`${prefix}latents`, [latents, width]),
    new Stack(w.device, blocks),
    await norm("layer_norm"),
  );
}
