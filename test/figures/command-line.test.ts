import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommanderError } from "commander";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { COMMANDS } from "../../src/cli/commands.ts";
import { addCommonOptions } from "../../src/cli/options/command.ts";
import { PromptError, SiteError } from "../../src/errors.ts";
import { decodeImage } from "../../src/images/files/decode.ts";
import { loadImage } from "../../src/images/files/load.ts";
import { encodePng } from "../../src/images/files/png-write.ts";
import { modelView } from "../../src/images/preprocess.ts";
import { readProcessorConfig } from "../../src/images/processors/processor-config.ts";
import { readXml } from "../helpers/xml.ts";

describe("on the command line", () => {
  const prompt = "USER: <image>\\nWhat is shown in the image? ASSISTANT:";
  const llava = [
    "--model",
    "test/fixtures/llava/model",
    "--image",
    "test/fixtures/images/photo.png",
    "--prompt",
    prompt,
  ];
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "xpatch-figures-"));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  /** Runs a command in this process; returns what it prints, and throws what it throws. */
  async function xpatch(name: string, ...args: string[]): Promise<string> {
    let printed = "";
    const stdout = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
      printed += text;
      return true;
    });
    try {
      const command = addCommonOptions(await COMMANDS[name]!());
      await command.configureOutput({ writeErr() {} }).parseAsync(args, { from: "user" });
    } finally {
      stdout.mockRestore();
    }
    return printed;
  }

  test("attend writes the map as a PNG, a drawing and a page, and reports it", async () => {
    const files = ["png", "svg", "html"].map((end) => join(folder, `map.${end}`));
    const out = files.flatMap((file) => ["--out", file]);
    const stdout = await xpatch("attend", ...llava, "--layer", "1", "--head", "3", ...out, "--json");
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({
      family: "llava",
      position: 47,
      token: ":",
      method: "attention",
      head: 3,
      grid: { rows: 4, columns: 4 },
      maps: [{ layer: 1 }],
      out: files,
    });
    const { weights, peak, share } = report.maps[0];
    expect(Math.max(...weights.flat())).toBe(peak.weight);
    expect(weights[peak.row][peak.column]).toBe(peak.weight);
    expect(share).toBeCloseTo(
      weights.flat().reduce((a: number, b: number) => a + b),
      5,
    );
    const drawn = await decodeImage(Uint8Array.from(readFileSync(files[0]!)));
    const svg = readFileSync(files[1]!, "utf8");
    const [, width, height] = /viewBox="0 0 ([\d.]+) ([\d.]+)"/.exec(svg)!;
    expect([drawn.width, drawn.height]).toEqual([2 * Number(width), 2 * Number(height)]);
    expect(new Set(drawn.data).size).toBeGreaterThan(50);
    expect(svg).toContain("attention of token 47");
    expect(readXml(svg)["title"]).toBe(16);
    expect(readFileSync(files[2]!, "utf8")).toContain(svg);
  });

  test("attend draws every layer's rollout", async () => {
    const file = join(folder, "rollout.svg");
    const stdout = await xpatch("attend", ...llava, "--token", "20", "--rollout", "--out", file);
    expect(stdout).toMatch(/attention rollout of token 20 .*mean of all heads/);
    expect(stdout.match(/^ +[012] +[\d.]+ % +[\d.]+ % +\d, \d$/gm)).toHaveLength(3);
    expect(readXml(readFileSync(file, "utf8"))["title"]).toBe(48);
  });

  test("lens --image writes a page and prints the words", async () => {
    const file = join(folder, "lens.html");
    const stdout = await xpatch("lens", ...llava, "--layers", "0,2", "--top", "3", "--out", file);
    expect(stdout).toMatch(/^resid_post\.0: .+\n(.+\n){4}\nresid_post\.2: /m);
    const page = readFileSync(file, "utf8");
    expect(page.match(/<title>row \d, column \d, position \d+\n(.+\n){2}.+<\/title>/g)).toHaveLength(32);
  });

  test("lens draws the table of a text too", async () => {
    const files = ["table.html", "column.svg"].map((name) => join(folder, name)) as [string, string];
    const model = ["--model", "test/fixtures/llama/model", "--prompt", "the cat sat", "--top", "2"];
    const stdout = await xpatch("lens", ...model, "--layers", "0,1", "--out", files[0]);
    expect(stdout).toMatch(/written to .*table\.html$/m);
    const { cells } = JSON.parse(await xpatch("lens", ...model, "--layers", "0,1", "--json"));
    const titles = readFileSync(files[0], "utf8").match(/<title>layer \d, \d+ .*\n(.+\n)?.+<\/title>/g);
    expect(titles).toHaveLength(cells.length);
    await xpatch("lens", ...model, "--at", "-1", "--out", files[1], "--json");
    expect(readXml(readFileSync(files[1], "utf8"))["title"]).toBe(2 * 3);
  });

  test("a second image is looked at by its span, over its own picture", async () => {
    const two = ["--image", "test/fixtures/images/tall.png", "--prompt", "Q:<image>\\nQ:<image>\\nA:"];
    const file = join(folder, "two.svg");
    const args = [...llava.slice(0, 4), ...two, "--layer", "0", "--out", file, "--json"];
    const processor = readProcessorConfig(
      JSON.parse(readFileSync("test/fixtures/llava/model/preprocessor_config.json", "utf8")),
    );
    const maps: unknown[] = [];
    for (const [span, name] of [
      ["image", "photo"],
      ["image2", "tall"],
    ] as const) {
      maps.push(JSON.parse(await xpatch("attend", ...args, "--span", span)).maps[0].weights);
      const seen = modelView(await loadImage(`test/fixtures/images/${name}.png`), processor);
      const data = Buffer.from(encodePng(seen)).toString("base64");
      expect(readFileSync(file, "utf8").includes(data), `${span} is drawn over ${name}.png`).toBe(true);
    }
    expect(maps[0]).not.toEqual(maps[1]);
  });

  test.each([
    [
      "attend",
      ["--model", "test/fixtures/llama/model", ...llava.slice(2)],
      PromptError,
      /\(llama\) takes no images/,
    ],
    [
      "lens",
      ["--model", "test/fixtures/llama/model", ...llava.slice(2)],
      PromptError,
      /\(llama\) takes no images/,
    ],
    ["attend", [...llava, "--head", "4"], SiteError, /--head: expected mean, or a head from 0 to 3, found 4/],
    ["attend", [...llava, "--layer", "3"], SiteError, /expected layers from 0 to 2 .*found 3/],
    ["attend", [...llava, "--token", "48"], PromptError, /found 48/],
    ["attend", [...llava, "--span", "image2"], PromptError, /no span "image2"; it has image\./],
    [
      "attend",
      [...llava.slice(0, 4), "--prompt", "what?"],
      PromptError,
      /0 placeholder\(s\) and 1 image\(s\)/,
    ],
    [
      "attend",
      [...llava, "--rollout", "--head", "1"],
      CommanderError,
      /--rollout is over the mean of all heads/,
    ],
    ["attend", [...llava, "--head", "all"], CommanderError, /Expected mean or a head's number/],
    [
      "attend",
      [...llava, "--out", "map.gif"],
      CommanderError,
      /map\.gif: expected a name that ends in one of \.svg, \.png, \.html/,
    ],
  ])("%s refuses %j", async (name, args, kind, message) => {
    const file = join(folder, "never.png");
    const refused = xpatch(name, ...args, "--out", file).catch((error: unknown) => error);
    expect(await refused).toBeInstanceOf(kind);
    expect((await refused) as Error).toMatchObject({ message: expect.stringMatching(message) });
    expect(existsSync(file)).toBe(false);
  });
});
