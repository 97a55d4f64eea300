import { expect, test } from "vitest";
import { loadImage } from "../../../src/images/files/load.ts";
import { publishedName } from "../../../src/model/checkpoint/entries/module-names.ts";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { memoryFolder } from "../../../src/model/checkpoint/source/folder.ts";
import { type ExportOptions, exportModel } from "../../../src/model/export/export.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { collect } from "../../helpers/bytes.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../../helpers/checkpoints.ts";
import { testDevice } from "../../helpers/device.ts";
import { fixtureModel } from "../../helpers/model.ts";
import type { Files } from "../../helpers/nano.ts";

const PROCESSORS = {
  llava: "LlavaProcessor",
  llava_next: "LlavaNextProcessor",
  paligemma: "PaliGemmaProcessor",
  gemma3: "Gemma3Processor",
  llava_onevision: "LlavaOnevisionProcessor",
};

async function logitsOf(model: PatchableModel): Promise<Float32Array> {
  const image = await loadImage("test/fixtures/images/photo.png");
  return await model.run(model.prompt([{ image }, "Q:"])).logits!.read();
}

test.each(Object.entries(PROCESSORS))(
  "%s, exported, gives the very same logits; where there was no processor_config.json there is %s's",
  async (name, processor) => {
    const device = await testDevice();
    const given = fixtureFiles(name);
    given.delete("processor_config.json");
    const files = new Map<string, Uint8Array>();
    const sink = {
      async write(path: string, chunks: AsyncIterable<Uint8Array>) {
        files.set(path, await collect(chunks));
      },
    };
    await using checkpoint = await openCheckpoint(memoryFolder(given, name));
    await exportModel(checkpoint, device, sink);
    using after = await loadModel(memoryFolder(files), { device });
    expect(await logitsOf(after)).toEqual(await logitsOf(await fixtureModel(name)));
    const written = JSON.parse(new TextDecoder().decode(files.get("processor_config.json")));
    expect(written.processor_class).toBe(processor);
  },
);

/** Families that keep the names and the config of their own folder. */
const KEPT = [
  ...["t5", "t5-relu-tied", "blip2-opt", "blip2-t5", "instructblip-llama", "fuyu", "llava-pixtral"],
  ...["idefics", "idefics-vector-gates", "idefics2", "smolvlm", "internvl", "mllama"],
  ...["qwen2_vl", "qwen2_5_vl", "qwen3_vl"],
];

async function exported(files: Files, options: ExportOptions = {}): Promise<Files> {
  const written: Files = new Map();
  const sink = {
    async write(path: string, chunks: AsyncIterable<Uint8Array>) {
      written.set(path, await collect(chunks));
    },
  };
  await using checkpoint = await openCheckpoint(memoryFolder(files, "m"));
  await exportModel(checkpoint, await testDevice(), sink, options);
  return written;
}

const jsonOf = (files: Files, path: string) => JSON.parse(new TextDecoder().decode(files.get(path)));

/** A config without what the dtype is. */
function withoutDtype(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutDtype);
  if (typeof value !== "object" || value === null) return value;
  const kept = Object.entries(value).filter(([key]) => key !== "dtype" && key !== "torch_dtype");
  return Object.fromEntries(kept.map(([key, inner]) => [key, withoutDtype(inner)]));
}

async function answersOf(model: PatchableModel): Promise<Float32Array> {
  const image = await loadImage("test/fixtures/images/photo.png");
  const prompt = model.config.vision ? model.prompt([{ image }, "Q:"]) : model.prompt("Q: x");
  return await model.run(prompt).logits!.read();
}

test.each(KEPT)(
  "%s, exported, gives the very same logits; tensors, config and processor are transformers' own",
  async (name) => {
    const given = fixtureFiles(name);
    const files = await exported(given);
    using after = await loadModel(memoryFolder(files), { device: await testDevice() });
    expect(await answersOf(after)).toEqual(await answersOf(await fixtureModel(name)));
    const [before, written] = [await tensorsOf(given), await tensorsOf(files)];
    expect([...written.keys()].sort()).toEqual([...before.keys()].sort());
    for (const [tensor, { stored, shape, data }] of before) {
      expect(written.get(tensor), tensor).toMatchObject({ stored, shape });
      expect(Buffer.compare(written.get(tensor)!.data, data), tensor).toBe(0);
    }
    const configs = [given, files].map((folder) => withoutDtype(jsonOf(folder, "config.json")));
    expect(configs[1]).toEqual(configs[0]);
    const others = [...given.keys()].filter((path) => /\.(json|jinja)$/.test(path) && path !== "config.json");
    expect(others.length).toBeGreaterThan(1);
    for (const path of others) expect(files.get(path), path).toEqual(given.get(path));
  },
);

test("a T5's export in bf16 says so in its config, and has its weights rounded once", async () => {
  const given = fixtureFiles("t5");
  const files = await exported(given, { dtype: "bf16" });
  expect(jsonOf(files, "config.json").torch_dtype).toBe("bfloat16");
  const [before, written] = [await tensorsOf(given), await tensorsOf(files)];
  for (const [name, { data, stored }] of before) {
    expect([stored, written.get(name)!.stored]).toEqual(["F32", "BF16"]);
    const exact = new Float32Array(data.slice().buffer);
    const rounded = new Uint16Array(written.get(name)!.data.slice().buffer);
    const values = new Float32Array(Uint32Array.from(rounded, (bits) => bits << 16).buffer);
    for (const [i, value] of exact.entries())
      expect(Math.abs(values[i]! - value)).toBeLessThanOrEqual(2 ** -8 * Math.abs(value));
  }
  using after = await loadModel(memoryFolder(files), { device: await testDevice() });
  expect((await answersOf(after)).every(Number.isFinite)).toBe(true);
});

test("a model whose family keeps its config is not exported where that ties what differs", async () => {
  const given = fixtureFiles("qwen2_vl");
  const tensors = await tensorsOf(given);
  const embedding = tensors.get("model.embed_tokens.weight")!;
  expect(tensors.has("lm_head.weight")).toBe(false);
  const beside = (data: Uint8Array) =>
    withTensors(given, [...tensors.values(), { ...embedding, name: "lm_head.weight", data }]);
  expect((await exported(await beside(embedding.data))).has("config.json")).toBe(true);
  const tied = await beside(embedding.data.map((byte, i) => (i === 0 ? byte ^ 1 : byte)));
  await expect(exported(tied)).rejects.toThrow(/expected an output matrix that is the embedding/);
});

test("the feature behind rows of LLaVA-NeXT has its published name, whoever saved it", () => {
  for (const name of ["image_newline", "model.image_newline"])
    expect(publishedName(name)).toBe("image_newline");
});
