import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { ArgumentError, PromptError } from "../../../src/errors.ts";
import { patchesPerSide } from "../../../src/model/checkpoint/config/vision-config.ts";
import { localFolder, memoryFolder, overlay } from "../../../src/model/checkpoint/source/folder.ts";
import { llavaImageRules, squareLayout } from "../../../src/model/families/pictures/llava.ts";
import type { LlavaConfig } from "../../../src/model/families/pictures/parts/llava-parts.ts";
import { prompt, promptFromIds } from "../../../src/model/prompt/build-prompt.ts";
import { Prompt } from "../../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../../src/model/prompt/prompt-image.ts";
import { loadDualEncoder } from "../../../src/patching/dual-encoder.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import type { Device } from "../../../src/tensor/device.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel } from "../../helpers/model.ts";

const VOCAB = 448;
const MORE_TOKENS = 20;

const picture: PromptImage = { width: 2, height: 2, data: new Uint8Array(12) };

let device: Device;
let text: PatchableModel;
let vision: PatchableModel;
beforeAll(async () => {
  device = await testDevice();
  text = await fixtureModel("llama");
  vision = await fixtureModel("llava");
});

/** A fixture whose tokenizer has tokens <x440>, <x441>, … beyond the embedding's 448 rows. */
function withMoreTokens(name: string, first: number) {
  const path = `test/fixtures/${name}/model`;
  const json = JSON.parse(readFileSync(`${path}/tokenizer.json`, "utf8"));
  for (let id = first; id < first + MORE_TOKENS; id++)
    json.added_tokens.push({ id, content: `<x${id}>`, normalized: false });
  const files = new Map([["tokenizer.json", new TextEncoder().encode(JSON.stringify(json))]]);
  return overlay(memoryFolder(files), localFolder(path));
}

/** Every way of running a prompt. */
const ways: [string, (model: PatchableModel, prompt: Prompt) => unknown][] = [
  ["run", (model, prompt) => model.run(prompt)],
  ["run of several", (model, prompt) => model.run([model.promptFromIds([7]), prompt])],
  ["record", (model, prompt) => model.record(prompt)],
  ["walk", (model, prompt) => [...model.walk(prompt)]],
  ["generate", (model, prompt) => model.generate(prompt, { maxNewTokens: 1 })],
];

describe("token ids", () => {
  test("are whole numbers", () => {
    const found = (ids: unknown) => expect(() => text.promptFromIds(ids as number[]));
    found([1, 1.5]).toThrow(
      "Expected token ids to be whole numbers from 0 to 2^32 - 1, found 1.5 at position 1.",
    );
    found([-1]).toThrow(/found -1 at position 0/);
    found([Number.NaN]).toThrow(/found NaN/);
    found([5n]).toThrow(/found the bigint 5 at position 0/);
    found(new BigInt64Array(1)).toThrow(PromptError);
    found(["5"]).toThrow(/expected ids\[0\] to be a number, found the string "5"/);
    found([null]).toThrow(ArgumentError);
    found([2 ** 40 + 7]).toThrow(/found 1099511627783 at position 0/);
    expect(() => promptFromIds(text.tokenizer, [2 ** 32 + 7])).toThrow(PromptError);
  });

  test("have a row in the embedding", () => {
    expect(text.config.vocab).toBe(VOCAB);
    expect(text.tokenizer.size).toBeLessThan(VOCAB);
    // Rows without a token are rows.
    expect(text.promptFromIds([1, VOCAB - 1]).tokens).toEqual(["<s>", "<#447>"]);
    expect(() => text.promptFromIds([1, VOCAB])).toThrow(
      "Expected token ids below 448 (the rows of the model's embedding), found 448 (<#448>) at position 1.",
    );
    expect(() => text.promptFromIds([2 ** 31])).toThrow(PromptError);
  });

  test("of tokens that a tokenizer has beyond the embedding are refused in text too", async () => {
    using model = await loadModel(withMoreTokens("llama", 440), { device });
    expect(model.prompt("a<x447>").ids.at(-1)).toBe(447);
    expect(() => model.prompt("a<x448>")).toThrow(/below 448 .* found 448 \(<x448>\)/);
    expect(() => model.prompt(["a", { text: "<x459>", name: "x" }])).toThrow(PromptError);
  });

  test("of a dual encoder too, and its texts fit the context", async () => {
    using model = await loadDualEncoder(withMoreTokens("clip", 690), { device });
    const { vocab, context } = model.config.text;
    expect(vocab).toBe(700);
    model.texts(["a<x699>"]);
    expect(() => model.texts(["a", "a<x700>"])).toThrow(/below 700 .* found 700 \(<x700>\)/);
    const long = promptFromIds(model.tokenizer, Array(context + 1).fill(5));
    expect(() => model.texts([long])).toThrow(`Expected at most ${context} tokens`);
  });

  test.each(ways)("%s refuses ids beyond the embedding before anything runs", async (_, way) => {
    const prompt = promptFromIds(text.tokenizer, [1, VOCAB]);
    await expect(async () => way(text, prompt)).rejects.toThrow(/found 448/);
  });
});

describe("prompts of another model", () => {
  test.each(ways)(
    "%s refuses tokens that are others here, and takes those that are the same",
    async (_, way) => {
      // 431 is <image> in the one and <pad> in the other; the rest of the two vocabularies is the same.
      const other = text.promptFromIds([1, 431]);
      await expect(async () => way(vision, other)).rejects.toThrow(
        "Expected a prompt for this model's tokenizer, in which 431 is <image>, found <pad> for it at position 1.",
      );
      await way(vision, text.prompt("The sky is"));
      await way(text, vision.prompt("The sky is"));
    },
  );

  test("a prompt that runs elsewhere gives what it gives where it was made", async () => {
    using twin = await loadModel("test/fixtures/llama/model", { device });
    const prompt = text.prompt("The sky is");
    expect([...(await twin.run(prompt).logits!.read())]).toEqual([
      ...(await text.run(prompt).logits!.read()),
    ]);
  });
});

describe("pictures", () => {
  test.each(ways)("%s refuses a prompt with pictures on a model without them", async (_, way) => {
    const pictured = vision.prompt(["Q:", picture, "\nA:"]);
    await expect(async () => way(text, pictured)).rejects.toThrow(PromptError);
    // Even where all the tokens are the model's own.
    const own = new Prompt({ ...text.prompt("Q:"), images: [picture] });
    await expect(async () => way(text, own)).rejects.toThrow(
      "This model takes no images, found 1 in the prompt.",
    );
    expect(() => text.promptFromIds([1, 7], [picture])).toThrow(/takes no images, found 1/);
  });

  test.each(ways)("%s refuses places for pictures without pictures", async (_, way) => {
    const { ids } = vision.prompt(["Q:", picture, "\nA:"]);
    const alone = promptFromIds(vision.tokenizer, ids);
    await expect(async () => way(vision, alone)).rejects.toThrow(
      "Expected 0 <image> tokens for 0 image(s), found 16.",
    );
    expect(() => vision.promptFromIds(ids)).toThrow(/found 16/);
    expect(() => vision.promptFromIds([1, 431])).toThrow(/found 1\./);
    expect(() => vision.prompt("Q:<image>\nA:")).toThrow(/1 placeholder\(s\) and 0 image\(s\)/);
    expect(() => vision.prompt("Q:<image>\nA:", { images: [] })).toThrow(PromptError);
    expect(vision.promptFromIds(ids, [picture]).images).toEqual([picture]);
  });

  test.each(ways)("%s refuses a prompt whose pictures take more places here", async (_, way) => {
    const places = vision.prompt(["Q:", picture]).ids.filter((id) => id === 431);
    const fewer = promptFromIds(vision.tokenizer, [1, ...places.slice(0, 4)], { images: [picture] });
    await expect(async () => way(vision, fewer)).rejects.toThrow(/Expected 16 <image> tokens .*, found 4/);
  });

  test("that fill no whole grid are prompts all the same: default drops the first patch of a SigLIP tower", () => {
    const { vision: setup } = vision.config as LlavaConfig;
    const side = patchesPerSide(setup.tower);
    const tower = { ...setup.tower, kind: "siglip" as const };
    const imageRules = llavaImageRules({ ...setup, layout: () => squareLayout(tower, "default") });
    const made = prompt(vision.tokenizer, ["Q:", { image: picture }], { imageRules });
    expect(made.span("image").grid).toBeUndefined();
    expect(made.ids.filter((id) => id === 431)).toHaveLength(side * side - 1);
  });
});
