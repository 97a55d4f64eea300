import { inspect } from "node:util";
import { describe, expect, test } from "vitest";
import { HeadRanking } from "../../src/analysis/heads/rank-heads.ts";
import { attributionMap } from "../../src/analysis/maps/attribution-map.ts";
import { patchMap } from "../../src/analysis/maps/patch-map.ts";
import type { PatchMap } from "../../src/analysis/maps/patch-map-result.ts";
import type { PatchDirection } from "../../src/analysis/maps/patch-pairs.ts";
import { heatFigure } from "../../src/figures/heat-figure.ts";
import { mul } from "../../src/kernels/elementwise/elementwise.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { interpolate } from "../../src/patching/edit.ts";
import { klDivergence, logitDifference, logProbability, type Metric } from "../../src/patching/metric.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, largest } from "../helpers/compare.ts";
import { fixtureModel, randomIds } from "../helpers/model.ts";

const LENGTH = 7;
const FIRST = 4;
const METRIC = logitDifference(30, 40);
/** Of the way to the other prompt's activation, for central differences. */
const STEP = 0.005;

/** Two prompts that differ at one position. */
async function setUp(name: string) {
  const model = await fixtureModel(name);
  const ids = randomIds(LENGTH, 5);
  const clean = model.promptFromIds(ids);
  const corrupted = model.promptFromIds(ids.with(FIRST, ids[FIRST]! + 1));
  return { model, clean, corrupted };
}

interface PatchedCell {
  readonly site: SiteName;
  readonly at: number | readonly number[];
  readonly head?: number;
}

/** What each patch does to the logit difference per unit of the way, by central differences of full runs. */
async function slopes(
  model: PatchableModel,
  [base, source]: readonly [Prompt, Prompt],
  cells: readonly PatchedCell[],
): Promise<number[]> {
  const { device } = model;
  const logits = device.scope(() => {
    const edits = cells.flatMap(({ site, at, head }, i) => {
      const part = head === undefined ? {} : { head };
      const { x } = model.run(source, { taps: { x: tap(site, at, part) } });
      return [STEP, -STEP].map((t, k) => interpolate(site, at, x, t, { ...part, prompt: 2 * i + k }));
    });
    return model.run(
      edits.map(() => base),
      { edits },
    ).logits as Tensor;
  });
  const values = await logits.read();
  const vocab = logits.dim(1);
  logits.dispose();
  const metric = (row: number) => values[row * vocab + 30]! - values[row * vocab + 40]!;
  return cells.map((_, i) => (metric(2 * i) - metric(2 * i + 1)) / (2 * STEP));
}

function pairOf(clean: Prompt, corrupted: Prompt, direction: PatchDirection): [base: Prompt, source: Prompt] {
  return direction === "denoising" ? [corrupted, clean] : [clean, corrupted];
}

/** What each cell adds to the patched prompt's metric. */
function added({ values, clean, corrupted, direction }: PatchMap): number[] {
  return values.flat().map((value) => value - (direction === "denoising" ? corrupted : clean));
}

/** Within a hundredth of the largest. */
function expectSlopes(found: readonly number[], expected: readonly number[]): void {
  expect(largest(expected)).toBeGreaterThan(1e-3);
  expectClose(found, expected, { atol: 1e-2 * largest(expected), rtol: 0 });
}

const FAMILIES = [
  ...["llama-gqa-tied", "mistral", "gemma", "gemma2", "gemma3_text", "gpt_neox", "gpt2"],
  ...["qwen2", "qwen3", "olmo2", "phi3-longrope", "persimmon"],
];

describe.each(FAMILIES)("%s", (name) => {
  test.each(["denoising", "noising"] as const)(
    "by position is the slope of the patch, %s",
    async (direction) => {
      const { model, clean, corrupted } = await setUp(name);
      const map = await attributionMap(model, clean, corrupted, {
        sites: ["embed", "resid_pre.1", "attn_out.0", "mlp_out.1", "mlp_act.0"],
        metric: METRIC,
        direction,
      });
      expect(map.columns).toHaveLength(LENGTH - FIRST);
      const cells = map.rows.flatMap((site) =>
        map.columns.map((column) => ({ site, at: (column as { position: number }).position })),
      );
      expectSlopes(added(map), await slopes(model, pairOf(clean, corrupted, direction), cells));
      const exact = await patchMap(model, clean, corrupted, { sites: "embed", metric: METRIC, direction });
      expectClose([map.clean, map.corrupted], [exact.clean, exact.corrupted], { atol: 1e-5, rtol: 1e-4 });
    },
  );

  test.each(["z.*", "k.1", "pattern.*", "scores.1"] as const)(
    "by head is the slope of the patch: %s",
    async (sites) => {
      const { model, clean, corrupted } = await setUp(name);
      const map = await attributionMap(model, clean, corrupted, { sites, heads: true, metric: METRIC });
      const at = Array.from({ length: LENGTH - FIRST }, (_, i) => FIRST + i);
      const cells = map.rows.flatMap((site) =>
        map.columns.map((column) => ({ site, at, head: (column as { head: number }).head })),
      );
      expectSlopes(added(map), await slopes(model, [corrupted, clean], cells));
    },
  );
});

describe("an estimate", () => {
  test("is exact where the metric is linear in the patch", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const options = { sites: ["final_norm", "logits"], positions: [-1], metric: METRIC } as const;
    const exact = await patchMap(model, clean, corrupted, options);
    const map = await attributionMap(model, clean, corrupted, options);
    expectClose(map.values.flat(), exact.values.flat(), { atol: 1e-5, rtol: 1e-5 });
    expectClose(map.effects.flat(), [1, 1], { atol: 1e-4, rtol: 0 });
  });

  test("in steps adds up to the whole difference over the embedding, the better the more steps", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const errors: number[] = [];
    for (const steps of [8, 16, 64]) {
      const map = await attributionMap(model, clean, corrupted, { sites: "embed", metric: METRIC, steps });
      const sum = map.effects.flat().reduce((a, b) => a + b, 0);
      errors.push(Math.abs(sum - 1));
    }
    expect(errors[1]!).toBeLessThan(errors[0]! / 2);
    expect(errors[2]!).toBeLessThan(2e-4);
  });

  test("in steps does not depend on how they are batched", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const options = { sites: ["resid_pre.*", "mlp_out.0"], metric: METRIC, steps: 5 } as const;
    const whole = await attributionMap(model, clean, corrupted, options);
    const parts = await attributionMap(model, clean, corrupted, { ...options, batchRows: 2 * LENGTH });
    expectClose(parts.values.flat(), whole.values.flat(), { atol: 1e-5, rtol: 1e-5 });
    expect(parts.rowLayers).toBe(whole.rowLayers);
  });

  test.each(["llama", "gpt2", "gemma2"])("in steps is closer than without: %s", async (name) => {
    const { model, clean, corrupted } = await setUp(name);
    const options = { sites: "resid_pre.*", metric: METRIC } as const;
    const exact = await patchMap(model, clean, corrupted, options);
    const error = async (steps?: number) => {
      const map = await attributionMap(model, clean, corrupted, { ...options, ...(steps && { steps }) });
      return largest(added(map).map((x, i) => x - added(exact)[i]!));
    };
    expect(await error(8)).toBeLessThan(await error());
  });

  test("is of any metric that maps have", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const difference: Metric = (logits) => {
      const of = (id: number) => logits.slice(1, id, id + 1);
      return mul(of(30), 2).reshape([logits.dim(0)]);
    };
    for (const metric of [logProbability(30), klDivergence(), difference]) {
      for (const direction of ["denoising", "noising"] as const) {
        const options = { metric, direction, sites: "resid_pre.0" } as const;
        const exact = await patchMap(model, clean, corrupted, options);
        const map = await attributionMap(model, clean, corrupted, { ...options, steps: 48 });
        expectClose([map.clean, map.corrupted], [exact.clean, exact.corrupted], { atol: 1e-5, rtol: 1e-4 });
        // A single position differs, so that all of the way leads through its cell.
        const [estimate, whole] = [added(map)[0]!, added(exact)[0]!];
        expectClose([estimate], [whole], { atol: 1e-4, rtol: 2e-2 });
      }
    }
    // The divergence is least where the prompt is the clean one's own.
    const options = { metric: klDivergence(), direction: "noising" } as const;
    expectClose(added(await attributionMap(model, clean, corrupted, options)), Array(9).fill(0), {
      atol: 1e-5,
      rtol: 0,
    });
  });

  test("by default is of the tokens that the prompts are answered with", async () => {
    const { model, clean, corrupted } = await setUp("gpt2");
    const maps = [patchMap, attributionMap].map((map) => map(model, clean, corrupted).then(String, String));
    const [exact, estimate] = await Promise.all(maps);
    const head = (text: string) => text.split("\n")[0]!.replaceAll(/patchMap|attributionMap/g, "");
    expect(head(estimate!)).toBe(head(exact!));
  });

  test("says that it is one, and how it was made", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const exact = await patchMap(model, clean, corrupted, { metric: METRIC });
    const plain = await attributionMap(model, clean, corrupted, { metric: METRIC });
    const steps = await attributionMap(model, clean, corrupted, { metric: METRIC, steps: 2 });
    expect([exact, plain, steps].map(({ method, steps }) => [method, steps])).toEqual([
      ["exact", undefined],
      ["attribution", undefined],
      ["integrated gradients", 2],
    ]);
    expect(`${exact}`).not.toContain("estimated");
    expect(inspect(plain)).toContain("(denoising), estimated by attribution patching\n");
    expect(`${steps}`).toContain("estimated by integrated gradients in 2 steps\n");
    const svg = await heatFigure(steps).svg();
    expect(svg).toContain("estimated by integrated gradients in 2 steps");
    expect(await heatFigure(exact).svg()).not.toContain("estimated");
    const heads = await attributionMap(model, clean, corrupted, { metric: METRIC, heads: true });
    expect(`${new HeadRanking(heads)}`).toMatch(/; effects estimated by attribution patching\nlayer\.head/);
    expect(heads.rowLayers).toBeLessThan(heads.plainRowLayers / 2);
    expect(() => new HeadRanking(plain)).toThrow(/a map by head \(heads: true\), found one by position/);
  });

  test("leaves no memory behind, not even after an error", async () => {
    const { model, clean, corrupted } = await setUp("llama");
    const run = async () => {
      await attributionMap(model, clean, corrupted, { metric: METRIC, steps: 3, batchRows: 10 });
      const nan: Metric = (logits) => mul(logits.slice(1, 0, 1), Number.NaN).reshape([logits.dim(0)]);
      await expect(attributionMap(model, clean, corrupted, { metric: nan })).rejects.toThrow(
        /attributionMap: the metric is NaN with resid_pre\.0 patched at position 4/,
      );
    };
    await run();
    const before = model.device.memory.liveBytes;
    await run();
    expect(model.device.memory.liveBytes).toBe(before);
  });
});

describe("of pictures", () => {
  const pictures = (model: PatchableModel, size: number) =>
    [37, 91].map((step) => {
      const data = new Uint8Array(size * size * 3).map((_, i) => (i * step) % 256);
      return model.prompt(["Q: ", { data, width: size, height: size }, " A:"]);
    }) as [Prompt, Prompt];

  test("an estimate begins with the picture, whose features the steps go through", async () => {
    const model = await fixtureModel("llava");
    const [a, b] = pictures(model, 8);
    const { start } = a.span("image");
    const options = { metric: METRIC, sites: ["embed", "resid_post.0"] } as const;
    const map = await attributionMap(model, a, b, { ...options, steps: 16 });
    expect(map.columns[0]).toMatchObject({ position: start });
    expectClose([map.effects[0]!.reduce((x, y) => x + y, 0)], [1], { atol: 5e-3, rtol: 0 });
    const image = await attributionMap(model, a, b, { ...options, positions: { span: "image" } });
    expect(image.columns).toHaveLength(a.span("image").end - start);
  });

  test("that are read by cross-attention there are no steps", async () => {
    const model = await fixtureModel("idefics");
    const [a, b] = pictures(model, 16);
    await expect(attributionMap(model, a, b, { metric: METRIC, steps: 2 })).rejects.toThrow(
      /reads them by cross-attention/,
    );
  });
});

describe("refuses", () => {
  test.each([
    [
      "steps that are none",
      { metric: METRIC, steps: 0 },
      /attributionMap: expected steps .* from 1, found 0/,
    ],
    ["a batch of no prompt", { metric: METRIC, onProgress: () => {} }, /has no "onProgress"/],
    [
      "patterns by position",
      { metric: METRIC, sites: "pattern.*" },
      /attributionMap: pattern\.0 is patched head by head/,
    ],
    ["vision sites of a text model", { metric: METRIC, sites: "vision.z.*" }, /attributionMap|vision/],
  ])("%s", async (_, options, message) => {
    const { model, clean, corrupted } = await setUp("llama");
    await expect(attributionMap(model, clean, corrupted, options as never)).rejects.toThrow(message);
  });

  test("prompts that do not fit each other, unless positions do", async () => {
    const { model, clean } = await setUp("llama");
    const longer = model.promptFromIds([5, ...clean.ids]);
    await expect(attributionMap(model, clean, longer, { metric: METRIC })).rejects.toThrow(
      /attributionMap: expected prompts of one length, found 8 and 7/,
    );
    const positions = [-2, -1];
    const map = await attributionMap(model, clean, longer, {
      metric: METRIC,
      positions,
      sites: "resid_pre.1",
    });
    const cells = [LENGTH - 1, LENGTH].map((at) => ({ site: "resid_pre.1" as const, at: at - LENGTH - 1 }));
    expectSlopes(added(map), await slopes(model, [longer, clean], cells));
    await expect(
      attributionMap(model, clean, longer, { metric: METRIC, positions, sites: "pattern.0", heads: true }),
    ).rejects.toThrow(/pattern\.0: expected values for 8 keys, found 7/);
  });
});
