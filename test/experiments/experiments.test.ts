import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { chosenLayer, layerSweep, setupsOf } from "../../experiments/cells/layer-sweep.ts";
import { testPatch, testPrompt } from "../../experiments/cells/test-answers.ts";
import { validationCells } from "../../experiments/cells/validation.ts";
import { defineCell } from "../../experiments/framework/cell.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { seedsOf } from "../../experiments/framework/prompts.ts";
import { runExperiments } from "../../experiments/framework/runner.ts";
import type { Answered } from "../../experiments/framework/scored.ts";
import { EXPERIMENTS } from "../../experiments/index.ts";
import type { BarsFigure } from "../../experiments/report/figure.ts";
import { drawnFigure } from "../../experiments/report/picture.ts";
import { set } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { isCorrect } from "../../src/tasks/correct.ts";
import {
  type Asker,
  atLastExample,
  byText,
  drawItems,
  exampleOf,
  fewShotPrompt,
} from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import type { Modality, SpecificationKind } from "../../src/tasks/specification.ts";
import { picturedItemsOf, type Task } from "../../src/tasks/task.ts";
import { command, OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-experiments-"));
afterAll(() => rmSync(root, { recursive: true }));

let model: PatchableModel;
let tasks: Task[];
let lab: Lab;
beforeAll(async () => {
  model = await fixtureModel("llava");
  tasks = ["alpha", "gamma ray"].map((name) => randomTask(model, name));
  lab = await openLab(join(root, "run"), model, tasks);
  await runExperiments(lab, EXPERIMENTS);
});

type Asked = "validation" | "test";

/** The plain method: a full run for every prompt, layer and item, averaged and scored here. */
class Plain {
  readonly layers = [0, 1, 2];

  readonly #askers = new Map<string, Promise<Asker>>();

  asker(task: Task, split: Asked, modality: Modality): Promise<Asker> | Asker {
    if (modality === "text") return byText;
    const key = `${task.name} ${split}`;
    const asker = this.#askers.get(key) ?? loadPictures(model, picturedItemsOf(task, split));
    this.#askers.set(key, asker);
    return asker;
  }

  async prompts(task: Task, split: Asked, kind: Modality, query: Modality, seed: number) {
    const items = picturedItemsOf(task, split);
    const show = await this.asker(task, split, kind);
    const ask = await this.asker(task, split, query);
    return items.map((item) => {
      const shown = drawItems(items, item, { count: OPTIONS.shots, seed }).map((one) => exampleOf(one, show));
      return fewShotPrompt(model, shown, ask(item));
    });
  }

  /** A vector a layer. */
  async vectors(task: Task, kind: SpecificationKind, seed: number): Promise<number[][]> {
    const given =
      kind === "instruction"
        ? [{ prompt: model.prompt(task.instruction!), at: -1 }]
        : (await this.prompts(task, "validation", kind, kind, seed)).map((prompt) => ({
            prompt,
            at: atLastExample(prompt),
          }));
    const sums = this.layers.map(() => new Array<number>(model.config.width).fill(0));
    for (const { prompt, at } of given) {
      const [a, b, c] = this.layers.map((layer) => tap(`resid_post.${layer}`, at));
      const tapped = model.run(prompt, { taps: { a: a!, b: b!, c: c! } });
      for (const [layer, values] of [tapped.a, tapped.b, tapped.c].entries()) {
        (await values.read()).forEach((x, i) => {
          sums[layer]![i]! += x / given.length;
        });
      }
    }
    return sums;
  }

  async hits(task: Task, split: Asked, query: Modality, layer: number, vector: readonly number[]) {
    const ask = await this.asker(task, split, query);
    let hits = "";
    for (const item of picturedItemsOf(task, split)) {
      const prompt = fewShotPrompt(model, [], ask(item));
      const { logits } = model.run(prompt, { edits: [set(`resid_post.${layer}`, -1, vector)] });
      hits += (await this.isRight(logits!, item.outputs)) ? "1" : "0";
    }
    return hits;
  }

  async isRight(
    logits: { read(): Promise<ArrayLike<number>> },
    outputs: readonly string[],
  ): Promise<boolean> {
    const values = Array.from(await logits.read());
    const id = values.indexOf(Math.max(...values));
    return isCorrect(model.tokenizer.decode([id], { skipSpecial: true }), outputs);
  }
}

describe("against full recomputation", () => {
  const plain = new Plain();

  test("accuracies of all layers, seeds and setups, and the chosen layers, are the same", async () => {
    expect(setupsOf(lab)).toHaveLength(6);
    const seen = new Set<string>();
    for (const setup of setupsOf(lab)) {
      const rights = plain.layers.map(() => 0);
      for (const task of tasks) {
        const { patched } = lab.result(layerSweep({ ...setup, task: task.name }));
        const seeds = seedsOf(lab, setup.specification);
        expect(patched).toHaveLength(seeds.length);
        for (const seed of seeds) {
          const vectors = await plain.vectors(task, setup.specification, seed);
          for (const layer of plain.layers) {
            const hits = await plain.hits(task, "validation", setup.query, layer, vectors[layer]!);
            expect(patched[seed]![layer]!.hits).toBe(hits);
            rights[layer]! += [...hits].filter((hit) => hit === "1").length;
            seen.add(hits);
          }
        }
      }
      const best = rights.indexOf(Math.max(...rights));
      const [task] = tasks;
      expect(chosenLayer(lab, setup, task!)).toBe(best);
      const { layer, patched } = lab.result(testPatch({ ...setup, task: task!.name }));
      expect(layer).toBe(best);
      const vectors = await plain.vectors(task!, setup.specification, 0);
      expect(patched[0]!.hits).toBe(await plain.hits(task!, "test", setup.query, best, vectors[best]!));
    }
    // A model that is always wrong would make all of this trivial.
    expect(seen.size).toBeGreaterThan(4);
  });

  test("few-shot prompts of test items are answered as by themselves", async () => {
    const [task] = tasks;
    const { hits, prompts } = lab.result(
      testPrompt({ task: task!.name, specification: "image", query: "text", seed: 0 }),
    );
    const whole = await plain.prompts(task!, "test", "image", "text", 0);
    expect(prompts).toEqual(whole.map(({ text }) => text));
    let expected = "";
    for (const [i, item] of picturedItemsOf(task!, "test").entries()) {
      expected += (await plain.isRight(model.run(whole[i]!).logits!, item.outputs)) ? "1" : "0";
    }
    expect(hits).toBe(expected);
  });

  test("costs are less than those of the plain method", () => {
    const { cost } = lab.store.get(layerSweep({ task: "alpha", specification: "text", query: "image" }).key)!;
    expect(cost.plainPasses).toBe(4 * (2 * 3 + 1));
    expect(cost.rowLayers).toBeLessThan(cost.plainRowLayers / 3);
  });
});

describe("runs", () => {
  test("the same seed gives the same results, whatever ran before", async () => {
    const again = await openLab(join(root, "again"), model, tasks);
    for (const cell of validationCells(again)) await again.run(cell);
    expect(again.store.records.length).toBeGreaterThan(10);
    for (const { key, result, cost } of again.store.records) {
      expect(lab.store.get(key)).toMatchObject({ result, cost });
    }
    // Down to the last byte of tables and figures; result.json has times as well.
    const [crossModal] = EXPERIMENTS;
    await runExperiments(again, [crossModal!]);
    const written = (run: string) => {
      const files = readdirSync(join(root, run, crossModal!.name)).filter((file) => file !== "result.json");
      return files.map((file) => [
        file,
        readFileSync(join(root, run, crossModal!.name, file)).toString("base64"),
      ]);
    };
    expect(written("again").map(([file]) => file)).toEqual(
      expect.arrayContaining(["figures.md", "methods.csv", "methods.md", "methods.png", "methods.svg"]),
    );
    expect(written("again")).toEqual(written("run"));
  });

  test("every figure stands with its caption, every page with the command that computes its numbers", () => {
    const page = readFileSync(join(root, "run", "report.html"), "utf8");
    for (const experiment of EXPERIMENTS) {
      const untestable = experiment.untestable?.(lab) !== undefined;
      expect(page).toContain(`<code>${command(experiment.name)}</code>`);
      const files = readdirSync(join(root, "run", experiment.name));
      const texts = files.filter((file) => file.endsWith(".md"));
      for (const file of texts) {
        expect(readFileSync(join(root, "run", experiment.name, file), "utf8")).toContain(
          `\n    ${command(experiment.name)}\n`,
        );
      }
      if (untestable) continue;
      const { figures } = experiment.report(lab);
      const shown =
        figures.length > 0 ? readFileSync(join(root, "run", experiment.name, "figures.md"), "utf8") : "";
      for (const figure of figures) {
        const { name } = figure;
        expect(shown).toContain(`(${name}.svg)\n\n*`);
        expect(shown.replaceAll("\\", "")).toContain(drawnFigure(figure).caption.replaceAll("\\", ""));
        expect(files).toEqual(expect.arrayContaining([`${name}.svg`, `${name}.png`]));
        const byLayer = figure.kind === "lines" && figure.x === "layer";
        if (byLayer && ["accuracy", "share in common"].includes(figure.y)) {
          // Nor without the layer in which test items are asked.
          expect(drawnFigure(figure).caption).toMatch(/Ringed: .* n \d+/);
        }
        if (figure.y !== "accuracy") continue;
        // No accuracy without what a constant answer would get, and n.
        expect(drawnFigure(figure).caption).toMatch(/Dashed: .*best constant answer.* n \d+/);
      }
    }
  });

  test("the best constant answer is the same in tables, figures and verdicts", () => {
    const [crossModal] = EXPERIMENTS;
    const { figures, tables } = crossModal!.report(lab);
    const { columns, rows } = tables.find(({ name }) => name === "methods")!;
    const { references = [] } = figures[0] as BarsFigure;
    const drawn = references.filter(({ label }) => label === "best constant answer");
    const at = (row: (typeof rows)[number], column: string) => row[columns.indexOf(column)];
    expect(drawn.map(({ panel, x, y }) => [panel, x, y])).toEqual(
      rows.map((row) => ["query", "specification", "best constant answer"].map((name) => at(row, name))),
    );
  });

  test("a finished run is gone on with without computing anything", async () => {
    const file = join(root, "run", "cells.jsonl");
    const before = readFileSync(file, "utf8");
    const report = readFileSync(join(root, "run", "report.html"), "utf8");
    // Long tables are folded, and only they; that of the verdicts, which comes first, is as long as there are experiments.
    const [verdicts, ...tables] = [...report.matchAll(/(<\/h3>|<\/summary>)\n<table>(.*?)<\/table>/gs)];
    expect(verdicts![0]).toContain("<th>verdict</th>");
    const rows = (body: string) => body.split("<tr>").length - 2;
    const folded = tables.filter(([, before]) => before === "</summary>").map(([, , body]) => rows(body!));
    const open = tables.filter(([, before]) => before === "</h3>").map(([, , body]) => rows(body!));
    expect([Math.min(...folded) > 14, Math.max(...open) <= 14]).toEqual([true, true]);
    expect(folded.length).toBeGreaterThan(0);
    const seen: (number | undefined)[] = [];
    await runExperiments(await openLab(join(root, "run"), model, tasks), EXPERIMENTS, ({ secondsLeft }) =>
      seen.push(secondsLeft),
    );
    expect(readFileSync(file, "utf8")).toBe(before);
    expect(readFileSync(join(root, "run", "report.html"), "utf8")).toBe(report);
    expect(new Set(seen)).toEqual(new Set([0]));
  });

  test("another setting is refused, and named", async () => {
    const folder = join(root, "run");
    await expect(openLab(folder, model, tasks, { ...OPTIONS, seeds: 3 })).rejects.toThrow(
      /holds a run of another setting.*options\.seeds was 2, now 3/,
    );
    const [first] = tasks;
    const changed = { ...first!, items: first!.items.slice(1) };
    await expect(openLab(folder, model, [changed, tasks[1]!])).rejects.toThrow(
      /tasks\.0\.items was 8, now 7; tasks\.0\.hash was/,
    );
  });

  test("cells of another version, which hold other things, are refused by name", async () => {
    const folder = join(root, "versions");
    const { key, kind, params } = testPrompt({
      task: "alpha",
      specification: "text",
      query: "text",
      seed: 0,
    });
    const { result, cost, seconds } = lab.store.get(key)!;
    const begin = async (format: number | undefined, kept: unknown, options = OPTIONS, of = kind) => {
      const run = join(folder, `${readdirSync(folder).length}`);
      const own = await openLab(run, model, tasks, options);
      own.store.add({ key: of === kind ? key : of, kind: of, params, result: kept, cost, seconds });
      const file = join(run, "cells.jsonl");
      const [header, ...lines] = readFileSync(file, "utf8").split("\n");
      writeFileSync(file, [JSON.stringify({ ...JSON.parse(header!), format }), ...lines].join("\n"));
      return openLab(run, model, tasks, options);
    };
    mkdirSync(folder);
    const { named: _, ...unnamed } = result as Answered;
    await expect(begin(undefined, unnamed)).rejects.toThrow(
      /holds a run of another version of xpatch, .*: expected cells of format 2, in the cell "test-prompt .*task=alpha" scores do not say which answers name the item/,
    );
    await expect(begin(undefined, { patched: [[unnamed]] })).rejects.toThrow(/name the item/);
    await expect(begin(1, result)).rejects.toThrow(/expected cells of format 2, its cells have the format 1/);
    await expect(begin(3, result)).rejects.toThrow(/format 3/);
    const traced = { own: { delimiter: {} } };
    const strict = { ...OPTIONS, caseSensitive: true };
    await expect(begin(undefined, { own: {} }, OPTIONS, "lens-phases")).rejects.toThrow(/delimiter's token/);
    await expect(begin(undefined, traced, strict, "lens-phases")).rejects.toThrow(
      /small letters count as cap/,
    );
    // One that began before formats were counted, and holds the same.
    expect((await begin(undefined, result)).store.get(key)!.result).toEqual(result);
    await begin(undefined, traced, OPTIONS, "lens-phases");
    await begin(2, traced, strict, "lens-phases");
  });

  test("a torn last line is cut off, its cell computed again; damage elsewhere is an error", async () => {
    const folder = join(root, "torn");
    const counted = { runs: 0 };
    const cell = (n: number) =>
      defineCell("count", async (_lab, { n: value }: { n: number }) => {
        counted.runs++;
        return { value };
      })({ n });
    const first = await openLab(folder, model, tasks);
    await first.run(cell(1));
    const file = join(folder, "cells.jsonl");
    const whole = readFileSync(file, "utf8");
    appendFileSync(file, '{"key":"count n=2","kind":"count","resu');

    const second = await openLab(folder, model, tasks);
    expect(readFileSync(file, "utf8")).toBe(whole);
    expect(await second.run(cell(1))).toEqual({ value: 1 });
    expect(await second.run(cell(2))).toEqual({ value: 2 });
    expect(counted.runs).toBe(2);
    expect(second.store.records.map(({ key }) => key)).toEqual(["count n=1", "count n=2"]);

    writeFileSync(file, whole.replace('"kind"', '"kin'));
    await expect(openLab(folder, model, tasks)).rejects.toThrow(/cells\.jsonl: line 2 is damaged/);
  });

  test("cells that others ask for are counted once, in cost and in time", async () => {
    const inner = defineCell("inner", async (l) => {
      l.spend({ rowLayers: 5, plainRowLayers: 10, plainPasses: 2 });
      await new Promise((done) => setTimeout(done, 50));
      return 1;
    })({});
    const outer = defineCell("outer", async (l) => {
      l.spend({ rowLayers: 1, plainRowLayers: 1, plainPasses: 1 });
      return (await l.run(inner)) + (await l.run(inner));
    })({});
    const nested = await openLab(join(root, "nested"), model, tasks);
    expect(await nested.run(outer)).toBe(2);
    expect(nested.store.records.map(({ key, cost }) => [key, cost.rowLayers])).toEqual([
      ["inner", 5],
      ["outer", 1],
    ]);
    expect(nested.store.get("outer")!.seconds!).toBeLessThan(nested.store.get("inner")!.seconds!);
  });

  test("what was not run cannot be reported", () => {
    expect(() =>
      lab.result(testPrompt({ task: "alpha", specification: "text", query: "text", seed: 9 })),
    ).toThrow(/"test-prompt query=text seed=9 specification=text task=alpha" has not been run/);
  });
});
