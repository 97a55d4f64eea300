import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommanderError } from "commander";
import { afterAll, expect, test, vi } from "vitest";
import { type CollectReport, collectCommand } from "../../../src/cli/commands/collect.ts";
import { addCommonOptions } from "../../../src/cli/options/command.ts";
import { openActivations, tap } from "../../../src/index.ts";
import { OpenModel } from "../../../src/model/open-model.ts";
import { writeWhole } from "../../../src/platform/node-write.ts";
import { encodeParquet, type ParquetColumn } from "../../../src/tables/parquet-writer.ts";
import { expectClose } from "../../helpers/compare.ts";
import { fixtureModel } from "../../helpers/model.ts";

const folder = mkdtempSync(join(tmpdir(), "xpatch-collect-"));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);
const ROOT = `${import.meta.dirname}/../../..`;
const LLAMA = `${ROOT}/test/fixtures/llama/model`;

async function collect(...args: string[]): Promise<CollectReport> {
  const write = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const note = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    await addCommonOptions(collectCommand()).parseAsync(["--json", ...args], { from: "user" });
    return JSON.parse(write.mock.calls.map(([chunk]) => chunk).join(""));
  } finally {
    write.mockRestore();
    note.mockRestore();
  }
}

const LINES = ["Q: Greece\\nA:", "One and two make three", "", "Ünïcode: 日本", "last, without a new line"];
writeFileSync(path("lines.txt"), `\ufeff${LINES.join("\r\n")}`);

test("lines of a text file become prompts, and their activations a store", async () => {
  const out = path("lines");
  const report = await collect(
    "--model",
    LLAMA,
    "--prompts",
    path("lines.txt"),
    "--sites",
    "resid_post.1, z.*",
    "--out",
    out,
  );
  const sites = ["z.0", "z.1", "resid_post.1", "z.2"].map((site) => ({ site, width: 48 }));
  expect(report).toMatchObject({ family: "llama", folder: out, prompts: 4, stored: 0, sites, shards: 1 });
  const model = await fixtureModel("llama");
  const prompts = LINES.filter((line) => line !== "").map((line) => model.prompt(line.replace("\\n", "\n")));
  expect(report.rows).toBe(4 * prompts.reduce((sum, { length }) => sum + length, 0));
  const store = await openActivations(out);
  const kept = [];
  for await (const prompt of store.readPrompts()) kept.push(prompt.text);
  expect(kept).toEqual(prompts.map(({ text }) => text));
  for await (const batch of store.read({ sites: "resid_post.1" })) {
    const alone = await Promise.all(
      prompts.map((prompt) => model.run(prompt, { taps: { x: tap("resid_post.1") } }).x.read()),
    );
    expectClose(
      batch.vectors,
      alone.flatMap((x) => [...x]),
      { atol: 1e-5 },
    );
  }
  expect(readdirSync(out)).not.toContain("lock");
  expect(
    (
      await collect(
        "--model",
        LLAMA,
        "--prompts",
        path("lines.txt"),
        "--sites",
        "resid_post.1,z.*",
        "--out",
        out,
      )
    ).stored,
  ).toBe(4);
});

test("pictures come by JSON lines, with paths beside the file; tasks as their prompts", async () => {
  const picture = `${ROOT}/test/fixtures/images/photo.png`;
  writeFileSync(path("photo.png"), readFileSync(picture));
  writeFileSync(
    path("pictures.jsonl"),
    [
      { prompt: "Q:<image>\nA:", images: ["photo.png"] },
      { text: "<image> same?", image: picture, id: 3 },
    ]
      .map((line) => JSON.stringify(line))
      .join("\n"),
  );
  const vlm = ["--model", `${ROOT}/test/fixtures/llava/model`, "--sites", "resid_post.0"];
  const seen = await collect(
    ...vlm,
    "--prompts",
    path("pictures.jsonl"),
    "--at",
    "image",
    "--files",
    "parquet",
    "--out",
    path("seen"),
  );
  expect([seen.prompts, seen.rows]).toEqual([2, 32]);
  const task = [
    "--task",
    "food-color",
    "--shots",
    "1",
    "--at",
    "-1",
    "--dtype",
    "f16",
    "--out",
    path("task"),
  ];
  const asked = await collect("--model", LLAMA, ...task);
  expect(asked.prompts).toBeGreaterThan(10);
  expect([asked.rows, asked.seed]).toEqual([3 * asked.prompts, 0]);
});

test("rows of Parquet become prompts, with the pictures that Hugging Face's data sets hold", async () => {
  const picture = readFileSync(`${ROOT}/test/fixtures/images/photo.png`);
  const columns: ParquetColumn[] = [
    { name: "id", type: "int32" },
    { name: "text", type: "string" },
    { name: "image", type: { struct: { bytes: "bytes", path: "string" } }, nullable: true },
  ];
  const rows = [
    [1, 2],
    ["Q:<image>\nA:", "plain"],
    [{ bytes: new Uint8Array(picture), path: "gone.png" }, null],
  ];
  await writeWhole(path("set.parquet"), encodeParquet(columns, [rows, rows]));
  const vlm = ["--model", `${ROOT}/test/fixtures/llava/model`, "--sites", "resid_post.0", "--at", "-1"];
  const report = await collect(...vlm, "--prompts", path("set.parquet"), "--out", path("rows"));
  expect([report.prompts, report.rows]).toEqual([4, 4]);
  const kept = [];
  for await (const prompt of (await openActivations(path("rows"))).readPrompts()) kept.push(prompt);
  expect(kept.map(({ text }) => text)).toEqual(["Q:<image>\nA:", "plain", "Q:<image>\nA:", "plain"]);
  expect(kept[0]!.spans["image"]).toMatchObject({ grid: { rows: 4, columns: 4 } });
  await writeWhole(path("other.parquet"), encodeParquet([{ name: "id", type: "int32" }], [[[1]]]));
  await expect(collect(...vlm, "--prompts", path("other.parquet"), "--out", path("x"))).rejects.toThrow(
    /other\.parquet: expected a column prompt or text, found id/,
  );
});

test("a run that is killed is gone on with, to the same bytes", async () => {
  const lines = Array.from(
    { length: 1500 },
    (_, i) => `Line ${i} of ${i * 7919}: ${"and so on ".repeat(i % 5)}`,
  );
  writeFileSync(path("many.txt"), lines.join("\n"));
  const command = [
    "--model",
    LLAMA,
    "--prompts",
    path("many.txt"),
    "--shard-mib",
    "1",
    "--batch-tokens",
    "256",
  ];
  await collect(...command, "--out", path("whole"));
  const child = spawn(
    process.execPath,
    [`${ROOT}/dist/cli/main.js`, "collect", ...command, "--out", path("killed")],
    {
      stdio: "ignore",
    },
  );
  const ended = new Promise((resolve) => child.once("exit", (_, signal) => resolve(signal)));
  const shards = async () => (await openActivations(path("killed"))).manifest.shards.length;
  await vi.waitUntil(async () => (await shards().catch(() => 0)) > 1, { timeout: 90_000, interval: 5 });
  child.kill("SIGKILL");
  expect(await ended).toBe("SIGKILL");
  const report = await collect(...command, "--out", path("killed"));
  expect(report.stored).toBeGreaterThan(0);
  expect(report.stored).toBeLessThan(1500);
  const files = (name: string) => readdirSync(path(name)).filter((file) => !file.endsWith(".tmp"));
  expect(files("killed")).toEqual(files("whole"));
  for (const file of files("whole")) {
    expect(
      readFileSync(join(path("killed"), file)).equals(readFileSync(join(path("whole"), file))),
      file,
    ).toBe(true);
  }
});

test.each<[string, string, RegExp]>([
  ["no JSON", '{"prompt": "a"}\n{', /bad\.jsonl:2: expected a JSON object, found \{/],
  [
    "no prompt",
    '{"question": "a"}',
    /bad\.jsonl:1: expected prompt or text, a string, .* found \{"question"/,
  ],
  [
    "pictures that are none",
    '{"prompt": "<image>", "images": [3]}',
    /bad\.jsonl:1: .*files or structs of bytes and path/,
  ],
  ["a missing picture", '{"prompt": "<image>", "image": "none.png"}', /bad\.jsonl:1: .*none\.png/],
  ["a picture for a model of text", '{"prompt": "a", "images": ["photo.png"]}', /bad\.jsonl:1: /],
  ["nothing", "\n\n", /bad\.jsonl: expected a prompt a line, found none/],
])("a file with %s is refused by its line, before weights are read", async (_, text, message) => {
  writeFileSync(path("bad.jsonl"), text);
  const load = vi.spyOn(OpenModel.prototype, "load");
  await expect(
    collect("--model", LLAMA, "--prompts", path("bad.jsonl"), "--out", path("bad")),
  ).rejects.toThrow(message);
  expect(load).not.toHaveBeenCalled();
  load.mockRestore();
  expect(readdirSync(folder)).not.toContain("bad");
});

test("other encodings are refused as everywhere, also far behind the beginning", async () => {
  const text = Buffer.concat([
    Buffer.from("fine\n".repeat(40_000)),
    Buffer.from([0x63, 0x61, 0x66, 0xe9, 0x0a]),
  ]);
  writeFileSync(path("latin.txt"), text);
  const model = await fixtureModel("llama");
  const { promptsOfFile } = await import("../../../src/cli/options/prompt-stream.ts");
  const all = async () => {
    for await (const _ of promptsOfFile(path("latin.txt"), model)) {
      // One after the other.
    }
  };
  await expect(all()).rejects.toThrow(
    /latin\.txt: expected UTF-8, found line 40001 in another encoding \(in Windows-1252 it reads "café"\)/,
  );
  writeFileSync(path("wide.txt"), Buffer.from("\ufeffQ: Peru\nA: Lima", "utf16le"));
  const texts = [];
  for await (const { text } of promptsOfFile(path("wide.txt"), model)) texts.push(text);
  expect(texts).toEqual(["Q: Peru", "A: Lima"]);
});

test("arguments that go together are asked for, sites and folders checked before weights are read", async () => {
  const load = vi.spyOn(OpenModel.prototype, "load");
  await expect(collect("--out", path("x"))).rejects.toThrow(CommanderError);
  const given = ["--model", LLAMA, "--prompts", path("lines.txt")];
  await expect(collect(...given, "--shots", "3", "--out", path("x"))).rejects.toThrow(
    /--shots goes with --task only/,
  );
  await expect(collect(...given, "--sites", "resid.*", "--out", path("x"))).rejects.toThrow(
    /--sites: no site of this model is called "resid\.\*"/,
  );
  await expect(collect(...given, "--sites", "pattern.0", "--out", path("x"))).rejects.toThrow(/are keys/);
  await expect(collect(...given, "--files", "parquet", "--dtype", "f16", "--out", path("x"))).rejects.toThrow(
    CommanderError,
  );
  await expect(collect(...given, "--out", folder)).rejects.toThrow(
    /expected an empty folder, or one with activations\.json/,
  );
  expect(load).not.toHaveBeenCalled();
  load.mockRestore();
});
