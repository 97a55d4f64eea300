import { spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommanderError, InvalidArgumentError } from "commander";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { StoredTaskVectors } from "../../src/analysis/vectors/task-vectors.ts";
import { formatLens, type LensReport } from "../../src/cli/commands/lens.ts";
import { allCommands, COMMANDS } from "../../src/cli/commands.ts";
import { escapedText, layers, number, positions, wholeNumber } from "../../src/cli/options/arguments.ts";
import { addCommonOptions } from "../../src/cli/options/command.ts";
import { editArgument, editOf } from "../../src/cli/options/edit-argument.ts";
import { bar, showBytes, showCount, table } from "../../src/cli/terminal/layout.ts";
import { SHIPPED_MODELS } from "../../src/model/checkpoint/source/shipped-models.ts";
import { xpatch } from "../helpers/command-line.ts";
import { buildGguf, tinyLlama } from "../helpers/gguf-builder.ts";

const root = join(import.meta.dirname, "..", "..");
const llama = join(root, "test", "fixtures", "llama");
const model = join(llama, "model");
const [golden, colors] = JSON.parse(readFileSync(join(llama, "case.json"), "utf8")).cases;

let folder: string;
const path = (name: string) => join(folder, name);

function node(args: string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  // Dawn says this on stderr about some drivers.
  const messages = stderr.split("\n").filter((line) => line !== "");
  return { status, stdout, messages };
}

/** In a process of its own, from what was built: for what the process does. */
const program = (args: string[], env?: Record<string, string>) =>
  node([join(root, "dist", "cli", "main.js"), ...args], env);

/** Runs a command that has to succeed, with --json. */
async function report(...args: string[]) {
  const { status, stdout, messages } = await xpatch([...args, "--json"]);
  expect({ status, messages: status === 0 ? [] : messages }).toEqual({ status: 0, messages: [] });
  return JSON.parse(stdout);
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "xpatch-cli-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("help and mistakes", () => {
  test("the help lists every command", async () => {
    const { status, stdout } = await xpatch(["--help"]);
    expect(status).toBe(0);
    for (const command of await allCommands())
      expect(stdout).toMatch(new RegExp(`^ {2}${command.name()} `, "m"));
    expect((await allCommands()).map((command) => command.name())).toEqual(Object.keys(COMMANDS));
  });

  test("each command has a help of its own, with examples", async () => {
    for (const made of await allCommands()) {
      let help = "";
      const command = addCommonOptions(made).configureOutput({ writeOut: (text) => (help += text) });
      command.outputHelp();
      expect(help).toMatch(new RegExp(`^Examples:\n {2}xpatch ${command.name()}`, "m"));
      expect(help).toMatch(/--adapter .*--json/s);
    }
    const { status, stdout } = await xpatch(["sweep", "--help"]);
    expect({ status, stdout }).toMatchObject({ status: 0, stdout: expect.stringMatching(/^Examples:$/m) });
  });

  test("every command that runs a model has the same --model, with the same default", async () => {
    const found = (await allCommands()).map((command) => {
      const option = command.options.find(({ long }) => long === "--model");
      return [command.name(), option?.description, option?.defaultValue] as const;
    });
    const without = ["devices", "control-vector", "rows", "grid", "task", "convert"];
    expect(found.filter(([, description]) => description === undefined).map(([name]) => name)).toEqual(
      without,
    );
    const help = found.find(([name]) => name === "generate")![1]!;
    for (const model of SHIPPED_MODELS) expect(help).toContain(model);
    // A server offers several, those of xpatch among them.
    const others = [...without, "serve"];
    for (const [name, description, model] of found.filter(([each]) => !others.includes(each))) {
      expect(model, name).toBe("xpatch:vlm");
      // What parity says besides is which model its own goldens are of.
      expect(description!.startsWith(help), name).toBe(true);
      if (name !== "parity") expect(description).toBe(help);
    }
  });

  test("the version is that of the package", async () => {
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    expect(program(["--version"])).toMatchObject({ status: 0, stdout: `${version}\n` });
  });

  test.each([
    [[], /^Usage: xpatch/],
    [["frobnicate"], /^xpatch: unknown command 'frobnicate'/],
    [
      ["devices", "--adapter", "voodoo"],
      /^xpatch: .*Expected one of auto, gpu, lavapipe, swiftshader; the nearest/,
    ],
    [["extract", "--model", "m", "--out", "x"], /^xpatch: expected either --task or --prompts/],
  ])("%j has exit code 2 and writes to stderr only", async (args, message) => {
    const { status, stdout, messages } = await xpatch(args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(messages.join("\n")).toMatch(message);
  });

  test("so has a process that is asked for what there is not", () => {
    expect(program(["frobnicate"])).toMatchObject({ status: 2, stdout: "" });
  });

  const prompted = ["--model", "m", "--prompt", "a"];
  test.each([
    ["generate", ["--model", "m"], /either --prompt or --prompt-file/],
    ["generate", [...prompted, "--prompt-file", "b"], /either --prompt or --prompt-file/],
    ["generate", [...prompted, "--max-new-tokens", "0"], /a whole number from 1/],
    ["generate", [...prompted, "--edit", "erase:embed"], /no operation "erase"/],
    ["generate", [...prompted, "more"], /too many arguments/],
    ["lens", [...prompted, "--site", "resid"], /one of resid_pre, /],
    ["patch", [...prompted, "--layer", "1"], /either --task or --vectors/],
    ["sweep", ["--model", "m", "--vectors", "v"], /either --task or --queries/],
    [
      "extract",
      ["--model", "m", "--out", "o", "--task", "t", "--prompts", "p"],
      /either --task or --prompts/,
    ],
    ...["inspect", "export", "demo"].map((name): [string, string[], RegExp] => [
      name,
      ["m", "--model", "xpatch:vlm", ...(name === "export" ? ["--out", "o"] : [])],
      /^xpatch: expected one model, found m and --model xpatch:vlm$/m,
    ]),
    ["parity", ["a", "--model", "m"], /--model, --lora and --base go with --real and --authors only/],
    ["convert", ["a.gguf"], /missing required argument 'folder'/],
  ])("%s refuses %j", async (name, args, message) => {
    let said = "";
    const command = await COMMANDS[name]!();
    command.configureOutput({ writeErr: (text) => (said += text) });
    await expect(command.parseAsync(args, { from: "user" })).rejects.toThrow(CommanderError);
    expect(said).toMatch(message);
  });

  test("an error that nobody expected has its stack and exit code 70", async () => {
    const broken = "--import=data:text/javascript,JSON.parse=()=>{throw(new(TypeError)('boom'))}";
    const { status, stdout, messages } = program(["devices"], { NODE_OPTIONS: broken });
    expect({ status, stdout }).toEqual({ status: 70, stdout: "" });
    expect(messages[0]).toBe("TypeError: boom");
    expect(messages.some((line) => /^ +at /.test(line))).toBe(true);
  });
});

describe("what cannot be had: exit code 1 and one line on stderr", () => {
  const oneLine = async (args: string[], run: typeof xpatch | typeof program = xpatch) => {
    const { status, stdout, messages } = await run(args);
    expect({ status, stdout, lines: messages.length }).toEqual({ status: 1, stdout: "", lines: 1 });
    return messages[0]!;
  };

  test("a folder that is missing", async () => {
    expect(await oneLine(["generate", "--model", path("none"), "--prompt", "a"], program)).toMatch(
      /^xpatch: .*none: not a folder with a config\.json/,
    );
  });

  test("a file that is missing", async () => {
    expect(await oneLine(["generate", "--model", model, "--prompt-file", path("none.txt")])).toMatch(
      /^xpatch: --prompt-file: ENOENT.*none\.txt/,
    );
  });

  test("a folder to write to that is missing, found before any model is opened", async () => {
    const out = path("none/v.safetensors");
    const args = ["extract", "--model", path("no-model"), "--task", "food-color", "--out", out];
    expect(await oneLine(args)).toMatch(
      /^xpatch: --out: cannot write .*none.v\.safetensors: there is no folder .*none/,
    );
  });

  test("damaged weights", async () => {
    cpSync(model, path("damaged"), { recursive: true });
    truncateSync(path("damaged/model.safetensors"), 100_000);
    expect(await oneLine(["lens", "--model", path("damaged"), "--prompt", "a", "--json"])).toMatch(
      /^xpatch: .*model\.safetensors: /,
    );
  });

  test("a layer that the model does not have", async () => {
    const args = ["generate", "--model", model, "--prompt", "a", "--edit", "zero:mlp_out.3"];
    expect(await oneLine(args)).toMatch(/mlp_out\.3: .*3 layers, 0 to 2/);
  });

  test("vectors that are none", async () => {
    const vectors = ["--vectors", join(model, "model.safetensors")];
    expect(await oneLine(["patch", "--model", model, ...vectors, "--layer", "1", "--prompt", "a"])).toMatch(
      /not a file of task vectors/,
    );
  });

  test("a vector, a task or an answer that is not there", async () => {
    writeFileSync(path("one.txt"), "a\n");
    const vectors = path("one.safetensors");
    await report(
      "extract",
      "--model",
      model,
      "--prompts",
      path("one.txt"),
      "--layers",
      "1",
      "--out",
      vectors,
    );
    const given = ["--model", model, "--vectors", vectors];
    expect(await oneLine(["patch", ...given, "--layer", "2", "--prompt", "a"])).toMatch(
      /layer 2; .* those of 1$/,
    );
    expect(await oneLine(["sweep", ...given, "--task", "nope"])).toMatch(/no task "nope"; .*country-capital/);
    writeFileSync(path("bad.tsv"), "Q: a\\nA:\tb\nQ: c\\nA:\n");
    expect(await oneLine(["sweep", ...given, "--queries", path("bad.tsv")])).toMatch(/bad\.tsv: .*in line 2/);
  });
});

describe("inspect", () => {
  // No driver is installed in an empty cache folder.
  const noAdapter = { XPATCH_CACHE: join(tmpdir(), "xpatch-no-such-cache"), XPATCH_ADAPTER: "lavapipe" };

  test("draws a model: sites with shapes, tensors, tokenizer, memory", async () => {
    const { status, stdout } = await xpatch(["inspect", model]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^llama: 3 layers, 48 wide, 4 heads of 12/m);
    expect(stdout).toMatch(/^┌ layer N = 0 … 2$/m);
    expect(stdout).toMatch(/^│ q\.N, k\.N, v\.N +\[rows, 4 × 12\]$/m);
    expect(stdout).toMatch(/^model\.layers\.N\.mlp\.up_proj\.weight +F32 +\[96, 48\] +× 3 +13\.8 k/m);
    expect(stdout).toMatch(/^ {2}adds +"<s>" in front of a prompt$/m);
    expect(stdout).toMatch(/^ {2}keys and values +1\.1 KiB a token$/m);
  });

  test("as JSON it has every tensor, site and limit", async () => {
    const found = await report("inspect", model);
    expect(found.tensors).toContainEqual({
      name: "lm_head.weight",
      stored: "F32",
      shape: [448, 48],
      bytes: 448 * 48 * 4,
    });
    expect(found.architecture.sites).toContainEqual({
      site: "z.N",
      layers: 3,
      shape: ["rows", 48],
      heads: 4,
    });
    expect(found.architecture.sites.at(-1)).toEqual({ site: "logits", shape: ["rows", 448] });
    expect(found.memory.maxBindingBytes).toBeGreaterThan(2 ** 26);
  });

  test("a lone file needs no adapter, and a folder says that there is none", async () => {
    const file = program(["inspect", join(model, "model.safetensors")], noAdapter);
    expect(file).toMatchObject({ status: 0, messages: [] });
    expect(file.stdout).toMatch(/^model\.layers\.2\.mlp\.down_proj\.weight +F32 +\[48, 96\] +18\.0 KiB$/m);
    const whole = program(["inspect", model], noAdapter);
    expect(whole.status).toBe(0);
    expect(whole.stdout).toMatch(/adapter: not known, no lavapipe driver that works on this machine/);
  });

  test("a family that is not supported is named, and its tensors are listed all the same", async () => {
    cpSync(model, path("strange"), { recursive: true });
    writeFileSync(path("strange/config.json"), '{ "model_type": "strange" }');
    const { status, stdout } = await xpatch(["inspect", path("strange")]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^not to be run: .*type "strange" are not supported/m);
    expect(stdout).toMatch(/^lm_head\.weight/m);
  });
});

describe("running a model", () => {
  const settings = { model, family: "llama", dtypes: ["F32"], adapter: expect.any(String) };

  test("--intermediate-layers says how a Llama 3.2 Vision is read, and is refused for others", async () => {
    const fixtures = join(root, "test", "fixtures");
    const asked = [
      "--model",
      join(fixtures, "mllama", "model"),
      "--image",
      join(fixtures, "images", "photo.png"),
    ];
    const attended = async (...how: string[]) =>
      (
        await report(
          "attend",
          ...asked,
          "--prompt",
          "<|image|>A",
          "--layer",
          "3",
          ...how,
          "--out",
          path("a.svg"),
        )
      ).maps[0];
    const inputs = await attended("--intermediate-layers", "inputs");
    expect(await attended()).toEqual(inputs);
    expect((await attended("--intermediate-layers", "outputs")).weights).not.toEqual(inputs.weights);
    const { status, messages } = await xpatch([
      ...["generate", "--model", model, "--prompt", "a", "--intermediate-layers", "outputs"],
    ]);
    expect([status, messages]).toEqual([
      1,
      [expect.stringMatching(/for models of model_type mllama, found llama/)],
    ]);
  });

  test("generate takes pictures", async () => {
    const fixture = join(root, "test", "fixtures", "llava");
    const [shown] = JSON.parse(readFileSync(join(fixture, "case.json"), "utf8")).cases;
    const picture = join(root, "test", "fixtures", "images", shown.images[0]);
    const prompted = ["--prompt", shown.text, "--image", picture, "--max-new-tokens", "5"];
    const found = await report("generate", "--model", join(fixture, "model"), ...prompted);
    expect(found.prompt.ids).toEqual(shown.input_ids);
    expect(found.answer.ids).toEqual(shown.generate.ids);
    const refused = await xpatch(["generate", "--model", model, ...prompted]);
    expect(refused.status).toBe(1);
    expect(refused.messages.join()).toMatch(/takes no images/);
  });

  test("generate gives the tokens of the golden run, streamed or as JSON", async () => {
    const args = ["generate", "--model", model, "--prompt", golden.text, "--max-new-tokens", "5"];
    const found = await report(...args);
    expect(found).toMatchObject({ ...settings, seed: 0, edits: [] });
    expect(found.prompt.ids).toEqual(golden.input_ids);
    expect(found.answer.ids).toEqual(golden.generate.ids);
    const { stdout, messages } = await xpatch(args);
    expect(stdout).toBe(`${found.answer.text}\n`);
    expect(messages.join("\n")).toMatch(/\(llama, F32\) · .+ · seed 0\n26 \+ 5 tokens in /);
  });

  test("an edit changes the answer, and is in the report", async () => {
    const args = ["generate", "--model", model, "--prompt", golden.text, "--max-new-tokens", "5"];
    const found = await report(...args, "--edit", "scale:resid_post.1@-1*-1", "--edit", "zero:mlp_out.0@all");
    expect(found.edits).toEqual(["scale resid_post.1, position -1 by -1", "zero mlp_out.0, all positions"]);
    expect(found.answer.ids).not.toEqual(golden.generate.ids);
  });

  test("an encoder reads the prompt: edits in it and in the decoder, the lens on what the decoder reads", async () => {
    const t5 = join(root, "test", "fixtures", "t5");
    const [given] = JSON.parse(readFileSync(join(t5, "case.json"), "utf8")).cases;
    const asked = ["--model", join(t5, "model"), "--prompt", given.text];
    const args = ["generate", ...asked, "--max-new-tokens", "5"];
    expect((await report(...args)).answer.ids).toEqual(given.generate.ids[0]);
    const edits = ["--edit", "scale:encoder.resid_post.0@20*-3", "--edit", "zero:mlp_out.0@0"];
    expect((await report(...args, ...edits)).answer.ids).not.toEqual(given.generate.ids[0]);
    expect((await report("lens", ...asked, "--at", "all")).positions).toEqual([
      { position: 0, token: "<pad>" },
    ]);
  });

  test("sampling depends on the seed alone", async () => {
    const args = [
      "generate",
      "--model",
      model,
      "--prompt",
      "a\\nb",
      "--temperature",
      "1.5",
      "--max-new-tokens",
      "8",
    ];
    const [one, again, other] = [
      await report(...args, "--seed", "1"),
      await report(...args, "--seed", "1"),
      await report(...args, "--seed", "2"),
    ];
    expect(one.prompt.text).toBe("a\nb");
    expect(again.answer).toEqual(one.answer);
    expect(other.answer).not.toEqual(one.answer);
  });

  test("lens: the last layer at the last token reads as the next token", async () => {
    const args = ["lens", "--model", model, "--prompt", golden.text, "--at", "-1", "--top", "3"];
    const { cells, positions: found } = await report(...args);
    expect(found).toEqual([{ position: 25, token: expect.any(String) }]);
    expect(cells.map((cell: { layer: number }) => cell.layer)).toEqual([0, 1, 2]);
    expect(cells.at(-1).tokens).toHaveLength(3);
    expect(cells.at(-1).tokens[0].id).toBe(golden.generate.ids[0]);
  });

  test("vectors of an encoder are extracted, swept and patched there, and nowhere else", async () => {
    const t5 = join(root, "test", "fixtures", "t5", "model");
    const vectors = path("encoder.safetensors");
    writeFileSync(path("translate.txt"), "translate: Paris\n");
    const site = "encoder.resid_post";
    const made = [
      "extract",
      "--model",
      t5,
      "--prompts",
      path("translate.txt"),
      "--site",
      site,
      "--out",
      vectors,
    ];
    const extracted = await report(...made);
    expect(extracted.vectors).toMatchObject({ site, layers: [0, 1, 2], position: "position -1" });
    writeFileSync(path("queries.tsv"), "translate: Rome\tx\n");
    const swept = await report(
      "sweep",
      "--model",
      t5,
      "--vectors",
      vectors,
      "--queries",
      path("queries.tsv"),
    );
    expect(swept.layers.map(({ layer }: { layer: number }) => layer)).toEqual([0, 1, 2]);
    const asked = ["--model", t5, "--prompt", "translate: Rome", "--max-new-tokens", "3"];
    const patched = await report("patch", ...asked, "--vectors", vectors, "--layer", "2");
    expect([patched.token, patched.vectors.site]).toEqual(["</s>", site]);
    const edited = await report("generate", ...asked, "--edit", `set:${site}.2@-1=${vectors}`);
    expect(edited.answer.ids).toEqual(patched.patched.ids);
    expect(edited.answer.ids).not.toEqual(patched.unpatched.ids);

    const refused = async (...args: string[]) => {
      const { status, messages } = await xpatch(args);
      expect([status, messages.length]).toEqual([1, 1]);
      return messages[0];
    };
    expect(await refused("generate", ...asked, "--edit", `set:resid_post.1@-1=${vectors}`)).toMatch(
      /expected vectors of the stack that resid_post.1 is in, found those of encoder.resid_post/,
    );
    const onLlama = ["--model", model, "--prompt", "a", "--layer", "0"];
    expect(await refused("patch", ...onLlama, "--vectors", vectors)).toMatch(/has no encoder of text/);
    const task = ["--task", "food-color", "--question", "cherry", "--stack", "encoder"];
    expect(await refused("patch", "--model", model, ...task)).toMatch(
      /^xpatch: --stack: .* has no encoder of text/,
    );
    expect((await xpatch(["patch", ...onLlama, "--vectors", vectors, "--stack", "encoder"])).status).toBe(2);
  });

  test("extract, patch, sweep: a vector of the last layer brings its own next token along", async () => {
    const vectors = path("vectors.safetensors");
    writeFileSync(path("prompts.txt"), `${colors.text.replaceAll("\n", "\\n")}\n\n`);
    const extracted = await report(
      "extract",
      "--model",
      model,
      "--prompts",
      path("prompts.txt"),
      "--out",
      vectors,
    );
    expect(extracted).toMatchObject({ ...settings, out: vectors, width: 48, vectors: { prompts: 1 } });
    expect(extracted.vectors.layers).toEqual([0, 1, 2]);
    expect(readFileSync(vectors).length).toBe(extracted.bytes);

    const patch = ["patch", "--model", model, "--vectors", vectors, "--prompt", "hello"];
    const patched = await report(...patch, "--layer", "2", "--max-new-tokens", "2");
    const next = colors.generate.ids[0];
    expect(patched.patched.ids[0]).toBe(next);
    expect(patched.unpatched.ids[0]).not.toBe(next);
    expect(patched.vectors).toEqual(extracted.vectors);

    // The golden answer begins with the token "s".
    writeFileSync(path("queries.tsv"), "hello\\n\twrong\tS is right\n\nhello\tnever right\n");
    const sweep = ["sweep", "--model", model, "--vectors", vectors, "--queries", path("queries.tsv")];
    const swept = await report(...sweep);
    expect(swept.queries).toEqual([
      { prompt: "hello\n", outputs: ["wrong", "S is right"] },
      { prompt: "hello", outputs: ["never right"] },
    ]);
    expect(swept.layers.map(({ layer }: { layer: number }) => layer)).toEqual([0, 1, 2]);
    expect(swept.layers[2]).toMatchObject({ correct: 1, total: 2, distinct: 1, answers: ["s", "s"] });
    expect(swept.layers.map(({ correct }: { correct: number }) => correct)).toEqual([0, 1, 1]);
    expect(swept.best).toBe(1);
    expect(swept.rowLayers).toBeLessThan(swept.plainRowLayers);
    const { stdout } = await xpatch([...sweep, "--layers", "1-2"]);
    expect(stdout.match(/^ +[0-9] +\d+\.\d %/gm)).toHaveLength(2);
    expect(stdout).toMatch(/^no patch +\d+\.\d % +\d\/2/m);
  });

  test("a task of the shipped ones, its examples drawn by the seed", async () => {
    const hash = (seed: string) =>
      report(
        ...["extract", "--model", model, "--task", "food-color", "--shots", "1", "--seed", seed],
        ...["--layers", "0", "--out", path("task.safetensors")],
      );
    const [one, again, other] = [await hash("3"), await hash("3"), await hash("4")];
    expect(one).toMatchObject({ seed: 3, vectors: { layers: [0] } });
    expect(again.vectors.promptHash).toBe(one.vectors.promptHash);
    expect(other.vectors.promptHash).not.toBe(one.vectors.promptHash);
  });

  test("parity passes on a fixture and fails on one that is none", async () => {
    const { status, stdout } = await xpatch(["parity", llama]);
    expect({ status, tail: stdout.trim().split("\n").at(-1) }).toMatchObject({
      status: 0,
      tail: expect.stringMatching(/^pass: /),
    });
    expect((await xpatch(["parity", folder])).status).toBe(1);
  });
});

test("convert writes a folder that inspect understands, and never over another one", async () => {
  const { metadata, tensors } = tinyLlama();
  writeFileSync(path("tiny.gguf"), buildGguf(metadata, tensors).bytes);
  const out = path("converted");
  const names = (await report("convert", path("tiny.gguf"), out)).files.map(
    ({ name }: { name: string }) => name,
  );
  expect(names).toEqual(["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"]);
  expect(await report("inspect", out)).toMatchObject({
    dtypes: [{ dtype: "F16" }],
    architecture: { family: "llama" },
  });
  expect(await xpatch(["convert", path("tiny.gguf"), out])).toMatchObject({ status: 1 });
  expect(existsSync(join(out, "config.json"))).toBe(true);

  mkdirSync(path("linked"));
  symlinkSync(path("linked"), path("link"));
  await report("convert", path("tiny.gguf"), path("link"));
  expect(readdirSync(path("linked")).sort()).toEqual([...names].sort());
  expect(lstatSync(path("link")).isSymbolicLink()).toBe(true);

  mkdirSync(path("empty"));
  writeFileSync(path("broken.gguf"), "GGUF");
  expect(await xpatch(["convert", path("broken.gguf"), path("empty")])).toMatchObject({
    status: 1,
    stdout: "",
  });
  expect(existsSync(path("empty"))).toBe(true);
});

describe("adapters and assembled models", () => {
  const nano = join(root, "weights", "nano");
  const [vlm, llm, base] = ["vlm", "llm", "base"].map((name) => join(nano, name)) as [string, string, string];

  test("inspect shows the parts as one model, and what is on top", async () => {
    const { status, stdout } = await xpatch(["inspect", vlm]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^llava: 4 layers, 48 wide/m);
    expect(stdout).toMatch(/9 positions for each <image>$/m);
    expect(stdout).toMatch(/^language_model\.model\.layers\.N\.mlp\.up_proj\.weight +F16 +\[96, 48\] +× 4/m);
    expect(stdout).toMatch(/^LoRA on top +rank +parameters +size$/m);
    expect(stdout).toMatch(/nano\/llm +21 linear layers +2, 4 +8\.9 k/);
    expect((await report("inspect", base, "--lora", llm)).adapters).toMatchObject([
      { name: llm, layers: 21, ranks: [2, 4], replaced: [] },
    ]);
  });

  test("--lora and --base put together what an assembled model is, and reports name the adapters", async () => {
    const run = (...args: string[]) =>
      report("generate", "--prompt", "Q: Italy\\nA:", "--max-new-tokens", "4", ...args);
    const other = path("other-base");
    cpSync(base, other, { recursive: true });
    const assembled = await run("--model", llm, "--base", other);
    const byHand = await run("--model", base, "--lora", llm);
    expect([assembled.adapters, byHand.adapters]).toEqual([[llm], [llm]]);
    expect(byHand.answer.ids).toEqual(assembled.answer.ids);
    const plain = await run("--model", base);
    expect(plain.adapters).toBe(undefined);
    expect(plain.answer.ids).not.toEqual(assembled.answer.ids);
  });

  test("export writes a model that stands alone, and never over another one", async () => {
    const out = path("exported");
    const { files, ...rest } = await report("export", vlm, "--out", out, "--dtype", "f32");
    expect(rest).toMatchObject({
      from: vlm,
      folder: out,
      dtypes: ["F32"],
      adapters: [llm, join(vlm, "adapter")],
    });
    expect(files.at(-1).name).toBe("config.json");
    const found = await report("inspect", out);
    expect(found).toMatchObject({
      adapters: [],
      dtypes: [{ dtype: "F32" }],
      architecture: { family: "llava" },
    });
    expect(await xpatch(["export", vlm, "--out", out])).toMatchObject({
      status: 1,
      messages: [expect.stringMatching(/exported: expected an empty folder/)],
    });
  });

  test("a missing base says how to get it, and leaves nothing of an export", async () => {
    for (const folder of ["llm", "vlm"])
      cpSync(join(nano, folder), path(`alone/${folder}`), { recursive: true });
    const manifest = path("alone/vlm/assembly.json");
    const json = JSON.parse(readFileSync(manifest, "utf8"));
    json.base = { name: "nano", sha256: json.base.sha256, command: "npm run setup -- model" };
    writeFileSync(manifest, JSON.stringify(json));
    const { status, messages } = await xpatch(["export", path("alone/vlm"), "--out", path("nothing")]);
    expect(status).toBe(1);
    expect(messages).toEqual([expect.stringMatching(/^xpatch: .*the base nano .*"npm run setup -- model"/)]);
    expect(existsSync(path("nothing"))).toBe(false);
  });

  test("mistakes", async () => {
    expect(await xpatch(["export", vlm])).toMatchObject({ status: 2 });
    expect(await xpatch(["export", vlm, "--out", "x", "--dtype", "i32"])).toMatchObject({ status: 2 });
    expect(await xpatch(["parity", llama, "--lora", llm])).toMatchObject({
      status: 2,
      messages: expect.arrayContaining([
        expect.stringMatching(/--lora and --base go with --real and --authors only/),
      ]),
    });
    expect(await xpatch(["inspect", base, "--base", base])).toMatchObject({
      status: 1,
      messages: [expect.stringMatching(/a base was given, but this is a whole model/)],
    });
  });
});

describe("values on the command line", () => {
  test("numbers, layers and positions", async () => {
    expect(wholeNumber(0)("12")).toBe(12);
    expect(number("-1.5e2")).toBe(-150);
    expect(layers("7,0-3,2")).toEqual([0, 1, 2, 3, 7]);
    expect(["all", "-2", "0,3,-1", "2..5"].map(positions)).toEqual([
      "all",
      -2,
      [0, 3, -1],
      { start: 2, end: 5 },
    ]);
  });

  test.each([
    [wholeNumber(1), "0"],
    [wholeNumber(0), "1.5"],
    [wholeNumber(0), "1e3"],
    [wholeNumber(0), ""],
    [number, ""],
    [number, "Infinity"],
    [layers, "3-1"],
    [layers, "0-"],
    [layers, "1,,2"],
    [positions, "2.."],
    [positions, "a"],
  ])("%o refuses %j", (parse, text) => {
    expect(() => parse(text)).toThrow(InvalidArgumentError);
  });

  test("escapes", async () => {
    expect(escapedText("Q: a\\nA:\\tb\\\\n\\x")).toBe("Q: a\nA:\tb\\n\\x");
  });

  test("edits", async () => {
    const [edit] = editArgument("interpolate:resid_post.3@0,2*0.25=a=b@c.safetensors");
    expect(edit).toMatchObject({
      operation: "interpolate",
      site: "resid_post.3",
      at: [0, 2],
      amount: 0.25,
      file: "a=b@c.safetensors",
    });
    expect(editArgument("scale:embed*2", editArgument("zero:embed"))).toHaveLength(2);
  });

  test.each([
    ["zero:embed", { operation: "zero", site: "embed" }],
    ["scale:v.1*-2", { operation: "scale", site: "v.1", amount: -2 }],
    ["set:mlp_out.4=v", { operation: "set", site: "mlp_out.4", value: [4] }],
    ["add:mlp_out.4=v", { operation: "add", site: "mlp_out.4", value: [4], amount: 1 }],
    ["add:mlp_out.4*3=v", { operation: "add", site: "mlp_out.4", value: [4], amount: 3 }],
    ["interpolate:z.0*0.5=v", { operation: "interpolate", site: "z.0", value: [0], amount: 0.5 }],
    ["project-out:z.2=v", { operation: "projectOut", site: "z.2", value: [2] }],
    ["project-onto:z.2=v", { operation: "projectOnto", site: "z.2", value: [2] }],
  ])("--edit %s", (text, expected) => {
    const vectors = { at: (layer: number) => [layer], origin: { site: "resid_post" } };
    const edit = editOf(editArgument(text)[0]!, vectors as unknown as StoredTaskVectors);
    expect(edit).toEqual({ kind: "edit", at: -1, ...expected });
  });

  test("vectors at a site without a layer are refused", async () => {
    expect(() => editOf(editArgument("set:embed=v")[0]!, {} as StoredTaskVectors)).toThrow(/embed has none/);
  });

  test.each([
    ["zero", /operation:site/],
    ["zero:resid_past.3", /no site "resid_past\.3"/],
    ["zero:resid_post.3@x", /positions such as/],
    ["zero:resid_post.3*2", /no amount/],
    ["zero:resid_post.3=v", /no file/],
    ["scale:resid_post.3", /an amount/],
    ["set:resid_post.3", /a file of vectors/],
    ["interpolate:resid_post.3=v", /an amount/],
    ["scale:resid_post.3*much", /a number/],
  ])("--edit %s is refused", (text, message) => {
    expect(() => editArgument(text)).toThrow(message);
  });
});

describe("layout", () => {
  test("tables align their columns and end without blanks", async () => {
    const rows = [
      ["a", "1", "x"],
      ["long", "100", ""],
    ];
    expect(table(rows, [1])).toBe("a       1  x\nlong  100");
  });

  test("sizes, counts and bars", async () => {
    expect([0, 1023, 1024, 269_060_280].map(showBytes)).toEqual(["0 B", "1023 B", "1.0 KiB", "256.6 MiB"]);
    expect([999, 1000, 134_515_008, 7e9].map(showCount)).toEqual(["999", "1.0 k", "134.5 M", "7.0 G"]);
    expect([0, 0.5, 1].map((fraction) => bar(fraction, 2))).toEqual(["", "█", "██"]);
    expect(bar(0.3125, 4)).toBe("█▎");
  });

  test("a lens over many positions is folded to the width of the terminal", async () => {
    const words = ["one", "two", "three", "four"];
    const lens: LensReport = {
      model: "m",
      family: "llama",
      dtypes: ["F32"],
      adapter: "a",
      site: "resid_post",
      prompt: words.join(" "),
      positions: words.map((token, position) => ({ position, token })),
      cells: words.map((token, position) => ({
        layer: 0,
        position,
        tokens: [{ id: position, token, text: token, probability: 0.5 }],
      })),
      out: [],
    };
    const lines = formatLens(lens, 46).split("\n").slice(2);
    expect(lines).toEqual([
      '              0 "one"       1 "two"',
      'resid_post.0  "one" 50.0 %  "two" 50.0 %',
      "",
      '              2 "three"       3 "four"',
      'resid_post.0  "three" 50.0 %  "four" 50.0 %',
    ]);
  });
});
