import { beforeAll, describe, expect, test } from "vitest";
import { loadImage } from "../../src/images/files/load.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { loadDualEncoder, type PatchableDualEncoder } from "../../src/patching/dual-encoder.ts";
import { type Edit, scale, set, zero } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { resume } from "../../src/patching/resume.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Device } from "../../src/tensor/device.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds, readAll } from "../helpers/model.ts";

// Nothing is held longer than it is needed: by the device's own count of bytes in use.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };

let device: Device;
let photo: RgbImage;

beforeAll(async () => {
  device = await testDevice();
  photo = await loadImage("test/fixtures/images/photo.png");
});

/** Bytes in use at each operation of this name while `work` records, beyond those in use before. */
function bytesAt(operation: string, work: () => object): number[] {
  const before = device.memory.liveBytes;
  const bytes: number[] = [];
  const stop = device.observe((record) => {
    if (record.operation.name === operation) bytes.push(device.memory.liveBytes - before);
  });
  try {
    device.scope(() => void work());
  } finally {
    stop();
  }
  return bytes;
}

describe("a vision tower", () => {
  let model: PatchableModel;
  let seeing: Prompt;
  let reading: Prompt;

  beforeAll(async () => {
    model = await fixtureModel("llava");
    seeing = model.prompt(["Q:", photo, photo, "\nA:"]);
    reading = model.promptFromIds(randomIds(seeing.length, 3));
    model.run(reading).logits!.dispose(); // RoPE's tables stay
  });

  /** The language model alone has RMSNorms; the last one comes before the logits. */
  const inTheLanguageModel = (prompt: Prompt, options: Parameters<typeof model.run>[1] = {}) =>
    bytesAt("rmsNorm", () => model.run(prompt, options));

  test("has given everything back before the language model runs", () => {
    const [expected, found] = [inTheLanguageModel(reading), inTheLanguageModel(seeing)];
    expect(found.length).toBe(expected.length);
    expect(found).toEqual(expected);
  });

  test("leaves what was tapped, and nothing else", async () => {
    const sites: SiteName[] = ["vision.resid_post.0", "vision.resid_post.2", "vision.pattern.1", "projector"];
    const taps = Object.fromEntries(
      sites.flatMap((site) => [0, 1].map((image) => [`${site} ${image}`, tap(site, 2, { image })])),
    );
    const held = 2 * (3 * 256 + 320); // buffers for 48 numbers, and for 4 heads of 17
    const expected = inTheLanguageModel(reading).map((bytes) => bytes + held);
    expect(inTheLanguageModel(seeing, { taps })).toEqual(expected);

    const { logits, ...tapped } = await readAll(model.run(seeing, { taps }));
    for (const site of sites) {
      const whole = await readAll(model.run(seeing, { taps: { x: tap(site, "all", { image: 1 }) } }));
      const row = tapped[`${site} 1`]!;
      const heads = site.startsWith("vision.pattern") ? 4 : 1;
      const of = (head: number) => (whole.x.length / heads) * head + (2 * row.length) / heads;
      const expectedRow = Array.from({ length: heads }, (_, head) => [
        ...whole.x.subarray(of(head), of(head) + row.length / heads),
      ]).flat();
      expectClose(row, Float32Array.from(expectedRow), { ...CLOSE, label: site });
    }
    expectClose(logits!, (await readAll(model.run(seeing))).logits!, CLOSE);
  });

  test("leaves nothing of what edits made in it", () => {
    const sites: SiteName[] = ["vision.embed", "vision.resid_post.0", "vision.pattern.1", "projector"];
    const edits = sites.map((site) => scale(site, "all", 0.5));
    expect(inTheLanguageModel(seeing, { edits })).toEqual(inTheLanguageModel(reading));
  });

  test("leaves nothing to the variants of a recording that go through it again", () => {
    using recording = model.record(seeing);
    using read = model.record(reading);
    const expected = bytesAt("rmsNorm", () => resume(read, [{ edits: [scale("embed", "all", 0.5)] }]));
    const found = bytesAt("rmsNorm", () => resume(recording, [{ edits: [scale("projector", "all", 0.5)] }]));
    expect(Math.max(...found)).toBeLessThanOrEqual(Math.max(...expected) + 4 * 256); // lists of rows
  });

  test.each(["clip", "siglip"])("of %s holds one layer's stream, however many layers", async (name) => {
    const encoder: PatchableDualEncoder = await loadDualEncoder(`test/fixtures/${name}/model`, { device });
    const norms = (work: () => object) => {
      const bytes = bytesAt("layerNorm", work);
      // Two a block; the first of each but the first block.
      const first = bytes.length % 2 === 0 ? 2 : 3;
      return bytes.filter((_, i) => i >= first && i % 2 === first % 2 && i < bytes.length - 1);
    };
    for (const work of [() => encoder.images([photo, photo]), () => encoder.texts(["a cat", "two cats"])]) {
      const bytes = norms(work);
      expect(bytes.length).toBeGreaterThan(1);
      expect(new Set(bytes).size).toBe(1);
    }
    encoder.dispose();
  });
});

describe("patterns of a batch", () => {
  const LENGTHS = [50, 61, 40, 50, 3, 64, 64, 33];
  const HEADS = 4;
  const pattern = (rows: number, keys: number) => HEADS * rows * keys * 4;
  const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
  let model: PatchableModel;
  let prompts: Prompt[];

  beforeAll(async () => {
    model = await fixtureModel("llama");
    prompts = LENGTHS.map((length, i) => model.promptFromIds(randomIds(length, i)));
  });

  /** The most bytes in use while `work` records, its results aside. */
  function peak(work: () => object): number {
    const { liveBytes } = device.memory;
    device.resetPeak();
    device.scope(() => void work());
    return device.peakBytes - liveBytes;
  }

  const plain = () => peak(() => model.run(prompts));
  /** Scores, pattern, and two more for an edit and its mask; buffers are up to a quarter larger. */
  const most = (bytes: number) => 4 * 1.25 * bytes;

  test("take no more than the longest prompt's while they are looked at", () => {
    const found = peak(() =>
      model.run(prompts, { taps: { x: tap("pattern.0", -1), y: tap("scores.1", -1) } }),
    );
    const results = sum(LENGTHS.map((length) => 2 * pattern(1, length) + 512));
    expect(found - plain()).toBeLessThan(most(pattern(64, 64)) + results);
  });

  test("take what the prompts take, once for each tap that keeps them", () => {
    const taps = { x: tap("pattern.0"), y: tap("scores.1") };
    const found = peak(() => model.run(prompts, { taps }));
    const results = 1.25 * 2 * sum(LENGTHS.map((length) => pattern(length, length) + 256));
    expect(found - plain()).toBeLessThan(most(pattern(64, 64)) + results);
  });

  test("take no more where they are edited", () => {
    const edits = [
      zero("pattern.0", -1),
      scale("scores.1", [0, -1], 2),
      zero("pattern.2", "all", { head: 1 }),
    ];
    expect(peak(() => model.run(prompts, { edits })) - plain()).toBeLessThan(2 * most(pattern(64, 64)));
  });

  test("take a row's keys in resumed runs, whatever else was recorded", () => {
    using recording = model.record(prompts);
    const variants = LENGTHS.map((_, prompt) => ({ prompt, edits: [scale("resid_post.0", -1, 2)] }));
    const base = peak(() => resume(recording, variants));
    const found = peak(() => resume(recording, variants, { taps: { x: tap("pattern.1", -1) } }));
    const results = sum(LENGTHS.map((length) => 1.25 * pattern(1, length) + 256));
    expect(found - base).toBeLessThan(most(pattern(1, 64)) + results + 8 * 256);
  });

  test.each(["llama", "mistral"])("are those of single runs, tapped and edited (%s)", async (name) => {
    const model = await fixtureModel(name);
    const prompts = LENGTHS.map((length, i) => model.promptFromIds(randomIds(length, i)));
    const taps = { s: tap("scores.1"), p: tap("pattern.1", [1, -1], { head: 2 }), z: tap("z.1", -1) };
    const value = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
    const edits: Edit[] = [
      scale("scores.1", [0, -1], -1),
      { ...zero("pattern.1", 2, { head: 2 }), prompt: 5 },
      { ...set("pattern.1", -1, value), prompt: 6 },
    ];
    const batch = model.run(prompts, { taps, edits });
    const logits = batch.logits as Tensor<"f32">;
    for (const [i, prompt] of prompts.entries()) {
      const own = edits.flatMap((edit) => {
        const { prompt: of, ...rest } = edit;
        return of === undefined || of === i ? [rest] : [];
      });
      const alone = model.run(prompt, { taps, edits: own });
      expect(batch.s[i]!.shape).toEqual([HEADS, prompt.length, prompt.length]);
      expect(batch.p[i]!.shape).toEqual([2, prompt.length]);
      const found = await readAll({
        s: batch.s[i],
        p: batch.p[i],
        z: (batch.z as Tensor).at(i),
        logits: logits.at(i),
      });
      const wanted = await readAll(alone);
      for (const name of ["s", "p", "z", "logits"] as const) {
        const finite = (x: Float32Array) => x.map((y) => (y === Number.NEGATIVE_INFINITY ? -1e9 : y));
        expectClose(finite(found[name]), finite(wanted[name]!), { ...CLOSE, label: name });
      }
    }
  });
});
