import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { accuracyByLayer, chosenLayer, sharedLayer } from "../../experiments/cells/layer-sweep.ts";
import { crossModal } from "../../experiments/cross-modal.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { type Finished, runExperiments } from "../../experiments/framework/runner.ts";
import { longAnswers } from "../../experiments/long-answers.ts";
import { sweep } from "../../experiments/sweep.ts";
import type { Task } from "../../src/tasks/task.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

// Only the task that is kept out of the means has pictures and an instruction. It is reported; the means do without.

const root = mkdtempSync(join(tmpdir(), "xpatch-outside-means-"));
afterAll(() => rmSync(root, { recursive: true }));

let lab: Lab;
let finished: Finished[];

beforeAll(async () => {
  const model = await fixtureModel("llava");
  const { instruction: _, ...words } = randomTask(model, "inside");
  const inside: Task = { ...words, items: words.items.map(({ image: _, ...item }) => item) };
  const tasks = [inside, randomTask(model, "outside")];
  lab = await openLab(join(root, "run"), model, tasks, { ...OPTIONS, outsideMeans: ["outside"] });
  finished = await runExperiments(lab, [crossModal, sweep, longAnswers]);
});

function rowsOf(experiment: string, table: string): readonly (readonly unknown[])[] {
  const { findings } = finished.find(({ experiment: { name } }) => name === experiment)!;
  return findings.tables.find(({ name }) => name === table)!.rows;
}

test("means are of the setups that a task in them allows", () => {
  const queries = (rows: readonly (readonly unknown[])[]) => rows.map(([query]) => query);
  expect(queries(rowsOf("cross-modal", "methods"))).toEqual(["text query"]);
  expect(queries(rowsOf("sweep", "best-layers"))).toEqual(["text query"]);
  const lines = rowsOf("long-answers", "methods").map(([query, tasks]) => `${query}, ${tasks}`);
  expect([...new Set(lines)]).toEqual([
    ...["text query, mean", "text query, inside", "text query, outside"],
    "image query, outside",
  ]);
});

test("the other task is reported by itself, in a layer that it chose alone", () => {
  const byTask = rowsOf("cross-modal", "by-task").filter(([task]) => task === "outside");
  expect(byTask.length).toBe(6);
  const setup = { specification: "image", query: "image" } as const;
  const outside = lab.task("outside");
  const best = accuracyByLayer(lab, setup, [outside]);
  const means = best.map(({ accuracy }) => accuracy.mean);
  const expected = means.indexOf(Math.max(...means));
  expect(chosenLayer(lab, setup, outside)).toBe(expected);
  expect(sharedLayer(lab, setup)).toBe(expected);
  expect(byTask.find(([, query, from]) => query === "image query" && from === "image examples")![3]).toBe(
    `${expected}`,
  );
});
