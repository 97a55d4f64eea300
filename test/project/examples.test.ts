import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "..", "..");

const run = new Set<string>();

/** Runs an example as its head says, on the fixtures, and returns what it prints. */
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

test("cross-modal patching changes the answer about the picture", () => {
  const printed = example("cross-modal-patching");
  expect(printed).toContain("the picture takes positions 3 to 18");
  const [plain, patched] = ["without", "with"].map(
    (how) => new RegExp(`^${how} the patch +(".*")$`, "m").exec(printed)?.[1],
  );
  expect(plain).toBeDefined();
  expect(patched).toBeDefined();
  expect(patched).not.toBe(plain);
});

test("zero-shot classification gives every label its probability", () => {
  const lines = example(
    "zero-shot",
    "test/fixtures/clip/model",
    "test/fixtures/images/tall.png",
    "dog",
    "cat",
  );
  const shares = [...lines.matchAll(/^ *([\d.]+) % {2}(\w+)$/gm)].map(([, share, label]) => ({
    share,
    label,
  }));
  expect(shares.map(({ label }) => label)).toEqual(["dog", "cat"]);
  expect(shares.reduce((sum, { share }) => sum + Number(share), 0)).toBeCloseTo(100, 0);
});

test("attention over a picture prints a share a layer and writes the drawing", () => {
  const folder = mkdtempSync(join(tmpdir(), "xpatch-examples-"));
  try {
    const file = join(folder, "map.svg");
    const printed = example(
      "attention-over-a-picture",
      "test/fixtures/llava/model",
      "test/fixtures/images/photo.png",
      "What?",
      file,
    );
    expect(printed.match(/^layer \d: [\d.]+ % of the attention is on the picture$/gm)).toHaveLength(3);
    expect(readFileSync(file, "utf8")).toMatch(/^<svg .*layer 2: .*<\/svg>$/s);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("which-heads prints a map, a ranking and an attribution", () => {
  const printed = example("which-heads");
  expect(printed.match(/^resid_pre\.\d( +-?\d+){6}$/gm)).toHaveLength(3);
  expect(printed.match(/^\d\.\d +-?[\d.]+ +-?[\d.]+ %$/gm)).toHaveLength(12);
  expect(printed).toMatch(/^logit of ".*" at position 36: -?[\d.]+, of which$/m);
});

test("no example is left out", () => {
  const examples = readdirSync(join(root, "examples")).filter((file) => file.endsWith(".ts"));
  expect(examples.filter((file) => !run.has(file))).toEqual([]);
  expect(examples.length).toBe(run.size);
});
