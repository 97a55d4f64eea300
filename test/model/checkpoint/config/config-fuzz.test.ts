import { readdirSync } from "node:fs";
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

// A config with one field changed, added or removed gives what transformers makes of it (scripts/make-config-golden.py),
// or is refused by the field's name; never other numbers. Most models that take pictures: picture-config-fuzz.test.ts.

const PIXELS = goldenPixels(56, 56);

/** The pictures of a fixture's prompt, and the tokens in their places. */
function picturesOf(fixture: string): [pictures: PixelValues[], places: number[]] {
  if (fixture === "llava") return [[PIXELS], Array(16).fill(431)];
  if (fixture === "idefics2") return [[PIXELS], Array(5).fill(432)];
  if (fixture.endsWith("_vl")) return [[goldenPixels(84, 112)], Array(12).fill(321)];
  return [[], []];
}

/** What the golden script computes. */
const runOf =
  (fixture: string): RunGolden =>
  async (folder, device) => {
    if (fixture === "clip" || fixture === "siglip") {
      using model = await loadDualEncoder(folder, { device });
      const ids = fixture === "clip" ? [572, ...GOLDEN_IDS, 573] : [...GOLDEN_IDS, 1, 1, 1, 1];
      const texts = model.texts([promptFromIds(model.tokenizer, ids)]);
      const images = model.images([PIXELS]);
      const [logits, text, image] = await device.read([
        model.similarity(images.embeds, texts.embeds) as typeof images.embeds,
        texts.embeds,
        images.embeds,
      ]);
      return summary([logits![0]!, ...text!.slice(0, 3), ...image!.slice(0, 3)]);
    }
    using model = await loadModel(folder, { device });
    const [pictures, places] = picturesOf(fixture);
    const ids = [...GOLDEN_IDS.slice(0, 4), ...places, ...GOLDEN_IDS.slice(4)];
    const answer = model.config.encoder ? GOLDEN_IDS.slice(0, 2) : [];
    const { logits } = model.run(model.promptFromIds(ids, pictures, answer));
    return summary([...(await logits!.read())]);
  };

const RULES: FuzzRules = {
  names: /the config does not fit the tensors|has no tensor|expected pixel values|Expected 1[26] .* tokens/,
  stricter:
    /[".](model_type|max_position_embeddings|head_dim|image_size|quantization_config|compression_config)"|"gelu_10"|softcapping":-|"use_bidirectional_attention":true|"(is_gated_act|tie_word_embeddings)":"no"/,
};

const goldens = Object.assign(
  {},
  ...readdirSync("test/fixtures/configs")
    .filter((file) => file !== "pictures.json")
    .map(readConfigGoldens),
) as ReturnType<typeof readConfigGoldens>;

describe.each(Object.entries(goldens))("%s", (fixture, golden) => {
  test("the config as it is", () => expectPlain(fixture, golden, runOf(fixture)));
  test("one field changed", async () => {
    await expectFuzzed(fixture, golden, runOf(fixture), RULES, picturesOf(fixture)[0]);
  }, 600_000);
});
