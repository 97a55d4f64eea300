import { expect, test } from "vitest";
import { loadImage } from "../../src/images/files/load.ts";
import { preprocess } from "../../src/images/preprocess.ts";
import { fixtureModel } from "../helpers/model.ts";
import { expectSlopes } from "../helpers/slopes.ts";

// Gradients through tiles and squares of patches (SmolVLM, InternVL) against central differences.

test.each(["smolvlm", "internvl", "internvl-qk-norm"])(
  "%s: gradients are slopes, of sites and pixel values",
  async (name) => {
    const model = await fixtureModel(name);
    const { processor } = model.config.vision!;
    const picture = await loadImage("test/fixtures/images/photo.png");
    const values = preprocess(picture, { ...processor, grid: { ...processor.grid!, splits: true } });
    const [count, size] = [values.data.length, 3 * values.shape[1] * values.shape[2]];
    const shape = await expectSlopes(model, {
      values,
      promptOf: (image) => model.prompt(["Q:", image, "\nA:"]),
      sites: [
        ...([
          "vision.embed",
          "vision.resid_post.0",
          "vision.mlp_out.1",
          "pixel_shuffle",
          "projector",
        ] as const),
        ...(["embed", "resid_post.0", "resid_post.1", "attn_out.1"] as const),
      ],
      tokens: [40, 301],
      parts: { "first tile": [0, size], whole: [count - size, count] },
    });
    expect(shape).toEqual([values.tiling!.count, ...values.shape]);
  },
);
