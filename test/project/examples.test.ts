import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..", "..");

const run = new Set<string>();

/** Canada, in the test style. */
const FLAG = "tasks/pictures/emojione/1f1e8-1f1e6.png";

/** Runs an example as its head says, on the shipped model, and returns what it prints. */
function example(name: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join("scripts", "run-ts.mjs"), join("examples", `${name}.ts`), ...args],
    { cwd: root, encoding: "utf8" },
  );
  run.add(`${name}.ts`);
  if (status !== 0) throw new Error(`${name} ended with ${status}:\n${stderr}`);
  return stdout;
}

test("cross-modal patching: the flag's country, and with the vector its capital", () => {
  const printed = example("cross-modal-patching");
  expect(printed).toContain("takes positions 2 to 10 of 14.");
  expect(printed).toMatch(/^Asked about it, the model says +" Portugal"$/m);
  expect(printed).toMatch(/^with the vector of country → capital +" Lisbon"$/m);
});

test("zero-shot classification: the country of the flag comes out on top", () => {
  const printed = example("zero-shot");
  const shares = [...printed.matchAll(/^ *([\d.]+) % {2}(\w+)$/gm)].map(([, share, label]) => ({
    share: Number(share),
    label,
  }));
  expect(shares.map(({ label }) => label)).toEqual(["Canada", "Denmark", "Switzerland", "Peru"]);
  expect(shares[0]!.share).toBeGreaterThan(90);
  expect(shares.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(100, 0);
});

test("attention over a picture prints a share a layer and writes the drawing", () => {
  const folder = mkdtempSync(join(tmpdir(), "xpatch-examples-"));
  try {
    const file = join(folder, "map.svg");
    const printed = example("attention-over-a-picture", "xpatch:vlm", FLAG, "Q:<image>\nA:", file);
    expect(printed.match(/^layer \d+: [\d.]+ % of the attention is on the picture$/gm)).toHaveLength(30);
    expect(printed).toMatch(/^The last token looks at the picture most in layer 23\.$/m);
    expect(readFileSync(file, "utf8")).toMatch(/^<svg .*layer 29: .*<\/svg>$/s);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("which-heads: one head carries the country to the last token", () => {
  const printed = example("which-heads");
  expect(printed.match(/^resid_pre\.\d+( +-?\d+){4}$/gm)).toHaveLength(30);
  expect(printed).toMatch(/^Most of it comes to the last token in layer 23\./m);
  expect(printed).toMatch(/^Head 23\.4 looks at " France" from the last token, with 9\d %\.$/m);
  expect(printed).toMatch(/^logit of " Paris" at position 23: [\d.]+, of which$/m);
});

test("no example is left out", () => {
  const examples = readdirSync(join(root, "examples")).filter((file) => file.endsWith(".ts"));
  expect(examples.filter((file) => !run.has(file))).toEqual([]);
  expect(examples.length).toBe(run.size);
});
