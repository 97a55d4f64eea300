import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { attributeCommand } from "../../../src/cli/commands/attribute.ts";
import { addCommonOptions } from "../../../src/cli/options/command.ts";
import { readXml } from "../../helpers/xml.ts";

const LLAMA = [
  "--model",
  "test/fixtures/llama/model",
  "--prompt",
  "Q: the\\nA:",
  "--corrupted",
  "Q: and\\nA:",
];
const IMAGES = ["photo", "tall"].map((name) => `test/fixtures/images/${name}.png`) as [string, string];
const LLAVA = [
  ...["--model", "test/fixtures/llava/model", "--prompt", "Q:<image>\\nA:"],
  ...["--image", IMAGES[0], "--corrupted-image", IMAGES[1]],
];
const METRIC = ["--answer", "the", "--against", "and"];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "xpatch-attribute-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** What the command prints in this process; throws what it throws, and what it says of wrong arguments. */
async function attribute(...args: string[]): Promise<string> {
  let [printed, said] = ["", ""];
  const stdout = vi.spyOn(process.stdout, "write").mockImplementation((text) => {
    printed += text;
    return true;
  });
  const command = addCommonOptions(attributeCommand()).configureOutput({
    writeErr: (text) => {
      said += text;
    },
  });
  try {
    await command.parseAsync(args, { from: "user" });
  } catch (error) {
    throw said ? new Error(said) : error;
  } finally {
    stdout.mockRestore();
  }
  return printed;
}

describe("xpatch attribute", () => {
  test("prints the map of two prompts, with the exact one and how well it was estimated", async () => {
    const file = join(folder, "map.svg");
    const printed = await attribute(...LLAMA, ...METRIC, "--exact", "--out", file);
    expect(printed).toContain('\nclean      "Q: the\\nA:"\ncorrupted  "Q: and\\nA:"\n');
    expect(printed).toMatch(/^effect in % .* \(denoising\), estimated by attribution patching$/m);
    expect(printed).toMatch(/^effect in % of clean activations in the corrupted prompt \(denoising\)$/m);
    expect(printed).toMatch(/^Spearman -?[\d.]+, Pearson -?[\d.]+, same sign \d+ %/m);
    expect(printed).toMatch(/written to .*map\.svg\n$/);
    const svg = readFileSync(file, "utf8");
    expect(svg).toContain("exact");
    expect(svg).toContain("estimated by attribution patching");
    readXml(svg);
  });

  test("takes heads, sites, positions, steps and the direction", async () => {
    const heads = JSON.parse(
      await attribute(...LLAMA, ...METRIC, "--heads", "--sites", "z.1,v.0", "--steps", "2", "--json"),
    );
    expect(heads.map).toMatchObject({
      rows: ["v.0", "z.1"],
      method: "integrated gradients",
      steps: 2,
      direction: "denoising",
    });
    expect(heads.map.columns[3]).toEqual({ head: 3 });
    const two = await attribute(
      ...LLAMA,
      ...["--answer", "the", "--positions", "-2,-1", "--direction", "noising", "--json"],
    );
    expect(JSON.parse(two).map).toMatchObject({ method: "attribution", direction: "noising" });
    expect(JSON.parse(two).map.columns).toHaveLength(2);
    expect(JSON.parse(two).map.metric).toMatch(/^log probability of /);
  });

  test("draws the effects of a picture's patches over the picture", async () => {
    const files = [join(folder, "over.svg"), join(folder, "over.png")];
    const out = files.flatMap((file) => ["--picture-out", file]);
    const args = [...LLAVA, "--answer", "the", "--sites", "resid_post.*,embed"];
    const report = JSON.parse(await attribute(...args, ...out, "--json"));
    expect(report.out).toEqual(files);
    const { rows, columns, values, clean, corrupted } = report.map;
    expect(report.picture.map(({ site }: { site: string }) => site)).toEqual(rows);
    // 16 patches from position 2 (behind the start and Q) or so on; those are the first that differ.
    const patches = columns.slice(0, 16);
    const sums = values.map((row: number[]) =>
      patches.reduce(
        (sum: number, _: unknown, i: number) => sum + (row[i]! - corrupted) / (clean - corrupted),
        0,
      ),
    );
    for (const [r, { sum }] of report.picture.entries()) expect(sum).toBeCloseTo(sums[r], 6);
    const svg = readFileSync(files[0]!, "utf8");
    readXml(svg);
    for (const site of rows) expect(svg).toContain(`${site}: largest`);
    expect(svg).toContain("estimated by attribution patching");
    const printed = await attribute(...args);
    expect(printed).toMatch(/^ +picture +peak +at row, column$/m);
    expect(printed).toMatch(/^embed +-?[\d.]+ % +-?[\d.]+ % +\d, \d$/m);
  });

  test.each<[string[], RegExp]>([
    [LLAMA.slice(0, 4), /expected --corrupted or --corrupted-image/],
    [[...LLAMA, "--against", "the"], /--against goes with --answer only/],
    [[...LLAMA, "--picture-out", "a.png"], /--picture-out goes with --image only/],
    [[...LLAVA, "--heads", "--picture-out", "a.png"], /--picture-out goes with maps by position/],
    [[...LLAMA, "--sites", "resid_pots.*"], /--sites: .*nearest is "resid_post\.\*"/],
    [[...LLAMA, "--answer", "Hello there"], /--answer: .*one token, found "Hello there"/],
    [
      [...LLAMA.slice(0, 5), "Q: and the\\nA:"],
      /^--corrupted: expected prompts of one length, found 6 and 5 tokens/,
    ],
    [[...LLAMA, "--steps", "0"], /--steps.*Expected a whole number from 1/],
    [[...LLAMA, "--positions", "99"], /--positions: Expected a position/],
    [[...LLAMA, "--direction", "back"], /Expected one of denoising, noising/],
    [[...LLAMA, "--out", join("none", "a.png")], /--out: .*there is no folder none/],
    [[...LLAVA.slice(0, 6), "--corrupted-image", "none.png"], /--corrupted-image: .*ENOENT/],
    [[...LLAVA, "--span", "image2"], /--span: .* no span "image2"/],
  ])("refuses %j", async (args, message) => {
    await expect(attribute(...args)).rejects.toThrow(message);
  });
});
