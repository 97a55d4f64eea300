import { describe, test } from "vitest";
import type { PixelValues } from "../../../../src/images/preprocess.ts";
import { promptFromIds } from "../../../../src/model/prompt/build-prompt.ts";
import { loadDualEncoder } from "../../../../src/patching/dual-encoder.ts";
import { loadModel } from "../../../../src/patching/model.ts";
import {
  expectFuzzed,
  expectPlain,
  type FuzzRules,
  GOLDEN_IDS,
  goldenPixels,
  type RunGolden,
  readConfigGoldens,
  summary,
} from "../../../helpers/config-goldens.ts";

// As config-fuzz.test.ts, of the models that take pictures (scripts/make-picture-config-golden.py), in each of their parts.

/** The picture of each fixture, the token of its places, and how many there are. */
const PICTURES: Readonly<Record<string, readonly [picture: PixelValues, token: number, places: number]>> = {
  idefics: [goldenPixels(28, 28), 432, 1],
  smolvlm: [goldenPixels(32, 32), 318, 4],
  llava_next: [tiled(56, 3, { height: 56, width: 112 }), 431, 52],
  llava_onevision: [tiled(28, 3, { height: 28, width: 56 }), 319, 52],
  paligemma: [goldenPixels(28, 28), 432, 16],
  gemma3: [goldenPixels(56, 56), 434, 16],
  qwen3_vl: [goldenPixels(32, 48), 321, 6],
  fuyu: [goldenPixels(20, 30), 410, 6],
  "llava-pixtral": [goldenPixels(16, 24), 431, 6],
  "blip2-opt": [goldenPixels(28, 28), 320, 6],
  "blip2-t5": [goldenPixels(28, 28), 155, 6],
  "instructblip-llama": [goldenPixels(28, 28), 432, 6],
  mllama: [canvas(28), 320, 1],
  internvl: [goldenPixels(28, 28), 321, 4],
  "internvl-qk-norm": [goldenPixels(28, 28), 321, 4],
};

function tiled(side: number, count: number, size: { height: number; width: number }): PixelValues {
  return { ...goldenPixels(side, side, count), tiling: { count, ...size } };
}

/** One tile. */
function canvas(side: number): PixelValues {
  return { ...goldenPixels(side, side), tiling: { count: 1, height: side, width: side } };
}

const runOf =
  (fixture: string): RunGolden =>
  async (folder, device) => {
    if (fixture === "siglip2") {
      using model = await loadDualEncoder(folder, { device });
      const texts = model.texts([promptFromIds(model.tokenizer, [...GOLDEN_IDS, 1, ...Array(7).fill(0)])]);
      const images = model.images([goldenPixels(24, 32)]);
      const [logits, text, image] = await device.read([
        model.similarity(images.embeds, texts.embeds) as typeof images.embeds,
        texts.embeds,
        images.embeds,
      ]);
      return summary([logits![0]!, ...text!.slice(0, 3), ...image!.slice(0, 3)]);
    }
    const [picture, token, places] = PICTURES[fixture]!;
    using model = await loadModel(folder, {
      device,
      ...(fixture === "mllama" && { intermediateLayers: "outputs" as const }),
    });
    const ids = [...GOLDEN_IDS.slice(0, 4), ...Array(places).fill(token), ...GOLDEN_IDS.slice(4)];
    const answer = model.config.encoder ? GOLDEN_IDS.slice(0, 2) : [];
    const { logits } = model.run(model.promptFromIds(ids, [picture], answer));
    return summary([...(await logits!.read())]);
  };

const RULES: FuzzRules = {
  // Tensors, pixels, or the other field or file that it does not go with.
  names: new RegExp(
    [
      "the config does not fit the tensors|has no tensor|expected nothing beside|expected pixel values|Expected \\d+ .* tokens",
      '"no_such" is not supported|over (clip|siglip) is not supported|leaves no square of features',
      "of the image processor\\)? (of|to be) \\d+|of processor_config.json to be|as the tower takes them",
      "expected image_processor_type to be one of|projection_dim to be the width of the language model|mm_tokens_per_image to be the square",
    ].join("|"),
  ),
  stricter: new RegExp(
    [
      // Sizes that nothing is made of in transformers, and kinds that it puts right.
      '[".](model_type|max_position_embeddings|head_dim|image_size)"',
      // Both matrices are in the file, and stay as they are.
      '"tie_word_embeddings":true',
      // transformers 4 reads it, 5 does not.
      'position_embedding_type":"relative_key"',
      // What the image processor has otherwise would not go with the model.
      '"image_grid_pinpoints"|"vision_aspect_ratio"',
      // Llama 3.2 Vision finds its picture in the mask that the processor has made.
      '"image_token_(index|id)"',
      // PaliGemma's prompts attend both ways in any case; of a count the root is rounded.
      '"text_config.(use_bidirectional_attention|is_causal)":false|"mm_tokens_per_image":17',
    ].join("|"),
  ),
};

describe.each(Object.entries(readConfigGoldens("pictures.json")))("%s", (fixture, golden) => {
  test("the config as it is", () => expectPlain(fixture, golden, runOf(fixture)));
  test("one field changed", async () => {
    const [picture] = PICTURES[fixture] ?? [];
    await expectFuzzed(fixture, golden, runOf(fixture), RULES, picture && [picture]);
  }, 600_000);
});
