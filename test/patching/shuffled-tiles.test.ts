import { expect, test } from "vitest";
import { loadImage } from "../../src/images/files/load.ts";
import { type PixelValues, preprocess } from "../../src/images/preprocess.ts";
import { addVector, type Edit } from "../../src/patching/edit.ts";
import { logitDifference } from "../../src/patching/metric.ts";
import { randomArray } from "../helpers/compare.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";

// Gradients through tiles and squares of patches (SmolVLM, InternVL) against central differences.

const STEP = 1e-2;
const SITES = [
  ...["vision.embed", "vision.resid_post.0", "vision.mlp_out.1", "pixel_shuffle", "projector"],
  ...["embed", "resid_post.0", "resid_post.1", "attn_out.1"],
] as const;
type Site = Parameters<typeof addVector>[0];

test.each(["smolvlm", "internvl", "internvl-qk-norm"])(
  "%s: gradients are slopes, of sites and pixel values",
  async (name) => {
    const model = await fixtureModel(name);
    const { processor } = model.config.vision!;
    const picture = await loadImage("test/fixtures/images/photo.png");
    const values = preprocess(picture, { ...processor, grid: { ...processor.grid!, splits: true } });
    const prompt = (image: PixelValues) => model.prompt(["Q:", image, "\nA:"]);
    const [a, b] = [40, 301];
    const metricOf = async (image: PixelValues, edits: readonly Edit[] = []) => {
      const { logits } = await readAll({ logits: model.run(prompt(image), { edits }).logits });
      return logits[a]! - logits[b]!;
    };
    const sites = SITES as unknown as readonly Site[];
    const { gradients, pixels } = model.gradients(prompt(values), logitDifference(a, b), {
      of: sites,
      pixels: true,
    });
    const expectSlope = (up: number, down: number, slope: number, step: number, label: string) => {
      expect(Math.abs(slope), label).toBeGreaterThan(1e-3);
      const found = (up - down) / (2 * step);
      expect(Math.abs(found - slope), `${label}: ${found} for ${slope}`).toBeLessThan(
        2e-2 * Math.abs(slope) + 2e-3,
      );
    };
    for (const [i, site] of sites.entries()) {
      const own = (await gradients[site]!.read()) as Float32Array;
      const width = gradients[site]!.dim(1);
      const direction = randomArray(width, 40 + i);
      const slope = own.reduce((sum, x, j) => sum + x * direction[j % width]!, 0);
      const moved = (step: number) =>
        metricOf(values, [
          addVector(
            site,
            "all",
            direction.map((x) => x * step),
          ),
        ]);
      expectSlope(await moved(STEP), await moved(-STEP), slope, STEP, site);
    }
    // The pixel values of all tiles: the first tile, the whole, and everything at once.
    const [ofPixels] = pixels;
    expect(ofPixels!.shape).toEqual([values.tiling!.count, ...values.shape]);
    const all = (await ofPixels!.read()) as Float32Array;
    const size = 3 * values.shape[1] * values.shape[2];
    const random = randomArray(values.data.length, 9);
    for (const [label, start, end] of [
      ["first tile", 0, size],
      ["whole", values.data.length - size, values.data.length],
      ["all", 0, values.data.length],
    ] as const) {
      const direction = random.map((x, i) => (i >= start && i < end ? x : 0));
      const slope = all.reduce((sum, x, i) => sum + x * direction[i]!, 0);
      const moved = (step: number) =>
        metricOf({
          ...values,
          data: values.data.map((x, i) => x + step * direction[i]!) as typeof values.data,
        });
      expectSlope(await moved(STEP), await moved(-STEP), slope, STEP, label);
    }
  },
);
