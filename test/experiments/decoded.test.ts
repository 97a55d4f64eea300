import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { decodedSets } from "../../experiments/cells/decoded-sets.ts";
import { efficiency } from "../../experiments/cells/efficiency.ts";
import { chosenLayer } from "../../experiments/cells/layer-sweep.ts";
import { validationCells } from "../../experiments/cells/validation.ts";
import { decoded, overlap, overlaps } from "../../experiments/decoded.ts";
import { efficiencyExperiment } from "../../experiments/efficiency.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { type Finished, runExperiments } from "../../experiments/framework/runner.ts";
import { logitLens } from "../../src/analysis/lens/logit-lens.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { atLastExample, drawItems, exampleOf, fewShotPrompt } from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { picturedItemsOf, type Task } from "../../src/tasks/task.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-decoded-"));
afterAll(() => rmSync(root, { recursive: true }));

let model: PatchableModel;
let tasks: Task[];
let lab: Lab;
let finished: Finished[];
beforeAll(async () => {
  model = await fixtureModel("llava");
  tasks = ["alpha", "gamma ray"].map((name) => randomTask(model, name));
  lab = await openLab(join(root, "run"), model, tasks);
  finished = await runExperiments(lab, [decoded, efficiencyExperiment]);
});

describe("decoded sets", () => {
  test("are what the logit lens shows at the last example's answer cue", async () => {
    const [task] = tasks;
    const items = picturedItemsOf(task!, "validation");
    const pictures = await loadPictures(model, items);
    const params = { task: "alpha", specification: "image", seed: 1 } as const;
    const { layer, layers, sets } = lab.result(decodedSets(params));
    expect(layer).toBe(chosenLayer(lab, { specification: "text", query: "text" }, task!));
    expect(layers).toEqual([0, 1, 2]);
    expect(sets.map(({ of }) => of)).toEqual(items.map(({ input }) => input));
    for (const [i, item] of items.entries()) {
      const shown = drawItems(items, item, { count: OPTIONS.shots, seed: 1 });
      const examples = shown.map((one) => exampleOf(one, pictures));
      const prompt = fewShotPrompt(model, examples, item.input);
      const cells = await logitLens(model, prompt, { at: [atLastExample(prompt)], k: 5 });
      expect(sets[i]!.ids).toEqual(
        layers.map((l) => cells.find((c) => c.layer === l)!.tokens.map(({ id }) => id)),
      );
    }
  });

  test("of an instruction there is one, read at its last token", async () => {
    const { sets } = lab.result(decodedSets({ task: "alpha", specification: "instruction", seed: 0 }));
    const cells = await logitLens(model, model.prompt("The alpha:"), { k: 5 });
    expect(sets).toHaveLength(1);
    expect(sets[0]!.of).toBe("alpha");
    expect(sets[0]!.ids[2]).toEqual(cells.find(({ layer }) => layer === 2)!.tokens.map(({ id }) => id));
  });

  test("overlaps by hand: other items only, drawn ones as often as they are drawn", () => {
    expect(overlap([1, 2, 3, 4, 5], [5, 4, 9, 8, 7])).toBeCloseTo(0.4);
    const point = (task: string, of: string, ...ids: number[]) => ({ task, of, ids });
    const sets = [
      point("a", "x", 1, 2),
      point("a", "y", 1, 3),
      point("a", "x", 1, 2), // another seed, the same item
      point("b", "z", 2, 9),
      point("b", "x", 1, 2),
    ];
    const within = overlaps(sets, sets, true);
    // a: x–y, y–x, y–x', x'–y all share 1 of 2; b: z–x and x–z share the 2.
    expect(within.same([0, 1, 2, 3, 4])).toBeCloseTo(0.5);
    // x–z 1/2, y–z 0, y–x 1/2, x'–z 1/2; x with x of the other task is left out; both ways.
    expect(within.different([0, 1, 2, 3, 4])).toBeCloseTo(0.375);
    // Of x, x and z: x–z twice and z–x twice; no pair of the same task is left, and so the mean over all stands.
    expect([within.same([0, 0, 3]), within.different([0, 0, 3])]).toEqual([0.5, 0.5]);
    expect(within.same([0, 1, 1])).toBeCloseTo(0.5);
    expect(within.different([1, 1, 3])).toBe(0);
    const across = overlaps(sets, [point("a", "a", 1, 3), point("b", "b", 2, 9)], false);
    expect(across.same([0, 1, 2, 3, 4])).toBeCloseTo((0.5 + 1 + 0.5 + 1 + 0.5) / 5);
    expect(across.different([0])).toBeCloseTo(0.5);
  });
});

describe("efficiency", () => {
  test("what is counted is what the ways compute, and all patched runs choose one token", async () => {
    const [task] = tasks;
    const { layer, resident, measured } = lab.result(efficiency({ task: "alpha", query: "text" }));
    expect(resident).toBeGreaterThan(0);
    const layers = model.config.layers;
    const items = picturedItemsOf(task!, "test");
    const prompts = measured.filter(({ way }) => way === "prompt");
    // As many as there are other items.
    expect(prompts.map(({ examples }) => examples)).toEqual([0, 3]);
    const seen = prompts[1]!.runs.slice(0, 4);
    for (const run of seen) {
      const item = items.find(({ input }) => input === run.input)!;
      const examples = drawItems(items, item, { count: 3, seed: 0 }).map((one) => exampleOf(one));
      const { length } = fewShotPrompt(model, examples, item.input);
      expect([run.tokens, run.rowLayers]).toEqual([length, length * layers]);
    }
    const of = (name: string) => measured.find(({ way }) => way === name)!.runs;
    for (const [i, { tokens, rowLayers, answer, input }] of of("patch").entries()) {
      const query = fewShotPrompt(model, [], input).length;
      expect([tokens, rowLayers]).toEqual([query, query * layers]);
      expect(of("resumed")[i]!.rowLayers).toBe(query * layers + layers - layer - 1);
      expect(of("further")[i]!.rowLayers).toBe(layers - layer - 1);
      expect([of("resumed")[i]!.answer, of("further")[i]!.answer]).toEqual([answer, answer]);
      expect(seen[i % 4]!.peak).toBeGreaterThan(of("patch")[i]!.peak);
      expect(of("further")[i]!.dispatches).toBeLessThan(of("patch")[i]!.dispatches + 1);
    }
    // Few items are gone through twice.
    expect(of("patch").map(({ input }) => input)).toEqual([...items, ...items].map(({ input }) => input));
    for (const { runs } of measured) expect(runs.every(({ seconds }) => seconds > 0)).toBe(true);
  });

  test("counts are the same again; only times are not", async () => {
    const again = await openLab(join(root, "again"), model, tasks);
    for (const cell of validationCells(again)) await again.run(cell);
    const cell = efficiency({ task: "alpha", query: "image" });
    const untimed = ({ measured, ...rest }: Awaited<ReturnType<typeof cell.compute>>) => ({
      ...rest,
      measured: measured.map(({ runs, ...one }) => ({
        ...one,
        runs: runs.map(({ seconds: _, ...run }) => run),
      })),
    });
    expect(untimed(await again.run(cell))).toEqual(untimed(lab.result(cell)));
  });

  test("the verdict needs ten inputs", () => {
    const { verdict } = finished[1]!.findings;
    expect(verdict.outcome).toBe("too few items to tell");
    expect(verdict.because).toMatch(/3 examples against the patch, medians: time .* tokens .* memory/);
  });
});
