import { describe, expect, test } from "vitest";
import { CheckpointError, PromptError } from "../../../src/errors.ts";
import { loadImage } from "../../../src/images/files/load.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { OpenModel } from "../../../src/model/open-model.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { tap } from "../../../src/patching/tap.ts";
import { fixtureFiles } from "../../helpers/checkpoints.ts";
import { expectClose } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel, readAll } from "../../helpers/model.ts";

type Json = Record<string, unknown>;

const gray = () => loadImage("test/fixtures/images/gray.png");

describe("a prompt", () => {
  test("is the pictures, BOS, the text and a newline", async () => {
    const model = await fixtureModel("paligemma");
    const image = await gray();
    const { tokens, spans, text, bos } = model.prompt("<image><image>caption", { images: [image, image] });
    expect(tokens.slice(0, 33)).toEqual([...Array(32).fill("<image>"), "<bos>"]);
    expect(model.tokenizer.decode(tokens.slice(33).map((token) => model.tokenizer.idOf(token)!))).toBe(
      "caption\n",
    );
    expect(spans).toEqual({
      image: { start: 0, end: 16, grid: { rows: 4, columns: 4 } },
      image2: { start: 16, end: 32, grid: { rows: 4, columns: 4 } },
    });
    expect([text, bos]).toEqual(["<image><image>caption", false]);
  });

  test("has BOS behind the last picture, wherever that is, and spans where the text then is", async () => {
    const model = await fixtureModel("paligemma");
    const prompt = model.prompt(["sky ", await gray(), " is ", { text: "blue", name: "answer" }]);
    const { start, end } = prompt.span("image");
    expect(prompt.tokens.indexOf("<bos>")).toBe(end);
    expect(prompt.tokens.filter((token) => token === "<bos>").length).toBe(1);
    expect(start).toBeGreaterThan(0);
    const answer = prompt.span("answer");
    expect(model.tokenizer.decode(prompt.ids.slice(answer.start, answer.end))).toMatch(/^ ?blue$/);
    expect(prompt.ids.at(-1)).toBe(model.prompt("x").ids.at(-1)); // the newline
  });

  test("without pictures begins with BOS; with bos: false it is the text alone", async () => {
    const model = await fixtureModel("paligemma");
    const [framed, bare] = [model.prompt("caption"), model.prompt("caption", { bos: false })];
    expect(framed.tokens[0]).toBe("<bos>");
    expect(framed.ids).toEqual([2, ...bare.ids, 261]);
    expect(model.prompt("caption", { bos: true }).ids).toEqual(framed.ids);
    const alone = model.prompt(["<image>caption"], { bos: false, images: [await gray()] });
    expect(alone.ids).toEqual([...Array(16).fill(432), ...bare.ids]);
  });

  test("attends both ways", async () => {
    const model = await fixtureModel("paligemma");
    const prompt = model.prompt("caption");
    const { pattern } = await readAll(model.run(prompt, { taps: { pattern: tap("pattern.0") } }));
    expect(Math.min(...pattern)).toBeGreaterThan(0);
  });

  test("of pictures' features only the text's embeddings are scaled", async () => {
    const model = await fixtureModel("paligemma");
    const prompt = model.prompt("<image>caption", { images: [await gray()] });
    const taps = { features: tap("projector"), rows: tap("embed", { span: "image" }), bos: tap("embed", 16) };
    const { features, rows, bos } = await readAll(model.run(prompt, { taps, stopAfter: 0 }));
    expect([...rows]).toEqual([...features]);
    const other = await readAll(
      model.run(model.prompt("x"), { taps: { bos: tap("embed", 0) }, stopAfter: 0 }),
    );
    expectClose(bos, other.bos, { atol: 0, rtol: 0 });
  });
});

describe("a config", () => {
  const open = async (change: (config: Json, processor: Json, tokenizer: Json) => unknown) => {
    const files = fixtureFiles("paligemma");
    const names = ["config.json", "preprocessor_config.json", "tokenizer_config.json"];
    const jsons = names.map((name) => JSON.parse(new TextDecoder().decode(files.get(name))));
    change(jsons[0], jsons[1], jsons[2]);
    names.forEach((name, i) => {
      files.set(name, new TextEncoder().encode(JSON.stringify(jsons[i])));
    });
    await using opened = await OpenModel.open(memoryFolder(files, "paligemma"));
    return opened.outline;
  };
  const text = (config: Json) => config["text_config"] as Json;
  const vision = (config: Json) => config["vision_config"] as Json;

  test.each<[string, RegExp, (config: Json, processor: Json) => unknown]>([
    [
      "another language model",
      /PaliGemma over "gemma2" is not supported/,
      (c) => (text(c)["model_type"] = "gemma2"),
    ],
    [
      "another tower",
      /vision_config: PaliGemma over clip/,
      (c) => (vision(c)["model_type"] = "clip_vision_model"),
    ],
    [
      "a causal prompt",
      /use_bidirectional_attention false/,
      (c) => (text(c)["use_bidirectional_attention"] = false),
    ],
    [
      "another projection",
      /projection_dim to be the width .* 48, found 32/,
      (c) => (c["projection_dim"] = 32),
    ],
    [
      "another number of places",
      /image_seq_length .* to be 16, .* found 9/,
      (_, p) => (p["image_seq_length"] = 9),
    ],
    ["a window", /text_config: expected no sliding_window, found 4/, (c) => (text(c)["sliding_window"] = 4)],
    ["no language model", /text_config is missing/, (c) => delete c["text_config"]],
  ])("is refused for %s", async (_, message, change) => {
    const attempt = open(change);
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toBeInstanceOf(CheckpointError);
  });

  test("gelu is the tanh form; a mask both ways is what null means", async () => {
    const { config } = await open((c) => (text(c)["use_bidirectional_attention"] = true));
    expect([config.activation, config.rope!.firstPosition]).toEqual(["gelu_tanh", 1]);
  });

  test("the logits of its language model may have a soft cap", async () => {
    const device = await testDevice();
    const files = fixtureFiles("paligemma");
    const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
    config.text_config.final_logit_softcapping = 1;
    files.set("config.json", new TextEncoder().encode(JSON.stringify(config)));
    using capped = await loadModel(memoryFolder(files, "paligemma"), { device });
    const plain = await fixtureModel("paligemma");
    const prompt = plain.prompt("caption");
    const logitsOf = async (model: PatchableModel) => await model.run(prompt).logits!.read();
    expectClose(await logitsOf(capped), (await logitsOf(plain)).map(Math.tanh), { atol: 1e-5, rtol: 1e-5 });
  });

  test("a tokenizer without BOS makes no prompts", async () => {
    const outline = await open((_c, _p, tokenizer) => delete tokenizer["bos_token"]);
    expect(() => outline.prompt("caption")).toThrow(PromptError);
    expect(outline.prompt("caption", { bos: false }).length).toBeGreaterThan(0);
  });
});
