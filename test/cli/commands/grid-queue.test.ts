import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { writePlan } from "../../helpers/grid.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-grid-queue-"));
const main = join(import.meta.dirname, "..", "..", "..", "dist", "cli", "main.js");
const env = { ...process.env, XPATCH_REDIS: "" };

const run = (...args: string[]) => spawnSync(process.execPath, [main, ...args], { encoding: "utf8", env });
const start = (...args: string[]) =>
  spawn(process.execPath, [main, ...args], { stdio: ["ignore", "ignore", 2], env });

/** What the results of a grid are, byte by byte. */
function resultsOf(store: string, name: string): Record<string, string> {
  const out = join(root, name);
  const { status, stderr } = run("grid", "merge", store, "--out", out);
  expect([status, stderr]).toEqual([0, expect.any(String)]);
  const paths = (readdirSync(out, { recursive: true }) as string[]).sort();
  const files = paths.filter((path) => statSync(join(out, path)).isFile());
  // The commands in the report name the folders.
  return Object.fromEntries(
    files.map((path) => [path, readFileSync(join(out, path), "latin1").replaceAll(store, "store")]),
  );
}

let plan: string;
let expected: Record<string, string>;
beforeAll(() => {
  plan = writePlan(join(root, "plan"), { models: ["llama", "gpt2"] });
  const store = join(root, "one");
  expect(run("grid", "plan", plan, store).status).toBe(0);
  expect(run("grid", "run", store).status).toBe(0);
  expected = resultsOf(store, "merged-one");
  expect(Object.keys(expected).length).toBeGreaterThan(20);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

test("a grid that was served, and killed again and again, has the bytes of one that was run", async () => {
  const store = join(root, "served");
  run("grid", "plan", plan, store);
  const worker = start("grid", "work", store);
  const done = new Promise((settle) => worker.on("close", settle));
  for (let times = 0; times < 2; times++) {
    const server = start("grid", "serve", store, "--no-page", "--workers", "1");
    await new Promise((settle) => setTimeout(settle, 1500 + 1500 * Math.random()));
    server.kill("SIGKILL");
    await new Promise((settle) => server.on("close", settle));
  }
  const { status, stdout } = run("grid", "serve", store, "--no-page", "--workers", "1", "--json");
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    state: "done",
    givenUp: [],
    progress: { runs: [{ label: "llama" }, { label: "gpt2" }] },
  });
  expect(await done).toBe(0);
  expect(resultsOf(store, "merged-served")).toEqual(expected);
});

test("what cannot be computed is named, and the command fails", () => {
  const store = join(root, "broken");
  const folder = join(root, "broken-plan");
  run("grid", "plan", writePlan(folder), store);
  rmSync(join(folder, "gamma.json"));
  const { status, stderr } = run("grid", "serve", store, "--no-page", "--workers", "1");
  expect(status).toBe(1);
  expect(stderr).toMatch(/gamma\.json/);
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
])("grid %s is refused", (args, code, why) => {
  const { status, stderr } = run("grid", ...args);
  expect([status, stderr]).toEqual([code, expect.stringContaining(why)]);
  expect(stderr).not.toContain("secret");
});
