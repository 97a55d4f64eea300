import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "csv-parse/sync";
import { afterAll, beforeAll, expect, test } from "vitest";
import { AskedTasks, hasPictures } from "../../../experiments/framework/asked-tasks.ts";
import type { CellRecord } from "../../../experiments/framework/cell-store.ts";
import type { Lab } from "../../../experiments/framework/lab.ts";
import { runExperiments } from "../../../experiments/framework/runner.ts";
import type { Answered } from "../../../experiments/framework/scored.ts";
import { Store } from "../../../experiments/framework/store.ts";
import { EXPERIMENTS } from "../../../experiments/index.ts";
import { ANSWER_COLUMNS, type AnswerRow, answerRows } from "../../../experiments/rows/answer-rows.ts";
import { MEASURE_COLUMNS } from "../../../experiments/rows/measure-rows.ts";
import { scoreGroups } from "../../../experiments/rows/score-groups.ts";
import { type WrittenRows, writeRows } from "../../../experiments/rows/write-rows.ts";
import { memorySource } from "../../../src/model/checkpoint/source/sources.ts";
import { ParquetFile } from "../../../src/tables/parquet-file.ts";
import { isWholeAnswer } from "../../../src/tasks/correct.ts";
import { openLab, randomTask } from "../../helpers/lab.ts";
import { fixtureModel } from "../../helpers/model.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-rows-"));
afterAll(() => rmSync(root, { recursive: true }));
const folder = join(root, "run");

let lab: Lab;
let written: WrittenRows[];
let rows: AnswerRow[];
beforeAll(async () => {
  const model = await fixtureModel("llava");
  // Names that share inputs, so that there are pairs of tasks.
  const tasks = ["alpha", "gamma ray"].map((name) => {
    const task = randomTask(model, name);
    return {
      ...task,
      items: task.items.map((item) => ({ ...item, input: item.input.replace(name, "thing") })),
    };
  });
  lab = await openLab(folder, model, tasks);
  await runExperiments(lab, EXPERIMENTS);
  written = await writeRows({ folder, setting: lab.setting, records: lab.store.records, asked: lab }, "both");
  rows = await parquetRows("answers");
});

async function parquetRows(name: string): Promise<AnswerRow[]> {
  const file = await ParquetFile.open(
    memorySource(new Uint8Array(readFileSync(join(folder, `${name}.parquet`)))),
  );
  const all: AnswerRow[] = [];
  for (const group of file.groups.keys()) {
    const columns = await file.read(group);
    for (let i = 0; i < file.groups[group]!; i++) {
      const row = file.fields.map((field, c) => [field.name, columns[c]![i] ?? null]);
      all.push(Object.fromEntries(row));
    }
  }
  return all;
}

test("every answer of every cell is a row, once", () => {
  const count = lab.store.records.flatMap((record) => scoreGroups(record)).length;
  expect(count).toBeGreaterThan(500);
  const hits = JSON.stringify(lab.store.records.map(({ result }) => result)).match(
    /"(hits|firstToken)":"[01]*"/g,
  )!;
  const marks = hits.reduce((sum, text) => sum + text.replace(/.*:/, "").length - 2, 0);
  expect(rows.length).toBe(marks);
  const [answers] = written;
  expect(answers!.rows).toBe(marks);
  const key = (row: AnswerRow) =>
    [
      row.cell,
      row.judge,
      row.item,
      row.specification,
      row.query,
      row.method,
      row.variant,
      row.layer,
      row.seed,
    ].join("\t");
  // An item that stands for another one may be the same for several.
  const own = rows.filter(({ cell }) => !`${cell}`.startsWith("entity-test"));
  expect(new Set(own.map(key)).size).toBe(own.length);
});

test("their means are the accuracies that the cells have", () => {
  for (const [kind, pick] of [
    ["test-patch", (result: { patched: Answered[] }) => result.patched[1]],
    ["bare-answers", (result: Answered) => result],
  ] as [string, (result: never) => Answered | undefined][]) {
    for (const { key, result } of lab.store.records.filter((record) => record.kind === kind)) {
      const scores = pick(result as never);
      if (!scores) continue;
      const seed = kind === "bare-answers" ? null : 1;
      const own = rows.filter(
        (row) => row.cell === key && row.seed === seed && ["patch", "no-context"].includes(`${row.method}`),
      );
      expect(own.map(({ answer }) => answer)).toEqual(scores.answers);
      expect(own.filter(({ right }) => right).length / own.length).toBeCloseTo(scores.accuracy, 12);
    }
  }
});

test("right and strict are by the outputs of the judge", () => {
  let seen = 0;
  for (const { answer, item, judge, right, strict, cell } of rows) {
    if (answer === null || judge === "question" || `${cell}`.startsWith("long")) continue;
    const { outputs } = lab.task(`${judge}`).items.find(({ input }) => input === item)!;
    expect(strict).toBe(isWholeAnswer(`${answer}`, outputs));
    if (strict) expect(right).toBe(true);
    seen++;
  }
  expect(seen).toBeGreaterThan(1000);
  expect(new Set(rows.map(({ judge }) => judge))).toEqual(new Set(["alpha", "gamma ray", "question"]));
});

test("CSV has the same rows, with null apart from an empty text", () => {
  const text = readFileSync(join(folder, "answers.csv"), "utf8");
  const [head, ...lines] = parse(text, {
    cast: (value, { quoting }) => (value === "" && !quoting ? null : value),
  });
  expect(head).toEqual(ANSWER_COLUMNS.map(({ name }) => name));
  const shown = rows.map((row) =>
    ANSWER_COLUMNS.map(({ name }) => (row[name] === null ? null : `${row[name]}`)),
  );
  expect(lines.length).toBe(shown.length);
  for (const [i, line] of lines.entries()) expect(line).toEqual(shown[i]);
});

test("the tables of all experiments are measures", async () => {
  const measures = await parquetRows("measures");
  expect(Object.keys(measures[0]!)).toEqual(MEASURE_COLUMNS.map(({ name }) => name));
  const experiments = new Set(measures.map((row) => (row as Record<string, unknown>)["experiment"]));
  const { findings } = JSON.parse(readFileSync(join(folder, "clustering", "result.json"), "utf8"));
  expect(experiments).toContain("clustering");
  const ofClustering = measures.filter(
    (row) => (row as Record<string, unknown>)["experiment"] === "clustering",
  );
  const cells = [...findings.tables, ...findings.controls].flatMap(({ rows: all }) => all.flat());
  expect(ofClustering.length).toBe(cells.length);
});

test("a folder without its model gives the same bytes", async () => {
  const { setting, records } = Store.read(folder);
  const asked = new AskedTasks(lab.tasks, setting.options, hasPictures);
  const out = join(root, "again");
  mkdirSync(out);
  await writeRows({ folder, setting, records: records.reverse(), asked }, "both", out);
  for (const name of ["answers.parquet", "answers.csv", "measures.parquet", "measures.csv"]) {
    expect(readFileSync(join(out, name)).equals(readFileSync(join(folder, name))), name).toBe(true);
  }
});

test("a file of the other kind that is there is not left out of date", async () => {
  const out = join(root, "again");
  for (const file of ["answers.csv", "answers.parquet"]) writeFileSync(join(out, file), "old");
  rmSync(join(out, "measures.csv"));
  const run = { folder, setting: lab.setting, records: lab.store.records, asked: lab };
  await writeRows(run, "parquet", out);
  for (const file of ["answers.csv", "answers.parquet"]) {
    expect(readFileSync(join(out, file)).equals(readFileSync(join(folder, file))), file).toBe(true);
  }
  expect(existsSync(join(out, "measures.csv"))).toBe(false);
});

test("what is no results folder, or a damaged one, is refused by what was expected", () => {
  expect(() => Store.read(root)).toThrow("expected the folder of a run, with cells.jsonl");
  const damaged = join(root, "damaged");
  mkdirSync(damaged);
  copyFileSync(join(folder, "cells.jsonl"), join(damaged, "cells.jsonl"));
  const text = readFileSync(join(damaged, "cells.jsonl"), "utf8");
  writeFileSync(join(damaged, "cells.jsonl"), text.replace('\n{"key"', '\n{"key'));
  expect(() => Store.read(damaged)).toThrow("line 2 is damaged");
});

test("a kind of cell that holds scores and has no rows is an error, not a gap", () => {
  const [record] = lab.store.records.filter(({ kind }) => kind === "test-patch") as [CellRecord];
  const unknown = { ...record, kind: "new-kind" };
  expect(() => scoreGroups(unknown)).toThrow("of which 0 are known");
  const more = {
    ...record,
    result: { ...(record.result as object), extra: (record.result as { noContext: Answered }).noContext },
  };
  expect(() => scoreGroups(more)).toThrow("lists of scores");
  const short = {
    ...record,
    result: JSON.parse(JSON.stringify(record.result).replace(/"hits":"[01]/, '"hits":"')),
  };
  const all = () => [
    ...answerRows({ setting: lab.setting, records: [short], asked: lab, experimentsOf: () => [] }),
  ];
  expect(all).toThrow("its task 4 items");
});

test("fine-tuning: every list of answers, but for those about another task", () => {
  const scores = (hits: string) => ({
    hits,
    named: "0000",
    majority: 0,
    accuracy: 0,
    distinct: 1,
    constant: 0,
  });
  const base = { cost: {} as CellRecord["cost"], params: { task: "alpha", examples: 8, seed: 1 } };
  const both = { text: scores("1000"), image: scores("0100") };
  const untrained: CellRecord = {
    ...base,
    key: "fine-tuning-untrained examples=8 seed=1 task=alpha",
    kind: "fine-tuning-untrained",
    result: { layer: 2, noContext: both, patch: both, added: both, random: both },
  };
  const trained: CellRecord = {
    ...base,
    params: { ...base.params, arm: "lora", steps: 24 },
    key: "fine-tuning arm=lora examples=8 seed=1 steps=24 task=alpha",
    kind: "fine-tuning",
    result: {
      losses: [1],
      bySteps: [0, 6].map((steps) => ({ steps, text: scores("1100") })),
      end: both,
      elsewhere: scores("1111"),
    },
  };
  const found = [
    ...answerRows({
      setting: lab.setting,
      records: [untrained, trained],
      asked: lab,
      experimentsOf: () => ["fine-tuning"],
    }),
  ];
  const described = ({ method, variant, query, layer, seed }: AnswerRow) =>
    [method, variant, query, layer, seed].join(" ");
  const groups = found.filter((_, i) => i % 4 === 0).map(described);
  expect(groups).toEqual([
    "training arm=lora examples=8 steps=0 text  1",
    "training arm=lora examples=8 steps=6 text  1",
    "training arm=lora examples=8 steps=24 text  1",
    "training arm=lora examples=8 steps=24 image  1",
    ...["no-context examples=8 text  ", "no-context examples=8 image  "],
    ...["patch examples=8 text 2 1", "patch examples=8 image 2 1"],
    ...["edit add examples=8 text 2 1", "edit add examples=8 image 2 1"],
    ...["control random examples=8 text 2 1", "control random examples=8 image 2 1"],
  ]);
  expect(found.filter(({ right }) => right).length).toBe(2 * 2 + 2 + 8);
});
