import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { layerSweep } from "../../experiments/cells/layer-sweep.ts";
import { testPatch, testPrompt } from "../../experiments/cells/test-answers.ts";
import { crossModal } from "../../experiments/cross-modal.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { type Finished, runExperiments } from "../../experiments/framework/runner.ts";
import { scored, taskHits } from "../../experiments/framework/scored.ts";
import { llmToVlm } from "../../experiments/llm-to-vlm.ts";
import { PAPER_TASKS, paperRows } from "../../experiments/paper.ts";
import { PAPER_PROTOCOL, paperTasks } from "../../experiments/protocol.ts";
import { type Table, tableMarkdown } from "../../experiments/report/table.ts";
import { accuracy } from "../../experiments/statistics/accuracy.ts";
import { experimentCommand } from "../../src/cli/commands/experiment.ts";
import { reproduceCommand } from "../../src/cli/commands/reproduce.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { isCorrect } from "../../src/tasks/correct.ts";
import { drawItems, exampleOf, fewShotPrompt } from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { picturedItemsOf, type Task } from "../../src/tasks/task.ts";
import { openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-protocol-"));
afterAll(() => rmSync(root, { recursive: true }));

/** A task of eight items a split, whose right answers are in capitals as often as not. */
function paperLike(model: PatchableModel, name: string): Task {
  const task = randomTask(model, name);
  const items = [...task.items, ...task.items.map((item) => ({ ...item, input: `${item.input} b` }))];
  const capital = (text: string, i: number) => (i % 2 === 0 ? text.toUpperCase() : text);
  return { ...task, items: items.map((item) => ({ ...item, outputs: item.outputs.map(capital) })) };
}

describe("the paper's protocol", () => {
  let model: PatchableModel;
  let lab: Lab;
  let finished: Finished[];
  beforeAll(async () => {
    model = await fixtureModel("llava");
    const tasks = paperTasks(PAPER_TASKS.map((name) => paperLike(model, name)));
    const options = { ...PAPER_PROTOCOL, validationItems: 2, testItems: 2 };
    lab = await openLab(join(root, "run"), model, tasks, options, await fixtureModel("llama"));
    finished = await runExperiments(lab, [crossModal, llmToVlm]);
  });

  test("is what the authors' program does", () => {
    expect(PAPER_PROTOCOL).toEqual({
      protocol: "paper",
      seeds: 3,
      promptSeeds: 3,
      shots: 5,
      template: "Q:{x}\nA:{y}\n\n",
      pictureWidth: 224,
      layerBy: "mean",
      outsideMeans: [],
      caseSensitive: true,
    });
    expect(lab.tasksInMeans.map(({ name }) => name)).toEqual([...PAPER_TASKS]);
    expect(lab.tasks.every(({ items }) => items.every(({ outputs }) => outputs.length === 1))).toBe(true);
  });

  test("prompts have its template, five examples and pictures made 224 wide first", async () => {
    const task = lab.task("food-flavor");
    const items = lab.items(task, "test");
    const { prompts, answers } = lab.result(
      testPrompt({ specification: "image", query: "image", task: task.name, seed: 2 }),
    );
    const pool = picturedItemsOf(task, "test");
    const pictures = await loadPictures(model, pool, { width: 224 });
    const own = items.map((item) => {
      const shown = drawItems(pool, item, { count: 5, seed: 2 }).map((one) => exampleOf(one, pictures));
      return fewShotPrompt(model, shown, pictures(item), "Q:{x}\nA:{y}\n\n");
    });
    expect(prompts).toEqual(own.map(({ text }) => text));
    const next = await model.generate(own, { maxNewTokens: 1 });
    expect(answers).toEqual(next.map(({ ids }) => model.tokenizer.decode(ids, { skipSpecial: true })));
    // The fixture's pictures have other widths, so that the resizing shows.
    const unsized = await loadPictures(model, pool);
    expect(pictures(items[0]!).data).not.toEqual(unsized(items[0]!).data);
  });

  test("answers are right where case fits as well, in the tables and where the layer is chosen", () => {
    const setup = { specification: "text", query: "image" } as const;
    let strict = 0;
    let loose = 0;
    for (const task of lab.tasks) {
      const items = lab.items(task, "test");
      const { noContext, patched } = lab.result(testPatch({ ...setup, task: task.name }));
      for (const { answers, hits } of [noContext, ...patched]) {
        const right = (ignoreCase: boolean) =>
          items
            .map(({ outputs }, i) => (isCorrect(answers[i]!, outputs, { ignoreCase }) ? "1" : "0"))
            .join("");
        expect(hits).toBe(right(false));
        strict += right(false).replaceAll("0", "").length;
        loose += right(true).replaceAll("0", "").length;
      }
      expect(lab.result(layerSweep({ ...setup, task: task.name })).patched).toHaveLength(3);
    }
    expect(loose).toBeGreaterThan(strict);
    const items = [{ input: "Italy", outputs: ["Rome"], split: "test" as const }];
    const { tokenizer } = model;
    // A token that "rome" begins with.
    const start = [tokenizer.idOf("r")!];
    expect(scored(tokenizer, items, start, {}).hits).toBe("1");
    expect(scored(tokenizer, items, start, lab.options)).toMatchObject({
      hits: "0",
      majority: 1,
      constant: 0,
    });
  });

  test("the paper's table stands beside this run's numbers", () => {
    const [table, ofLlm] = finished.map(
      ({ findings }) => findings.tables.find(({ name }) => name === "paper")!,
    ) as [Table, Table];
    expect(ofLlm.rows.map((cells) => cells.slice(0, 4))).toEqual([
      ["layer of the text patch", 15, 23, 16],
      ["image query, text patch", 0.32, 0.31, 0.51],
      ["image query, patch from the language model", 0.37, "–", 0.52],
    ]);
    expect(ofLlm.rows[1]).toEqual(table.rows.find(([name]) => name === "image query, text patch"));
    expect(table.title).toMatch(/six tasks.*4-bit NF4.*no 4-bit weights yet/);
    const tasks = lab.tasks.map(({ name }) => name);
    const setup = { specification: "text", query: "image" } as const;
    const patch = tasks.map((task) =>
      taskHits(lab.items(lab.task(task), "test"), lab.result(testPatch({ ...setup, task })).patched),
    );
    const row = table.rows.find(([name]) => name === "image query, text patch");
    expect(row).toEqual(["image query, text patch", 0.32, 0.31, 0.51, accuracy(patch)]);
    expect(row![4]).toMatchObject({ items: 12, seeds: 3 });
    const markdown = tableMarkdown(table).split("\n");
    expect(markdown[0]).toBe(
      "| setup | paper: LLaVA-1.5-7B | paper: Mantis-8B-Fuyu | paper: Idefics2-8B | here: model |",
    );
    expect(markdown).toContainEqual(
      expect.stringMatching(/^\| layer of the text patch \| 15 \| 23 \| 16 \|/),
    );
    expect(markdown).toContainEqual(
      expect.stringMatching(/^\| text query, image patch \| – \| 0\.25 \| 0\.42 \|/),
    );
    expect(readFileSync(join(root, "run", "report.html"), "utf8")).toMatch(
      /Protocol.*upper and lower case differ/s,
    );
  });

  test("takes the paper's six tasks, all of them and no others", () => {
    const tasks = PAPER_TASKS.map((name) => paperLike(model, name));
    expect(() => paperTasks(tasks.slice(1))).toThrow(/takes the tasks country-capital/);
    expect(() => paperTasks([...tasks, paperLike(model, "country-language")])).toThrow(/found .*language/);
  });
});

test("the paper's numbers of its own models", () => {
  expect(paperRows("llava-hf/llava-1.5-7b-hf")).toContainEqual({
    setup: "image query, text patch (layer 15)",
    accuracy: 0.32,
  });
  expect(paperRows("HuggingFaceM4/idefics2-8b")).toHaveLength(8);
  expect(paperRows("vlm")).toBeUndefined();
});

test.each([
  [
    experimentCommand,
    ["cross-modal", "--protocol", "paper", "--template", "Q{x}A{y}"],
    /'--template <text>'/,
  ],
  [experimentCommand, ["cross-modal", "--protocol", "paper", "--seeds", "1"], /'--seeds <n>'/],
  [reproduceCommand, ["--protocol", "paper", "--quick"], /'--quick'/],
  [reproduceCommand, ["--protocol", "mine"], /Expected one of paper/],
])("%o: what the protocol sets is not given beside it: %j", async (command, args, message) => {
  const stderr = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    await expect(command().parseAsync(args, { from: "user" })).rejects.toThrow(message);
  } finally {
    stderr.mockRestore();
  }
});
