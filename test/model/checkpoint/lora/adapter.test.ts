import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../../../src/errors.ts";
import { readTensor } from "../../../../src/model/checkpoint/entries/tensor-entry.ts";
import { readAdapterConfig } from "../../../../src/model/checkpoint/lora/adapter-config.ts";
import { type CheckpointOptions, openCheckpoint } from "../../../../src/model/checkpoint/open-checkpoint.ts";
import { SafetensorsFile } from "../../../../src/model/checkpoint/safetensors/safetensors.ts";
import { type Folder, memoryFolder, subfolder } from "../../../../src/model/checkpoint/source/folder.ts";
import { memorySource } from "../../../../src/model/checkpoint/source/sources.ts";
import { exportModel } from "../../../../src/model/export/export.ts";
import { loadModel } from "../../../../src/patching/model.ts";
import { decode } from "../../../../src/tensor/dtype.ts";
import { collect, utf8, watchedSource } from "../../../helpers/bytes.ts";
import { expectClose } from "../../../helpers/compare.ts";
import { testDevice } from "../../../helpers/device.ts";
import { changeJson, nanoFiles, nanoFolder, randomTensors } from "../../../helpers/nano.ts";

const TARGETS = ["q_proj", "up_proj", "down_proj", "fc1", "linear_1", "lm_head", "norm", "embed_tokens"];
const BASE = { base_model_name_or_path: "org/base" };
const CONFIG = { peft_type: "LORA", r: 4, lora_alpha: 8, target_modules: TARGETS, ...BASE };
const Q = "model.layers.0.self_attn.q_proj";

function adapterFolder(weights: Uint8Array, config: object = {}): Folder {
  const files = new Map([
    ["adapter_config.json", utf8(JSON.stringify({ ...CONFIG, ...config }))],
    ["adapter_model.safetensors", weights],
  ]);
  return memoryFolder(files, "lora");
}

/** Halves of the update of a module [out, in], by their keys. */
function halves(module: string, out: number, width: number, rank = 4) {
  const key = `base_model.model.${module}`;
  return { [`${key}.lora_A.weight`]: [rank, width], [`${key}.lora_B.weight`]: [out, rank] };
}

async function expectRefusal(action: Promise<unknown>, message: RegExp | string): Promise<void> {
  await expect(action).rejects.toThrow(CheckpointError);
  await expect(action).rejects.toThrow(message);
}

describe("the config", () => {
  const read = (change: object) => readAdapterConfig({ ...CONFIG, ...change }, "c");

  test("gives rank and scale", () => {
    expect(read({}).of(Q)).toEqual({ rank: 4, scale: 2 });
    expect(read({ use_rslora: true }).of(Q)).toEqual({ rank: 4, scale: 4 });
    const patterns = {
      rank_pattern: { "layers.1.self_attn.q_proj": 3, "^model.*k_proj": 16, q_proj: 2 },
      alpha_pattern: { "layers\\.0\\..*": 1 },
    };
    // Patterns fit the end of a path, whole parts of it; the first that fits counts.
    expect(read(patterns).of(Q)).toEqual({ rank: 2, scale: 0.5 });
    expect(read(patterns).of("model.layers.1.self_attn.q_proj")).toEqual({ rank: 3, scale: 8 / 3 });
    expect(read(patterns).of("model.layers.11.self_attn.xq_proj")).toEqual({ rank: 4, scale: 2 });
    expect(read({ ...patterns, use_rslora: true }).of("model.layers.5.k_proj").scale).toBe(2);
  });

  test.each<[string, object, RegExp]>([
    ["another kind", { peft_type: "IA3" }, /c: peft_type "IA3" is not supported; expected "LORA"/],
    ["DoRA", { use_dora: true }, /use_dora true is not supported/],
    ["biases of another kind", { bias: "some" }, /bias "some" is not supported; expected "none", "all"/],
    ["biases of B", { lora_bias: true }, /lora_bias true is not supported/],
    ["changed base weights", { init_lora_weights: "pissa_niter_4" }, /init_lora_weights "pissa_niter_4"/],
    ["repeated layers", { layer_replication: [[0, 2]] }, /layer_replication \[\[0,2\]\] is not supported/],
    ["a field from the future", { twist: 2 }, /twist 2 is not supported; expected nothing/],
    ["no rank", { r: undefined }, /c: r is missing/],
    ["a rank of zero", { r: 0 }, /expected r to be a whole number >= 1, found 0/],
    [
      "a pattern of words",
      { rank_pattern: { q_proj: "x" } },
      /c: rank_pattern: expected q_proj to be a number, found "x"/,
    ],
    ["a pattern that is none", { alpha_pattern: { "(": 1 } }, /alpha_pattern: Invalid regular expression/],
    ["no scale", { lora_alpha: null }, /lora_alpha null is not supported; expected a number/],
    ["an unknown initialisation", { init_lora_weights: "twist" }, /init_lora_weights "twist"/],
    ["a variant with its defaults", { kasa_config: {} }, /kasa_config \{\} is not supported/],
    ["an empty list of trained tokens", { trainable_token_indices: [] }, /trainable_token_indices \[\]/],
    ["activated LoRA", { alora_invocation_tokens: [5] }, /alora_invocation_tokens \[5\] is not supported/],
    ["a number that is not known", { twist: 0 }, /twist 0 is not supported/],
    ["a nameless module", { modules_to_save: [""] }, /modules_to_save has an empty name/],
    [
      "layers of a pattern",
      { target_modules: ".*q_proj", layers_to_transform: [1] },
      /layers_to_transform only with a list/,
    ],
    [
      "layers by name",
      { layers_to_transform: ["1"] },
      /layers_to_transform to be whole numbers, found \["1"\]/,
    ],
    ["flags in a pattern", { target_modules: "(?i)q" }, /c: target_modules: Invalid regular expression/],
    ["modules by number", { modules_to_save: [1] }, /modules_to_save: expected a list of names/],
  ])("is refused: %s", (_, change, message) => {
    expect(() => read(change)).toThrow(CheckpointError);
    expect(() => read(change)).toThrow(message);
  });

  test("fields that say nothing are let through", () => {
    const empty = { use_dora: false, loftq_config: {}, target_parameters: null, layers_pattern: "layers" };
    expect(read({ ...empty, megatron_core: "megatron.core" }).of(Q).rank).toBe(4);
    const future = { from_the_future: null, and_this: false, or_that: [], kasa_config: null };
    const training = { loftq_config: { loftq_bits: 4 }, eva_config: { rho: 2 }, init_lora_weights: "eva" };
    expect(read({ ...future, ...training, fan_in_fan_out: true, lora_dropout: 0.5 }).of(Q).rank).toBe(4);
    for (const init of [true, false, null, "gaussian", "orthogonal", "mica"]) {
      expect(read({ init_lora_weights: init }).of(Q).rank).toBe(4);
    }
  });

  test("a scale may be zero or negative", () => {
    expect(read({ lora_alpha: -2 }).of(Q).scale).toBe(-0.5);
    expect(read({ alpha_pattern: { q_proj: 0 } }).of(Q).scale).toBe(0);
  });
});

describe("names", () => {
  const SPELLINGS = ["llava", "llava-as-saved", "llava-bf16-module-names", "llava-f16-sharded"];

  test.each(SPELLINGS)("of all spellings fit %s", async (fixture) => {
    const modules: [module: string, found: RegExp, out: number, width: number][] = [
      ["model.layers.0.self_attn.q_proj", /language_model.*layers\.0\.self_attn\.q_proj\.weight$/, 48, 48],
      ["model.language_model.layers.1.mlp.up_proj", /language_model.*layers\.1\.mlp\.up_proj/, 96, 48],
      ["language_model.model.layers.2.mlp.down_proj", /language_model.*layers\.2\.mlp\.down/, 48, 96],
      ["lm_head", /lm_head\.weight$/, 448, 48],
      [
        "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1",
        /vision_tower.*layers\.0\.mlp\.fc1/,
        64,
        32,
      ],
      ["vision_tower.encoder.layers.1.mlp.fc1", /vision_tower.*layers\.1\.mlp\.fc1/, 64, 32],
      ["multi_modal_projector.linear_1", /multi_modal_projector\.linear_1\.weight$/, 48, 32],
    ];
    const shapes = Object.assign({}, ...modules.map(([module, , out, width]) => halves(module, out, width)));
    const lora = adapterFolder(await randomTensors(shapes));
    await using checkpoint = await openCheckpoint(`test/fixtures/${fixture}/model`, { adapters: [lora] });
    expect(checkpoint.updated.length).toBe(modules.length);
    for (const [, found] of modules) expect(checkpoint.updated).toContainEqual(expect.stringMatching(found));
  });

  test("of a LLaVA's decoder fit that decoder alone", async () => {
    const lora = adapterFolder(
      await randomTensors(halves("model.language_model.layers.0.mlp.up_proj", 96, 48)),
    );
    await using checkpoint = await openCheckpoint("weights/nano/base", { adapters: [lora] });
    expect(checkpoint.updated).toEqual(["model.layers.0.mlp.up_proj.weight"]);
  });
});

describe("tensors that do not fit are refused:", () => {
  const key = `base_model.model.${Q}`;
  test.each<[string, Record<string, number[]>, RegExp, object?]>([
    [
      "of a layer that is not there",
      halves("model.layers.9.self_attn.q_proj", 48, 48),
      /lora\/adapter_model\.safetensors: model\.layers\.9\.\S+ matches no weight of weights\/nano\/base \(the nearest is model\.layers\.\d\.self_attn\.q_proj\.weight\)/,
    ],
    [
      "half of a pair",
      { [`${key}.lora_B.weight`]: [48, 4] },
      /q_proj\.lora_B\.weight is there without its lora_A/,
    ],
    [
      "of another width",
      halves(Q, 48, 32),
      /q_proj: expected lora_A \[4, 48\] and lora_B \[48, 4\] \(rank 4 .*found \[4, 32\] and \[48, 4\]/,
    ],
    ["of another rank than configured", halves(Q, 48, 48, 2), /expected lora_A \[4, 48\].*found \[2, 48\]/],
    ["a norm", halves("model.norm", 48, 48), /model\.norm: only linear layers are supported, not \[48\]/],
    [
      "without PEFT's prefix",
      { [`${Q}.lora_A.weight`]: [4, 48] },
      /names that start with base_model\.model\./,
    ],
    [
      "with another name than PEFT gives it in the key",
      { [`${key}.lora_A.mine.weight`]: [4, 48] },
      /lora_A\.mine\.weight is not named as PEFT's save_pretrained names it/,
    ],
    [
      "twice",
      { ...halves(Q, 48, 48), [`${key}.lora_A.default.weight`]: [4, 48] },
      /q_proj\.lora_A\.(default\.)?weight is there under two names/,
    ],
    [
      "under two spellings",
      { ...halves(Q, 48, 48), ...halves("language_model.model.layers.0.self_attn.q_proj", 48, 48) },
      /is there under two names/,
    ],
    [
      "of a module that the config does not have",
      halves("model.layers.0.self_attn.k_proj", 24, 48),
      /k_proj has a LoRA, but is not among the target_modules of adapter_config\.json/,
    ],
    [
      "of a module that the config excludes",
      halves(Q, 48, 48),
      /q_proj has a LoRA, but is not among the target_modules/,
      { exclude_modules: ["layers.0.self_attn.q_proj"] },
    ],
    [
      "of a tied matrix",
      { ...halves("lm_head", 448, 48), ...halves(Q, 48, 48) },
      /a LoRA of tied matrices \(ensure_weight_tying\) is not supported/,
      { ensure_weight_tying: true },
    ],
    [
      "of tied matrices, one missing",
      { "base_model.model.model.embed_tokens.weight": [448, 48] },
      /lm_head\.weight is missing, although ensure_weight_tying asks for both/,
      { ensure_weight_tying: true, modules_to_save: ["embed_tokens"] },
    ],
    [
      "without a module that was trained",
      halves(Q, 48, 48),
      /lm_head\.weight is missing, although modules_to_save has its module/,
      { modules_to_save: ["lm_head"] },
    ],
    [
      "of an embedding",
      { "base_model.model.model.embed_tokens.lora_embedding_A": [4, 48] },
      /LoRA of an embedding/,
    ],
    ["of DoRA", { [`${key}.lora_magnitude_vector`]: [48] }, /is of DoRA/],
    [
      "that are neither",
      { [`${key}.weight`]: [48, 48] },
      /q_proj\.weight: expected model\.layers\.0\.self_attn\.q_proj\.base_layer\.weight, as/,
    ],
    [
      "a whole module of another shape",
      { "base_model.model.model.norm.weight": [24] },
      /model\.norm\.weight is \[24\] instead of \[48\]/,
      { modules_to_save: ["model.norm"] },
    ],
    ["none at all", {}, /there are no tensors/],
  ])("%s", async (_, shapes, message, config) => {
    const lora = adapterFolder(await randomTensors(shapes), config);
    await expectRefusal(openCheckpoint("weights/nano/base", { adapters: [lora] }), message);
  });

  test("integers", async () => {
    const lora = adapterFolder(await randomTensors(halves(Q, 48, 48), "I32"));
    await expectRefusal(
      openCheckpoint("weights/nano/base", { adapters: [lora] }),
      /expected floats, found I32/,
    );
  });

  test("of a weight that is no linear layer", async () => {
    const embedding = adapterFolder(await randomTensors(halves("model.embed_tokens", 448, 48)));
    await expectRefusal(
      openCheckpoint("test/fixtures/llama/model", { adapters: [embedding] }),
      /model\.embed_tokens is an embedding, whose LoRA has other tensors/,
    );
    const positions = "vision_tower.vision_model.embeddings.position_embedding";
    const config = { target_modules: ["position_embedding"] };
    const lora = adapterFolder(await randomTensors(halves(positions, 17, 32)), config);
    await using checkpoint = await openCheckpoint("test/fixtures/llava/model", { adapters: [lora] });
    expect(checkpoint.updated.length).toBe(1);
    const load = loadModel("test/fixtures/llava/model", { device: await testDevice(), adapters: [lora] });
    await expectRefusal(load, /lora changes \S+position_embedding\.weight, which is no linear layer/);
  });

  test("and all of them are listed, up to eight", async () => {
    const modules = Array.from({ length: 6 }, (_, i) => halves(`model.layers.${20 + i}.mlp.up_proj`, 96, 48));
    const five = adapterFolder(await randomTensors(Object.assign({}, ...modules.slice(1))));
    await expectRefusal(
      openCheckpoint("weights/nano/base", { adapters: [five] }),
      /layers\.21\..*layers\.25\./,
    );
    const more = Object.assign({}, ...modules, { "base_model.model.x": [1], "base_model.model.y": [1] });
    const nine = adapterFolder(await randomTensors({ ...more, "base_model.model.z": [1] }));
    await expectRefusal(openCheckpoint("weights/nano/base", { adapters: [nine] }), /; and 1 more$/);
  });
});

test.each<[string, (folder: Folder) => Folder, RegExp]>([
  [
    "no config",
    () => memoryFolder(new Map(), "m"),
    /m: expected a LoRA adapter, found no adapter_config\.json/,
  ],
  [
    "no tensors",
    (lora) => ({ name: "m", open: async (f) => (f.endsWith("json") ? lora.open(f) : undefined) }),
    /m: there is no adapter_model\.safetensors/,
  ],
])("an adapter with %s is refused, and what was opened is closed", async (_, damage, message) => {
  const files = nanoFiles();
  const opened: ReturnType<typeof watchedSource>[] = [];
  const watched: Folder = {
    name: "watched",
    async open(path) {
      const bytes = files.get(`base/${path}`);
      if (!bytes) return undefined;
      opened.push(watchedSource(bytes));
      return opened.at(-1);
    },
  };
  const lora = damage(nanoFolder(files, "llm"));
  await expectRefusal(openCheckpoint(watched, { adapters: [lora] }), message);
  expect(opened.length).toBeGreaterThan(0);
  expect(opened.every((source) => source.closed)).toBe(true);
});

/** All tensors as exported in f32. */
async function exported(ref: string | Folder, options: CheckpointOptions) {
  await using checkpoint = await openCheckpoint(ref, options);
  let weights = new Uint8Array(0);
  const sink = {
    async write(name: string, chunks: AsyncIterable<Uint8Array>) {
      const bytes = await collect(chunks);
      if (name === "model.safetensors") weights = bytes;
    },
  };
  await exportModel(checkpoint, await testDevice(), sink, { dtype: "f32" });
  const file = await SafetensorsFile.open(memorySource(weights));
  return async (name: string) => valuesOf(file, name);
}

async function valuesOf(file: Pick<SafetensorsFile, "entry">, name: string) {
  const entry = file.entry(name);
  const values = decode(
    await readTensor(entry),
    entry.dtype,
    entry.byteLength / (entry.dtype === "f32" ? 4 : 2),
  );
  return { values, shape: entry.shape };
}

test("two adapters add up: W + s₁ B₁A₁ + s₂ B₂A₂", async () => {
  const weights = await randomTensors(halves(Q, 48, 48));
  const others = await randomTensors({ ...halves(Q, 48, 48), ...halves("lm_head", 448, 48) });
  const adapters = [adapterFolder(weights), adapterFolder(others, { use_rslora: true, lora_alpha: 3 })];
  const read = await exported("test/fixtures/llama/model", { adapters });
  await using plain = await openCheckpoint("test/fixtures/llama/model");
  const expected = Float64Array.from((await valuesOf(plain, `${Q}.weight`)).values);
  for (const [bytes, scale] of [
    [weights, 2],
    [others, 1.5],
  ] as const) {
    const file = await SafetensorsFile.open(memorySource(bytes));
    const a = (await valuesOf(file, `base_model.model.${Q}.lora_A.weight`)).values;
    const b = (await valuesOf(file, `base_model.model.${Q}.lora_B.weight`)).values;
    for (let i = 0; i < 48; i++)
      for (let j = 0; j < 48; j++)
        for (let k = 0; k < 4; k++) expected[i * 48 + j]! += scale * b[i * 4 + k]! * a[k * 48 + j]!;
  }
  const { values, shape } = await read(`${Q}.weight`);
  expect(shape).toEqual([48, 48]);
  expectClose(values, expected, { atol: 2e-6, rtol: 1e-6 });
  const untouched = "model.layers.0.self_attn.k_proj.weight";
  expect((await read(untouched)).values).toEqual((await valuesOf(plain, untouched)).values);
});

test("a module that was saved as a whole takes the weight's place", async () => {
  const key = "base_model.model.model.norm.weight";
  const norm = await randomTensors({ [key]: [48], ...halves(Q, 48, 48) });
  const lora = adapterFolder(norm, { modules_to_save: ["model.norm"] });
  const read = await exported("weights/nano/base", { adapters: [lora] });
  const saved = await valuesOf(await SafetensorsFile.open(memorySource(norm)), key);
  expect(await read("model.norm.weight")).toEqual(saved);
});

describe("an adapter's folder as a model", () => {
  const files = nanoFiles();
  files.delete("llm/assembly.json");
  const lora = nanoFolder(files, "llm");

  test("loads the base that is given, or that it names", async () => {
    const device = await testDevice();
    using given = await loadModel(lora, { device, base: nanoFolder(files, "base") });
    expect([given.name, given.family, given.adapters]).toEqual(["nano/llm", "llama", ["nano/llm"]]);
    changeJson(files, "llm/adapter_config.json", { base_model_name_or_path: "weights/nano/base" });
    using named = await loadModel(lora, { device });
    using assembled = await loadModel("weights/nano/llm", { device });
    const [a, b, c] = [given, named, assembled].map((model) => model.run(model.prompt("Q: Italy")).logits);
    const expected = await c!.read();
    expect(await a!.read()).toEqual(expected);
    expect(await b!.read()).toEqual(expected);
  });

  test("asks the hub for the revision that the config names", async () => {
    const requests: string[] = [];
    const fetch = async (input: RequestInfo | URL) => {
      requests.push(new URL(String(input)).pathname);
      return Response.json({ error: "Repository not found" }, { status: 404 });
    };
    const named = nanoFiles();
    named.delete("llm/assembly.json");
    changeJson(named, "llm/adapter_config.json", { base_model_name_or_path: "org/base", revision: "v7" });
    await expectRefusal(openCheckpoint(nanoFolder(named, "llm"), { fetch }), /org\/base: cannot be fetched/);
    expect(requests).toEqual(["/api/models/org/base/revision/v7"]);
  });

  test("says so when there is none", async () => {
    const device = await testDevice();
    changeJson(files, "llm/adapter_config.json", { base_model_name_or_path: "./nowhere" });
    await expectRefusal(
      loadModel(lora, { device }),
      /^nano\/llm: its base cannot be opened: \.\/nowhere: not a folder.*another may be given as base/,
    );
    changeJson(files, "llm/adapter_config.json", { base_model_name_or_path: null });
    await expectRefusal(loadModel(lora, { device }), /base_model_name_or_path is empty; give the base/);
  });
});

test("a base for a whole model is a mistake", async () => {
  const files = nanoFiles();
  const options = { base: subfolder(memoryFolder(files, "nano"), "base") };
  await expectRefusal(
    openCheckpoint("weights/nano/base", options),
    /a base was given, but this is a whole model/,
  );
});
