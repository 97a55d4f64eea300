import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { parityCommand } from "../../src/cli/commands/parity.ts";
import { formatAuthors } from "../../src/cli/terminal/authors-text.ts";
import { openCheckpoint } from "../../src/model/checkpoint/open-checkpoint.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import { exportModel } from "../../src/model/export/export.ts";
import { AUTHORS_RULES, compareWithAuthors } from "../../src/parity/authors.ts";
import { type AuthorsSplit, type AuthorsTask, readAuthors } from "../../src/parity/authors-folder.ts";
import { newAuthorsReport } from "../../src/parity/authors-report.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { settingOf } from "../../src/patching/setting.ts";
import { fewShotPrompt, PAPER_TEMPLATE } from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { testDevice } from "../helpers/device.ts";

/**
 * What the paper's own program (g-luo/task_vectors_are_cross_modal at 25c7463, transformers 4.46.3, f32) answered with the
 * f32 export of weights/vlm. Whole files of a larger set, one task for each of the four directions, its val split: every layer.
 */
const FOLDER = "test/fixtures/authors";

let model: PatchableModel;
let tasks: AuthorsTask[];
beforeAll(async () => {
  const device = await testDevice();
  await using checkpoint = await openCheckpoint("weights/vlm");
  const files = new Map<string, Blob>();
  const write = async (name: string, chunks: AsyncIterable<Uint8Array>) => {
    const parts: BlobPart[] = [];
    for await (const chunk of chunks) parts.push(chunk.slice());
    files.set(name, new Blob(parts));
  };
  await exportModel(checkpoint, device, { write }, { dtype: "f32" });
  model = await loadModel(memoryFolder(files, "weights/vlm in f32"), { device });
  tasks = await readAuthors(FOLDER, "tasks");
}, 300_000);
afterAll(() => model.dispose());

test("every answer and every vector is that of the authors' program", { timeout: 300_000 }, async () => {
  const rule = AUTHORS_RULES.f32;
  const compared = await compareWithAuthors(tasks, model, rule);
  const report = newAuthorsReport({
    ...settingOf(model),
    ...compared,
    authors: FOLDER,
    weights: "f32",
    rule,
  });
  expect(compared.differences.filter(({ tie }) => !tie)).toEqual([]);
  expect(compared.vectors.filter((check) => !check.passed)).toEqual([]);
  expect(compared.vectors).toHaveLength(4);
  // 20 items: without context, behind the prompt, and patched in 30 layers.
  expect(report.answers.compared).toBe(20 * 32);
  expect(report.answers.same + report.answers.ties).toBe(20 * 32);
  expect(report.passed).toBe(true);
  expect(formatAuthors(report)).toMatch(
    /image → text: .* of 160 answers the same[\s\S]*pass: .* of 640 answers/,
  );
});

/** The image → image task, three items. */
function small(): AuthorsTask {
  return tasks.find(({ examples, query }) => examples === "image" && query === "image")!;
}

describe("finds that", () => {
  test("an answer is another, how far that is from the top, and whether it is a tie by the rule", async () => {
    // One answer is made the runner-up, another what no token reads as.
    const task = small();
    const [split] = task.splits as [AuthorsSplit];
    const item = split.items[0]!;
    const pictures = await loadPictures(model, [{ ...item, image: item.image! }], { width: 224 });
    const { logits } = model.run(fewShotPrompt(model, [], pictures(item), PAPER_TEMPLATE));
    const values = (await logits!.read()) as Float32Array;
    const order = [...values.keys()].sort((a, b) => values[b]! - values[a]!);
    const [best, second] = order as [number, number];
    const textOf = (id: number) => model.tokenizer.decode([id]);
    expect(split.noContext[0]).toBe(textOf(best));
    const gap = values[best]! - values[second]!;

    const none = "no token reads so";
    const [, , third] = split.noContext;
    const changed = { ...split, noContext: [textOf(second), none, third!] };
    const rule = { ...AUTHORS_RULES.f32, tie: gap * 1.01 };
    const compared = await compareWithAuthors([{ ...task, splits: [changed] }], model, rule);
    expect(compared.differences).toMatchObject([
      { item: 0, way: "no context", expected: textOf(second), found: textOf(best), tie: true },
      { item: 1, way: "no context", expected: none, margin: Number.POSITIVE_INFINITY, tie: false },
    ]);
    expect(compared.differences[0]!.margin).toBeCloseTo(gap, 3);
    expect(gap).toBeGreaterThan(AUTHORS_RULES.f32.tie);

    const parts = { ...settingOf(model), authors: FOLDER, weights: "f32", rule };
    const failed = newAuthorsReport({ ...parts, ...compared });
    expect(failed.passed).toBe(false);
    expect(failed.answers).toEqual({ compared: 96, same: 94, ties: 1 });
    expect(formatAuthors(failed)).toMatch(/FAIL: 94 of 96 answers the same, 1 ties, 1 other differences/);
    const onlyTie = {
      ...compared,
      differences: compared.differences.slice(0, 1),
      counts: compared.counts.map((count) => ({ ...count, same: { ...count.same, "no context": 2 } })),
    };
    expect(newAuthorsReport({ ...parts, ...onlyTie })).toMatchObject({ passed: true, answers: { ties: 1 } });
  });

  test("examples came in another order: the vectors are others", async () => {
    const task = small();
    const [split] = task.splits as [AuthorsSplit];
    const drawn = split.drawn.map((indices) => [...indices].reverse());
    const { vectors } = await compareWithAuthors(
      [{ ...task, splits: [{ ...split, drawn }] }],
      model,
      AUTHORS_RULES.f32,
    );
    expect(vectors.map(({ passed }) => passed)).toEqual([false]);
  });

  test("the folder is of a model with other layers", async () => {
    const task = small();
    const vectors = { shape: [29, 576], values: task.vectors.values.slice(576) };
    await expect(compareWithAuthors([{ ...task, vectors }], model, AUTHORS_RULES.f32)).rejects.toThrow(
      /expected vectors \[30, 576\].*found \[29, 576\]/,
    );
  });
});

describe("a folder is refused", () => {
  const folders: string[] = [];
  afterEach(() => {
    for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
  });
  const copy = () => {
    const folder = mkdtempSync(join(tmpdir(), "authors-"));
    folders.push(folder);
    cpSync(FOLDER, folder, { recursive: true });
    return folder;
  };
  type Json = Record<string, unknown[]>;

  test.each<[string, (json: Json) => unknown, RegExp]>([
    ["no items", (json) => json["items"]!.splice(0), /expected at least one item/],
    [
      "an unknown field",
      (json) => Object.assign(json, { seed: [1] }),
      /expected the fields .*; found "seed"/,
    ],
    ["an answer too few", (json) => json["regular_text"]!.pop(), /regular_text: expected a list of 6 texts/],
    [
      "a layer without an answer",
      (json) => (json["hypothesis_text"]![3] as unknown[]).pop(),
      /hypothesis_text\[3\]: expected a list of 6 texts/,
    ],
    [
      "lists that are shifted",
      (json) => json["items"]!.reverse(),
      /expected labels_text\[0\] to be ".*", found "Bogotá"/,
    ],
    [
      "an item among its own examples",
      (json) => json["train_idxs"]!.splice(2, 1, [0, 2]),
      /train_idxs\[2\]: expected a list of indices of other items/,
    ],
    [
      "no examples, where no vector can be read",
      (json) => json["train_idxs"]!.splice(0, 1, []),
      /train_idxs\[0\]: expected at least one example/,
    ],
  ])("with %s", async (_, change, message) => {
    const folder = copy();
    const file = join(folder, "text-image", "country-capital_val.json");
    const json = JSON.parse(readFileSync(file, "utf8"));
    change(json);
    writeFileSync(file, JSON.stringify(json));
    await expect(readAuthors(folder, "tasks")).rejects.toThrow(message);
  });

  test("with a direction or a file of another kind, without val, or with nothing", async () => {
    const folder = copy();
    cpSync(join(folder, "text-text"), join(folder, "text-instruction"), { recursive: true });
    await expect(readAuthors(folder, "tasks")).rejects.toThrow(/text-instruction: expected a name such as/);
    rmSync(join(folder, "text-instruction"), { recursive: true });
    cpSync(join(folder, "text-text", "country-capital_val.json"), join(folder, "text-text", "notes.json"));
    await expect(readAuthors(folder, "tasks")).rejects.toThrow(/notes\.json: expected <task>_val\.json/);
    rmSync(join(folder, "text-text", "notes.json"));
    rmSync(join(folder, "text-text", "country-capital_val.json"));
    await expect(readAuthors(folder, "tasks")).rejects.toThrow(/expected country-capital_val\.json/);
    await expect(readAuthors(join(FOLDER, "text-text"), "tasks")).rejects.toThrow(/expected folders such as/);
    await expect(readAuthors(join(folder, "none"), "tasks")).rejects.toThrow(/none/);
  });
});

test.each([
  [["--authors", FOLDER, "--real", "x.json"], /expected one of case folders, --real and --authors/],
  [["--authors", FOLDER, "test/fixtures/llama"], /expected one of/],
  [["--real", "x.json", "--weights", "stored"], /--pictures and --weights go with --authors only/],
  [["--authors", FOLDER, "--weights", "f16"], /Expected one of f32, stored/],
  [["--authors", FOLDER, "--pictures", "none"], /^--pictures: the picture of ".*" cannot be read: ENOENT/],
])("on the command line %j is refused", async (args, message) => {
  const stderr = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    await expect(parityCommand().parseAsync(args, { from: "user" })).rejects.toThrow(message);
  } finally {
    stderr.mockRestore();
  }
});
