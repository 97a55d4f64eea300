import { describe, expect, test } from "vitest";
import { cosineSimilarity } from "../../src/analysis/vectors/similarity.ts";
import { SiteError } from "../../src/errors.ts";
import { keepDirectionRows, projectOutRows } from "../../src/kernels/movement/row-edits.ts";
import { norm } from "../../src/kernels/reduction/reduce.ts";
import { projectOnto, projectOut } from "../../src/patching/edit.ts";
import { resume } from "../../src/patching/resume.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, randomIds, readAll } from "../helpers/model.ts";

// The squares of numbers beyond 1e19 overflow in f32, those of numbers below 1e-23 vanish. A direction is one whatever
// its length, and so are angles.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };
const LENGTHS = [1, 1e20, 3e37, 1e-25, 1e-30]; // below 1e-38 drivers may take elements for 0
const dot = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, x, i) => sum + x * b[i]!, 0);

describe.each(["register", "workgroup"] as const)("%s kernels", (kernels) => {
  test.each(LENGTHS)("project along a direction of length about %f", async (length) => {
    const device = await testDevice({ kernels });
    const [x, v] = [randomArray(3 * 130, 1), randomArray(130, 2)];
    const rows = device.tensor(x, { shape: [3, 130] });
    const direction = device.tensor(v.map((y) => y * length));
    const [out, kept] = await device.read([
      projectOutRows(rows, { start: 0, end: 3 }, direction),
      keepDirectionRows(rows, [0, 1, 2], direction),
    ]);
    const component = Array.from(x, (_, i) => {
      const row = x.subarray(i - (i % 130), i - (i % 130) + 130);
      return (dot(row, v) / dot(v, v)) * v[i % 130]!;
    });
    expectClose(kept, component, CLOSE);
    expectClose(
      out,
      component.map((y, i) => x[i]! - y),
      CLOSE,
    );
  });

  test("project along what is no direction gives NaN", async () => {
    const device = await testDevice({ kernels });
    const rows = device.tensor([1, 2, 3, 4], { shape: [2, 2] });
    for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const out = await projectOutRows(rows, [1], device.tensor([1, wrong])).read();
      expect([...out]).toEqual([1, 2, Number.NaN, Number.NaN]);
    }
  });
});

describe("similarity and length", () => {
  test.each(LENGTHS)("of vectors about %f long", async (length) => {
    const device = await testDevice();
    const [a, b] = [randomArray(200, 3), randomArray(200, 4)];
    const scaled = device.tensor(a.map((x) => x * length));
    const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    const [same, other, size] = await device.read([
      cosineSimilarity(scaled, scaled),
      cosineSimilarity(scaled, device.tensor(b.map((x) => x * 1e-7))),
      norm(scaled),
    ]);
    expectClose(same, [1], CLOSE);
    expectClose(other, [cosine], CLOSE);
    expectClose(size, [length * Math.sqrt(dot(a, a))], { atol: 0, rtol: 1e-5 });
  });

  test("of zeros, infinities and NaN", async () => {
    const device = await testDevice();
    const rows = device.tensor([0, 0, 1, Number.POSITIVE_INFINITY, 1, Number.NaN], { shape: [3, 2] });
    const [lengths, cosines] = await device.read([
      norm(rows, 1),
      cosineSimilarity(rows, device.tensor([1, 1])),
    ]);
    expect([...lengths]).toEqual([0, Number.POSITIVE_INFINITY, Number.NaN]);
    expect([...cosines]).toEqual([0, Number.NaN, Number.NaN]);
  });
});

describe("an edit", () => {
  const v = randomArray(48, 6);
  const setUp = async () => {
    const model = await fixtureModel("llama-gqa-tied");
    return { model, prompt: model.promptFromIds(randomIds(6, 1)) };
  };

  test.each([...LENGTHS, 1e-300, 1e200])("takes a direction of length about %f", async (length) => {
    const { model, prompt } = await setUp();
    const taps = { before: tap("resid_mid.1") };
    const { before } = await readAll(model.run(prompt, { taps }));
    const direction = Array.from(v, (y) => y * length);
    const values =
      length > 1e-40 && length < 1e38 ? [direction, model.device.tensor(direction)] : [direction];
    for (const value of values) {
      const edits = [projectOut("resid_mid.1", "all", value)];
      const after = (await readAll(model.run(prompt, { taps, edits }))).before;
      const expected = before.map((x, i) => {
        const row = before.subarray(i - (i % 48), i - (i % 48) + 48);
        return x - (dot(row, v) / dot(v, v)) * v[i % 48]!;
      });
      expectClose(after, expected, CLOSE);
    }
  });

  test.each([
    ["zeros", 0, /zeros alone/],
    ["NaN", Number.NaN, /found NaN/],
    ["an infinity", Number.NEGATIVE_INFINITY, /found Infinity/],
  ])("refuses a direction of %s by name", async (_, wrong, message) => {
    const { model, prompt } = await setUp();
    const direction = Array.from(v, (_, i) => (i === 5 || wrong === 0 ? wrong : 1));
    const tensor = model.device.tensor(direction);
    for (const edit of [projectOut, projectOnto]) {
      const attempt = () => model.run(prompt, { edits: [edit("q.1", 3, direction)] });
      expect(attempt).toThrow(
        /^project(Out|Onto) at q\.1, position 3: expected a direction of finite numbers/,
      );
      expect(attempt).toThrow(message);
      const edits = [edit("q.1", 3, tensor)];
      await expect(model.generate(prompt, { maxNewTokens: 1, edits })).rejects.toThrow(message);
      await expect(model.generate(prompt, { maxNewTokens: 1, edits })).rejects.toThrow(SiteError);
      // A run waits for nothing: what is not read cannot be refused, but it must not pass for an edit that did nothing.
      const { z } = await readAll(model.run(prompt, { edits, taps: { z: tap("z.1", 3) } }));
      expect(z.some(Number.isNaN)).toBe(true);
    }
    using recording = model.record(prompt);
    const { logits } = await readAll({
      logits: resume(recording, [{ edits: [projectOut("q.1", -1, tensor)] }]).logits,
    });
    expect(logits.every(Number.isNaN)).toBe(true);
  });
});
