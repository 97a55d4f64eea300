import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommanderError } from "commander";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { COMMANDS } from "../../src/cli/commands.ts";
import { addCommonOptions } from "../../src/cli/options/command.ts";
import { XpatchError } from "../../src/errors.ts";

const root = join(import.meta.dirname, "..", "..");
const fixture = (name: string) => join(root, "test", "fixtures", name);
const llama = join(fixture("llama"), "model");
const llava = join(fixture("llava"), "model");
const authors = fixture("authors");
const photo = join(fixture("images"), "photo.png");
const main = join(root, "dist", "cli", "main.js");

let folder: string;
const path = (name: string) => join(folder, name);

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "xpatch-mistakes-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Where no driver is installed, whatever goes as far as to open a device fails for that. */
const NO_DEVICE = { XPATCH_CACHE: "/xpatch-no-such-cache", XPATCH_ADAPTER: "lavapipe" };

/** Runs a command where there is no device, and no way to end the process. */
async function inProcess(name: string, args: readonly string[], say: (words: string) => void = () => {}) {
  const command = addCommonOptions(await COMMANDS[name]!());
  command.configureOutput({ writeErr: say });
  for (const [variable, value] of Object.entries(NO_DEVICE)) vi.stubEnv(variable, value);
  try {
    await command.parseAsync(args, { from: "user" });
  } finally {
    vi.unstubAllEnvs();
  }
}

function xpatch(args: readonly string[], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, ...env },
  });
  const messages = stderr.split("\n").filter((line) => line !== "");
  return { status, stdout, messages };
}

describe("mistakes are found before a device is opened or weights are read, and name the option", () => {
  const text = ["--model", llama, "--prompt", "a b"];
  const shown = ["--model", llava, "--prompt", "a <image> b", "--image", photo];
  const none = () => path("none/out.safetensors");

  beforeAll(() => {
    const made = xpatch(
      ["extract", ...["--model", llama, "--task", "food-color", "--shots", "1"]].concat(
        "--layers",
        "0-1",
        "--out",
        path("v.safetensors"),
      ),
    );
    expect(made.messages).toEqual([]);
    writeFileSync(path("prompts.txt"), "a b c\na\n");
    writeFileSync(path("text.png"), "not a picture");
    mkdirSync(path("full"), { recursive: true });
    writeFileSync(path("full/file"), "");
    writeFileSync(path("same.csv"), "input,output\na,b\n");
    const seen = [
      "a,b,validation,",
      "c,d,validation,gone.png",
      "e,f,validation,",
      "g,h,test,",
      "i,j,test,",
      "k,l,test,",
    ];
    writeFileSync(path("gone.csv"), `input,output,split,image\n${seen.join("\n")}\n`);
    mkdirSync(path("other"), { recursive: true });
    writeFileSync(path("other/same.csv"), "input,output\na,c\n");
  });

  const vectors = () => ["--vectors", path("v.safetensors")];
  test.each<[string, () => readonly string[], RegExp]>([
    [
      "lens",
      () => [...text, "--layers", "40-50"],
      /^--layers: expected layers from 0 to 2 \(the model has 3\), found 40, 41, 42, …$/,
    ],
    ["lens", () => [...text, "--at", "9"], /^--at: Expected a position .* found 9/],
    ["lens", () => [...text, "--top", "449"], /^--top: expected at most 448/],
    ["lens", () => [...text, "--image", photo], /^--image: .* takes no images/],
    ["lens", () => [...shown, "--out", path("none/a.png")], /^--out: .*there is no folder .*none/],
    ["lens", () => [...shown, "--span", "image2"], /^--span: .* no span "image2"; it has image/],
    [
      "attend",
      () => [...shown, "--out", path("a.png"), "--layer", "3"],
      /^--layer: expected layers from 0 to 2/,
    ],
    [
      "attend",
      () => [...shown, "--out", path("a.png"), "--head", "4"],
      /^--head: expected mean, or a head from 0 to 3, found 4/,
    ],
    ["attend", () => [...shown, "--out", path("a.png"), "--token", "99"], /^--token: Expected a position/],
    [
      "attend",
      () => [...shown, "--out", path("full.png/")],
      /^--out: expected a file, found the name of a folder/,
    ],
    ["generate", () => [...text, "--image", photo], /^--image: .* takes no images/],
    [
      "generate",
      () => ["--model", llava, "--prompt", "<image>", "--image", path("none.png")],
      /^--image: .*none\.png: ENOENT/,
    ],
    [
      "generate",
      () => ["--model", llava, "--prompt", "<image>", "--image", path("text.png")],
      /^--image: .*text\.png: expected a PNG/,
    ],
    ["generate", () => ["--model", llava, "--prompt", "<image>"], /^Expected one image for each <image>/],
    [
      "generate",
      () => [...text, "--max-new-tokens", "9999"],
      /^Expected at most \d+ tokens \(the model's context\)/,
    ],
    ["generate", () => [...text, "--edit", "zero:mlp_out.3"], /^--edit zero:mlp_out\.3: .*3 layers, 0 to 2/],
    [
      "generate",
      () => [...text, "--edit", "zero:mlp_out.1@99"],
      /^--edit zero:mlp_out\.1@99: Expected a position/,
    ],
    [
      "generate",
      () => [...text, "--edit", `set:resid_post.2=${path("v.safetensors")}`],
      /^--edit set:.*no task vector of layer 2/,
    ],
    [
      "generate",
      () => [...text, "--edit", `set:mlp_act.1=${path("v.safetensors")}`],
      /^--edit set:mlp_act.*96 wide.* are 48/,
    ],
    ["generate", () => [...text, "--edit", `set:resid_post.1=${photo}`], /^--edit set:.*photo\.png/],
    ["generate", () => [...text, "--chat"], /template/],
    [
      "extract",
      () => ["--model", llama, "--task", "food-color", "--out", none()],
      /^--out: .*there is no folder/,
    ],
    [
      "extract",
      () => ["--model", llama, "--task", "food-color", "--out", folder],
      /^--out: expected a file, found the folder/,
    ],
    [
      "extract",
      () => ["--model", llama, "--task", "food-color", "--out", path("o"), "--layers", "3"],
      /^--layers: .*found 3$/,
    ],
    [
      "extract",
      () => ["--model", llama, "--prompts", path("prompts.txt"), "--out", path("o"), "--position", "-3"],
      /^--position: Expected a position/,
    ],
    [
      "extract",
      () => ["--model", llama, "--task", "food-color", "--spec", "image", "--out", path("o")],
      /takes no images/,
    ],
    [
      "extract",
      () => ["--model", llama, "--task", "food-color", "--shots", "999", "--out", path("o")],
      /at least 999 items/,
    ],
    [
      "patch",
      () => [...text, "--task", "food-color", "--shots", "1", "--layer", "7"],
      /^--layer: expected layers from 0 to 2/,
    ],
    ["patch", () => [...text, ...vectors()], /^expected --layer, since/],
    [
      "patch",
      () => [...text, ...vectors(), "--layer", "1", "--position", "9"],
      /^--position: Expected a position/,
    ],
    ["patch", () => [...text, "--vectors", photo, "--layer", "1"], /photo\.png/],
    [
      "patch",
      () => ["--model", llava, "--task", "food-color", "--image", path("none.png")],
      /^--image: .*ENOENT/,
    ],
    [
      "patch",
      () => [...text, "--task", "food-color", "--layer", "1", "--shots", "999"],
      /at least 999 items/,
    ],
    [
      "experiment",
      () => ["sweep", "--out", path("r"), "--model", llava, "--shots", "2", "--tasks", path("gone.csv")],
      /^--tasks: gone: the picture of "c" cannot be read: ENOENT.*gone\.png/,
    ],
    [
      "sweep",
      () => ["--model", llama, ...vectors(), "--task", "food-color", "--position", "99"],
      /^--position: Expected/,
    ],
    [
      "sweep",
      () => ["--model", llama, ...vectors(), "--task", "food-color", "--query", "image"],
      /takes no images/,
    ],
    ["export", () => [llama, "--out", path("full")], /full: expected an empty folder, found 1 files/],
    ["experiment", () => ["sweep", "--out", path("r"), "--tasks", "nope"], /no task "nope"/],
    [
      "experiment",
      () => ["sweep", "--out", path("r"), "--shots", "999"],
      /^--shots: task country-capital has \d+ validation items/,
    ],
    [
      "experiment",
      () => ["sweep", "--out", path("r"), "--outside-means", "food-flavour"],
      /^--outside-means: there is no task food-flavour/,
    ],
    [
      "experiment",
      () => ["sweep", "--out", path("r"), "--tasks", `${path("same.csv")},${path("other/same.csv")}`],
      /^--tasks: two of the tasks are called same/,
    ],
    [
      "experiment",
      () => ["sweep", "--out", path("r"), "--model", llama, "--llm", path("none")],
      /^--llm: .*none/,
    ],
    [
      "experiment",
      () => ["sweep", "--out", path("full/file"), "--model", llama],
      /cannot write the folder .*full.file: /,
    ],
    ["demo", () => [llama, "--query", "image"], /takes no images/],
    ["demo", () => [llama, "--html", none()], /^--html: .*there is no folder/],
    ["parity", () => ["--model", llama, "--real", path("none.json")], /none\.json/],
    ["parity", () => ["--authors", path("none"), "--model", llama], /none: ENOENT/],
    [
      "parity",
      () => ["--authors", authors, "--model", llama],
      /^--authors: .*expected vectors \[3, \d+\] for .*, found \[30, 576\]/,
    ],
    [
      "parity",
      () => ["--authors", authors, "--weights", "stored", "--model", llama],
      /^--authors: .*expected vectors/,
    ],
    [
      "experiment",
      () => ["sweep", "--out", path("r"), "--protocol", "paper", "--tasks", "food-color"],
      /^--tasks: the paper's protocol takes the tasks country-capital, .*; found food-color$/,
    ],
  ])("%s %#", async (command, args, message) => {
    const error: unknown = await inProcess(command, args()).catch((thrown) => thrown);
    if (!(error instanceof XpatchError)) expect(error).toMatchObject({ syscall: expect.any(String) });
    expect((error as Error).message).toMatch(message);
    expect((error as Error).message).not.toMatch(/stopAfter|topK|topP|maxNewTokens/);
  });

  /** Of a model that there is not; whatever opens it fails for that. */
  const missing = () => ["--model", path("no-model")];
  const asked = () => [...missing(), "--prompt", "a"];
  const foods = () => [...missing(), "--task", "food-color"];
  const csv = () => [...missing(), "--task", path("gone.csv"), "--split", "validation", "--shots", "1"];
  test.each<[string, () => readonly string[], RegExp]>([
    [
      "generate",
      () => [...missing(), "--prompt-file", path("none.txt")],
      /^--prompt-file: ENOENT.*none\.txt/,
    ],
    ["generate", () => [...asked(), "--image", path("none.png")], /^--image: .*none\.png: ENOENT/],
    ["generate", () => [...asked(), "--edit", "set:z.1=none.safetensors"], /^--edit set:.*none\.safetensors/],
    ["lens", () => [...asked(), "--image", path("text.png")], /^--image: .*text\.png: expected a PNG/],
    ["attend", () => [...asked(), "--image", path("none.png"), "--out", "a.png"], /^--image: .*ENOENT/],
    [
      "attend",
      () => [...asked(), "--image", photo, "--out", path("none/a.png")],
      /^--out: .*there is no folder/,
    ],
    [
      "extract",
      () => [...missing(), "--prompts", path("none.txt"), "--out", path("o")],
      /^--prompts: ENOENT.*none\.txt/,
    ],
    ["extract", () => [...foods(), "--out", none()], /^--out: .*there is no folder/],
    [
      "extract",
      () => [...foods(), "--shots", "999", "--out", path("o")],
      /^--shots: expected at least 999 items/,
    ],
    [
      "extract",
      () => [...csv().slice(0, -2), "--spec", "instruction", "--out", path("o")],
      /^--spec: task gone has no instr/,
    ],
    [
      "extract",
      () => [...csv(), "--spec", "image", "--out", path("o")],
      /^--task: the picture of "c" cannot be/,
    ],
    [
      "extract",
      () => [...csv(), "--split", "test", "--spec", "image", "--out", path("o")],
      /^--task: task gone: no item of the test split has an image/,
    ],
    [
      "extract",
      () => [...csv(), "--split", "train", "--out", path("o")],
      /^--task: task gone: no item is in the train split/,
    ],
    ["patch", () => [...asked(), ...foods(), "--shots", "999"], /^--shots: expected at least 999 items/],
    [
      "patch",
      () => [...asked(), ...vectors(), "--layer", "2"],
      /^--layer: no task vector of layer 2; .* 0, 1$/,
    ],
    ["patch", () => [...foods(), "--image", path("none.png")], /^--image: .*none\.png: ENOENT/],
    ["sweep", () => [...foods(), ...vectors(), "--layers", "0-2"], /^--layers: no task vector of layer 2/],
    ["sweep", () => [...foods(), "--vectors", path("none.v")], /^--vectors: ENOENT.*none\.v/],
    [
      "sweep",
      () => [...missing(), "--task", path("gone.csv"), ...vectors(), "--query", "image"],
      /^--task: the picture of "c" cannot be read/,
    ],
    ["demo", () => [path("no-model"), "--shots", "999"], /^--shots: expected at least 999 items/],
    ["demo", () => [...missing(), "--task", path("same.csv")], /^--task: task same: no item/],
    ["demo", () => [...missing(), "--html", none()], /^--html: .*there is no folder/],
    [
      "demo",
      () => [...missing(), "--task", path("gone.csv"), "--query", "image", "--shots", "1"],
      /^--task: the picture of "c" cannot be read/,
    ],
    ["export", () => [...missing(), "--out", path("full")], /^--out: .*expected an empty folder/],
    ["parity", () => [...missing(), "--real", path("none.json")], /^--real: .*none\.json/],
    ["parity", () => [...missing(), "--authors", path("none")], /^--authors: .*none: ENOENT/],
    [
      "parity",
      () => [...missing(), "--authors", authors, "--pictures", path("none")],
      /^--pictures: the picture of .* cannot be read/,
    ],
    ["experiment", () => ["sweep", ...missing(), "--out", path("r"), "--tasks", "nope"], /no task "nope"/],
    ["reproduce", () => [...missing(), "--out", path("full/file")], /cannot write the folder .*full.file: /],
  ])("before any model is opened: %s %#", async (command, args, message) => {
    await expect(inProcess(command, args())).rejects.toThrow(message);
  });

  test("so is XPATCH_ADAPTER", async () => {
    const { messages, status } = xpatch(["generate", ...asked()], { XPATCH_ADAPTER: "lavapip" });
    expect({ status, messages }).toEqual({
      status: 1,
      messages: [
        'xpatch: XPATCH_ADAPTER: expected one of auto, gpu, lavapipe, swiftshader, found "lavapip"; the nearest is "lavapipe"',
      ],
    });
  });

  test.each<[string, readonly string[], string]>([
    ["devices", ["--adapter", "lavapip"], "lavapipe"],
    ["lens", ["--prompt", "a", "--site", "resid_pots"], "resid_post"],
    ["generate", ["--prompt", "a", "--edit", "sat:z.3=v"], "set"],
    ["generate", ["--prompt", "a", "--edit", "zero:resid_pots.3"], "resid_post.3"],
    ["extract", ["--out", "o", "--task", "food-color", "--spec", "imag"], "image"],
    ["extract", ["--out", "o", "--task", "food-color", "--split", "trian"], "train"],
    ["sweep", ["--vectors", "v", "--task", "food-color", "--query", "txt"], "text"],
    ["demo", ["--query", "images"], "image"],
    ["export", ["--out", "o", "--dtype", "fp16"], "f16"],
    ["parity", ["--authors", "a", "--weights", "store"], "stored"],
    ["experiment", ["cross-model"], "cross-modal"],
    ["experiment", ["sweep", "--layer-by", "means"], "mean"],
  ])("%s %j: the message has the nearest name", async (command, args, near) => {
    let said = "";
    await expect(inProcess(command, args, (words) => (said += words))).rejects.toThrow(CommanderError);
    expect(said).toContain(`; the nearest is "${near}"`);
  });

  test.each<[string, readonly string[], string]>([
    ["generate", ["--prompt", "a", "--model", "xpatch:vml"], "xpatch:vlm"],
    ["generate", ["--prompt", "a", "--lora", "xpatch:lllm"], "xpatch:llm"],
    ["demo", ["xpatch:smolm2"], "xpatch:smollm2"],
    ["demo", ["--task", "country-capitol"], "country-capital"],
    ["reproduce", ["--tasks", "food-colour"], "food-color"],
    ["experiment", ["sweep", "--outside-means", "food-flavour", "--tasks", "food-flavor"], "food-flavor"],
    ["experiment", ["sweep", "--llm", "xpatch:lllm"], "xpatch:llm"],
  ])("so has that for names that are looked up: %s %j", async (command, args, near) => {
    const out = ["experiment", "reproduce"].includes(command) ? ["--out", path("r")] : [];
    await expect(inProcess(command, [...args, ...out])).rejects.toThrow(`; the nearest is "${near}"`);
  });

  test("on the command line that is one line on stderr", () => {
    const { status, stdout, messages } = xpatch(["lens", ...text, "--layers", "40-50"], NO_DEVICE);
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    expect(messages).toEqual([
      "xpatch: --layers: expected layers from 0 to 2 (the model has 3), found 40, 41, 42, …",
    ]);
  });

  test.each<[readonly string[], RegExp]>([
    [
      ["generate", ...text, "--temperature", "0"],
      /'--temperature <t>' argument '0' is invalid. Expected a number above 0/,
    ],
    [["generate", ...text, "--temperature", "1", "--top-p", "2"], /Expected a number above 0 and at most 1/],
    [["generate", ...text, "--top-k", "2"], /--top-k and --top-p need a --temperature/],
    // Options that would not be used.
    [
      ["extract", "--prompts", "p", "--out", "o", "--shots", "3", "--seed", "1"],
      /--shots, --seed go with --task only/,
    ],
    [
      ["extract", "--task", "t", "--out", "o", "--spec", "instruction", "--shots", "3"],
      /--shots goes with examples/,
    ],
    [
      ["patch", "--vectors", "v", "--prompt", "p", "--template", "{x}:{y}"],
      /--template goes with --task only/,
    ],
    [["patch", "--vectors", "v", "--question", "q", "--split", "test"], /--split goes with --task only/],
    [
      ["patch", "--task", "t", "--question", "q", "--spec", "instruction", "--shots", "3"],
      /--shots goes with examples/,
    ],
    [["sweep", "--vectors", "v", "--queries", "q", "--query", "image"], /--query goes with --task only/],
    [["demo", "--spec", "instruction", "--shots", "3"], /--shots goes with examples/],
    [["lens", ...text, "--span", "image2"], /--span goes with --image only/],
    [["lens", ...text, "--image", "i.png", "--at", "3"], /--at goes with prompts without --image only/],
    [
      ["extract", "--model", llama, "--task", "food-color", "--out", "o", "--template", "Q: {x}"],
      /'--template <text>' argument 'Q: \{x\}' is invalid. Expected a template with \{x\}, some text and \{y\}/,
    ],
    [["experiment", "sweep", "--template", "{y} {x}"], /Expected a template with \{x\}/],
    [["lens", ...text, "--top", "2000"], /a whole number from 1 to 1024/],
    [["lens", ...text, "--site", "pattern"], /Expected one of resid_pre, attn_in, attn_out/],
    [
      ["extract", "--model", llama, "--task", "food-color", "--out", "o", "--site", "scores"],
      /Expected one of resid_pre/,
    ],
    [
      ["generate", ...text, "--max-new-token", "2"],
      /unknown option '--max-new-token'\n\(Did you mean --max-new-tokens\?\)/,
    ],
  ])("%j is a usage error", async ([command, ...args], message) => {
    let said = "";
    await expect(inProcess(command!, args, (words) => (said += words))).rejects.toThrow(CommanderError);
    expect(said).toMatch(message);
  });

  test("a command that does not exist", () => {
    const { status, stdout, messages } = xpatch(["extrct"]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(messages.slice(0, 2)).toEqual(["xpatch: unknown command 'extrct'", "(Did you mean extract?)"]);
  });

  test("none of them left anything", () => {
    expect(readdirSync(folder).sort()).toEqual(
      ["full", "gone.csv", "other", "prompts.txt", "same.csv", "text.png", "v.safetensors"].sort(),
    );
  });

  test.runIf(process.platform === "linux")("an argument that is not UTF-8", () => {
    const line = `exec "$0" "$1" generate --model "$2" --prompt "$(printf 'Z\\374rich')"`;
    const { status, stderr } = spawnSync("sh", ["-c", line, process.execPath, main, llama], {
      encoding: "utf8",
    });
    expect(status).toBe(2);
    expect(stderr).toBe("xpatch: an argument is not UTF-8; use a terminal with a UTF-8 locale, or a file\n");
    // A replacement character that was meant is none of our business.
    expect(
      xpatch(["generate", "--model", llama, "--prompt", "a\ufffd", "--max-new-tokens", "1"]).status,
    ).toBe(0);
  });
});

describe("a disk that takes no more leaves what was there, and nothing else", () => {
  beforeEach(() => {
    rmSync(path("disk"), { recursive: true, force: true });
    mkdirSync(path("disk"));
  });

  /** With a disk that is full after so many bytes. */
  function limited(bytes: number, args: readonly string[]) {
    const full = `
      import { open } from "node:fs/promises";
      const handle = await open("/dev/null", "w");
      const type = Object.getPrototypeOf(handle);
      const { write } = type;
      let left = ${bytes};
      type.write = async function (buffer, offset, length, ...rest) {
        const fitting = Math.min(length, left);
        left -= fitting;
        if (fitting > 0) return write.call(this, buffer, offset, fitting, ...rest);
        const reason = "ENOSPC: no space left on device, write";
        throw Object.assign(new Error(reason), { code: "ENOSPC", syscall: "write" });
      };
      await handle.close();`;
    const importing = `--import=data:text/javascript,${encodeURIComponent(full)}`;
    const { status, messages } = xpatch(args, { NODE_OPTIONS: importing });
    return { status, message: messages.find((line) => line.startsWith("xpatch: ")) };
  }

  test.each<[string, string, readonly string[]]>([
    ["extract", "v.safetensors", ["--model", llama, "--task", "food-color", "--shots", "1"]],
    ["attend", "map.svg", ["--model", llava, "--prompt", "a <image> b", "--image", photo]],
  ])("%s --out %s", (command, name, args) => {
    writeFileSync(path(`disk/${name}`), "old");
    const { status, message } = limited(100, [command, ...args, "--out", path(`disk/${name}`)]);
    expect(message).toBe(`xpatch: cannot write ${path(`disk/${name}`)}: no space left on device (ENOSPC)`);
    expect(status).toBe(1);
    expect(readdirSync(path("disk"))).toEqual([name]);
    expect(readFileSync(path(`disk/${name}`), "utf8")).toBe("old");
  });

  test("export leaves neither the folder nor a part of it", () => {
    const { status, message } = limited(50_000, ["export", llama, "--out", path("disk/model")]);
    expect(message).toBe(
      `xpatch: cannot write ${path("disk/model/model.safetensors")}: no space left on device (ENOSPC)`,
    );
    expect(status).toBe(1);
    expect(readdirSync(path("disk"))).toEqual([]);
  });

  test("output that cannot be printed is a failure", () => {
    const line = `exec "$0" "$1" inspect "$2" > /dev/full`;
    const { status, stderr } = spawnSync("sh", ["-c", line, process.execPath, main, llama], {
      encoding: "utf8",
    });
    expect(status).toBe(1);
    expect(stderr).toMatch(/^xpatch: cannot write the output: no space left on device \(ENOSPC\)$/m);
  });
});

describe("being stopped", () => {
  /** Runs a command whose output is closed after its first bytes. */
  function closedEarly(...args: string[]): Promise<{ status: number | null; stderr: string }> {
    const child = spawn(process.execPath, [main, ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (data) => (stderr += data));
    child.stdout.once("data", () => child.stdout.destroy());
    return new Promise((resolve) => child.on("close", (status) => resolve({ status, stderr })));
  }

  test("a reader that has seen enough ends generate quietly, as SIGPIPE would", async () => {
    const { status, stderr } = await closedEarly(
      ...["generate", "--model", llama, "--prompt", "a", "--max-new-tokens", "60"],
    );
    expect(stderr.split("\n").filter((line) => line !== "")).toEqual([]);
    expect(status).toBe(141);
  });

  test("SIGINT ends it by that signal, with a line", async () => {
    const args = ["generate", "--model", llama, "--prompt", "a", "--max-new-tokens", "60"];
    const child = spawn(process.execPath, [main, ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    let stderr = "";
    child.stderr.on("data", (data) => (stderr += data));
    child.stdout.once("data", () => child.kill("SIGINT"));
    child.stdout.resume();
    const signal = await new Promise((resolve) => child.on("close", (_, by) => resolve(by)));
    expect(signal).toBe("SIGINT");
    expect(stderr).toMatch(/^xpatch: stopped by SIGINT$/m);
  });
});
