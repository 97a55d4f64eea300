import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { CheckpointError } from "../../src/errors.ts";
import { loadImage } from "../../src/images/files/load.ts";
import { readTensor } from "../../src/model/checkpoint/entries/tensor-entry.ts";
import { openCheckpoint } from "../../src/model/checkpoint/open-checkpoint.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import { exportModel } from "../../src/model/export/export.ts";
import { checkFolder } from "../../src/parity/check-folder.ts";
import { GoldenFile } from "../../src/parity/golden-file.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { bf16Bits, f16Bits, f16Value } from "../../src/tensor/dtype.ts";
import { collect } from "../helpers/bytes.ts";
import { expectClose } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { type Files, nanoFiles, nanoFolder } from "../helpers/nano.ts";

const [{ text: QUESTION }] = JSON.parse(readFileSync("test/fixtures/nano-llm/case.json", "utf8")).cases;

describe("with adapters merged, in the weights' dtype", () => {
  test.each(["nano-llm", "nano-vlm"])("%s agrees with transformers and PEFT", async (name) => {
    const { checks, passed, notRun } = await checkFolder(`test/fixtures/${name}`, await testDevice());
    expect(checks.filter((check) => !check.passed).map((check) => check.name)).toEqual([]);
    expect([passed, notRun]).toEqual([true, []]);
    const names = checks.map((check) => check.name);
    const vision = ["vision.resid_post.1", "projector.out", "in.pixel_values, from photo.png"];
    for (const site of ["resid_post.3", "logits", "generate.ids", ...(name === "nano-vlm" ? vision : [])]) {
      expect(names).toContain(`case0/${site}`);
    }
  });
});

/** Last logits of a question in text or about a picture. */
async function logitsOf(model: PatchableModel): Promise<Float32Array> {
  const picture = model.config.vision && (await loadImage("test/fixtures/images/photo.png"));
  const prompt = model.prompt(picture ? ["Q:", picture, "\nA:"] : QUESTION);
  return model.run(prompt).logits!.read();
}

describe("with adapters beside the weights", () => {
  test("the LLM agrees with PEFT's unmerged model", async () => {
    using model = await loadModel("weights/nano/llm", { device: await testDevice(), merge: false });
    await using goldens = await GoldenFile.open("test/fixtures/nano-llm/unmerged.safetensors");
    const run = model.run(model.prompt(QUESTION), { taps: { x: tap("resid_post.3", "all") } });
    expectClose(await run.x.read(), (await goldens.read("resid_post.3")).values, { atol: 1e-4, rtol: 1e-4 });
    const all = (await goldens.read("logits")).values as Float32Array;
    expectClose(await run.logits!.read(), all.slice(-448), { atol: 1e-4, rtol: 1e-4 });
  });

  test.each(["llm", "vlm"])(
    "%s differs from the merged one by the rounding of f16, not more",
    async (name) => {
      const device = await testDevice();
      using merged = await loadModel(`weights/nano/${name}`, { device });
      using beside = await loadModel(`weights/nano/${name}`, { device, merge: false });
      const [a, b] = [await logitsOf(merged), await logitsOf(beside)];
      expectClose(a, b, { atol: 2e-3, rtol: 2e-3 });
      expect(a).not.toEqual(b);
    },
  );

  test("generation, batches and walks use them too", async () => {
    using model = await loadModel("weights/nano/llm", { device: await testDevice(), merge: false });
    const prompts = [model.prompt(QUESTION), model.prompt("Q: Peru\nA:")];
    const together = await model.generate(prompts, { maxNewTokens: 4, stopIds: [] });
    for (const [i, prompt] of prompts.entries()) {
      const { ids } = await model.generate(prompt, { maxNewTokens: 4, stopIds: [] });
      expect(ids).toEqual(together[i]!.ids);
    }
  });
});

test("without its adapters the model is another", async () => {
  const device = await testDevice();
  using tuned = await loadModel("weights/nano/llm", { device });
  using base = await loadModel("weights/nano/base", { device });
  const [a, b] = [await logitsOf(tuned), await logitsOf(base)];
  expect(Math.max(...a.map((x, i) => Math.abs(x - b[i]!)))).toBeGreaterThan(0.1);
  using again = await loadModel("weights/nano/base", { device, adapters: ["weights/nano/llm"] });
  expect(await logitsOf(again)).toEqual(a);
});

/** An exported model's files. */
async function exported(folder: string | ReturnType<typeof nanoFolder>, dtype?: "f32" | "f16" | "bf16") {
  const files: Files = new Map();
  const sink = {
    async write(name: string, chunks: AsyncIterable<Uint8Array>) {
      files.set(name, await collect(chunks));
    },
  };
  await using checkpoint = await openCheckpoint(folder);
  await exportModel(checkpoint, await testDevice(), sink, { dtype });
  return files;
}

describe("exported", () => {
  test.each(["llm", "vlm"])("%s gives the very same logits when it is loaded again", async (name) => {
    const device = await testDevice();
    const files = await exported(`weights/nano/${name}`);
    using before = await loadModel(`weights/nano/${name}`, { device });
    using after = await loadModel(memoryFolder(files), { device });
    expect(await logitsOf(after)).toEqual(await logitsOf(before));
    expect([after.adapters, after.family, [...after.endIds]]).toEqual([[], before.family, [2]]);
    expect([...files.keys()].at(-1)).toBe("config.json");
  });

  test("numbers of the config keep their kind: transformers refuses 1 for 1.0", async () => {
    const files = nanoFiles();
    const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    const config = decode(files.get("vlm/config.json")!).replace(
      '"vision_config": {',
      '"note": "1.0 and \\"2.0\\"", "vision_config": { "initializer_factor": 1.0, "dropout": [0.0, -1e0, 2, 0.5],',
    );
    files.set("vlm/config.json", new TextEncoder().encode(config));
    const text = decode((await exported(nanoFolder(files, "vlm"))).get("config.json")!);
    expect(text).toContain('"note": "1.0 and \\"2.0\\""');
    expect(text).toMatch(/"initializer_factor": 1\.0,\s+"dropout": \[\s*0\.0,\s+-1e0,\s+2,\s+0\.5\s*\]/);
    expect(text).toMatch(/"hidden_size": 48,/);
  });

  test("in f32 weights are merged without rounding, in bf16 rounded once", async () => {
    const [exact, rounded] = [
      await exported("weights/nano/vlm", "f32"),
      await exported("weights/nano/vlm", "bf16"),
    ];
    for (const [files, dtype] of [
      [exact, "float32"],
      [rounded, "bfloat16"],
    ] as const) {
      const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
      expect(config).toMatchObject({ torch_dtype: dtype, text_config: { hidden_size: 48 } });
    }
    await using wide = await openCheckpoint(memoryFolder(exact));
    await using narrow = await openCheckpoint(memoryFolder(rounded));
    expect([wide.storedDtypes, narrow.storedDtypes]).toEqual([["F32"], ["BF16"]]);
    let unlikeF16 = 0;
    for (const { name } of wide.entries) {
      const bytes = await readTensor(wide.entry(name));
      const values = new Float32Array(bytes.buffer);
      if (values.some((x) => f16Value(f16Bits(x)) !== x)) unlikeF16++;
      const bits = new Uint16Array((await readTensor(narrow.entry(name))).buffer);
      expect(Array.from(values, bf16Bits)).toEqual([...bits]);
    }
    expect(unlikeF16).toBe(24); // as many as adapters change
  });

  test("a checkpoint without adapters or parts comes out as it is, in one file", async () => {
    await using before = await openCheckpoint("test/fixtures/llava-f16-sharded/model");
    await using after = await openCheckpoint(
      memoryFolder(await exported("test/fixtures/llava-f16-sharded/model")),
    );
    expect(after.names.sort()).toEqual(before.names.sort());
    for (const name of before.names) {
      const [a, b] = [await readTensor(after.entry(name)), await readTensor(before.entry(name))];
      expect([name, Buffer.compare(a, b)]).toEqual([name, 0]);
    }
  });

  test("the processor and the tokenizer go along", async () => {
    const files = await exported("weights/nano/vlm");
    const json = (name: string) => JSON.parse(new TextDecoder().decode(files.get(name)));
    expect(json("processor_config.json")).toEqual({
      processor_class: "LlavaProcessor",
      image_token: "<image>",
      patch_size: 32,
      num_additional_image_tokens: 1,
      vision_feature_select_strategy: "default",
    });
    expect(json("tokenizer_config.json").tokenizer_class).toBe("PreTrainedTokenizerFast");
    expect(json("generation_config.json")).toEqual({ bos_token_id: 1, eos_token_id: 2, pad_token_id: 2 });
    expect(json("preprocessor_config.json")).toMatchObject({ crop_size: { height: 96, width: 96 } });
    const token = { id: 431, content: "<image>" };
    expect(json("tokenizer.json").added_tokens).toContainEqual(expect.objectContaining(token));
  });

  test("a damaged base leaves no config.json behind, and a weight beyond f16 is refused", async () => {
    const files = nanoFiles();
    const weights = files.get("base/model.safetensors")!;
    weights[weights.length - 1]! ^= 1;
    const written: string[] = [];
    const sink = {
      async write(name: string, chunks: AsyncIterable<Uint8Array>) {
        await collect(chunks);
        written.push(name);
      },
    };
    await using damaged = await openCheckpoint(nanoFolder(files, "vlm"));
    const device = await testDevice();
    await expect(exportModel(damaged, device, sink)).rejects.toThrow(/is damaged or not the nano/);
    expect(written).toEqual(["model.safetensors"]);

    const far = nanoFiles();
    const config = "llm/adapter_config.json";
    const huge = new TextDecoder().decode(far.get(config)).replace('"lora_alpha": 8', '"lora_alpha": 8e9');
    far.set(config, new TextEncoder().encode(huge));
    await using beyond = await openCheckpoint(nanoFolder(far, "llm"));
    const attempt = exportModel(beyond, device, sink);
    await expect(attempt).rejects.toThrow(CheckpointError);
    await expect(attempt).rejects.toThrow(/layers\.\d\.\S+ has -?\d+(\.\d+)?, not a finite f16/);
  });
});
