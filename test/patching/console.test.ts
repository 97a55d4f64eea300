import { inspect } from "node:util";
import { expect, test } from "vitest";
import { attentionMaps } from "../../src/analysis/heads/attention-map.ts";
import { PictureAttention } from "../../src/analysis/heads/picture-attention.ts";
import { openCheckpoint } from "../../src/model/checkpoint/open-checkpoint.ts";
import { OpenModel } from "../../src/model/open-model.ts";
import { loadDualEncoder } from "../../src/patching/dual-encoder.ts";
import { zero } from "../../src/patching/edit.ts";
import { loadModel } from "../../src/patching/model.ts";
import { adapterName } from "../../src/tensor/adapter-name.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel } from "../helpers/model.ts";
import { picture } from "../helpers/svg.ts";

const fixture = (name: string) => `test/fixtures/${name}/model`;

test("the console shows what a model is, its sizes and where it is, in three lines", async () => {
  const device = await testDevice();
  const on = `on ${adapterName(device.info)}`;
  const llama = await loadModel(fixture("llama-gqa-tied"), { device });
  const { vocab, context } = llama.config;
  expect(inspect(llama).split("\n")).toEqual([
    `PatchableModel ${llama.name} (llama, F32)`,
    `  text: 3 layers, width 48, 4 heads of 12 on 2 of keys and values; ${vocab} tokens; context ${context}`,
    `  ${on}`,
  ]);
  llama.dispose();
  expect(inspect(llama)).toMatch(/\n {2}disposed of$/);

  const llava = await loadModel(fixture("llava"), { device });
  expect(inspect(llava)).toMatch(
    /^PatchableModel .*\(llava, .*\)\n {2}text: 3 layers.*; vision: \d+ layers, /,
  );
  llava.dispose();
  const clip = await loadDualEncoder(fixture("clip"), { device });
  expect(inspect(clip)).toMatch(
    /^PatchableDualEncoder .* \(clip, F32\)\n {2}text: 3 layers, width 32, 4 heads of 8; vision: .*; 700 tokens; embeddings of 24\n {2}on /,
  );
  clip.dispose();
  const t5 = await loadModel(fixture("t5"), { device });
  expect(inspect(t5)).toMatch(/encoder: \d+ layers/);
  expect(inspect(t5)).not.toContain("Infinity");
  t5.dispose();

  await using open = await OpenModel.open(fixture("llama"));
  expect(inspect(open.outline)).toMatch(/^ModelOutline .*\n.*\n {2}without weights$/);
});

test("devices, checkpoints, tokenizers, recordings and events are a line each", async () => {
  const device = await testDevice();
  expect(inspect(device)).toBe(
    `Device ${adapterName(device.info)} (${device.info.fallback ? "a software driver, " : ""}${device.info.kernels} kernels): ${device.memory.liveBuffers} buffers, ` +
      `${(device.memory.liveBytes / 2 ** 20).toFixed(1)} MiB in use`,
  );
  await using checkpoint = await openCheckpoint(fixture("llama"));
  expect(inspect(checkpoint)).toBe(
    `Checkpoint ${checkpoint.name} (llama, F32): ${checkpoint.names.length} tensors`,
  );
  const model = await fixtureModel("llama");
  expect(inspect(model.tokenizer)).toMatch(/^Tokenizer of \d+ tokens, .*bos_token <s>/);
  const prompts = [model.promptFromIds([5, 6, 7]), model.promptFromIds([8, 9])];
  const recording = model.record(prompts, { edits: [zero("z.1", -1)] });
  expect(inspect({ recording })).toBe(
    `{\n  recording: Recording of 2 prompts on ${model.name}: 5 tokens, 3 layers, 1 edit\n}`,
  );
  recording.dispose();
  expect(inspect(recording)).toMatch(/\(disposed of\)$/);
  for (const event of model.walk(prompts[0]!, (site) => site === "resid_post.1")) {
    expect(inspect(event)).toBe("SiteEvent resid_post.1: f32[3, 48]");
  }
});

test("attention over a picture prints as its shares, by patch or, of large grids, where it is most", async () => {
  const model = await fixtureModel("llava");
  const [map] = await attentionMaps(model, model.prompt(["Q:", picture, "A:"]), { layers: [1], head: 2 });
  const lines = inspect(map).split("\n");
  expect(lines[0]).toBe(
    `layer 1, head 2: ${(100 * map!.share).toFixed(1)} % of the attention is on the picture, by patch:`,
  );
  expect(lines).toHaveLength(1 + map!.grid.rows);
  expect(lines[1]!.trim().split(/ +/).slice(2)).toEqual(
    [...map!.weights.subarray(0, map!.grid.columns)].map((weight) => (100 * weight).toFixed(1)),
  );
  const weights = new Float32Array(24 * 24);
  weights[25] = 0.5;
  const wide = new PictureAttention({ layer: 0, grid: { rows: 24, columns: 24 }, weights, share: 0.5 });
  expect(`${wide}`).toMatch(/^layer 0: 50\.0 % .*; most of it 50\.0 % at row 1, column 1; /);
});
