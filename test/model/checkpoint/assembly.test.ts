import { cpSync, mkdtempSync, rmSync, truncateSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, describe, expect, test, vi } from "vitest";
import { CheckpointError } from "../../../src/errors.ts";
import { openCheckpoint } from "../../../src/model/checkpoint/open-checkpoint.ts";
import { loadModel } from "../../../src/patching/model.ts";
import { utf8 } from "../../helpers/bytes.ts";
import { testDevice } from "../../helpers/device.ts";
import { changeJson, type Files, nanoFiles, nanoFolder, randomTensors } from "../../helpers/nano.ts";

const MANIFEST = "vlm/assembly.json";
const BASE = {
  name: "nano",
  folder: "../base",
  sha256: "160968c40039c51368d73686b064db6b4ad61971faf2c764cddf9f3dfcfc8632",
};
const cache = mkdtempSync(join(tmpdir(), "xpatch-assembly-"));
afterAll(() => rmSync(cache, { recursive: true }));

async function expectRefusal(action: Promise<unknown>, message: RegExp | string): Promise<void> {
  await expect(action).rejects.toThrow(CheckpointError);
  await expect(action).rejects.toThrow(message);
}

/** nano's VLM after a change of its files. */
function changed(change: (files: Files) => unknown) {
  const files = nanoFiles();
  change(files);
  return nanoFolder(files, "vlm");
}

const withBase = (base: object) => (files: Files) => changeJson(files, MANIFEST, { base });

async function load(change: (files: Files) => unknown) {
  const model = await loadModel(changed(change), { device: await testDevice() });
  model.dispose();
}

test("base, tower and adapters are one model", async () => {
  await using checkpoint = await openCheckpoint("weights/nano/vlm");
  expect(checkpoint.adapters.map(({ name }) => name)).toEqual([
    "weights/nano/llm",
    "weights/nano/vlm/adapter",
  ]);
  const q = "language_model.model.layers.1.self_attn.q_proj.weight";
  expect(checkpoint.entry(q)).toMatchObject({ name: q, shape: [48, 48], stored: "F16" });
  expect(checkpoint.updatesOf(q).map(({ scale, a }) => [scale, a.shape[0], a.stored])).toEqual([
    [2, 4, "F32"],
    [4 / Math.SQRT2, 2, "F16"],
  ]);
  const k = "language_model.model.layers.0.self_attn.k_proj.weight";
  expect([checkpoint.has(k), checkpoint.updatesOf(k)]).toEqual([true, []]);
  expect(checkpoint.config).toMatchObject({ model_type: "llava" });
});

test("the tokenizer is the base's but for one token", async () => {
  const device = await testDevice();
  using llm = await loadModel("weights/nano/llm", { device });
  using vlm = await loadModel("weights/nano/vlm", { device });
  const text = "Q: Norway<image>\nA:";
  const [a, b] = [llm, vlm].map(({ tokenizer }) => tokenizer);
  expect([a!.tokenOf(431), a!.idOf("<image>")]).toEqual(["<empty_output>", undefined]);
  expect([b!.tokenOf(431), b!.idOf("<empty_output>")]).toEqual(["<image>", undefined]);
  expect(b!.size).toBe(a!.size);
  expect([a!, b!].map((each) => each.encode(text).filter((id) => id === 431).length)).toEqual([0, 1]);
  expect(a!.encode("Q: Italy")).toEqual(b!.encode("Q: Italy"));
  expect(vlm.config.vision).toMatchObject({ imageToken: "<image>", imageTokenId: 431, fixed: { tokens: 9 } });
  expect([...vlm.endIds]).toEqual([2]); // which a LLaVA's config has in its text_config
});

test("config.json and whatever else the folder lacks are the base's", async () => {
  await using checkpoint = await openCheckpoint(
    changed((files) => {
      files.delete("vlm/config.json");
      files.set("base/generation_config.json", utf8('{"eos_token_id": 7}'));
      files.set("vlm/chat_template.jinja", utf8("own"));
      files.set("base/chat_template.jinja", utf8("base"));
    }),
  );
  expect(checkpoint.config).toMatchObject({ model_type: "llama" });
  expect(await checkpoint.json("generation_config.json")).toEqual({ eos_token_id: 7 });
  expect(await checkpoint.text("chat_template.jinja")).toBe("own");
});

describe("a manifest is refused that", () => {
  test.each<[string, Record<string, unknown>, RegExp]>([
    [
      "is of another format",
      { format: "x" },
      /nano\/vlm\/assembly\.json: expected format xpatch-assembly, version 1, found x 1/,
    ],
    ["is of a later version", { version: 2 }, /found xpatch-assembly 2/],
    ["has no base", { base: undefined }, /assembly\.json\.base: name is missing/],
    [
      "has a path as base",
      { base: { ...BASE, name: "../x" } },
      /expected base\.name to be a folder's name, found "\.\.\/x"/,
    ],
    [
      "has half a hash",
      { base: { ...BASE, sha256: "ab" } },
      /expected base\.sha256 to be 64 hexadecimal digits/,
    ],
    ["reaches up", { base: { ...BASE, folder: "../../base" } }, /"\.\.\/\.\.\/base" is not a path inside/],
    ["reaches elsewhere", { adapters: ["/llm"] }, /"\/llm" is not a path inside the folder/],
    ["has adapters by number", { adapters: [1] }, /expected adapters to be a list of paths/],
    [
      "names an adapter that is missing",
      { adapters: ["../lm"] },
      /nano\/lm: expected a LoRA adapter, found no/,
    ],
    [
      "respells by name",
      { tokens: { x: "<image>" } },
      /expected tokens to give spellings by id, found "x": "<image>"/,
    ],
    ["respells to nothing", { tokens: { "431": "" } }, /found "431": ""/],
    ["respells a token of text", { tokens: { "300": "<image>" } }, /tokenizer\.json: 300 is no added token/],
    [
      "takes another token's spelling",
      { tokens: { "431": "</s>" } },
      /token 431 cannot become <\/s>, which another/,
    ],
  ])("%s", async (_, change, message) => {
    await expectRefusal(
      load((files) => changeJson(files, MANIFEST, change)),
      message,
    );
  });

  test("is no object", async () => {
    await expectRefusal(
      load((files) => files.set(MANIFEST, utf8("[]"))),
      /assembly\.json: expected an object/,
    );
  });

  test("has a tensor that the base has as well", async () => {
    const clash = await randomTensors({ "language_model.model.norm.weight": [48] });
    await expectRefusal(
      load((files) => files.set("vlm/model.safetensors", clash)),
      /language_model\.model\.norm\.weight is in the folder and in the base/,
    );
  });

  test("leaves the model incomplete", async () => {
    await expectRefusal(
      load((files) => files.delete("vlm/model.safetensors")),
      /nano\/vlm has no tensor .*vision_tower\.vision_model\.\S+ \(the nearest is language_model/,
    );
    await expectRefusal(
      load((files) => changeJson(files, MANIFEST, { prefix: "llm." })),
      /model\.layers\.1\.mlp\.\S+ matches no weight of nano\/vlm \(the nearest is llm\.model\.layers/,
    );
  });
});

describe("the base", () => {
  test("is looked for in the cache, or where it is said to be", async () => {
    const folder = changed(withBase({ ...BASE, folder: undefined, command: "npm run setup -- model" }));
    vi.stubEnv("XPATCH_CACHE", cache);
    const device = await testDevice();
    const missing = openCheckpoint(folder);
    await expectRefusal(missing, "nano/vlm/assembly.json: the base nano cannot be opened: ");
    await expectRefusal(missing, join(cache, "models", "nano"));
    await expectRefusal(
      missing,
      `there is no config.json; "npm run setup -- model" in ${resolve(".")} fetches it; another place may be given as base`,
    );
    using given = await loadModel(folder, { device, base: "weights/nano/base" });
    cpSync("weights/nano/base", join(cache, "models", "nano"), { recursive: true });
    using found = await loadModel(folder, { device });
    const [a, b] = [given, found].map((model) => model.run(model.prompt("Q: Italy")).logits);
    expect(await a!.read()).toEqual(await b!.read());

    truncateSync(join(cache, "models", "nano", "model.safetensors"), 200_000);
    await expectRefusal(
      loadModel(folder, { device }),
      /the base nano cannot be opened: .*model\.safetensors: not a valid safetensors file.*fetches it/,
    );
    vi.unstubAllEnvs();
  });

  test("with one bit flipped is found out when it has been read", async () => {
    const device = await testDevice();
    const { liveBytes } = device.memory;
    const flip = (files: Files) => {
      const weights = files.get("base/model.safetensors")!;
      weights[weights.length - 1]! ^= 1;
    };
    await expectRefusal(
      load(flip),
      /nano\/base is damaged or not the nano that this model was made for: expected tensors with sha256 160968c4\w+, found \w{64}; another place/,
    );
    expect(device.memory.liveBytes).toBe(liveBytes);
  });

  test("that is another model is found out even where its tensors fit", async () => {
    const other = await openCheckpoint("weights/nano/llm");
    await other.close();
    const files = nanoFiles();
    const folder = nanoFolder(files, "vlm");
    changeJson(files, MANIFEST, { base: { ...BASE, sha256: "0".repeat(64) } });
    await expectRefusal(
      loadModel(folder, { device: await testDevice() }),
      new RegExp(`expected tensors with sha256 0{64}, found ${BASE.sha256}`),
    );
  });

  test("may have tensors that the model does not use; they count", async () => {
    // With a tower of the text model's own kind the projector is the only user of the base: none of it is read for the network.
    const files = nanoFiles();
    changeJson(files, "llm/assembly.json", { prefix: "unused.", adapters: [] });
    files.set("llm/config.json", files.get("base/config.json")!);
    files.set("llm/model.safetensors", files.get("base/model.safetensors")!);
    const device = await testDevice();
    using _ = await loadModel(nanoFolder(files, "llm"), { device });
    changeJson(files, "llm/assembly.json", { base: { ...BASE, sha256: "0".repeat(64) } });
    await expectRefusal(loadModel(nanoFolder(files, "llm"), { device }), /found 160968c4/);
  });
});
