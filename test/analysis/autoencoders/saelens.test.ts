import { readFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import type { SparseAutoencoder } from "../../../src/analysis/autoencoders/sparse-autoencoder.ts";
import {
  CheckpointError,
  loadSparseAutoencoder,
  memorySource,
  SafetensorsFile,
  valueAndGradients,
} from "../../../src/index.ts";
import { sum } from "../../../src/kernels/reduction/reduce.ts";
import { readTensor } from "../../../src/model/checkpoint/entries/tensor-entry.ts";
import type { Tensor } from "../../../src/tensor/tensor.ts";
import { expectClose } from "../../helpers/compare.ts";
import { testDevice } from "../../helpers/device.ts";
import { f32File, ruleNumbers, ruleWeights, saeFolder } from "../../helpers/sae.ts";

// What SAELens 5.11 and 6.54 compute, of all architectures, configs as these write them (scripts/make-sae-goldens.py).

const [WIDTH, LATENTS, ROWS] = [16, 32, 4];
const X = ruleNumbers(ROWS * WIDTH, 20, 8);

interface Case {
  readonly name: string;
  readonly cfg: Record<string, unknown>;
  readonly fold?: number;
  readonly golden: Record<"latents" | "out" | "edited", Float32Array>;
  readonly edit: { edited: number; value: number; scaled: number; factor: number };
}

async function casesOf(version: string): Promise<Case[]> {
  const path = `test/fixtures/sae/${version}.safetensors`;
  const file = await SafetensorsFile.open(memorySource(await readFile(path), path));
  const values = async (name: string) => {
    const bytes = await readTensor(file.entry(name));
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  };
  const cases = JSON.parse(file.metadata.get("cases")!) as Record<
    string,
    Omit<Case, "name" | "golden" | "edit">
  >;
  const edit = JSON.parse(file.metadata.get("edit")!);
  return Promise.all(
    Object.entries(cases).map(async ([name, each]) => {
      const [latents, out, edited] = await Promise.all(
        ["latents", "out", "edited"].map((key) => values(`${name}.${key}`)),
      );
      return {
        ...each,
        name: `${version} ${name}`,
        edit,
        golden: { latents: latents!, out: out!, edited: edited! },
      };
    }),
  );
}

async function load({ cfg, fold }: Case, device = testDevice()): Promise<SparseAutoencoder> {
  const scaled = cfg["finetuning_scaling_factor"] ? ["finetuning_scaling_factor"] : [];
  const weights = ruleWeights(String(cfg["architecture"]), WIDTH, LATENTS, scaled);
  return loadSparseAutoencoder(await saeFolder(cfg, weights), {
    device: await device,
    ...(fold !== undefined && { normScalingFactor: fold }),
  });
}

const cases = [...(await casesOf("v6")), ...(await casesOf("v5"))];

/** SAELens computes in the config's dtype, here sums are in f32. */
function tolerance({ cfg }: Case): { atol: number; rtol: number } {
  const dtype = String(cfg["dtype"]);
  if (dtype.endsWith("bfloat16")) return { atol: 0.05, rtol: 0.02 };
  return dtype.endsWith("float16") ? { atol: 5e-3, rtol: 2e-3 } : { atol: 2e-5, rtol: 2e-5 };
}

test("there are cases of every architecture and normalisation", () => {
  const of = (key: string) => new Set(cases.map(({ cfg }) => cfg[key]));
  expect(of("architecture")).toEqual(new Set(["standard", "gated", "jumprelu", "topk"]));
  expect(of("normalize_activations")).toEqual(
    new Set(["none", "expected_average_only_in", "layer_norm", "constant_norm_rescale"]),
  );
  for (const { golden } of cases) {
    expect(golden.latents.filter((x) => x !== 0).length).toBeGreaterThan(10);
    expect(golden.edited).not.toEqual(golden.out);
  }
});

describe.each(["register", "workgroup"] as const)("%s kernels", (kernels) => {
  test.each(cases)("$name", async (each) => {
    const device = await testDevice({ kernels });
    using sae = await load(each, Promise.resolve(device));
    const { golden, edit } = each;
    const close = tolerance(each);
    const x = device.tensor(X, { shape: [ROWS, WIDTH] });
    const latents = sae.encode(x);
    const ids = [edit.edited, edit.scaled];
    const [found, out, twice, some] = await device.read([
      latents,
      sae.decode(latents, { of: x }),
      sae.reconstruct(x),
      sae.encodeSome(x, ids),
    ]);
    expectClose(found!, golden.latents, { ...close, label: "latents" });
    expectClose(out!, golden.out, { ...close, label: "decoded" });
    expect(twice).toEqual(out);
    expectClose(
      some!,
      Array.from({ length: ROWS }, (_, row) => ids.map((id) => golden.latents[row * LATENTS + id]!)).flat(),
      close,
    );
    // f' - f, of the latent that is set and of the one that is multiplied
    const change = Float32Array.from(some!, (f, i) => (i % 2 === 0 ? edit.value - f : f * (edit.factor - 1)));
    const changed = await sae.changeOf(x, ids, device.tensor(change, { shape: [ROWS, 2] })).read();
    expectClose(
      changed.map((y, i) => y + X[i]!),
      golden.edited,
      { ...close, label: "edited" },
    );
    x.dispose();
    latents.dispose();
  });
});

test("the folder that save_model wrote loads from disk, by itself and as one in another", async () => {
  const device = await testDevice();
  using sae = await loadSparseAutoencoder("test/fixtures/sae/topk-6", { device });
  using same = await loadSparseAutoencoder("test/fixtures/sae", { device, folder: "topk-6" });
  const { golden } = cases.find(({ name }) => name === "v6 8-topk")!;
  const x = device.tensor(X, { shape: [ROWS, WIDTH] });
  for (const each of [sae, same]) expectClose(await each.encode(x).read(), golden.latents, { atol: 2e-5 });
  expect(sae.config).toMatchObject({
    k: 5,
    site: "resid_post.0",
    prependBos: true,
    contextSize: 128,
    model: "tiny",
  });
  expect(sae.logSparsity).toBeUndefined();
});

test("gradients go through encoder and decoder", async () => {
  const device = await testDevice();
  for (const kind of ["standard", "gated", "jumprelu", "topk"]) {
    using sae = await load(cases.find(({ cfg }) => cfg["architecture"] === kind)!);
    const x = device.tensor(X, { shape: [ROWS, WIDTH] });
    const loss = (y: Tensor) => sum(sae.reconstruct(y));
    const { gradients } = valueAndGradients(() => loss(x), [x]);
    const slope = (await gradients[0]!.read()) as Float32Array;
    // Along the gradient itself: by a small step, in which no latent opens or closes, the sum grows as it says.
    const step = 1e-3;
    const moved = X.map((v, i) => v + step * slope[i]!);
    const [before, after] = await device.read([
      loss(x),
      loss(device.tensor(moved, { shape: [ROWS, WIDTH] })),
    ]);
    const expected = slope.reduce((total, g) => total + g * g, 0) * step;
    expect(expected).toBeGreaterThan(0);
    expect((after![0]! - before![0]!) / expected, kind).toBeCloseTo(1, 1);
  }
});

test("of a centred model each activation loses its mean, and keeps it in edits", async () => {
  const device = await testDevice();
  const cfg = { ...cases[0]!.cfg };
  const weights = ruleWeights("standard", WIDTH, LATENTS);
  using plain = await loadSparseAutoencoder(await saeFolder(cfg, weights), { device });
  using centred = await loadSparseAutoencoder(await saeFolder(cfg, weights), { device, centred: true });
  const means = Array.from(
    { length: ROWS },
    (_, r) => X.subarray(r * WIDTH, (r + 1) * WIDTH).reduce((a, b) => a + b) / WIDTH,
  );
  const without = X.map((x, i) => x - means[Math.floor(i / WIDTH)]!);
  const [x, y] = [X, without].map((values) => device.tensor(values, { shape: [ROWS, WIDTH] }));
  expectClose(await centred.encode(x!).read(), await plain.encode(y!).read(), { atol: 1e-5 });
  const change = device.tensor([1, 1, 1, 1], { shape: [ROWS, 1] });
  expectClose(
    await centred.changeOf(x!, [2], change).read(),
    await plain.changeOf(x!, [2], change).read(),
    {},
  );
});

test("configs and weights of the first versions, and remarks in later ones", async () => {
  const device = await testDevice();
  // The keys of the GPT-2 autoencoders on the hub; their weights have factors that are 1.
  const legacy = {
    ...{ model_name: "gpt2-small", hook_point: "blocks.1.hook_resid_post", hook_point_layer: 1 },
    ...{ hook_point_head_index: null, dataset_path: "x", context_size: 128, d_in: WIDTH, d_sae: LATENTS },
    ...{ dtype: "torch.float32", expansion_factor: 2, l1_coefficient: 8e-5, use_ghost_grads: false },
  };
  const weights = ruleWeights("standard", WIDTH, LATENTS);
  const ones = new Map(weights).set("scaling_factor", {
    shape: [LATENTS],
    values: new Float32Array(LATENTS).fill(1),
  });
  using sae = await loadSparseAutoencoder(await saeFolder(legacy, ones), { device });
  const noted = { ...cases[0]!.cfg, _converted_by: "somebody" };
  using same = await loadSparseAutoencoder(await saeFolder(noted, weights), { device });
  const x = device.tensor(X, { shape: [ROWS, WIDTH] });
  for (const each of [sae, same]) {
    expectClose(await each.reconstruct(x).read(), cases[0]!.golden.out, { atol: 2e-5, rtol: 2e-5 });
  }
  const others = new Map(weights).set("scaling_factor", {
    shape: [LATENTS],
    values: new Float32Array(LATENTS).fill(1).fill(1.5, 3, 4),
  });
  await expect(loadSparseAutoencoder(await saeFolder(legacy, others), { device })).rejects.toThrow(
    /expected scaling_factor to be 1 everywhere, .* found 1\.5/,
  );
});

test("sparsity comes along where it is there", async () => {
  const values = ruleNumbers(LATENTS, 5);
  const sparsity = await f32File(new Map([["sparsity", { shape: [LATENTS], values }]]));
  const folder = await saeFolder(cases[0]!.cfg, ruleWeights("standard", WIDTH, LATENTS), {
    "sparsity.safetensors": sparsity,
  });
  using sae = await loadSparseAutoencoder(folder, { device: await testDevice() });
  expect(sae.logSparsity).toEqual(values);
});

describe("refused by name", () => {
  const v6 = { ...cases[0]!.cfg };
  const v5 = { ...cases.find(({ name }) => name === "v5 0-standard")!.cfg, finetuning_scaling_factor: false };
  const about = (own: object) => ({ ...v6, metadata: { ...(v6["metadata"] as object), ...own } });
  const kwargs = (own: object) => ({ ...v5, model_from_pretrained_kwargs: own });
  const weights = ruleWeights("standard", WIDTH, LATENTS);
  test.each<[string, Record<string, unknown>, RegExp, object?]>([
    [
      "a transcoder",
      { ...v6, architecture: "transcoder" },
      /architecture to be one of standard.*"transcoder" \(transcoders read one/,
    ],
    [
      "a training architecture",
      { ...v6, architecture: "batchtopk" },
      /save_inference_model writes it as jumprelu/,
    ],
    ["another architecture", { ...v6, architecture: "temporal" }, /found "temporal"/],
    [
      "a field that is not known",
      { ...v6, temperature: 3 },
      /temperature: no field of SAELens 6\.54 that is known/,
    ],
    [
      "a later version",
      about({ sae_lens_version: "7.0.0" }),
      /sae_lens_version to be a version from 3 to 6, found "7.0.0"/,
    ],
    [
      "another hook",
      about({ hook_name: "blocks.1.hook_mlp_in" }),
      /hook_name to be one of blocks\.N\.hook_resid_pre.*read by the MLP alone/,
    ],
    ["a normed hook", about({ hook_name: "blocks.1.ln2.hook_normalized" }), /before its weight/],
    [
      "a module of Hugging Face",
      about({ hook_name: "model.layers.3" }),
      /for "resid_post\.3" here no autoencoders/,
    ],
    ["no hook", about({ hook_name: null }), /metadata: hook_name is missing/],
    ["a head", about({ hook_head_index: 3 }), /hook_head_index to be null/],
    ["whitening", { ...v6, normalize_activations: "covariance_whitening" }, /covariance_whitening.*folds it/],
    [
      "a norm that is not there",
      { ...v6, normalize_activations: "expected_average_only_in" },
      /give normScalingFactor/,
    ],
    ["a norm for nothing", v6, /normScalingFactor was given, but/, { normScalingFactor: 2 }],
    ["another dtype", { ...v6, dtype: "float8" }, /dtype to be float32, .* found "float8"/],
    ["another activation", { ...v5, activation_fn_str: "gelu" }, /activation_fn_str to be relu or tanh-relu/],
    [
      "arguments of an activation",
      { ...v5, activation_fn_kwargs: { slope: 2 } },
      /activation_fn_kwargs has slope/,
    ],
    ["topk without k", { ...v5, activation_fn_str: "topk" }, /k is missing/],
    ["a scale that is not there", { ...v5, finetuning_scaling_factor: true }, /is true, but .* has none/],
    [
      "centred weights, unsaid of which model",
      kwargs({ center_writing_weights: true }),
      /give centred, true for those/,
    ],
    [
      "centring denied",
      kwargs({ center_writing_weights: false }),
      /centred was given, but/,
      { centred: true },
    ],
    [
      "centring where it does nothing",
      about({ hook_name: "blocks.1.attn.hook_z" }),
      /the same in centred weights/,
      { centred: true },
    ],
    ["other processing", kwargs({ hf_model: "x" }), /model_from_pretrained_kwargs\.hf_model to be false/],
    ["another width", { ...v6, d_in: 17 }, /W_enc \[17, 32\] \(d_in 17, d_sae 32\), found \[16, 32\]/],
    ["k beyond the latents", { ...v6, architecture: "topk", k: 33 }, /k to be at most 32, found 33/],
    ["other tensors", { ...v6, architecture: "gated" }, /no tensor b_gate/],
  ])("%s", async (_, cfg, message, options = {}) => {
    const device = await testDevice();
    const before = device.memory.liveBuffers;
    const attempt = loadSparseAutoencoder(await saeFolder(cfg, weights), { device, ...options });
    await expect(attempt).rejects.toThrow(message);
    await expect(attempt).rejects.toThrow(CheckpointError);
    expect(device.memory.liveBuffers).toBe(before);
  });

  test.each([
    ["params.npz", /params\.npz is Gemma Scope's, and in Python, SAELens reads and rewrites it/],
    ["ae.pt", /ae\.pt is dictionary_learning's/],
    ["other.bin", /expected a folder that SAELens' save_model wrote/],
  ])("a folder with %s and no cfg.json", async (file, message) => {
    const folder = await saeFolder(undefined, undefined, { [file]: new Uint8Array(4) });
    await expect(loadSparseAutoencoder(folder, { device: await testDevice() })).rejects.toThrow(message);
  });

  test("stray tensors, and no weights", async () => {
    const device = await testDevice();
    const stray = ruleWeights("jumprelu", WIDTH, LATENTS);
    await expect(loadSparseAutoencoder(await saeFolder(v6, stray), { device })).rejects.toThrow(
      /threshold: no weights of architecture standard/,
    );
    await expect(loadSparseAutoencoder(await saeFolder(v6, undefined), { device })).rejects.toThrow(
      /there is no sae_weights\.safetensors/,
    );
    await expect(loadSparseAutoencoder("test/fixtures/none", { device })).rejects.toThrow(
      /not a folder with a cfg\.json/,
    );
  });
});

test("other shapes and latents are refused", async () => {
  using sae = await load(cases[0]!);
  const x = sae.device.zeros([2, 15]);
  expect(() => sae.encode(x)).toThrow(/encode: sae takes \[rows, 16\], found \[2, 15\]/);
  expect(() => sae.decode(x)).toThrow(/takes \[rows, 32\]/);
  expect(() => sae.encodeSome(sae.device.zeros([2, 16]), [32])).toThrow(
    /latents from 0 to 31, each once, found 32/,
  );
  expect(() => sae.encodeSome(sae.device.zeros([2, 16]), [1, 1])).toThrow(/found one twice/);
  using normed = await load(cases.find(({ cfg }) => cfg["normalize_activations"] === "layer_norm")!);
  expect(() => normed.decode(normed.device.zeros([2, 32]))).toThrow(
    /expected of, the activations of these latents/,
  );
});

test("whatever stands in a field of the config, it loads or is refused as a checkpoint is", async () => {
  const device = await testDevice();
  const before = device.memory.liveBuffers;
  let [refused, loaded] = [0, 0];
  for (const name of ["v6 0-standard", "v6 9-topk", "v5 2-topk", "v5 4-jumprelu"]) {
    const { cfg } = cases.find((each) => each.name === name)!;
    const scaled = cfg["finetuning_scaling_factor"] ? ["finetuning_scaling_factor"] : [];
    const weights = ruleWeights(String(cfg["architecture"]), WIDTH, LATENTS, scaled);
    for (const key of Object.keys(cfg)) {
      for (const value of [null, -1, 1.5, 1e9, "x", true, [], {}, { hook_name: 3 }]) {
        try {
          (
            await loadSparseAutoencoder(await saeFolder({ ...cfg, [key]: value }, weights), { device })
          ).dispose();
          loaded++;
        } catch (error) {
          expect(error, `${name}, ${key}: ${JSON.stringify(value)}`).toBeInstanceOf(CheckpointError);
          refused++;
        }
      }
    }
  }
  expect(refused).toBeGreaterThan(200);
  expect(loaded).toBeGreaterThan(50);
  expect(device.memory.liveBuffers).toBe(before);
});
