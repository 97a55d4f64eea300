import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { encodeTaskVectors, extractTaskVectors } from "../../../src/analysis/vectors/task-vectors.ts";
import { type DemoReport, demoCommand } from "../../../src/cli/commands/demo.ts";
import { formatDemo } from "../../../src/cli/commands/demo-text.ts";
import { type PatchReport, patchCommand } from "../../../src/cli/commands/patch.ts";
import { addCommonOptions } from "../../../src/cli/options/command.ts";
import { encodePng } from "../../../src/images/files/png-write.ts";
import type { RgbImage } from "../../../src/images/files/rgb.ts";
import type { Prompt } from "../../../src/model/prompt/prompt.ts";
import { set } from "../../../src/patching/edit.ts";
import { loadModel, type PatchableModel } from "../../../src/patching/model.ts";
import { tap } from "../../../src/patching/tap.ts";
import { drawItems } from "../../../src/tasks/few-shot.ts";
import { itemsOf, parseTask, type Task } from "../../../src/tasks/task.ts";
import { testDevice } from "../../helpers/device.ts";

const folder = mkdtempSync(join(tmpdir(), "xpatch-demo-pictures-"));
const modelFolder = `${import.meta.dirname}/../../fixtures/llava/model`;
const taskFile = join(folder, "colours.json");
const INSTRUCTION = "The colour of the thing:";

/** Test items are named as in a task that comes with xpatch, so that there is a task to switch to. */
const INPUTS = {
  validation: ["Afghanistan", "Albania", "Algeria", "Andorra", "Angola"],
  test: ["Brazil", "Bulgaria", "Cameroon", "<b>bold</b> & more"],
};

let model: PatchableModel;
let task: Task;
const pictures = new Map<string, RgbImage>();

function paint(seed: number): RgbImage {
  const data = Uint8Array.from({ length: 12 * 8 * 3 }, (_, i) => (i * (seed * 31 + 7) + seed * 53) % 256);
  return { width: 12, height: 8, data };
}

beforeAll(async () => {
  model = await loadModel(modelFolder, { device: await testDevice() });
  const items = (["validation", "test"] as const).flatMap((split) =>
    INPUTS[split].map((input, i) => {
      const image = `${split}-${i}.png`;
      pictures.set(input, paint(pictures.size + 1));
      writeFileSync(join(folder, image), encodePng(pictures.get(input)!));
      return { input, output: `colour ${i}`, image, split };
    }),
  );
  // An item that cannot be asked about by picture.
  const blind = { input: "unseen", output: "none", split: "test" };
  const text = JSON.stringify({ name: "colours", instruction: INSTRUCTION, items: [...items, blind] });
  writeFileSync(taskFile, text);
  task = parseTask(text, taskFile);
});
afterAll(() => {
  model.dispose();
  rmSync(folder, { recursive: true });
});

async function runCommand<T>(command: ReturnType<typeof demoCommand>, args: string[]): Promise<T> {
  const write = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  try {
    await addCommonOptions(command).parseAsync([...args, "--json"], { from: "user" });
    return JSON.parse(write.mock.calls.map(([chunk]) => chunk).join(""));
  } finally {
    write.mockRestore();
  }
}

const runDemo = (...args: string[]) =>
  runCommand<DemoReport>(demoCommand(), [modelFolder, "--task", taskFile, "--shots", "2", ...args]);
const runPatch = (...args: string[]) =>
  runCommand<PatchReport>(patchCommand(), ["--model", modelFolder, "--max-new-tokens", "1", ...args]);

/** The model with another text_config. */
function copyOfModel(change: (text: Record<string, unknown>) => Record<string, unknown>): string {
  const copy = mkdtempSync(join(folder, "model-"));
  cpSync(modelFolder, copy, { recursive: true });
  const config = JSON.parse(readFileSync(join(copy, "config.json"), "utf8"));
  writeFileSync(
    join(copy, "config.json"),
    JSON.stringify({ ...config, text_config: change(config.text_config) }),
  );
  return copy;
}

async function nextToken(
  prompt: Prompt,
  options: Parameters<PatchableModel["run"]>[1] = {},
): Promise<string> {
  const logits = await model.run(prompt, options).logits!.read();
  return model.tokenizer.decode([logits.indexOf(Math.max(...logits))], { skipSpecial: true });
}

/** The mean over prompts at the colon of each last example, which is the third from the end. */
async function vectorByHand(prompts: readonly Prompt[], layer: number): Promise<number[]> {
  const rows: Float32Array[] = [];
  for (const prompt of prompts) {
    const at = [...prompt.tokens.keys()].filter((i) => prompt.tokens[i]!.endsWith(":")).at(-3)!;
    const { x } = model.run(prompt, { taps: { x: tap(`resid_post.${layer}`, at) } });
    rows.push((await x.read()) as Float32Array);
  }
  return [...rows[0]!].map((_, i) => rows.reduce((sum, row) => sum + row[i]!, 0) / rows.length);
}

type Part = string | RgbImage;
const shots = (split: "validation" | "test", input: string, ask: (input: string) => Part[]): Part[] =>
  drawItems(
    itemsOf(task, split).filter((item) => item.image || ask === byName),
    { input },
    { count: 2, seed: 0 },
  ).flatMap((item) => [...ask(item.input), `\nA: ${item.outputs[0]}\n\n`]);
const byName = (input: string): Part[] => [`Q: ${input}`];
const byPicture = (input: string): Part[] => ["Q:", pictures.get(input)!];

describe("the demo on pictures", () => {
  test.each([
    ["text", byName],
    ["image", byPicture],
  ] as const)("examples by %s: scores are those of prompts written by hand", async (kind, ask) => {
    const report = await runDemo("--spec", kind);
    expect(report).toMatchObject({ query: "image", specification: kind, prompts: 5, family: "llava" });
    expect(report.question).toBe("Q:<image>\nA:");
    expect(report.prompt.includes("<image>")).toBe(kind === "image");

    const sources = INPUTS.validation.map((input) =>
      model.prompt([...shots("validation", input, ask), ...ask(input), "\nA:"]),
    );
    const { best, layers } = report.sweep;
    const patch = { edits: [set(`resid_post.${best}`, -1, await vectorByHand(sources, best))] };
    const query = (input: string) => model.prompt(["Q:", pictures.get(input)!, "\nA:"]);
    const answers = { noContext: [] as string[], prompted: [] as string[], patched: [] as string[] };
    for (const input of INPUTS.test) {
      answers.noContext.push(await nextToken(query(input)));
      const context = model.prompt([...shots("test", input, ask), "Q:", pictures.get(input)!, "\nA:"]);
      answers.prompted.push(await nextToken(context));
      answers.patched.push(await nextToken(query(input), patch));
    }
    // A mistaken prompt or layer would show.
    expect(new Set(answers.patched.map((text, i) => `${text}|${answers.noContext[i]}`)).size).toBeGreaterThan(
      1,
    );
    expect(answers.patched).not.toEqual(answers.noContext);
    expect(answers.prompted).not.toEqual(answers.noContext);
    for (const way of ["noContext", "prompted", "patched"] as const) {
      expect(report[way].answers, way).toEqual(answers[way]);
      expect(report.shown.map((row) => row[way].length)).toHaveLength(4);
    }
    expect(report.named).toMatchObject({ answers: answers.noContext, total: 4 });
    const validated = layers.find(({ layer }) => layer === best)!.answers;
    for (const [i, input] of INPUTS.validation.entries()) {
      expect(await nextToken(query(input), patch)).toBe(validated[i]);
    }
  });

  test("an instruction: its last token, and the instruction before the question", async () => {
    const args = [modelFolder, "--task", taskFile, "--spec", "instruction"];
    const report = await runCommand<DemoReport>(demoCommand(), args);
    expect(report).toMatchObject({ prompts: 1, prompt: INSTRUCTION });
    const prompt = model.prompt(INSTRUCTION);
    const { best } = report.sweep;
    const { x } = model.run(prompt, { taps: { x: tap(`resid_post.${best}`, -1) } });
    const patch = { edits: [set(`resid_post.${best}`, -1, (await x.read()) as Float32Array)] };
    const [input] = INPUTS.test as [string];
    const question = ["Q:", pictures.get(input)!, "\nA:"];
    expect(report.patched.answers[0]).toBe(await nextToken(model.prompt(question), patch));
    const context = model.prompt([`${INSTRUCTION}\n`, ...question]);
    expect(report.prompted.answers[0]).toBe(await nextToken(context));
  });

  test("vectors of other tasks in the same pictures, scored by what those tasks say", async () => {
    const { switched, patched, shown } = await runDemo();
    expect(switched).toHaveLength(2);
    for (const [i, other] of switched.entries()) {
      expect(other.items.map(({ input }) => input)).toEqual(["Brazil", "Bulgaria", "Cameroon"]);
      expect(other.own.answers).toEqual(patched.answers.slice(0, 3));
      expect(other.unswitched.answers).toEqual(other.switched.answers);
      const changed = other.own.answers.filter((answer, q) => answer !== other.switched.answers[q]);
      // Two tokens may have the same text, hence "at least".
      expect(other.changed).toBeGreaterThanOrEqual(changed.length);
      expect(shown.every((row) => row.switched[i] !== undefined)).toBe(true);
    }
  });

  test("names of pictures are escaped in the page, and kept off the terminal's controls", async () => {
    const html = join(folder, "page.html");
    const report = await runDemo("--html", html);
    expect(report.html).toBe(html);
    const page = readFileSync(html, "utf8");
    expect(page).toContain("&lt;b&gt;bold&lt;/b&gt; &amp; more");
    expect(page).not.toContain("<b>");
    expect(page).not.toMatch(/(src|href)="(?!data:image\/png;base64,)/);
    // Four test pictures, and again the three that another task has an answer to.
    expect(page.match(/<img src="data:image\/png;base64,/g)).toHaveLength(7);
    const text = formatDemo(report);
    expect(text).toContain("<b>bold</b> & more");
    expect(text).toMatch(/names the picture: \d+\.\d % \(\d\/4\)/);
    expect(text).toMatch(/country-\w+ +\d\/3 +\d+\.\d % \(\d\/3\)/);
  });

  test("names instead of pictures on request", async () => {
    const report = await runDemo("--query", "text");
    expect(report.question).toBe("Q: Brazil\nA:");
    expect(report.patched.total).toBe(5);
  });

  test("a model without pictures, and a task without any", async () => {
    const llama = `${import.meta.dirname}/../../fixtures/llama/model`;
    const args = [llama, "--task", taskFile, "--query", "image", "--shots", "1"];
    await expect(runCommand(demoCommand(), args)).rejects.toThrow(/llama\) takes no images/);
    const bare = join(folder, "bare.csv");
    writeFileSync(bare, "input,output,split\na,b,validation\nc,d,validation\ne,f,test\ng,h,test\n");
    await expect(runCommand(demoCommand(), [modelFolder, "--task", bare, "--shots", "1"])).rejects.toThrow(
      /no item of the validation split has an image/,
    );
  });
});

describe("patch", () => {
  const image = () => join(folder, "test-0.png");

  test("any picture: the three answers are those of prompts written by hand", async () => {
    const args = ["--task", taskFile, "--split", "validation", "--shots", "2", "--image", image()];
    const report = await runPatch(...args, "--layer", "1");
    expect(report).toMatchObject({ layer: 1, layerOrigin: { by: "argument" }, prompt: "Q:<image>\nA:" });
    expect(report.images).toEqual([image()]);

    const sources = INPUTS.validation.map((input) =>
      model.prompt([...shots("validation", input, byName), ...byName(input), "\nA:"]),
    );
    const query = ["Q:", pictures.get("Brazil")!, "\nA:"];
    const patch = { edits: [set("resid_post.1", -1, await vectorByHand(sources, 1))] };
    expect(report.unpatched.text).toBe(await nextToken(model.prompt(query)));
    expect(report.patched.text).toBe(await nextToken(model.prompt(query), patch));
    const context = model.prompt([...shots("validation", image(), byName), ...query]);
    expect(report.inContext!.prompt).toBe(context.text);
    expect(report.inContext!.answer.text).toBe(await nextToken(context));
  });

  test("the layer: the model's own, else the best on validation items", async () => {
    const args = ["--task", taskFile, "--split", "validation", "--shots", "2", "--question", "Brazil"];
    const swept = await runPatch(...args);
    expect(swept).toMatchObject({ layerOrigin: { by: "validation", query: "text", total: 5 } });
    expect(swept.inContext!.prompt).toMatch(/Q: Brazil\nA:$/);

    const recorded = copyOfModel((text) => ({ ...text, task_vector_layer: 2 }));
    const own = await runPatch(...args, "--model", recorded);
    expect(own).toMatchObject({ layer: 2, layerOrigin: { by: "model" } });
    expect(own.patched).toEqual((await runPatch(...args, "--layer", "2")).patched);
    const impossible = copyOfModel((text) => ({ ...text, task_vector_layer: 3 }));
    await expect(runPatch(...args, "--model", impossible)).rejects.toThrow(
      /task_vector_layer is 3, but there are 3 layers/,
    );
  });

  test("a file of vectors needs a layer where the model names none", async () => {
    const vectors = join(folder, "v.safetensors");
    using extracted = extractTaskVectors(model, [model.prompt("Q: a\nA:")]);
    writeFileSync(vectors, await encodeTaskVectors(extracted));
    const args = ["--vectors", vectors, "--prompt", "Q:<image>\\nA:", "--image", image()];
    await expect(runPatch(...args)).rejects.toThrow(/expected --layer, since .*llava.* names no layer/);
    const report = await runPatch(...args, "--layer", "2");
    expect(report.inContext).toBeUndefined();
    const query = model.prompt(["Q:", pictures.get("Brazil")!, "\nA:"]);
    const patch = { edits: [set("resid_post.2", -1, extracted.at(2))] };
    expect(report.patched.text).toBe(await nextToken(query, patch));
  });

  test.each([
    [["--task", taskFile], /expected --prompt, --prompt-file, --question or an --image/],
    [["--task", taskFile, "--question", "a", "--image", "b"], /expected --prompt, --prompt-file, --question/],
    [["--task", taskFile, "--question", "a", "--prompt", "b"], /expected either a prompt or --question/],
    [["--task", taskFile, "--image", "a", "--image", "b"], /expected one --image to ask about, found 2/],
    [["--question", "a"], /expected either --task or --vectors/],
    [["--task", taskFile, "--vectors", "v", "--question", "a"], /expected either --task or --vectors/],
  ])("refuses %j", async (args, message) => {
    let said = "";
    const command = patchCommand().configureOutput({ writeErr: (text) => (said += text) });
    await expect(command.parseAsync(args, { from: "user" })).rejects.toThrow();
    expect(said).toMatch(message);
  });
});
