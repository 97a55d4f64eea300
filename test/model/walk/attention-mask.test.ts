import { describe, expect, test } from "vitest";
import { scaleRows, setRows } from "../../../src/kernels/movement/row-edits.ts";
import type { Prompt } from "../../../src/model/prompt/prompt.ts";
import {
  addVector,
  type Edit,
  interpolate,
  projectOnto,
  projectOut,
  scale,
  set,
  zero,
} from "../../../src/patching/edit.ts";
import type { PatchableModel } from "../../../src/patching/model.ts";
import { resume } from "../../../src/patching/resume.ts";
import { tap } from "../../../src/patching/tap.ts";
import { expectClose, randomArray } from "../../helpers/compare.ts";
import { fixtureModel, randomIds, readAll } from "../../helpers/model.ts";

// The attention mask belongs to the model: whatever an edit does to scores or a pattern, no row attends to more than the
// mask lets it. Expected values are the softmax of the edited scores over what a row attends to.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };
const LENGTH = 11; // more than the window of the mistral fixture
const HIDDEN = { scores: Number.NEGATIVE_INFINITY, pattern: 0 };
const T = 0.3;

async function setUp(name: string) {
  const model = await fixtureModel(name);
  const { scores, pattern } = await readAll(
    model.run(model.promptFromIds(randomIds(LENGTH, 5)), {
      taps: { scores: tap("scores.1"), pattern: tap("pattern.1") },
    }),
  );
  return { model, prompt: model.promptFromIds(randomIds(LENGTH, 5)), before: { scores, pattern } };
}

/** An edit of all rows, and what it makes of the elements x that a row attends to, v being the value's. */
type Case = [
  name: string,
  (site: "scores.1" | "pattern.1", v: Float32Array) => Edit,
  (x: number[], v: number[]) => number[],
];

const dot = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
const along = (x: number[], v: number[]) => v.map((y) => (dot(x, v) / dot(v, v)) * y);
const CASES: Case[] = [
  ["zero", (site) => zero(site, "all"), (x) => x.map(() => 0)],
  ["scale by 0", (site) => scale(site, "all", 0), (x) => x.map(() => 0)],
  ["scale by -1", (site) => scale(site, "all", -1), (x) => x.map((y) => -y)],
  ["set", (site, v) => set(site, "all", v), (_, v) => v],
  ["add", (site, v) => addVector(site, "all", v, { scale: -2 }), (x, v) => x.map((y, i) => y - 2 * v[i]!)],
  [
    "interpolate",
    (site, v) => interpolate(site, "all", v, T),
    (x, v) => x.map((y, i) => (1 - T) * y + T * v[i]!),
  ],
  ["interpolate to the end", (site, v) => interpolate(site, "all", v, 1), (_, v) => v],
  ["projectOut", (site, v) => projectOut(site, "all", v), (x, v) => along(x, v).map((y, i) => x[i]! - y)],
  ["projectOnto", (site, v) => projectOnto(site, "all", v), along],
];

describe.each(["llama-gqa-tied", "mistral", "gemma2"])("%s", (name) => {
  describe.each(["scores", "pattern"] as const)("at %s", (kind) => {
    test.each(CASES)("%s leaves what a row does not attend to", async (_, edit, expected) => {
      const { model, prompt, before } = await setUp(name);
      const v = randomArray(LENGTH, 8);
      const taps = { found: tap(`${kind}.1`), pattern: tap("pattern.1") };
      const after = await readAll(model.run(prompt, { taps, edits: [edit(`${kind}.1`, v)] }));
      for (let row = 0; row < before.scores.length / LENGTH; row++) {
        const of = (values: Float32Array) => [...values.subarray(row * LENGTH, (row + 1) * LENGTH)];
        const attended = of(before.scores).flatMap((x, key) => (x === Number.NEGATIVE_INFINITY ? [] : [key]));
        expect(attended.length).toBeLessThanOrEqual((row % LENGTH) + 1);
        const pick = (values: ArrayLike<number>) => attended.map((key) => values[key]!);
        const fill = (values: number[], hidden: number) =>
          Array.from({ length: LENGTH }, (_, key) => values[attended.indexOf(key)] ?? hidden);
        const wanted = expected(pick(of(before[kind])), pick(v));
        expectClose(of(after.found), fill(wanted, HIDDEN[kind]), { ...CLOSE, label: `row ${row}` });
        if (kind === "pattern") continue;
        const weights = wanted.map((x) => Math.exp(x - Math.max(...wanted)));
        const total = weights.reduce((sum, w) => sum + w, 0);
        const shares = weights.map((w) => w / total);
        expectClose(of(after.pattern), fill(shares, 0), { ...CLOSE, label: `pattern of row ${row}` });
      }
    });

    test.each(CASES)("%s gives the same alone, in a batch, resumed and generated", async (_, edit) => {
      const { model, prompt } = await setUp(name);
      const own = edit(`${kind}.1`, randomArray(LENGTH, 8));
      const { logits } = await readAll({ logits: model.run(prompt, { edits: [own] }).logits });
      expect(logits.every(Number.isFinite)).toBe(true);
      const close = { atol: 1e-5 * Math.max(...logits.map(Math.abs)), rtol: 0 };

      const others = [4, 7].map((length, i) => model.promptFromIds(randomIds(length, i)));
      const edits = [{ ...own, prompt: 1 }];
      const batch = await readAll({
        logits: model.run([others[0]!, prompt, others[1]!], { edits }).logits as never,
      });
      expectClose(batch.logits.subarray(logits.length, 2 * logits.length), logits, {
        ...close,
        label: "batch",
      });

      using recording = model.record([others[0]!, prompt]);
      const last = edit(`${kind}.1`, randomArray(LENGTH, 8));
      const variants = [
        { prompt: 0, edits: [zero("mlp_out.0", 1)] },
        { prompt: 1, edits: [own] },
        { prompt: 1, edits: [{ ...last, at: [LENGTH - 2, LENGTH - 1] }] },
      ];
      const resumed = await readAll({ logits: resume(recording, variants).logits });
      expectClose(resumed.logits.subarray(logits.length, 2 * logits.length), logits, {
        ...close,
        label: "resumed",
      });
      const part = await readAll({ logits: model.run(prompt, { edits: variants[2]!.edits }).logits });
      expectClose(resumed.logits.subarray(2 * logits.length), part.logits, {
        ...close,
        label: "resumed rows",
      });

      await expectGenerated(model, prompt, own);
    });
  });

  test("a row set by a walk obeys the mask", async () => {
    const { model, prompt, before } = await setUp(name);
    let pattern: Float32Array | undefined;
    for (const event of model.walk(
      prompt,
      (site) => site === "scores.1" || site === "pattern.1" || site === "z.1",
    )) {
      if (event.site === "pattern.1") pattern = (await event.value.read()) as Float32Array;
      if (event.site === "z.1") break;
      const [heads, rows, keys] = event.value.shape as [number, number, number];
      const flat = event.value.reshape([heads * rows, keys]);
      using zeros = model.device.zeros([keys]);
      event.value = (
        event.site === "scores.1"
          ? setRows(flat, { start: 0, end: heads * rows }, zeros)
          : scaleRows(flat, [0], 1)
      ).reshape(event.value.shape);
    }
    const expected = Array.from(before.pattern, (_, i) => {
      const start = i - (i % LENGTH);
      const attended = before.scores
        .subarray(start, start + LENGTH)
        .filter((x) => x !== HIDDEN.scores).length;
      return before.scores[i] === HIDDEN.scores ? 0 : 1 / attended;
    });
    expectClose(pattern!, expected, CLOSE);
  });
});

/** With a cache every step gives what a run over everything so far gives, where the value has more keys to name. */
async function expectGenerated(model: PatchableModel, prompt: Prompt, edit: Edit): Promise<void> {
  const at = Array.from({ length: prompt.length }, (_, i) => i);
  const { ids } = await model.generate(prompt, { maxNewTokens: 4, edits: [{ ...edit, at }], stopIds: [] });
  for (let step = 0; step < ids.length; step++) {
    const sequence = model.promptFromIds([...prompt.ids, ...ids.slice(0, step)]);
    const value = edit.value && [...(edit.value as Float32Array), ...Array<number>(step).fill(3)];
    const { logits } = await readAll({
      logits: model.run(sequence, { edits: [{ ...edit, at, value }] }).logits,
    });
    expect(ids[step], `step ${step}`).toBe(logits.indexOf(Math.max(...logits)));
  }
}

test("keys that an edit takes from a row stay out of it", async () => {
  const { model, prompt } = await setUp("llama-gqa-tied");
  const without = new Float32Array(LENGTH);
  without[3] = Number.NEGATIVE_INFINITY;
  const knockOut = addVector("scores.1", "all", without);
  const taps = { scores: tap("scores.1"), pattern: tap("pattern.1") };
  const after = [
    projectOut("scores.1", "all", randomArray(LENGTH, 2)),
    interpolate("scores.1", "all", without, 0),
  ];
  for (const edit of after) {
    const { scores, pattern } = await readAll(model.run(prompt, { taps, edits: [knockOut, edit] }));
    for (let at = 3; at < pattern.length; at += LENGTH)
      expect([scores[at], pattern[at]]).toEqual([HIDDEN.scores, 0]);
    expect(pattern.every(Number.isFinite)).toBe(true);
    expect(pattern.filter((p) => p > 0).length).toBeGreaterThan(LENGTH);
  }
});
