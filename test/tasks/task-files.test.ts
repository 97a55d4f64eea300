import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { PAPER_TASKS } from "../../experiments/paper.ts";
import { relatedTasks } from "../../src/analysis/vectors/switch.ts";
import { readShippedTasks, readTask } from "../../src/cli/options/task-file.ts";
import { XpatchError } from "../../src/errors.ts";
import { parsePublishedTask } from "../../src/tasks/published-task.ts";
import { itemsOf, splitOf } from "../../src/tasks/task.ts";
import { parseTaskCsv } from "../../src/tasks/task-csv.ts";

const folder = mkdtempSync(join(tmpdir(), "xpatch-tasks-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("CSV", () => {
  const parse = (...lines: string[]) => parseTaskCsv(lines.join("\r\n"), "my tasks/colors.csv");

  test("items a line, in any order of columns", () => {
    const task = parse(
      "\ufeffoutput,input, image ,split",
      "blue,Sky,sky.png,train",
      "",
      '"pink | orange","Salmon, raw",https://example.org/a.png,',
      '"the ""rose"" red","Two\nlines",,test',
    );
    expect(task).toEqual({
      name: "colors",
      items: [
        { input: "Sky", outputs: ["blue"], split: "train", image: "my tasks/sky.png" },
        {
          input: "Salmon, raw",
          outputs: ["pink", "orange"],
          split: splitOf("Salmon, raw"),
          image: "https://example.org/a.png",
        },
        { input: "Two\nlines", outputs: ['the "rose" red'], split: "test" },
      ],
    });
    expect(parseTaskCsv("input,output\na,b", "https://example.org/t/ab.csv?x=1").name).toBe("ab");
  });

  test("a description, and a question with its answers", () => {
    const { items } = parse(
      "input,output,text,question,answer",
      'Sky,blue,"Above us, wide.",How high?,very | high',
      "Sea,gray,,,",
    );
    expect(items[0]).toMatchObject({
      text: "Above us, wide.",
      question: "How high?",
      answers: ["very", "high"],
    });
    expect(items[1]).toEqual({ input: "Sea", outputs: ["gray"], split: splitOf("Sea") });
  });

  const head = "input,output";
  test.each<[string, string[], RegExp]>([
    ["an empty file", [""], /colors\.csv: expected a first line with the columns .*found ""/],
    ["no output column", ["input,image", "a,b"], /the columns input and output.*found "input,image"/],
    ["an unknown column", ["input,output,colour", "a,b,c"], /found "input,output,colour"/],
    ["a column twice", ["input,output,output", "a,b,c"], /each once; found "input,output,output"/],
    ["no items", [head], /expected an item a line, found none/],
    ["a line too long", [head, "a,b", "a,b,c"], /colors\.csv: .*got 3 on line 3/],
    ["an open quote", [head, '"a,b'], /colors\.csv: .*[Qq]uote/],
    ["no answer", [head, "a,b", "c,"], /line 3: expected output .*found nothing/],
    ["a blank answer", [head, "a,b|"], /line 2: expected output .*found \["b",""\]/],
    ["no input", [head, ",b"], /line 2: expected input to be some text, found nothing/],
    ["an unknown split", ["input,output,split", "a,b,dev"], /line 2: expected split to be one of .*"dev"/],
    ["an input twice", [head, "a,b", "a,c"], /expected each input once, found "a" twice/],
  ])("%s is refused", (_, lines, message) => {
    expect(() => parse(...lines)).toThrow(XpatchError);
    expect(() => parse(...lines)).toThrow(message);
  });

  test("by its path", async () => {
    writeFileSync(join(folder, "colors.csv"), "input,output\nSky,blue\n");
    const task = await readTask(join(folder, "colors.csv"));
    expect([task.name, task.items.length]).toEqual(["colors", 1]);
  });
});

describe("the layout of the published data set", () => {
  const annotations = join(folder, "annotations");
  mkdirSync(annotations);
  const write = (name: string, json: unknown) => {
    writeFileSync(join(annotations, name), JSON.stringify(json));
    return join(annotations, name);
  };
  const greece = { input: "Greece", output: "Athens", image: "images/greece.png" };
  const spain = { input: "Spain", output: "Madrid", image: "https://example.org/spain.png" };

  test("either of two files names both", async () => {
    const validation = write("country_capital_val.json", [
      greece,
      { ...greece, image: "images/b.png", id: 3 },
    ]);
    const tested = write("country_capital_test.json", { data: [spain], note: "not ours" });
    const task = await readTask(validation);
    expect(task).toEqual(await readTask(tested));
    expect(task.name).toBe("country_capital");
    expect(itemsOf(task, "validation").map(({ image }) => image)).toEqual([
      `${annotations}/../images/greece.png`,
      `${annotations}/../images/b.png`,
    ]);
    expect(itemsOf(task, "test")).toEqual([
      { input: "Spain", outputs: ["Madrid"], split: "test", image: "https://example.org/spain.png" },
    ]);
    expect(() => itemsOf(task, "train")).toThrow(/no item is in the train split/);
  });

  test("the paper's tasks have its instructions, others none", async () => {
    const shipped = await readShippedTasks();
    for (const name of PAPER_TASKS) {
      write(`${name}_test.json`, [spain]);
      const { instruction } = await readTask(write(`${name}_val.json`, [greece]));
      expect(instruction, name).toBe(shipped.find((task) => task.name === name)!.instruction);
      expect(instruction, name).toMatch(/:$/);
    }
    write("toString_test.json", [spain]);
    expect(await readTask(write("toString_val.json", [greece]))).not.toHaveProperty("instruction");
  });

  test("a file without its other half, and a list that is no half", async () => {
    await expect(readTask(write("lonely_val.json", [greece]))).rejects.toThrow(/lonely_test\.json/);
    await expect(readTask(write("list.json", [greece]))).rejects.toThrow(/…_val\.json or …_test\.json/);
  });

  test("a task file may be named like one", async () => {
    const path = write("mine_test.json", { name: "mine", items: [{ input: "a", output: "b" }] });
    expect((await readTask(path)).name).toBe("mine");
  });

  test.each<[string, string, RegExp]>([
    ["no JSON", "[", /b_val\.json: expected JSON/],
    ["no list", '{"items": []}', /b_val\.json: expected a list of items, or an object/],
    ["no items", "[]", /b_val\.json: expected a list of items/],
    ["text as an item", '["Greece"]', /item 0: expected an object, found "Greece"/],
    ["no output", '[{"input": "Greece"}]', /item 0: expected output .*found nothing/],
    ["a number as picture", '[{"input": "a", "output": "b", "image": 3}]', /item 0: expected image .*3/],
  ])("%s is refused", (_, text, message) => {
    const good = { text: JSON.stringify([spain]), where: "a/b_test.json" };
    const bad = { text, where: "a/b_val.json" };
    expect(() => parsePublishedTask("b", { validation: bad, test: good })).toThrow(message);
  });
});

test("related tasks ask about the same things", async () => {
  const tasks = await readShippedTasks();
  const find = (name: string) => tasks.find((task) => task.name === name)!;
  const names = (name: string) =>
    relatedTasks(name, itemsOf(find(name), "test"), tasks, 2).map((task) => task.name);
  expect(names("country-capital")).toEqual(["country-currency", "country-continent"]);
  expect(new Set(names("animal-young"))).toEqual(new Set(["animal-class", "animal-latin"]));
  expect(relatedTasks("made-up", [{ input: "Narnia", outputs: ["x"], split: "test" }], tasks, 2)).toEqual([]);
});
