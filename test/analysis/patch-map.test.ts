import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { rankHeads } from "../../src/analysis/heads/rank-heads.ts";
import { patchMap } from "../../src/analysis/maps/patch-map.ts";
import { PatchMap } from "../../src/analysis/maps/patch-map-result.ts";
import { mul } from "../../src/kernels/elementwise/elementwise.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { type Edit, set } from "../../src/patching/edit.ts";
import {
  klDivergence,
  logitDifference,
  logProbability,
  type Metric,
  probability,
} from "../../src/patching/metric.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectClose } from "../helpers/compare.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

const LENGTH = 9;
const FIRST = 4;

/** Two prompts that differ at one position. */
async function setUp(name: string) {
  const model = await fixtureModel(name);
  const ids = randomIds(LENGTH, 5);
  const clean = model.promptFromIds(ids);
  const corrupted = model.promptFromIds(ids.with(FIRST, ids[FIRST]! + 1));
  return { model, clean, corrupted };
}

/** Metrics in f64 from logits, written another way. */
const METRICS: readonly [Metric, (logits: Float32Array, clean: Float32Array) => number][] = [
  [logitDifference(30, 40), (logits) => logits[30]! - logits[40]!],
  [logProbability(30), (logits) => Math.log(softmax(logits)[30]!)],
  [probability(30), (logits) => softmax(logits)[30]!],
  [
    klDivergence(),
    (logits, clean) => {
      const [p, q] = [softmax(clean), softmax(logits)];
      return p.reduce((sum, x, i) => sum + x * Math.log(x / q[i]!), 0);
    },
  ],
];

function softmax(logits: Float32Array): number[] {
  const largest = Math.max(...logits);
  const powers = [...logits].map((x) => Math.exp(x - largest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((x) => x / sum);
}

/** The same by full runs: one site of `source` set in `base`. */
async function fullRun(
  model: PatchableModel,
  [base, source]: readonly [Prompt, Prompt],
  site: SiteName,
  at: number | readonly number[],
  head?: number,
): Promise<Float32Array> {
  const part = head === undefined ? {} : { head };
  const { x } = model.run(source, { taps: { x: tap(site, at, part) } });
  const edits: Edit[] = [set(site, at, x, part)];
  return await model.run(base, { edits }).logits!.read();
}

describe.each(["llama-gqa-tied", "gemma2", "gpt_neox", "gpt2"])("%s", (name) => {
  test.each(["denoising", "noising"] as const)(
    "a map by position equals full runs, %s",
    async (direction) => {
      const { model, clean, corrupted } = await setUp(name);
      const pair = direction === "denoising" ? ([corrupted, clean] as const) : ([clean, corrupted] as const);
      const cleanLogits = await model.run(clean).logits!.read();
      const corruptedLogits = await model.run(corrupted).logits!.read();
      const full: Float32Array[] = [];
      const rows: SiteName[] = ["resid_pre.0", "resid_pre.1", "mlp_out.1", "resid_pre.2"];
      for (const site of rows) {
        for (let at = FIRST; at < LENGTH; at++) full.push(await fullRun(model, pair, site, at));
      }
      for (const [metric, expected] of METRICS) {
        const map = await patchMap(model, clean, corrupted, {
          sites: ["resid_pre.*", "mlp_out.1"],
          metric,
          direction,
          batchRows: 40,
        });
        expect(map.columns).toHaveLength(LENGTH - FIRST);
        expect(map.rows).toEqual(rows);
        expect(map.rowLayers).toBeLessThan(map.plainRowLayers / 2);
        const wanted = full.map((logits) => expected(logits, cleanLogits));
        expectClose(map.values.flat(), wanted, { atol: 2e-5, rtol: 1e-4 });
        expectClose(
          [map.clean, map.corrupted],
          [expected(cleanLogits, cleanLogits), expected(corruptedLogits, cleanLogits)],
          { atol: 2e-5, rtol: 1e-4 },
        );
        // Where the prompts differ the stream that enters the model is all there is.
        const [first] = map.effects;
        expectClose(first!, [1, 0, 0, 0, 0], { atol: 1e-2, rtol: 0 });
      }
    },
  );

  test("a ranking of heads equals full runs", async () => {
    const { model, clean, corrupted } = await setUp(name);
    const ranking = await rankHeads(model, clean, corrupted, { metric: logitDifference(30, 40) });
    expect(ranking.heads).toHaveLength(model.config.layers * model.config.heads);
    const at = Array.from({ length: LENGTH - FIRST }, (_, i) => FIRST + i);
    for (const { layer, head, value } of ranking) {
      const logits = await fullRun(model, [corrupted, clean], `z.${layer}`, at, head);
      expectClose([value], [logits[30]! - logits[40]!], { atol: 2e-5, rtol: 1e-4 });
    }
    const sizes = ranking.heads.map(({ effect }) => Math.abs(effect));
    expect(sizes).toEqual(sizes.toSorted((a, b) => b - a));
  });
});

describe("a map", () => {
  test("over patterns, of chosen heads and positions, by a metric of one's own", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const map = await patchMap(model, clean, corrupted, {
      sites: "pattern.*",
      heads: [2, 0],
      positions: [-2, -1],
      metric: (logits) => mul(logits.slice(1, 30, 31), 2).reshape([logits.dim(0)]),
    });
    expect(map.columns).toEqual([{ head: 2 }, { head: 0 }]);
    const logits = await fullRun(model, [corrupted, clean], "pattern.1", [LENGTH - 2, LENGTH - 1], 2);
    expectClose([map.values[1]![0]!], [2 * logits[30]!], { atol: 1e-5, rtol: 1e-4 });
  });

  test("prints, and is data", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const map = await patchMap(model, clean, corrupted, { metric: logitDifference(30, 40) });
    const lines = `${map}`.split("\n");
    expect(lines[0]).toMatch(/^logit of ".*" − ".*": -?[\d.]+ clean, -?[\d.]+ corrupted$/);
    expect(lines[2]!.trim().split(/ +/)).toEqual(["4", "5", "6", "7", "8"]);
    expect(lines[4]).toMatch(/^resid_pre\.0 +100 +0 +0 +0 +0$/);
    expect(lines).toHaveLength(4 + model.config.layers);
    expect(inspect(map)).toBe(`${map}`);
    expect(JSON.parse(JSON.stringify(map)).values).toEqual(map.values);
    const strongest = map.top();
    expect(strongest.map(({ effect }) => Math.abs(effect))).toEqual(
      map.effects
        .flat()
        .map(Math.abs)
        .sort((a, b) => b - a),
    );
    expect(strongest.find(({ site }) => site === "resid_pre.0")).toMatchObject({ layer: 0, position: FIRST });
    const ranking = await rankHeads(model, clean, corrupted, { metric: logitDifference(30, 40) });
    expect(inspect(ranking)).toMatch(/\nlayer\.head +patched +effect\n\d\.\d /);
  });

  test("of many columns prints those with the largest effects", () => {
    const columns = Array.from({ length: 30 }, (_, position) => ({ position, token: "\n" }));
    const values = [columns.map(({ position }) => (position % 2 === 0 ? position : -0.5))];
    const shared = { direction: "noising", metric: "m", rowLayers: 1, plainRowLayers: 1 } as const;
    const map = new PatchMap({ rows: ["embed"], columns, values, clean: 0, corrupted: 100, ...shared });
    const lines = `${map}`.split("\n");
    const even = Array.from({ length: 13 }, (_, i) => `${4 + 2 * i}`);
    expect(lines[2]!.trim().split(/ +/)).toEqual(["1", "2", "3", ...even]);
    expect(lines.at(-1)).toBe("and 14 more columns, with effects of at most 1 %");
    const same = new PatchMap({ rows: ["embed"], columns, values, clean: 1, corrupted: 1, ...shared });
    expect(same.top(1)[0]).toMatchObject({ position: 28, value: 28 });
    expect(`${same}`).toContain("Infinity");
  });

  test("tells progress and counts what it computes", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const told: number[][] = [];
    await rankHeads(model, clean, corrupted, {
      metric: logitDifference(30, 40),
      batchRows: 4 * (LENGTH - FIRST),
      onProgress: (...of) => told.push(of),
    });
    expect(told).toEqual([4, 8, 12].map((done) => [done, 12]));
  });

  test("leaves no memory behind, not even after an error", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const metric = logitDifference(30, 40);
    const run = async () => {
      await rankHeads(model, clean, corrupted, { metric });
      const broken = () => {
        throw new Error("broken");
      };
      await expect(patchMap(model, clean, corrupted, { metric, onProgress: broken })).rejects.toThrow(
        "broken",
      );
    };
    await run();
    const before = model.device.memory.liveBytes;
    await run();
    expect(model.device.memory.liveBytes).toBe(before);
  });

  test("by default is of the tokens that the prompts are answered with", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const same = model.run([clean, corrupted]).logits;
    const [a, b] = await Promise.all(
      [0, 1].map((i) => (same as never as { at(i: number): { read(): Promise<Float32Array> } }).at(i).read()),
    );
    const best = (x: Float32Array) => x.indexOf(Math.max(...x));
    if (best(a!) === best(b!)) {
      await expect(patchMap(model, clean, corrupted)).rejects.toThrow(/other answers/);
    } else {
      const map = await patchMap(model, clean, corrupted);
      const metric = logitDifference(best(a!), best(b!));
      expect(map.values).toEqual((await patchMap(model, clean, corrupted, { metric })).values);
    }
  });
});

test("of prompts with different pictures a map begins with the picture", async () => {
  const model = await fixtureModel("llava");
  const [a, b] = [37, 91].map((step) => {
    const data = new Uint8Array(8 * 8 * 3).map((_, i) => (i * step) % 256);
    return model.prompt(["Q: ", { data, width: 8, height: 8 }, " A:"]);
  }) as [Prompt, Prompt];
  const { start, end } = a.span("image");
  const metric = logitDifference(30, 40);
  const map = await patchMap(model, a, b, { metric, sites: ["embed", "resid_post.0"] });
  expect(map.columns).toHaveLength(a.length - start);
  expect(map.columns[0]).toMatchObject({ position: start });
  const logits = await fullRun(model, [b, a], "resid_post.0", end - 1);
  expectClose([map.values[1]![end - 1 - start]!], [logits[30]! - logits[40]!], { atol: 2e-5, rtol: 1e-4 });
  const whole = await patchMap(model, a, b, {
    metric,
    sites: "v.*",
    heads: true,
    positions: { span: "image" },
  });
  expect(whole.columns).toHaveLength(model.config.kvHeads);
});

describe("refuses", () => {
  const metric = logitDifference(30, 40);

  test.each([
    ["a pattern without a site", { metric, sites: "resid_pots.*" }, /nearest is "resid_post\.\*"/],
    ["heads of a site without", { metric, sites: "mlp_out.*", heads: true }, /mlp_out\.0, which has none/],
    ["patterns by position", { metric, sites: "pattern.*" }, /give heads: true/],
    ["a head that is not there", { metric, heads: [9] }, /heads from 0 to 3, found 9/],
    [
      "a metric that is none",
      { metric: { kind: "logits" } },
      /expected metric to be a function, or an object/,
    ],
    ["a metric of plain numbers", { metric: () => 1 }, /what the function returns to be a Tensor/],
    [
      "a text of several tokens",
      { metric: logitDifference("Hello there", 3) },
      /one token, found "Hello there"/,
    ],
    ["an id that is not there", { metric: probability(1e6) }, /token id from 0 to/],
    ["an option that is none", { metrics: metric }, /has no "metrics"; the nearest is "metric"/],
  ])("%s", async (_, options, message) => {
    const { model, clean, corrupted } = await setUp("llama");
    await expect(patchMap(model, clean, corrupted, options as never)).rejects.toThrow(message);
  });

  test("prompts that do not fit each other, unless positions do", async () => {
    const { model, clean } = await setUp("llama");
    const longer = model.promptFromIds([5, ...clean.ids]);
    await expect(patchMap(model, clean, longer, { metric })).rejects.toThrow(/one length, found 10 and 9/);
    await expect(patchMap(model, clean, clean, { metric })).rejects.toThrow(/prompts that differ/);
    await expect(patchMap(model, clean, longer, { metric, positions: "all" })).rejects.toThrow(/as many/);
    const map = await patchMap(model, clean, longer, { metric, positions: [-2, -1] });
    const logits = await fullRun(model, [longer, clean], "resid_pre.1", -1);
    expectClose([map.values[1]![1]!], [logits[30]! - logits[40]!], { atol: 2e-5, rtol: 1e-4 });
  });

  test("vision sites, and numbers that are none", async () => {
    const llava = await fixtureModel("llava");
    const [a, b] = ["Q: A:", "Q: B:"].map((text) => llava.prompt(text)) as [Prompt, Prompt];
    await expect(patchMap(llava, a, b, { sites: "vision.z.*", metric })).rejects.toThrow(/rows are tokens/);
    const { model, clean, corrupted } = await setUp("llama");
    const nan: Metric = (logits) => mul(logits.slice(1, 0, 1), Number.NaN).reshape([logits.dim(0)]);
    await expect(patchMap(model, clean, corrupted, { metric: nan })).rejects.toThrow(
      /NaN with resid_pre\.0 patched at position 4/,
    );
    expect(() => logitDifference(3, undefined as never)).toThrow(/expected against to be/);
  });
});
