import { expect, test } from "vitest";
import { loadImage } from "../../src/images/files/load.ts";
import { patchRows, placesInBlocks } from "../../src/images/patch-rows.ts";
import { type PixelValues, preprocess } from "../../src/images/preprocess.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { fixtureModel } from "../helpers/model.ts";
import { expectSlopes } from "../helpers/slopes.ts";

// Gradients along the whole way of a picture against central differences; of further families where their other tests are.

const TOWER: readonly SiteName[] = ["vision.embed", "vision.resid_post.0", "vision.mlp_out.1"];
const TEXT: readonly SiteName[] = ["embed", "resid_post.0", "attn_out.1"];

const SITES: Readonly<Record<string, readonly SiteName[]>> = {
  llava_next: [...TOWER, "tile_features", "projector", ...TEXT],
  // Its prompt attends both ways.
  paligemma: [...TOWER, "vision.post_norm", "projector", ...TEXT, "v.1"],
  qwen2_5_vl: [...TOWER, "projector", ...TEXT],
  idefics: [
    ...TOWER,
    ...(["resampler.resid_post.0", "resampler.mlp_out.1", "resampler.out"] as const),
    ...(["xattn_k.0", "xattn_v.2", "xattn_out.0", "xmlp_out.2"] as const),
    ...TEXT,
  ],
  "idefics-vector-gates": ["resampler.out", "xattn_out.0", "xmlp_out.1", "embed"],
};

test.each(Object.keys(SITES))("%s: gradients are slopes, of sites and pixel values", async (name) => {
  const model = await fixtureModel(name);
  const setup = model.config.vision!;
  const { processor } = setup;
  const values = preprocess(await loadImage("test/fixtures/images/tall.png"), processor);
  const { patches } = processor;
  const inOrder = (picture: PixelValues) => {
    const side = patches!.size * patches!.merge;
    const [, height, width] = picture.shape;
    const blocks = { rows: height / side, columns: width / side };
    return patchRows(picture, patches!, placesInBlocks(blocks, patches!.merge, setup.layout(picture).order));
  };
  const shape = await expectSlopes(model, {
    values,
    promptOf: (image) => model.prompt(["Q:", image, "\nA:"]),
    sites: SITES[name]!,
    tokens: [40, 301],
    step: 3e-3, // the norms of Idefics' tower are steep
    ...(patches && { inOrder }),
  });
  const { tiling } = values;
  if (!patches) expect(shape).toEqual([...(tiling ? [tiling.count] : []), ...values.shape]);
});
