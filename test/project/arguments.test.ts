import { describe, expect, test } from "vitest";
import type { PatchableModel } from "../../src/index.ts";
import * as x from "../../src/index.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

// What plain JavaScript lets through. Each mistake is a typed error that names the argument and what was found.

const v = new Float32Array(48);

async function setUp() {
  const model = await fixtureModel("llama");
  const [prompt, photo] = [
    model.promptFromIds(randomIds(6, 1)),
    await x.loadImage("test/fixtures/images/photo.png"),
  ];
  return { model, prompt, photo, device: model.device };
}
type World = Awaited<ReturnType<typeof setUp>>;

// biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
type Anything = any;

function refusals(cases: [what: string, call: (m: Anything, w: World) => unknown, message: RegExp][]): void {
  test.each(cases)("%s", async (_, call, message) => {
    const world = await setUp();
    const attempt = (async () => call(world.model, world))();
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toThrow(x.ArgumentError);
  });
}

const { loadModel, openDevice, loadImage, tap, set, zero, scale, addVector, resume } = x as Anything;
const FIXTURE = "test/fixtures/llama/model";

describe("loading", () => {
  refusals([
    [
      "no options",
      () => loadModel(FIXTURE),
      /^loadModel: expected options to be an object with device, found undefined/,
    ],
    [
      "no device",
      () => loadModel(FIXTURE, {}),
      /^loadModel: expected device to be a Device .*, found undefined/,
    ],
    [
      "a device that is not awaited",
      () => loadModel(FIXTURE, { device: testDevice() }),
      /device .* found a Promise \(await it first\)/,
    ],
    [
      "a device in place of options",
      (_, { device }) => loadModel(FIXTURE, device),
      /options .* found a Device/,
    ],
    [
      "an unknown option",
      (_, { device }) => loadModel(FIXTURE, { device, adapter: "a" }),
      /options has no "adapter"; the nearest is "adapters"/,
    ],
    [
      "one adapter, not in a list",
      (_, { device }) => loadModel(FIXTURE, { device, adapters: "a" }),
      /expected adapters to be a list, .* found the string "a"/,
    ],
    [
      "no ref",
      (_, { device }) => loadModel(undefined, { device }),
      /^loadModel: expected ref to be a path, .* found undefined/,
    ],
    [
      "a file: URL object",
      (_, { device }) => loadModel(new URL("file:///models/a"), { device }),
      /expected ref .* found the URL object file:\/\/\/models\/a/,
    ],
    [
      "a dual encoder without a device",
      () => (x as Anything).loadDualEncoder("test/fixtures/clip/model", {}),
      /^loadDualEncoder: expected device/,
    ],
    [
      "an unknown option of a checkpoint",
      () => (x as Anything).openCheckpoint(FIXTURE, { revison: "a" }),
      /"revison"; the nearest is "revision"/,
    ],
    [
      "an unknown adapter",
      () => openDevice({ adapter: "nvidia" }),
      /^openDevice: expected adapter to be "auto", .* found the string "nvidia"; the nearest is "/,
    ],
    [
      "an unknown option of the device",
      () => openDevice({ adaptor: "gpu" }),
      /"adaptor"; the nearest is "adapter"/,
    ],
    [
      "a picture's path that is missing",
      () => loadImage(),
      /^loadImage: expected source to be a path or URL, .* found undefined/,
    ],
    [
      "an unknown option of a picture",
      () => loadImage("a.png", { maxPixel: 3 }),
      /"maxPixel"; the nearest is "maxPixels"/,
    ],
    [
      "a device without a shape of options",
      (_, { device }) => (x as Anything).decodeTaskVectors("a", device),
      /^decodeTaskVectors: expected bytes to be a file's bytes/,
    ],
  ]);
});

describe("prompts", () => {
  refusals([
    ["no text", (m) => m.prompt(), /^prompt: expected parts to be a string or a list.* found undefined/],
    ["a number", (m) => m.prompt(3), /found the number 3/],
    [
      "a picture that is not awaited",
      (m) => m.prompt(["Q:", loadImage("test/fixtures/images/photo.png")]),
      /expected parts\[1\] to be a string, .* found a Promise \(await it first\)/,
    ],
    [
      "the path of a picture",
      (m) => m.prompt(["Q:", { image: "flag.png" }]),
      /parts\[1\] .* found an object with image/,
    ],
    [
      "pixels of a canvas, which have four bytes",
      (m) => m.prompt(["Q:", { data: new Uint8ClampedArray(16), width: 2, height: 2 }]),
      /parts\[1\] .*3 bytes for each pixel.* found an object with data, width, height/,
    ],
    [
      "a picture of too few bytes",
      (m) => m.prompt(["Q:", { image: { data: new Uint8Array(11), width: 2, height: 2 } }]),
      /parts\[1\] .* found an object with image/,
    ],
    [
      "a picture of floats from 0 to 1",
      (m) => m.prompt(["Q:", { data: new Float32Array(12), width: 2, height: 2 }]),
      /parts\[1\] .* found an object with data, width, height/,
    ],
    [
      "pixel values that do not fill their shape",
      (m) => m.promptFromIds([3], [{ data: new Float32Array(10), shape: [3, 2, 2] }]),
      /images\[0\] .*as many floats as its shape says/,
    ],
    ["a part without a name", (m) => m.prompt([{ text: "a" }]), /parts\[0\] .* found an object with text/],
    ["an unknown option", (m) => m.prompt("a", { boss: true }), /"boss"; the nearest is "bos"/],
    [
      "a wrong option",
      (m) => m.prompt("a", { bos: "yes" }),
      /bos to be true or false or "auto", found the string "yes"/,
    ],
    ["one id", (m) => m.promptFromIds(3), /^promptFromIds: expected ids to be a list/],
    [
      "a message, not in a list",
      (m) => m.chat({ role: "user", content: "a" }),
      /^chat: expected messages to be a list/,
    ],
    [
      "a message without content",
      (m) => m.chat([{ role: "user", text: "a" }]),
      /messages\[0\] .* found an object with role, text/,
    ],
  ]);
});

describe("runs", () => {
  refusals([
    [
      "a string as prompt",
      (m) => m.run("Hello"),
      /^run: expected prompt to be a Prompt \(model\.prompt.* found the string "Hello"/,
    ],
    ["no prompt", (m) => m.run(), /^run: expected prompt .* found undefined/],
    [
      "a string among prompts",
      (m, { prompt }) => m.run([prompt, "a"]),
      /expected prompts\[1\] to be a Prompt/,
    ],
    [
      "tap for taps",
      (m, { prompt }) => m.run(prompt, { tap: { a: tap("q.0") } }),
      /^run: options has no "tap"; the nearest is "taps"/,
    ],
    [
      "a tap for taps",
      (m, { prompt }) => m.run(prompt, { taps: tap("q.0") }),
      /expected taps to be an object of taps by name.* found a tap at q\.0/,
    ],
    [
      "an edit for a tap",
      (m, { prompt }) => m.run(prompt, { taps: { a: zero("q.0", 1) } }),
      /^run, taps\.a: expected a tap.* found an edit at q\.0/,
    ],
    [
      "edits that are no list",
      (m, { prompt }) => m.run(prompt, { edits: zero("q.0", 1) }),
      /^run: expected edits to be a list, found an edit at q\.0/,
    ],
    [
      "a tap for an edit",
      (m, { prompt }) => m.run(prompt, { edits: [tap("q.0")] }),
      /^run, edits\[0\]: expected an edit.* found a tap/,
    ],
    [
      "a site for an edit",
      (m, { prompt }) => m.run(prompt, { edits: ["q.0"] }),
      /edits\[0\].* found the string "q\.0"/,
    ],
    [
      "a handmade edit with another key",
      (m, { prompt }) => m.run(prompt, { edits: [{ ...zero("q.0", 1), position: 3 }] }),
      /edits\[0\]: the edit has no "position"/,
    ],
    [
      "logits of none",
      (m, { prompt }) => m.run(prompt, { logits: "none" }),
      /expected logits to be "last" or "all"/,
    ],
    [
      "no options of generate",
      (m, { prompt }) => m.generate(prompt),
      /^generate: expected options to be an object with maxNewTokens, found undefined/,
    ],
    [
      "no maxNewTokens",
      (m, { prompt }) => m.generate(prompt, { temperature: 1 }),
      /expected maxNewTokens to be a number, found undefined/,
    ],
    [
      "max_new_tokens",
      (m, { prompt }) => m.generate(prompt, { max_new_tokens: 3 }),
      /"max_new_tokens"; the nearest is "maxNewTokens"/,
    ],
    [
      "a string to continue",
      (m) => m.generate("Hello", { maxNewTokens: 3 }),
      /^generate: expected prompt .* found the string "Hello"/,
    ],
    [
      "a temperature in words",
      (m, { prompt }) => m.generate(prompt, { maxNewTokens: 1, temperature: "0.7" }),
      /expected temperature to be a number, found the string/,
    ],
    [
      "one stop id",
      (m, { prompt }) => m.generate(prompt, { maxNewTokens: 1, stopIds: 2 }),
      /expected stopIds to be a list or set of ids, found the number 2/,
    ],
    [
      "the text of a stop token",
      (m, { prompt }) => m.generate(prompt, { maxNewTokens: 1, stopIds: ["</s>"] }),
      /^generate: expected stopIds\[0\] to be a number, found the string "<\/s>"/,
    ],
    [
      "a model to record with that is not awaited",
      (_, { prompt, device }) => (x as Anything).record(loadModel(FIXTURE, { device }), [prompt]),
      /^record: expected model .* found a Promise/,
    ],
    ["a string to record", (m) => m.record("Hello"), /^record: expected prompt/],
    [
      "a prompt to resume",
      (_, { prompt }) => resume(prompt, []),
      /^resume: expected recording to be a Recording .* found a Prompt/,
    ],
    [
      "edits for variants",
      (m, { prompt }) => resume(m.record(prompt), [zero("q.0", 1)]),
      /^resume: variants\[0\] has no "kind"/,
    ],
    [
      "a variant without edits",
      (m, { prompt }) => resume(m.record(prompt), [{}]),
      /expected edits to be a list, found undefined/,
    ],
    ["a walk over a string", (m) => [...m.walk("Hello")], /^walk: expected prompt/],
  ]);
});

describe("taps and edits", () => {
  refusals([
    ["no site", () => tap(), /^tap: expected site to be a string, found undefined/],
    [
      "no positions",
      () => zero("q.0"),
      /^zero: expected at to be a position, a list of them, .* found undefined/,
    ],
    [
      "options for positions",
      () => zero("q.0", { head: 1 }),
      /^zero: expected at .* found an object with head/,
    ],
    ["a misspelt span", () => zero("q.0", { spam: "x" }), /^zero: expected at .* found an object with spam/],
    ["positions in words", () => tap("q.0", "last"), /^tap: expected at .* found the string "last"/],
    ["no value", () => set("q.0", 1), /^set: expected value to be a Tensor .* found undefined/],
    [
      "a value that is not awaited",
      () => set("q.0", 1, Promise.resolve(v)),
      /^set: expected value .* found a Promise/,
    ],
    ["a list with a hole", () => set("q.0", 1, [1, undefined]), /expected value.* found a list of 2/],
    ["no factor", () => scale("q.0", 1), /^scale: expected factor to be a number, found undefined/],
    [
      "a factor of NaN",
      () => scale("q.0", 1, Number.NaN),
      /^scale: expected factor to be a number, found the number NaN/,
    ],
    [
      "an unknown option",
      () => addVector("q.0", 1, v, { scael: 2 }),
      /^addVector: options has no "scael"; the nearest is "scale"/,
    ],
    [
      "features as a list",
      () => tap("q.0", 1, { features: [0, 3] }),
      /expected features to be \{ start, end \}/,
    ],
  ]);

  const sites: [string, RegExp][] = [
    ["resid_pots.1", /the nearest is "resid_post\.1"/],
    ["vision.resid_pots.0", /the nearest is "vision\.resid_post\.0"/],
    ["patern.2", /the nearest is "pattern\.2"/],
    ["logit", /the nearest is "logits"/],
    ["resid_post", /a layer is missing, as in "resid_post\.3"/],
    ["blocks.1.hook_resid_post", /it is called "resid_post\.1" here/],
    ["hook_embed", /it is called "embed" here/],
    ["blocks.0.attn.hook_pattern", /it is called "pattern\.0" here/],
    ["blocks.0.attn.hook_attn_scores", /it is called "scores\.0" here/],
    ["blocks.2.ln2.hook_normalized", /it is called "mlp_in\.2" here/],
    ["ln_final.hook_normalized", /it is called "final_norm" here/],
    ["model.layers.15", /it is called "resid_post\.15" here/],
    ["model.layers.15.output[0]", /it is called "resid_post\.15" here/],
    ["model.layers.15.input", /it is called "resid_pre\.15" here/],
    ["model.language_model.layers.3.mlp.down_proj.input", /it is called "mlp_act\.3" here/],
    ["language_model.model.layers.3.self_attn.o_proj.input", /it is called "z\.3" here/],
    ["transformer.h.4", /it is called "resid_post\.4" here/],
    ["vision_tower.vision_model.encoder.layers.2.self_attn", /it is called "vision\.attn_out\.2" here/],
    ["multi_modal_projector", /it is called "projector" here/],
    ["lm_head", /it is called "logits" here/],
    ["blocks.4.attn.q_norm.hook_normalized", /it is called "q_norm\.4" here/],
    ["blocks.4.ln1_post.hook_normalized", /it is called "attn_out\.4" here/],
    ["blocks.4.ln2_post.hook_normalized", /it is called "mlp_out\.4" here/],
    ["hook_pos_embed", /it is called "embed" here \(positions and embeddings are one there\)/],
    ["model.layers.4.self_attn.k_norm", /it is called "k_norm\.4" here/],
    ["model.layers.4.self_attn.k_norm.input", /it is called "k\.4" here/],
    ["model.layers.4.post_attention_layernorm", /it is called "mlp_in\.4" here \(attn_out where .* Gemma 2/],
    ["model.layers.4.pre_feedforward_layernorm", /it is called "mlp_in\.4" here/],
    ["model.layers.4.post_feedforward_layernorm", /it is called "mlp_out\.4" here/],
    ["transformer.h.4.attn.c_attn", /it is called "q\.4" here for its queries, k and v for the rest/],
    ["transformer.h.4.attn.c_proj.input", /it is called "z\.4" here/],
    ["transformer.h.4.ln_2", /it is called "mlp_in\.4" here/],
    ["transformer.h.4.mlp.c_proj.input", /it is called "mlp_act\.4" here/],
    ["transformer.h.4.mlp", /it is called "mlp_out\.4" here/],
    ["transformer.ln_f", /it is called "final_norm" here/],
    ["gpt_neox.layers.4.attention.dense", /it is called "attn_out\.4" here/],
    ["gpt_neox.layers.4.mlp.dense_h_to_4h", /it is called "mlp_pre\.4" here/],
    ["embed_out", /it is called "logits" here/],
    [
      "q_norm.0",
      /the blocks of this model have no q_norm \(nothing norms its queries, q\); they have resid_pre/,
    ],
    ["vision.k_norm.0", /this model has no vision tower/],
  ];
  test.each(sites)("a site called %s", async (site, message) => {
    const { model, prompt } = await setUp();
    const attempt = () => model.run(prompt, { taps: { a: tap(site) } });
    expect(attempt).toThrow(message);
    expect(attempt).toThrow(x.SiteError);
  });

  test("a tensor that is gone, of another device or of another kind is named with its edit", async () => {
    const { model, prompt, device } = await setUp();
    const other = await testDevice({ kernels: "workgroup" });
    const gone = device.tensor(v);
    gone.dispose();
    const cases: [x.Tensor, RegExp, typeof x.XpatchError][] = [
      [gone, /^set at resid_post\.1, position 2: the value f32\[48\] has been disposed of/, x.LifetimeError],
      [other.tensor(v), /^set at resid_post\.1, position 2: .* another device/, x.LifetimeError],
      [
        device.zeros([48], "i32"),
        /^set at resid_post\.1, position 2: expected floats, found i32/,
        x.DTypeError,
      ],
    ];
    for (const [value, message, type] of cases) {
      const edits = [x.set("resid_post.1", 2, value)];
      expect(() => model.run(prompt, { edits })).toThrow(message);
      expect(() => model.run(prompt, { edits })).toThrow(type);
      await expect(model.generate(prompt, { maxNewTokens: 1, edits })).rejects.toThrow(message);
    }
    const large = [x.set("resid_post.1", 2, Array(48).fill(1e39))];
    expect(() => model.run(prompt, { edits: large })).toThrow(
      /resid_post\.1, position 2: 1e\+39 is beyond the range of f32/,
    );
  });
});

describe("what is built on them", () => {
  const vectors = (m: PatchableModel, { prompt }: World) => x.extractTaskVectors(m, [prompt]);
  const task = { name: "t", items: [] };
  const a = x as Anything;
  refusals([
    [
      "a prompt to extract from, not in a list",
      (m, { prompt }) => a.extractTaskVectors(m, prompt),
      /^extract: expected prompts to be a list/,
    ],
    [
      "an unknown option of extraction",
      (m, { prompt }) => a.extractTaskVectors(m, [prompt], { layer: 3 }),
      /"layer"; the nearest is "layers"/,
    ],
    [
      "a site with its layer",
      (m, { prompt }) => a.extractActivations(m, [prompt], { site: "resid_post.1" }),
      /expected site to be "resid_pre", .* found the string "resid_post\.1"/,
    ],
    [
      "no model",
      (_, { prompt }) => a.extractTaskVectors(undefined, [prompt]),
      /expected model to be a LanguageModel .* found undefined/,
    ],
    [
      "a model that is not awaited",
      (_, { prompt, device }) => a.extractTaskVectors(loadModel(FIXTURE, { device }), [prompt]),
      /expected model .* found a Promise/,
    ],
    [
      "a tensor for task vectors",
      (m, w) => a.sweepLayers(m, [w.prompt], vectors(m, w).vectors),
      /^sweepLayers: expected vectors to be a TaskVectors .* found a Tensor/,
    ],
    [
      "an unknown option of a sweep",
      (m, w) => a.sweepLayers(m, [w.prompt], vectors(m, w), { layer: [1] }),
      /"layer"; the nearest is "layers"/,
    ],
    [
      "one list of edits for sets of them",
      (m, { prompt }) => a.patchEach(m, [prompt], [zero("q.0", 1)]),
      /^patchEach: expected edits\[0\] to be a list of edits, found an edit/,
    ],
    [
      "an unknown option of the lens",
      (m, { prompt }) => a.logitLens(m, prompt, { topk: 3 }),
      /^logitLens: options has no "topk"/,
    ],
    [
      "a filter of activations that is none",
      (m, { prompt }) => m.cacheAll(prompt, 3),
      /^cacheAll: expected filter to be a string or a list/,
    ],
    [
      "an option of cacheAll that is none",
      (m, { prompt }) => m.cacheAll(prompt, "z.*", { position: -1 }),
      /^cacheAll: options has no "position"/,
    ],
    [
      "edits of a recording that are no list",
      (m, { prompt }) => m.record(prompt, { edits: zero("q.0", 1) }),
      /^record: expected edits to be a list/,
    ],
    ["a string to patch", (m, { prompt }) => a.patchMap(m, prompt, "Hello"), /^patchMap: expected corrupted/],
    [
      "heads for a ranking of all",
      (m, { prompt }) => a.rankHeads(m, prompt, prompt, { heads: [0] }),
      /^rankHeads: options has no "heads"/,
    ],
    ["a weight without a name", (m) => m.weight(3), /^weight: expected name to be a string/],
    ["heads of no activation", (m) => a.headOutputs(m, [1, 2], 0), /^headOutputs: expected z to be a Tensor/],
    [
      "an attribution without an answer",
      (m, { prompt }) => a.logitAttribution(m, prompt, { token: 3 }),
      /^logitAttribution: options has no "token"/,
    ],
    ["a string under the lens", (m) => a.logitLens(m, "Hello"), /^logitLens: expected prompt/],
    ["a string in attention maps", (m) => a.attentionMaps(m, "Hello"), /^attentionMaps: expected prompt/],
    [
      "examples in a wrong form",
      (m) => a.fewShotPrompt(m, [["Greece", "Athens"]], "Italy"),
      /expected examples\[0\] to be \{ question, answer \}, found a list of 2/,
    ],
    [
      "no kind",
      (m) => a.Transfer.open(m, task, { query: "text" }),
      /^Transfer\.open: expected kind to be "text", "image" or "instruction", found undefined/,
    ],
    [
      "a task's path",
      (m) => a.taskSource(m, "tasks/a.json", "train", { kind: "text" }),
      /^taskSource: expected task to be a task/,
    ],
    ["a task without its path", () => a.parseTask("{}"), /^parseTask: expected where .* found undefined/],
    [
      "pictures of a string",
      async () =>
        (
          (await x.loadDualEncoder("test/fixtures/clip/model", { device: await testDevice() })) as Anything
        ).images(["a.png"]),
      /^images: expected images\[0\] to be a picture .* found the string "a\.png"/,
    ],
    [
      "a text, not in a list",
      async () =>
        (
          (await x.loadDualEncoder("test/fixtures/clip/model", { device: await testDevice() })) as Anything
        ).texts("a cat"),
      /^texts: expected inputs to be a list/,
    ],
  ]);
});
