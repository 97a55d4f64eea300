import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { GridStore } from "../../../experiments/grid/index.ts";
import { xpatch } from "../../helpers/command-line.ts";
import { writePlan } from "../../helpers/grid.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-grid-queue-"));
const main = join(import.meta.dirname, "..", "..", "..", "dist", "cli", "main.js");
const env = { ...process.env, XPATCH_REDIS: "" };

/** As a process of its own: what serves or works starts further ones, and ends by signals. */
function start(args: string[], more: NodeJS.ProcessEnv = {}): ChildProcess {
  const child = spawn(process.execPath, [main, "grid", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...env, ...more },
  });
  children.push(child);
  return child;
}
const children: ChildProcess[] = [];

async function ended(
  child: ChildProcess,
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const printed = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const)
    child[name]!.on("data", (text) => {
      printed[name] += text;
    });
  return new Promise((settle) => child.on("close", (status) => settle({ status, ...printed })));
}

/** What the results of a grid are, byte by byte. */
async function resultsOf(store: string, name: string): Promise<Record<string, string>> {
  const out = join(root, name);
  expect((await xpatch(["grid", "merge", store, "--out", out])).status).toBe(0);
  const paths = (readdirSync(out, { recursive: true }) as string[]).sort();
  const files = paths.filter((path) => statSync(join(out, path)).isFile());
  // The commands in the report name the folders.
  return Object.fromEntries(
    files.map((path) => [path, readFileSync(join(out, path), "latin1").replaceAll(store, "store")]),
  );
}

let plan: string;
let expected: Record<string, string>;
beforeAll(async () => {
  plan = writePlan(join(root, "plan"), { models: ["llama", "gpt2"] });
  const store = join(root, "one");
  expect((await xpatch(["grid", "plan", plan, store])).status).toBe(0);
  expect((await xpatch(["grid", "run", store])).status).toBe(0);
  expected = await resultsOf(store, "merged-one");
  expect(Object.keys(expected).length).toBeGreaterThan(20);
});
afterAll(() => {
  for (const child of children) child.kill("SIGKILL");
  rmSync(root, { recursive: true, force: true });
});

test("a grid that was served, and killed again and again, has the bytes of one that was run", async () => {
  const store = join(root, "served");
  await xpatch(["grid", "plan", plan, store]);
  const worker = ended(start(["work", store]));
  for (let times = 0; times < 2; times++) {
    const server = start(["serve", store, "--no-page", "--workers", "1"]);
    const end = ended(server);
    await new Promise((settle) => setTimeout(settle, 1500 + 1500 * Math.random()));
    server.kill("SIGKILL");
    await end;
  }
  const { status, stdout, stderr } = await ended(start(["serve", store, "--workers", "1", "--json"]));
  expect([status, stderr]).toEqual([
    0,
    expect.stringMatching(/progress: http:\/\/127\.0\.0\.1:\d+\/#token=\S{43}\n/),
  ]);
  expect(JSON.parse(stdout)).toMatchObject({
    state: "done",
    givenUp: [],
    progress: { runs: [{ label: "llama" }, { label: "gpt2" }] },
  });
  expect(await worker).toMatchObject({ status: 0, stdout: expect.stringContaining("the grid is done") });
  expect(await resultsOf(store, "merged-served")).toEqual(expected);
});

test("a cell that kills its process is named, the others are done; without its fault it is computed", async () => {
  const store = join(root, "poisoned");
  await xpatch(["grid", "plan", plan, store]);
  const grid = GridStore.open(store);
  // One that no other asks for.
  const poisoned = grid.cellsOf(grid.runs[0]!.id).at(-1)!;
  const preload = join(root, "poison.mjs");
  writeFileSync(
    preload,
    `const { emit } = process;
    process.emit = function (event, message, ...more) {
      const order = event === "message" && message?.compute;
      if (order === ${JSON.stringify(poisoned.name)}) process.kill(process.pid, "SIGKILL");
      return emit.call(this, event, message, ...more);
    };`,
  );
  const poison = { NODE_OPTIONS: `--import ${pathToFileURL(preload).href}` };
  const { status, stdout } = await ended(start(["serve", store, "--no-page", "--workers", "1"], poison));
  expect(status).toBe(1);
  expect(stdout).toContain(`given up after 3 attempts: llama: ${poisoned.key} (${poisoned.name})`);
  expect(stdout).toContain("the process that computed it was ended by SIGKILL");
  expect(stdout).toContain("done, but for cells that were given up: 39 of 40 cells are finished");
  const told = await xpatch(["grid", "status", store]);
  expect(told.status).toBe(1);
  expect(told.stdout).toMatch(new RegExp(`failed: ${poisoned.name} .*was ended by SIGKILL`));

  expect((await ended(start(["serve", store, "--no-page", "--workers", "1"]))).status).toBe(0);
  expect(await resultsOf(store, "merged-poisoned")).toEqual(expected);
});

test("a worker that can compute nothing ends the command that started it, with why", async () => {
  const store = join(root, "broken");
  const folder = join(root, "broken-plan");
  await xpatch(["grid", "plan", writePlan(folder), store]);
  rmSync(join(folder, "gamma.json"));
  const { status, stderr } = await ended(start(["serve", store, "--no-page", "--workers", "1"]));
  expect([status, stderr]).toEqual([1, expect.stringMatching(/xpatch: .*gamma\.json/)]);
});

test.each([
  [["serve", "no-such-folder"], 1, "no-such-folder is not the folder of a grid"],
  [["work"], 1, "expected the store of the grid, or the server of its queue: --redis, or XPATCH_REDIS"],
  [["work", "--redis", "http://:secret@host"], 1, "addresses of http://… are none of a Redis server"],
  [
    ["work", "--redis", "redis://:secret@127.0.0.1:1", "--wait", "0"],
    1,
    "cannot use the queue at redis://127.0.0.1:1: connect ECONNREFUSED",
  ],
])("grid %s is refused", async (args, code, why) => {
  const { status, messages } = await xpatch(["grid", ...args]);
  expect([status, messages.join("\n")]).toEqual([code, expect.stringContaining(why)]);
  expect(messages.join("\n")).not.toContain("secret");
});

test("nobody but who serves or works loads what queues need", () => {
  const loaded = (script: string) => {
    const code = `import { createRequire } from "node:module";
      ${script}
      console.log(Object.keys(createRequire(import.meta.url).cache).filter((path) => /bullmq|ioredis/.test(path)).length);`;
    const run = spawnSync(process.execPath, ["--input-type=module", "-e", code], { encoding: "utf8" });
    return Number(run.stdout);
  };
  const module = (path: string) => JSON.stringify(pathToFileURL(join(main, "..", path)).href);
  expect(loaded(`(await import(${module("commands/grid.js")})).gridCommand(); await import("xpatch");`)).toBe(
    0,
  );
  expect(loaded(`await import(${module("../experiments/grid/queue/worker.js")});`)).toBeGreaterThan(0);
});
