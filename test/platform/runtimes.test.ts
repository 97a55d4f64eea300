import { execFile } from "node:child_process";
import { rmSync } from "node:fs";
import { dirname } from "node:path";
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
  denoWithAll: () => [fetched("deno"), "run", "-A"],
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

  test("all draw and show figures alike, outside notebooks too", async () => {
    const env = { DISPLAY: "", WAYLAND_DISPLAY: "", SSH_CONNECTION: "here" };
    const [node, bun, deno] = await Promise.all(
      (["node", "bun", "denoWithAll"] as const).map((place) =>
        outputOf(place, ["test/helpers/shown-figure.mjs"], env),
      ),
    );
    const page = /^\/.*figure\.html$/m;
    expect(node!.stdout).toMatch(page);
    const withoutPage = ({ stdout }: { stdout: string }) => stdout.replace(page, "");
    expect(withoutPage(bun!)).toBe(withoutPage(node!));
    expect(withoutPage(deno!)).toBe(withoutPage(node!));
    for (const { stdout } of [node!, bun!, deno!]) {
      rmSync(dirname(page.exec(stdout)![0]), { recursive: true });
    }
  });
});
