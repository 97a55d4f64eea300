import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommanderError } from "commander";
import { parse } from "csv-parse/sync";
import { afterAll, expect, test, vi } from "vitest";
import { trainCommand } from "../../src/cli/commands/train.ts";
import { formatTraining, type TrainReport } from "../../src/cli/commands/training.ts";
import { addCommonOptions } from "../../src/cli/options/command.ts";
import { readVectorFile } from "../../src/cli/options/vector-files.ts";
import { OpenModel } from "../../src/model/open-model.ts";
import { addVector } from "../../src/patching/edit.ts";
import { loadModel } from "../../src/patching/model.ts";
import { answeredPrompt, fewShotPrompt } from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { itemsOf, type PicturedItem, parseTask } from "../../src/tasks/task.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel } from "../helpers/model.ts";

const folder = mkdtempSync(join(tmpdir(), "xpatch-train-"));
afterAll(() => rmSync(folder, { recursive: true }));
const path = (name: string) => join(folder, name);
const LLAMA = `${import.meta.dirname}/../fixtures/llama/model`;
const LLAVA = `${import.meta.dirname}/../fixtures/llava/model`;

const image = `${import.meta.dirname}/../fixtures/images/photo.png`;
const items = ["red", "green", "blue", "sky", "sea"].flatMap((input, i) =>
  (["train", "test"] as const).map((split) => ({
    ...{ input: `${input}${split === "test" ? "s" : ""}`, split, image },
    output: ["cat", "dog", "owl", "ant", "bee"][i],
  })),
);
writeFileSync(path("task.json"), JSON.stringify({ name: "made-up", items }));

async function train(...args: string[]): Promise<TrainReport> {
  const write = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  const note = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    const command = addCommonOptions(trainCommand());
    await command.parseAsync(
      ["--task", path("task.json"), "--json", "--batch", "3", "--warm-up", "1", ...args],
      {
        from: "user",
      },
    );
    return JSON.parse(write.mock.calls.map(([chunk]) => chunk).join(""));
  } finally {
    write.mockRestore();
    note.mockRestore();
  }
}

const llama = (out: string, ...args: string[]) =>
  train("--model", LLAMA, "--steps", "5", "--lr", "0.01", "--out", path(out), ...args);

function logOf(folder: string): Record<string, string>[] {
  return parse(readFileSync(path(`${folder}/log.csv`), "utf8"), { columns: true });
}

test("an adapter is trained, scored before and after, and written for loadModel", async () => {
  const report = await llama("adapter", "--rank", "3", "--lora", "q_proj,down_proj");
  const model = await fixtureModel("llama");
  const { layers } = model.config;
  expect(report).toMatchObject({
    ...{ task: "made-up", items: 5, total: 5, resumedAt: 0, family: "llama", seed: 0 },
    trained: `LoRA of rank 3 on ${2 * layers} layers`,
    files: [path("adapter/adapter_model.safetensors"), path("adapter/adapter_config.json")],
  });
  expect(report.steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5]);
  for (const { loss, gradNorm } of report.steps) expect(loss > 0 && gradNorm > 0).toBe(true);
  // The rate is 0 in the first step, and the second meets other items.
  expect(report.steps.at(-1)!.loss).toBeLessThan(report.steps[0]!.loss);
  const files = ["adapter_config.json", "adapter_model.safetensors", "log.csv"];
  expect(readdirSync(path("adapter")).sort()).toEqual(files);
  const rows = logOf("adapter");
  expect(rows.map(({ step }) => step)).toEqual(["0", "1", "2", "3", "4", "5", "5"]);
  expect([rows[0]!.accuracy, rows.at(-1)!.accuracy].map(Number)).toEqual([
    report.before.accuracy,
    report.after.accuracy,
  ]);
  for (const [i, { loss, gradNorm }] of report.steps.entries()) {
    expect([rows[i + 1]!.loss, rows[i + 1]!.gradnorm].map(Number)).toEqual([loss, gradNorm]);
  }
  expect(rows.slice(1, 4).map(({ lr }) => Number(lr))).toEqual([0, 0.01, expect.closeTo(0.00854, 4)]);
  // What trackio keeps of a column's name.
  expect(Object.keys(rows[0]!).every((name) => /^[a-z]{1,10}$/.test(name))).toBe(true);
  for (const { timestamp } of rows) expect(new Date(timestamp!).toISOString()).toBe(timestamp);
  const config = JSON.parse(readFileSync(path("adapter/adapter_config.json"), "utf8"));
  expect(config).toMatchObject({ r: 3, lora_alpha: 6, base_model_name_or_path: LLAMA });

  using loaded = await loadModel(LLAMA, {
    device: await testDevice(),
    adapters: [path("adapter")],
    merge: false,
  });
  for (const [m, scored] of [[model, report.before] as const, [loaded, report.after] as const]) {
    const tested = items.filter(({ split }) => split === "test");
    const queries = tested.map(({ input }) => fewShotPrompt(m, [], input));
    const answers = await m.generate(queries, { maxNewTokens: 1 });
    expect(scored.answers).toEqual(answers.map(({ ids }) => m.tokenizer.decode(ids, { skipSpecial: true })));
  }
  const text = formatTraining(report);
  expect(text).toContain(`trained     LoRA of rank 3 on ${2 * layers} layers`);
  expect(text).toMatch(/before +\S+ % +\d\/5/);
  await expect(llama("adapter")).rejects.toThrow(
    /expected an empty folder, or one with training\.safetensors/,
  );
});

test("a run that is killed goes on from its last step, to the same bits", async () => {
  const command = ["--shots", "1", "--steps", "20"];
  const whole = await llama("whole", ...command);
  const main = `${import.meta.dirname}/../../dist/cli/main.js`;
  const given = ["train", "--task", path("task.json"), "--batch", "3", "--warm-up", "1", "--model", LLAMA];
  const run = spawn(process.execPath, [main, ...given, "--lr", "0.01", "--out", path("killed"), ...command], {
    stdio: "ignore",
  });
  const ended = new Promise((resolve) => run.once("exit", (_, signal) => resolve(signal)));
  await vi.waitUntil(() => existsSync(path("killed/training.safetensors")), { timeout: 60_000, interval: 2 });
  run.kill("SIGKILL");
  expect(await ended).toBe("SIGKILL");

  const load = vi.spyOn(OpenModel.prototype, "load");
  await expect(llama("killed", ...command, "--seed", "1")).rejects.toThrow(
    /training\.safetensors is of a training with other settings: seed 0, now 1; prompts /,
  );
  expect(load).not.toHaveBeenCalled();
  load.mockRestore();
  const rest = await llama("killed", ...command);
  expect(rest.resumedAt).toBeGreaterThan(0);
  expect(rest.resumedAt).toBeLessThan(20);
  expect(rest.steps).toEqual(whole.steps.slice(rest.resumedAt));
  expect(rest.after).toEqual(whole.after);
  expect(readFileSync(path("killed/adapter_model.safetensors"))).toEqual(
    readFileSync(path("whole/adapter_model.safetensors")),
  );
  expect(existsSync(path("killed/training.safetensors"))).toBe(false);
  const untimed = (rows: Record<string, string>[]) => rows.map(({ timestamp: _, ...rest }) => rest);
  expect(untimed(logOf("killed"))).toEqual(untimed(logOf("whole")));
});

test("the beginning of a log is no folder in use; another file of its name is", async () => {
  mkdirSync(path("begun"));
  writeFileSync(
    path("begun/log.csv"),
    "step,timestamp,loss,gradnorm,lr,accuracy\n0,2026-01-01T00:00:00.000Z,,,,0\n",
  );
  await llama("begun", "--steps", "2", "--warm-up", "0");
  expect(logOf("begun").map(({ step }) => step)).toEqual(["0", "1", "2", "2"]);
  mkdirSync(path("other"));
  writeFileSync(path("other/log.csv"), "time,water\n");
  await expect(llama("other")).rejects.toThrow(
    "expected an empty folder, or one with training.safetensors to go on from, found log.csv",
  );
  expect(readFileSync(path("other/log.csv"), "utf8")).toBe("time,water\n");
});

test("a run that is stopped says that it can be gone on from where it can; a second one is refused at once", async () => {
  const main = `${import.meta.dirname}/../../dist/cli/main.js`;
  const given = ["train", "--task", path("task.json"), "--batch", "3", "--model", LLAMA, "--steps", "2000"];
  const start = () => {
    const child = spawn(process.execPath, [main, ...given, "--out", path("stopped")], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let said = "";
    child.stderr.on("data", (data) => (said += data));
    return { child, ended: new Promise<string>((resolve) => child.once("close", () => resolve(said))) };
  };
  const made = (name: string) =>
    vi.waitUntil(() => existsSync(path(`stopped/${name}`)), { timeout: 60_000, interval: 2 });

  const first = start();
  await made("lock");
  // Before the model is opened: there is none of that name.
  await expect(train("--model", "/nowhere", "--steps", "3", "--out", path("stopped"))).rejects.toThrow(
    new RegExp(`another command is writing here \\(process ${first.child.pid} on `),
  );
  first.child.kill("SIGINT");
  const goesOn = "xpatch: stopped by SIGINT; the same command goes on from the last step\n";
  const said = await first.ended;
  // On a fast machine a step may be done by then.
  expect(said).toBe(
    existsSync(path("stopped/training.safetensors")) ? goesOn : "xpatch: stopped by SIGINT\n",
  );

  const second = start();
  await made("training.safetensors");
  second.child.kill("SIGINT");
  expect(await second.ended).toBe(goesOn);

  const third = start();
  await made("lock");
  third.child.kill("SIGINT");
  expect(await third.ended).toBe(goesOn);
});

test("a steering vector for pictures becomes a file of vectors", async () => {
  const given = ["--model", LLAVA, "--query", "image", "--steering", "1", "--steps", "4", "--lr", "0.1"];
  const report = await train(...given, "--batch", "5", "--out", path("vector"));
  expect(report).toMatchObject({
    trained: "a vector at resid_post.1",
    files: [path("vector/steering.safetensors")],
  });
  expect(report.steps.at(-1)!.loss).toBeLessThan(report.steps[0]!.loss);
  const model = await fixtureModel("llava");
  const { origin, ...file } = await readVectorFile(path("vector/steering.safetensors"));
  expect(origin).toMatchObject({ site: "resid_post", layers: [1], model: LLAVA });
  expect(file.width).toBe(model.config.width);
  // What was scored is what the file does.
  const tested = itemsOf(parseTask(readFileSync(path("task.json"), "utf8"), path("task.json")), "test");
  const pictures = await loadPictures(model, tested as PicturedItem[]);
  const queries = tested.map((item) => fewShotPrompt(model, [], pictures(item)));
  const edits = [addVector("resid_post.1", -1, file.values)];
  const answers = await model.generate(queries, { maxNewTokens: 1, edits });
  expect(report.after.answers).toEqual(
    answers.map(({ ids }) => model.tokenizer.decode(ids, { skipSpecial: true })),
  );
});

test("mistakes are found before a model is opened", async () => {
  const usage: [string[], RegExp][] = [
    [["--split", "test"], /those items are held out/],
    [["--steps", "1"], /expected fewer steps to --warm-up in \(1\) than --steps \(1\)/],
    [["--steering", "1", "--rank", "2"], /--rank goes with an adapter/],
    [["--rank", "0"], /whole number from 1/],
    [["--lr", "0"], /above 0/],
  ];
  for (const [args, message] of usage) {
    const command = addCommonOptions(trainCommand()).configureOutput({ outputError: () => {} });
    const all = [
      "--task",
      path("task.json"),
      "--model",
      "/nowhere",
      "--out",
      path("none"),
      "--warm-up",
      "1",
      ...args,
    ];
    const error = await command.parseAsync(all, { from: "user" }).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(CommanderError);
    expect(error.message).toMatch(message);
  }
  await expect(train("--model", "/nowhere", "--out", path("none"), "--shots", "9")).rejects.toThrow(
    /^--shots: /,
  );
  await expect(llama("none", "--lora", "q_prj")).rejects.toThrow(/^--lora: .*the nearest is "q_proj"/);
  await expect(llama("none", "--query", "image")).rejects.toThrow(/takes no images/);
  await expect(llama("none", "--steering", "99")).rejects.toThrow(/^--steering: /);
  expect(existsSync(path("none"))).toBe(false);
});

test("an answer is a span of its own, behind the same tokens as the question", async () => {
  const model = await fixtureModel("llama");
  const examples = [{ question: "red", answer: "cat" }];
  const query = fewShotPrompt(model, examples, "blue");
  const prompt = answeredPrompt(model, examples, { question: "blue", answer: "owl" });
  expect(prompt.ids.slice(0, query.length)).toEqual(query.ids);
  expect(prompt.span("answer")).toEqual({ start: query.length, end: prompt.length });
  expect(prompt.text).toBe(`${query.text} owl`);

  const t5 = await fixtureModel("t5");
  const asked = answeredPrompt(t5, [], { question: "blue", answer: "owl" });
  expect(asked.ids).toEqual(fewShotPrompt(t5, [], "blue").ids);
  expect(t5.sequenceOf(asked).span("answer").start).toBe(1);
});
