import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { fetched } from "../helpers/runtimes.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** How README says to start a program in each; for Deno also the permissions that are enough. */
const starts = {
  node: () => [process.execPath],
  bun: () => [fetched("bun")],
  deno: () => [
    fetched("deno"),
    ..."run --no-prompt --allow-read --allow-env --allow-sys --allow-ffi".split(" "),
  ],
};

async function outputOf(place: keyof typeof starts, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const [program, ...first] = starts[place]();
  const variables = { ...process.env, ...env };
  // As at a terminal: vitest's own settings are Node's.
  delete variables.NODE_OPTIONS;
  return promisify(execFile)(program!, [...first, ...args], {
    cwd: root,
    env: variables,
    maxBuffer: 2 ** 26,
  });
}

describe("Bun and Deno", () => {
  const inNode = outputOf("node", ["test/helpers/patched-run.mjs"]);

  test.each(["bun", "deno"] as const)(
    "%s gives what Node gives, to the last bit, on the same adapter",
    async (place) => {
      const expected = await inNode;
      const found = await outputOf(place, ["test/helpers/patched-run.mjs"]);
      expect(found.stdout.length).toBeGreaterThan(10_000);
      expect(found.stdout).toBe(expected.stdout);
      expect(found.stderr.trim().split("\n").at(-1)).toBe(expected.stderr.trim().split("\n").at(-1));
    },
  );

  test.each(["bun", "deno"] as const)("%s shows a figure as text where there is no screen", async (place) => {
    const folder = mkdtempSync(join(tmpdir(), "xpatch-show-"));
    try {
      const program = join(root, "test/helpers/shown-figure.mjs");
      const env = { TMPDIR: folder, DISPLAY: "", WAYLAND_DISPLAY: "", SSH_CONNECTION: "here" };
      const found = await outputOf(place, [program], env);
      expect(found.stdout).toMatch(/^accuracy by layer\n\nlayer +accuracy\n0 +0\.5\n1 +0\.25\n\n/);
      // The permissions that a model needs are not enough to write.
      const end = place === "deno" ? /\n\(no page: .*write access.*\)\n$/ : /\n.*figure\.html\n$/;
      expect(found.stdout).toMatch(end);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.each(["bun", "deno"] as const)(
    "%s runs the command line, and finds the drivers that Node finds",
    async (place) => {
      const args = ["dist/cli/main.js", "devices", "--json"];
      const env = { XPATCH_ADAPTER: "swiftshader" };
      const [found, expected] = await Promise.all([outputOf(place, args, env), outputOf("node", args, env)]);
      expect(expected.stdout).toMatch(/SwiftShader/);
      expect(JSON.parse(found.stdout)).toEqual(JSON.parse(expected.stdout));
    },
  );
});
