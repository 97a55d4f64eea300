import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { FileError, XpatchError } from "../../src/errors.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import { memorySource } from "../../src/model/checkpoint/source/sources.ts";
import { encodeParquet } from "../../src/tables/parquet-writer.ts";
import { type DatasetColumns, type DatasetItem, datasetItems, splitOfPath } from "../../src/tasks/dataset.ts";
import { parseTask } from "../../src/tasks/task.ts";

// What the data-set library of Hugging Face writes (scripts/make-dataset-fixtures.py).
const FOLDER = join(import.meta.dirname, "../fixtures/datasets/animals");
const TRAIN = join(FOLDER, "data/train-00000-of-00001.parquet");
const folder = mkdtempSync(join(tmpdir(), "xpatch-dataset-"));
afterAll(() => rmSync(folder, { recursive: true }));

const source = (content: string | Uint8Array<ArrayBuffer>, name: string) =>
  memorySource(typeof content === "string" ? new TextEncoder().encode(content) : content, name);
const train = () => source(new Uint8Array(readFileSync(TRAIN)), "train.parquet");

async function read(
  file: ReturnType<typeof source>,
  columns: DatasetColumns,
): Promise<{ items: DatasetItem[]; leftOut: string[] }> {
  const items: DatasetItem[] = [];
  const leftOut: string[] = [];
  const files = [{ source: file, split: "train" as const }];
  for await (const item of datasetItems(files, columns, (where, what) => leftOut.push(`${where} ${what}`))) {
    items.push(item);
  }
  return { items, leftOut };
}

const fields = async (...args: Parameters<typeof read>) =>
  (await read(...args)).items.map((item) => item.fields);

test("class labels are their names; rows without label or picture are left out, and said", async () => {
  const { items, leftOut } = await read(train(), { output: "label", image: "image" });
  expect(items.map(({ fields: of }) => of)).toEqual([
    { input: "train 0", output: ["cat"] },
    { input: "train 1", output: ["dog"] },
    { input: "train 2", output: ["owl"] },
    { input: "train 3", output: ["cat"] },
  ]);
  expect(leftOut).toEqual(["train.parquet: row 4 output", "train.parquet: row 5 image"]);
  for (const [i, { image, split }] of items.entries()) {
    expect(split).toBe("train");
    const picture = await decodeImage(image as Uint8Array);
    expect([picture.width, picture.height, ...picture.data.slice(0, 3)]).toEqual([
      4,
      3,
      i * 20,
      0,
      255 - i * 20,
    ]);
  }
});

test("lists, structs, large strings and lists of labels", async () => {
  const answers = await fields(train(), { input: "title", output: "answers.text" });
  expect(answers[1]).toEqual({ input: "animal 1", output: ["a 1", "the 1"] });
  expect(answers.length).toBe(6);
  const sounds = await read(train(), { input: "title", output: "sounds" });
  expect(sounds.items[0]!.fields).toEqual({ input: "animal 0", output: ["miaow", "purr"] });
  expect(sounds.leftOut).toEqual(["train.parquet: row 2 output"]);
  const tags = await fields(train(), {
    input: "title",
    output: "tags",
    question: "title",
    answer: "answers.start",
  });
  expect(tags.slice(0, 2)).toEqual([
    { input: "animal 0", output: ["wild"], question: "animal 0", answer: ["0", "1"] },
    { input: "animal 1", output: ["tame"], question: "animal 1", answer: ["0", "1"] },
  ]);
});

test("the same rows as CSV and as JSON lines, over the ends of blocks", async () => {
  const long = "ä".repeat(700_000);
  const csv = `name,says,part\n"a, ""b""",x,test\n"two\nlines",${long},dev\nlast,y,\nnone,,train\n`;
  const columns = { input: "name", output: "says" };
  const expected = [
    { input: 'a, "b"', output: ["x"] },
    { input: "two\nlines", output: [long] },
    { input: "last", output: ["y"] },
  ];
  const found = await read(source(csv, "a.csv"), columns);
  expect(found.items.map((item) => item.fields)).toEqual(expected);
  expect(found.leftOut).toEqual(["a.csv: row 3 output"]);
  const json = [
    { name: 'a, "b"', says: "x" },
    { name: "two\nlines", says: long },
    { name: "last", says: ["y", "y", null] },
  ];
  const lines = json.map((row) => JSON.stringify(row)).join("\r\n");
  expect(await fields(source(lines, "a.jsonl"), columns)).toEqual(expected);
  const named = await read(source("name,says,part\na,x,val\n", "a.csv"), { ...columns, split: "part" });
  expect(named.items[0]!.split).toBe("validation");
});

test("rows come a group at a time: the second is not read before its rows are asked for", async () => {
  const whole = train();
  const reads: number[] = [];
  const counted = {
    ...whole,
    read(at: number, length: number) {
      reads.push(at);
      return whole.read(at, length);
    },
  };
  const rows = datasetItems([{ source: counted }], { input: "title", output: "label", image: "image" });
  for (let i = 0; i < 3; i++) await rows.next();
  const before = reads.length;
  await rows.next();
  expect(reads.length).toBeGreaterThan(before);
});

test.each<[string, string | Uint8Array<ArrayBuffer>, DatasetColumns, string]>([
  ["a.csv", "x,y\n1,2\n", { output: "z" }, "a.csv: expected a column z, found x (text), y (text)"],
  ["a.csv", "x,y\n1\n", { output: "y" }, "a.csv: Invalid Record Length"],
  ["a.csv", "x,x\n1,2\n", { output: "x" }, 'expected each column once, found "x" twice'],
  ["a.csv", 'x,y\n1,"2\n', { output: "y" }, "a.csv: Quote Not Closed"],
  ["a.csv", new Uint8Array([120, 10, 255, 10]), { output: "x" }, "a.csv: expected UTF-8"],
  ["a.jsonl", '{"x":1}\n{"x":\n', { output: "x" }, "a.jsonl: line 2: expected JSON"],
  ["a.jsonl", "[1]\n", { output: "x" }, "a.jsonl: line 1: expected an object, found [1]"],
  [
    "a.jsonl",
    '{"x":1.5}\n',
    { output: "x" },
    "a.jsonl: row 0: x: expected a text, a class label, a whole number",
  ],
  [
    "a.jsonl",
    '{"x":"a","i":[1]}\n',
    { output: "x", image: "i" },
    "found a list; a list of pictures is not supported",
  ],
  ["a.jsonl", '{"x":"a","n":["b","c"]}\n', { output: "x", input: "n" }, "expected one text, found 2"],
  [
    "a.jsonl",
    '{"x":"a","s":"held-out"}\n',
    { output: "x", split: "s" },
    'one of train, validation, test, found "held-out"',
  ],
  ["a.jsonl", '{"x":"a"}\n', { output: "x.y" }, 'expected a struct with y, found "a"'],
  ["a.parquet", "x,y\n", { output: "x" }, "a.parquet: expected a Parquet file"],
  ["a.arrow", "ARROW1", { output: "x" }, "save_to_disk writes .arrow, to_parquet what is read here"],
])("%s %#: what is wrong is said with what was expected", async (name, content, columns, message) => {
  const error = await read(source(content, name), columns).catch((error) => error);
  expect(error).toBeInstanceOf(XpatchError);
  expect(error.message).toContain(message);
});

test("damaged CSV and JSON lines are read as they are or refused, with typed errors", async () => {
  let seed = 11;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  let refused = 0;
  for (const [name, text] of [
    ["a.csv", 'x,y\n"a, b",c\n"d ""e""",f\ng,h\n'],
    ["a.jsonl", '{"x":"a","y":"b"}\n{"x":"c","y":["d",null]}\n'],
  ] as const) {
    for (let trial = 0; trial < 200; trial++) {
      const bytes = new TextEncoder()
        .encode(text)
        .slice(0, trial % 5 === 0 ? random(text.length) : undefined);
      for (let n = random(3); n >= 0 && bytes.length > 0; n--) bytes[random(bytes.length)] = random(256);
      try {
        await read(source(bytes, name), { input: "x", output: "y" });
      } catch (error) {
        expect(error).toBeInstanceOf(XpatchError);
        expect((error as Error).message).toContain(`${name}: `);
        refused++;
      }
    }
  }
  expect(refused).toBeGreaterThan(100);
});

test("labels outside their names, and damaged features, are refused", async () => {
  const parquet = async (metadata: string) => {
    const chunks: Uint8Array[] = [];
    const columns = [{ name: "label", type: "int64" }] as const;
    for await (const chunk of encodeParquet(columns, [[[0n, 3n]]], { metadata: { huggingface: metadata } })) {
      chunks.push(chunk);
    }
    return source(new Uint8Array(Buffer.concat(chunks)), "a.parquet");
  };
  const features = (of: unknown) => JSON.stringify({ info: { features: { label: of } } });
  const labels = await parquet(features({ _type: "ClassLabel", names: ["a", "b"] }));
  await expect(read(labels, { output: "label" })).rejects.toThrow(
    "a.parquet: row 1: label: expected a class label from 0 to 1, found 3",
  );
  expect(
    await fields(await parquet(features({ _type: "Value", dtype: "int64" })), { output: "label" }),
  ).toEqual([
    { input: "train 0", output: ["0"] },
    { input: "train 1", output: ["3"] },
  ]);
  for (const text of ["{", "{}", features({ _type: "ClassLabel" }), features(3)]) {
    const error = await read(await parquet(text), { output: "label" }).catch((error) => error);
    expect(error).toBeInstanceOf(FileError);
    expect(error.message).toContain('a.parquet: expected the metadata "huggingface"');
  }
});

test.each([
  ["data/train-00000-of-00003.parquet", "train"],
  ["val/part.0.parquet", "validation"],
  ["test.jsonl", "test"],
  ["dev_0.csv", "validation"],
  ["trainer.csv", undefined],
  ["contest/a.csv", undefined],
])("%s is of the split %s", (path, split) => {
  expect(splitOfPath(path)).toBe(split);
});

function xpatch(...args: string[]) {
  return spawnSync(process.execPath, ["dist/cli/main.js", "task", ...args], { encoding: "utf8" });
}

test("xpatch task makes a folder that is a task with pictures; the same data set gives the same bytes", () => {
  const out = join(folder, "animals");
  const args = [FOLDER, "--image", "image", "--output", "label", "--instruction", "What it is:"];
  const made = xpatch(...args, "--out", out, "--json");
  expect(made.status, made.stderr).toBe(0);
  expect(JSON.parse(made.stdout)).toMatchObject({
    name: "animals",
    items: { train: 4, validation: 3, test: 2 },
    files: ["test", "train", "validation"].map((split) => ({
      path: join(FOLDER, `data/${split}-00000-of-00001.parquet`),
      split,
    })),
    pictures: 9,
    leftOut: { output: 1, image: 1 },
  });
  const task = parseTask(readFileSync(join(out, "task.json"), "utf8"), join(out, "task.json"));
  expect(task.instruction).toBe("What it is:");
  expect(task.items.every(({ image }) => existsSync(image!))).toBe(true);
  const again = join(folder, "again");
  expect(xpatch(...args, "--out", again).status).toBe(0);
  for (const file of ["task.json", "pictures/000000.png", "pictures/000008.png"]) {
    expect(readFileSync(join(again, file)).equals(readFileSync(join(out, file))), file).toBe(true);
  }
});

test("xpatch task refuses what would be no task, and leaves nothing behind", () => {
  const out = join(folder, "nothing");
  for (const [args, message] of [
    [[FOLDER, "--output", "answers.text", "--input", "label"], 'expected each input once, found "'],
    [[FOLDER, "--output", "titel"], 'the nearest is "title"'],
    [[folder, "--output", "x"], "expected files of one kind"],
    [[join(folder, "none.csv"), "--output", "x"], "there is no"],
  ] as const) {
    const refused = xpatch(...args, "--out", out);
    expect(refused.status).toBe(1);
    expect(refused.stderr).toContain(message);
    expect(existsSync(out)).toBe(false);
  }
  writeFileSync(join(folder, "gif.jsonl"), '{"x":"a","i":"pictures/a.gif"}\n');
  const kept = xpatch(
    join(folder, "gif.jsonl"),
    "--output",
    "x",
    "--image",
    "i",
    "--out",
    join(folder, "kept"),
  );
  expect(kept.status, kept.stderr).toBe(0);
  const { items } = JSON.parse(readFileSync(join(folder, "kept/task.json"), "utf8"));
  expect(items[0].image).toBe(join(folder, "pictures/a.gif"));
});
