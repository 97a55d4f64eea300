import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { format } from "node:util";
import { afterAll, expect, test, vi } from "vitest";

const root = join(import.meta.dirname, "..", "..");

const run = new Set<string>();

/** Canada, in the test style. */
const FLAG = "tasks/pictures/emojione/1f1e8-1f1e6.png";

const folder = mkdtempSync(join(tmpdir(), "xpatch-examples-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs an example as its head says, and returns what it prints. */
function exampleAsProgram(name: string, ...args: string[]): string {
  const script = join("scripts", "run-ts.mjs");
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [script, join("examples", `${name}.ts`), ...args],
    { cwd: root, encoding: "utf8" },
  );
  if (status !== 0) throw new Error(`${name} ended with ${status}:\n${stderr}`);
  return stdout;
}

/** The same in this process, where examples share the model. */
async function example(name: string, ...args: string[]): Promise<string> {
  const file = join(folder, `${name}.mts`);
  const source = readFileSync(join(root, "examples", `${name}.ts`), "utf8");
  const shared = JSON.stringify(join(root, "test", "helpers", "shared-model.ts"));
  writeFileSync(file, source.replace('"../src/index.ts"', shared));
  const printed: string[] = [];
  const log = vi.spyOn(console, "log").mockImplementation((...values) => {
    printed.push(format(...values));
  });
  const { argv } = process;
  process.argv = ["node", name, ...args];
  try {
    await import(/* @vite-ignore */ file);
  } finally {
    process.argv = argv;
    log.mockRestore();
  }
  run.add(`${name}.ts`);
  return `${printed.join("\n")}\n`;
}

test("an example runs as a program, on another model too", () => {
  const file = join(folder, "fixture.svg");
  const [model, picture] = ["test/fixtures/llava/model", "test/fixtures/images/photo.png"];
  const printed = exampleAsProgram("attention-over-a-picture", model, picture, "<image>\nWhat?", file);
  expect(printed.match(/^layer \d: [\d.]+ % of the attention is on the picture$/gm)).toHaveLength(3);
  expect(readFileSync(file, "utf8")).toMatch(/^<svg .*layer 2: .*<\/svg>$/s);
});

test("cross-modal patching: the flag's country, and with the vector its capital", async () => {
  const printed = await example("cross-modal-patching");
  expect(printed).toContain("takes positions 2 to 10 of 14.");
  expect(printed).toMatch(/^Asked about it, the model says +" Portugal"$/m);
  expect(printed).toMatch(/^with the vector of country → capital +" Lisbon"$/m);
});

test("zero-shot classification: the country of the flag comes out on top", async () => {
  const printed = await example("zero-shot");
  const shares = [...printed.matchAll(/^ *([\d.]+) % {2}(\w+)$/gm)].map(([, share, label]) => ({
    share: Number(share),
    label,
  }));
  expect(shares.map(({ label }) => label)).toEqual(["Canada", "Denmark", "Switzerland", "Peru"]);
  expect(shares[0]!.share).toBeGreaterThan(90);
  expect(shares.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(100, 0);
});

test("attention over a picture prints a share a layer and writes the drawing", async () => {
  const file = join(folder, "map.svg");
  const printed = await example("attention-over-a-picture", "xpatch:vlm", FLAG, "Q:<image>\nA:", file);
  expect(printed.match(/^layer \d+: [\d.]+ % of the attention is on the picture$/gm)).toHaveLength(30);
  expect(printed).toMatch(/^The last token looks at the picture most in layer 23\.$/m);
  expect(readFileSync(file, "utf8")).toMatch(/^<svg .*layer 29: .*<\/svg>$/s);
});

test("which-heads: one head carries the country to the last token", async () => {
  const printed = await example("which-heads");
  expect(printed.match(/^resid_pre\.\d+( +-?\d+){4}$/gm)).toHaveLength(30);
  expect(printed).toMatch(/^Most of it comes to the last token in layer 23\./m);
  expect(printed).toMatch(/^Head 23\.4 looks at " France" from the last token, with 9\d %\.$/m);
  expect(printed).toMatch(/^logit of " Paris" at position 23: [\d.]+, of which$/m);
});

test("attribution: estimates by gradients, better with steps where one head does most", async () => {
  const printed = await example("attribution", "xpatch:llm");
  const heads = printed.slice(printed.indexOf("\nz.2*"));
  const [plain, steps] = [...heads.matchAll(/^Spearman [\d.]+, Pearson ([\d.]+), /gm)].map(([, r]) =>
    Number(r),
  );
  expect(plain).toBeGreaterThan(0.5);
  expect(steps).toBeGreaterThan(0.95);
});

test("function-vector: the sum of some heads' outputs makes bare questions answer the task", async () => {
  const printed = await example("function-vector");
  expect(printed).toMatch(/^function vector of 30 heads, from 12 examples and 4 corrupted prompts/);
  expect(Number(/^by gradients, (\d+) of these 30 heads:/m.exec(printed)?.[1])).toBeGreaterThan(15);
  expect(printed).toMatch(/^bare questions: 0\.\d\d right$/m);
  const [, behind14] = /^with the vector added behind layer 14: ([\d.]+)$/m.exec(printed)!;
  expect(Number(behind14)).toBeGreaterThan(0.6);
});

test("probe: the continent is read off a country's name, from a store of all layers", async () => {
  const printed = await example("probe", "xpatch:llm", join(folder, "acts"));
  expect(printed).toContain("2730 activations of 91 countries, 6 continents");
  const shares = [...printed.matchAll(/^resid_post\.\d+ +(\d+) %$/gm)].map(([, share]) => Number(share));
  expect(shares).toHaveLength(30);
  const same = Number(/^always the same +(\d+) %$/m.exec(printed)?.[1]);
  expect(Math.min(...shares)).toBeGreaterThan(same + 30);
  expect(printed).toMatch(/^Read best behind layer \d+\.$/m);
});

test("no example is left out", () => {
  const examples = readdirSync(join(root, "examples")).filter((file) => file.endsWith(".ts"));
  expect(examples.filter((file) => !run.has(file))).toEqual([]);
  expect(examples.length).toBe(run.size);
});
