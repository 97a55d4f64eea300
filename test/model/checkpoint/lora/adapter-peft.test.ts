import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../../../src/errors.ts";
import { loadImage } from "../../../../src/images/files/load.ts";
import { pythonRegex } from "../../../../src/model/checkpoint/lora/python-regex.ts";
import { openCheckpoint } from "../../../../src/model/checkpoint/open-checkpoint.ts";
import { writeSafetensors } from "../../../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import { type Folder, memoryFolder } from "../../../../src/model/checkpoint/source/folder.ts";
import { exportModel } from "../../../../src/model/export/export.ts";
import { loadModel, type PatchableModel } from "../../../../src/patching/model.ts";
import { encode } from "../../../../src/tensor/dtype.ts";
import { collect, utf8 } from "../../../helpers/bytes.ts";
import { expectClose } from "../../../helpers/compare.ts";
import { testDevice } from "../../../helpers/device.ts";
import { nanoFiles, randomTensors } from "../../../helpers/nano.ts";

const FOLDER = "test/fixtures/adapters";
const FAMILIES = "test/fixtures/family-adapters";
/** Made by PEFT; see scripts/make-adapters.py. */
const { bases, ids, intact } = JSON.parse(readFileSync(`${FOLDER}/cases.json`, "utf8")) as {
  bases: Record<string, string>;
  ids: number[];
  intact: Record<string, { logits: number[] }>;
};
const families = JSON.parse(readFileSync(`${FAMILIES}/cases.json`, "utf8")) as {
  bases: Record<string, string>;
  /** With the adapter beside the weights, and merged into them in their dtype. */
  logits: Record<string, { beside: number[]; merged: number[] }>;
};
const CASES = [
  ...Object.entries(bases).map(([name, base]) => {
    const { logits } = intact[name]!; // bases in f32, where both are the same
    return [name, base, `${FOLDER}/${name}`, { beside: logits, merged: logits }] as const;
  }),
  ...Object.entries(families.bases).map(
    ([name, base]) => [name, base, `${FAMILIES}/${name}`, families.logits[name]!] as const,
  ),
];
const [withPicture] = JSON.parse(readFileSync("test/fixtures/llava/case.json", "utf8")).cases;

async function logitsOf(model: PatchableModel): Promise<Float32Array> {
  const prompt = model.config.vision
    ? model.promptFromIds(withPicture.input_ids, [await loadImage("test/fixtures/images/photo.png")])
    : model.promptFromIds(ids);
  return model.run(prompt).logits!.read();
}

const CLOSE = { atol: 1e-4, rtol: 1e-4 };

describe.each(CASES)("%s on %s", (_, base, adapter, expected) => {
  const ref = `test/fixtures/${base}/model`;
  const adapters = [adapter];

  test.each([true, false])("has PEFT's logits, merge: %s", async (merge) => {
    using model = await loadModel(ref, { device: await testDevice(), adapters, merge });
    expectClose(await logitsOf(model), merge ? expected.merged : expected.beside, CLOSE);
    using plain = await loadModel(ref, { device: await testDevice() });
    const unchanged = await logitsOf(plain);
    expect(() => expectClose(unchanged, expected.merged, CLOSE)).toThrow();
  });

  test("has them as a folder of its own, and when exported", async () => {
    const device = await testDevice();
    await using checkpoint = await openCheckpoint(adapter, { base: ref });
    const files = new Map<string, Uint8Array>();
    const sink = {
      async write(path: string, chunks: AsyncIterable<Uint8Array>) {
        files.set(path, await collect(chunks));
      },
    };
    await exportModel(checkpoint, device, sink);
    using model = await loadModel(memoryFolder(files), { device });
    expectClose(await logitsOf(model), expected.merged, CLOSE);
  });
});

test("an export says whether the output matrix is the embedding, for what goes by the config", async () => {
  const tiedIn = async (name: string) => {
    const adapters = [`${FOLDER}/${name}`];
    await using checkpoint = await openCheckpoint("test/fixtures/llama-gqa-tied/model", { adapters });
    let config = "";
    const sink = {
      async write(path: string, chunks: AsyncIterable<Uint8Array>) {
        const bytes = await collect(chunks);
        if (path === "config.json") config = new TextDecoder().decode(bytes);
      },
    };
    await exportModel(checkpoint, await testDevice(), sink);
    return [JSON.parse(config).tie_word_embeddings, checkpoint.has("lm_head.weight")];
  };
  expect(await tiedIn("embedding-tied")).toEqual([false, true]);
  expect(await tiedIn("embedding-ensured")).toEqual([true, false]);
});

describe("where a tied base's file has the output matrix as well", () => {
  /** llama-gqa-tied with a copy of its embedding, the last element changed by `change`. */
  async function baseWithHead(change: number): Promise<Folder> {
    await using whole = await openCheckpoint("test/fixtures/llama-gqa-tied/model");
    const tensors = await Promise.all(
      whole.entries.map(async (e) => ({
        name: e.name,
        stored: e.stored,
        shape: e.shape,
        data: await collect(e.stream()),
      })),
    );
    const embedding = tensors.find(({ name }) => name === "model.embed_tokens.weight")!;
    const data = embedding.data.slice();
    new DataView(data.buffer).setFloat32(0, new DataView(data.buffer).getFloat32(0, true) + change, true);
    const weights = await collect(
      writeSafetensors([...tensors, { ...embedding, name: "lm_head.weight", data }]),
    );
    const files = new Map([["model.safetensors", weights]]);
    for (const path of ["config.json", "tokenizer.json", "tokenizer_config.json"]) {
      files.set(path, Uint8Array.from(readFileSync(`test/fixtures/llama-gqa-tied/model/${path}`)));
    }
    return memoryFolder(files, "base");
  }

  async function shapesAndHead(base: Folder, name: string) {
    const tensors = await randomTensors({ [`base_model.model.${name}`]: [448, 48] });
    const config = { peft_type: "LORA", r: 1, target_modules: ["q_proj"] };
    const lora = memoryFolder(
      new Map([
        ["adapter_config.json", utf8(JSON.stringify(config))],
        ["adapter_model.safetensors", tensors],
      ]),
      "lora",
    );
    await using checkpoint = await openCheckpoint(base, { adapters: [lora] });
    const bytes = async (tensor: string) =>
      checkpoint.has(tensor) ? collect(checkpoint.entry(tensor).stream()) : undefined;
    return [await bytes("model.embed_tokens.weight"), await bytes("lm_head.weight")];
  }

  // transformers 5 ties the two if they are equal, and keeps both if they differ.
  test("an embedding beside the adapter replaces both if they are equal", async () => {
    const [embedding, head] = await shapesAndHead(await baseWithHead(0), "model.embed_tokens.weight");
    expect(embedding).toBeDefined();
    expect(head).toBeUndefined();
  });

  test("and its own alone if they differ", async () => {
    const base = await baseWithHead(1);
    await using plain = await openCheckpoint(base);
    const [embedding, head] = await shapesAndHead(base, "model.embed_tokens.weight");
    expect(head).toEqual(await collect(plain.entry("lm_head.weight").stream()));
    expect(embedding).not.toEqual(await collect(plain.entry("model.embed_tokens.weight").stream()));
  });
});

describe("numbers that are none", () => {
  const Q = "model.layers.0.self_attn.q_proj";

  /** An adapter of rank 1 on nano's base whose update has `value` in the corner, and zero elsewhere. */
  async function adapterWith(value: number, stored: "F32" | "F16" | "BF16" = "F32"): Promise<Folder> {
    const dtype = ({ F32: "f32", F16: "f16", BF16: "bf16" } as const)[stored];
    const corner = (shape: number[], x: number) => {
      const values = new Float32Array(48);
      values[0] = x;
      return { stored, shape, data: encode(values, dtype) };
    };
    const weights = await collect(
      writeSafetensors([
        { name: `base_model.model.${Q}.lora_A.weight`, ...corner([1, 48], value) },
        { name: `base_model.model.${Q}.lora_B.weight`, ...corner([48, 1], 1) },
      ]),
    );
    const config = { peft_type: "LORA", r: 1, lora_alpha: 1, target_modules: ["q_proj"] };
    const files = new Map([
      ["adapter_config.json", utf8(JSON.stringify(config))],
      ["adapter_model.safetensors", weights],
    ]);
    return memoryFolder(files, "lora");
  }

  const load = async (adapter: Folder, options: { merge?: boolean } = {}, base = "weights/nano/base") =>
    loadModel(base, { device: await testDevice(), adapters: [adapter], ...options });

  test.each([70000, -70000])(
    "merging %d into f16 is refused; beside the weights it is right",
    async (value) => {
      const adapter = await adapterWith(value);
      const failure = load(adapter);
      await expect(failure).rejects.toThrow(CheckpointError);
      await expect(failure).rejects.toThrow(
        /with lora merged into it, model\.layers\.0\.self_attn\.q_proj\.weight has values beyond the range of f16; merge: false/,
      );
      using beside = await load(adapter, { merge: false });
      expect((await logitsOf(beside)).every(Number.isFinite)).toBe(true);
    },
  );

  test("merging what f16 still holds is not", async () => {
    using model = await load(await adapterWith(65400));
    expect((await logitsOf(model)).every(Number.isFinite)).toBe(true);
  });

  test("merging into f32 beyond its range is refused, when loading and when exporting", async () => {
    const adapter = await adapterWith(3.4e38);
    const twice = memoryFolder(
      new Map([
        [
          "adapter_config.json",
          utf8(JSON.stringify({ peft_type: "LORA", r: 1, lora_alpha: 4, target_modules: ["q_proj"] })),
        ],
        ["adapter_model.safetensors", new Uint8Array(0)],
      ]),
    );
    const both: Folder = {
      name: "lora",
      open: (path) => (path.endsWith("json") ? twice : adapter).open(path),
    };
    const base = "test/fixtures/llama/model";
    await expect(load(both, {}, base)).rejects.toThrow(/q_proj\.weight has values beyond the range of f32/);
    await using checkpoint = await openCheckpoint(base, { adapters: [both] });
    const nowhere = {
      write: async (_: string, chunks: AsyncIterable<Uint8Array>) => void (await collect(chunks)),
    };
    const failure = exportModel(checkpoint, await testDevice(), nowhere);
    await expect(failure).rejects.toThrow(/q_proj\.weight with its adapters has Infinity/);
    await expect(failure).rejects.toThrow(CheckpointError);
  });

  test.each<[number, "F32" | "F16" | "BF16"]>([
    [Number.NaN, "F32"],
    [Number.POSITIVE_INFINITY, "F16"],
    [Number.NEGATIVE_INFINITY, "BF16"],
  ])("%d in an adapter's %s is refused by the tensor's name", async (value, stored) => {
    for (const merge of [true, false]) {
      const failure = load(await adapterWith(value, stored), { merge });
      await expect(failure).rejects.toThrow(CheckpointError);
      await expect(failure).rejects.toThrow(
        /lora\/adapter_model\.safetensors: \S+q_proj\.lora_A\.weight holds infinities/,
      );
    }
  });
});

test("a pickle is named, with what to do", async () => {
  const files = nanoFiles();
  const lora = memoryFolder(
    new Map([
      ["adapter_config.json", files.get("llm/adapter_config.json")!],
      ["adapter_model.bin", new Uint8Array(8)],
    ]),
    "lora",
  );
  await expect(openCheckpoint("weights/nano/base", { adapters: [lora] })).rejects.toThrow(
    /there is no adapter_model\.safetensors; adapter_model\.bin is a pickle.*safe_serialization=True/,
  );
});

describe("regular expressions of Python", () => {
  test.each<[source: string, matches: string[], others: string[]]>([
    [
      "model\\.layers\\.\\d+\\.q_proj",
      ["model.layers.11.q_proj"],
      ["model.layers.x.q_proj", "a.model.layers.1.q_proj"],
    ],
    ["a|b", ["a", "b"], ["ab", "ax"]],
    ["q\\_proj\\-x", ["q_proj-x"], ["q\\_proj"]],
    ["[\\w\\-]+", ["a-b"], ["a.b"]],
  ])("%s", (source, matches, others) => {
    const regex = pythonRegex(source, "c");
    expect(matches.filter((text) => !regex.test(text))).toEqual([]);
    expect(others.filter((text) => regex.test(text))).toEqual([]);
  });

  // JavaScript takes \Z for a Z, and \1 in a longer expression for another group.
  test.each(["(?i)a", "(?P<x>a)", "a\\Z", "(a)\\1", "a++", "("])("%s is refused", (source) => {
    expect(() => pythonRegex(source, "c: target_modules")).toThrow(CheckpointError);
    expect(() => pythonRegex(source, "c: target_modules")).toThrow(/^c: target_modules/);
  });
});
