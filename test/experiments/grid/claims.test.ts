import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, expect, test } from "vitest";
import { processSpace, processStart } from "../../../experiments/framework/process-identity.ts";
import { Claims } from "../../../experiments/grid/claims.ts";
import { Presence, Watch } from "../../../experiments/grid/presence.ts";
import { ROOT } from "../../helpers/rooms.ts";

const root = mkdtempSync(join(tmpdir(), "xpatch-claims-"));
afterAll(() => rmSync(root, { recursive: true }));

const CELL = "0123456789abcdef01234567";

/** A worker's claims, with a clock of its own in seconds. */
function worker(folder: string, staleSeconds = 100) {
  const clock = { seconds: 0 };
  const presence = new Presence(join(folder, "workers"));
  const watch = new Watch(join(folder, "workers"), staleSeconds, () => clock.seconds * 1000);
  return { presence, clock, claims: new Claims(join(folder, "claims"), presence, watch) };
}

/** A worker of another machine, as far as can be seen from here. */
function elsewhere(folder: string, id: string) {
  const says = { id, host: "elsewhere", pid: 1, since: "then" };
  const beat = (n: number) =>
    writeFileSync(join(folder, "workers", `${id}.json`), JSON.stringify({ ...says, beat: n }));
  return { beat, claim: () => writeFileSync(join(folder, "claims", `${CELL}.1`), id) };
}

test("one of two has a cell, the other when it is given up", () => {
  const folder = join(root, "two");
  const [a, b] = [worker(folder), worker(folder)];
  const claim = a.claims.take(CELL)!;
  expect(claim).toBeDefined();
  expect(b.claims.take(CELL)).toBeUndefined();
  // However long: its process runs.
  b.clock.seconds = 99;
  a.presence.beat();
  expect(b.claims.take(CELL)).toBeUndefined();
  claim.release();
  expect(b.claims.take(CELL)).toBeDefined();
  expect(readdirSync(join(folder, "claims"))).toEqual([`${CELL}.1`]);
});

test("a worker whose beat stays the same is taken over by the watch of whoever looks, not by times in files", () => {
  const folder = join(root, "stale");
  const here = worker(folder);
  const other = elsewhere(folder, "other");
  other.beat(7);
  other.claim();
  expect(here.claims.take(CELL)).toBeUndefined();
  here.clock.seconds = 90;
  other.beat(8);
  expect(here.claims.take(CELL)).toBeUndefined();
  here.clock.seconds = 180;
  expect(here.claims.take(CELL)).toBeUndefined();
  // Its clock goes back, and it starts to count anew: a sign all the same.
  other.beat(1);
  here.clock.seconds = 191;
  expect(here.claims.take(CELL)).toBeUndefined();
  here.clock.seconds = 292;
  const claim = here.claims.take(CELL)!;
  expect(readdirSync(join(folder, "claims"))).toEqual([`${CELL}.1`, `${CELL}.2`]);
  // The one that has it now is alive.
  expect(worker(folder).claims.take(CELL)).toBeUndefined();
  claim.release();
  expect(readdirSync(join(folder, "claims"))).toEqual([]);
});

test("a worker that says nothing yet is believed for as long", () => {
  const folder = join(root, "silent");
  const here = worker(folder);
  elsewhere(folder, "silent").claim();
  expect(here.claims.take(CELL)).toBeUndefined();
  here.clock.seconds = 100;
  expect(here.claims.take(CELL)).toBeUndefined();
  here.clock.seconds = 101;
  expect(here.claims.take(CELL)).toBeDefined();
});

test("a process of this machine that is gone is taken over at once, also if its id is another's by now", () => {
  const folder = join(root, "gone");
  const here = worker(folder);
  const says = { id: "gone", host: hostname(), space: processSpace(), since: "then", beat: 3 };
  const other = elsewhere(folder, "gone");
  const start = processStart(process.pid);
  for (const holder of [
    { pid: spawnSync(process.execPath, ["-e", ""]).pid },
    ...(start === undefined ? [] : [{ pid: process.pid, start: `${Number(start) + 1}` }]),
  ]) {
    writeFileSync(join(folder, "workers", "gone.json"), JSON.stringify({ ...says, ...holder }));
    other.claim();
    const claim = here.claims.take(CELL);
    expect(claim).toBeDefined();
    claim!.release();
  }
});

test("a claim that was another's when it was found stale is given back", () => {
  const folder = join(root, "changed");
  const here = worker(folder);
  const other = elsewhere(folder, "first");
  other.claim();
  expect(here.claims.take(CELL)).toBeUndefined();
  here.clock.seconds = 101;
  // Between the look and the link the stale claim is released, and another worker has the cell.
  const second = worker(folder);
  const original = Watch.prototype.hasStopped;
  Watch.prototype.hasStopped = function (this: Watch, id: string) {
    const stopped = original.call(this, id);
    if (id === "first") {
      rmSync(join(folder, "claims", `${CELL}.1`));
      expect(second.claims.take(CELL)).toBeDefined();
    }
    return stopped;
  };
  try {
    expect(here.claims.take(CELL)).toBeUndefined();
  } finally {
    Watch.prototype.hasStopped = original;
  }
  expect(readdirSync(join(folder, "claims"))).toEqual([`${CELL}.1`]);
});

test("of several processes that find a stale claim at once, one takes it over", async () => {
  const folder = join(root, "race");
  worker(folder);
  const gone = spawnSync(process.execPath, ["-e", ""]).pid;
  writeFileSync(
    join(folder, "workers", "gone.json"),
    JSON.stringify({
      id: "gone",
      host: hostname(),
      space: processSpace(),
      pid: gone,
      since: "then",
      beat: 1,
    }),
  );
  const cells = Array.from({ length: 200 }, (_, i) => CELL.slice(3) + String(i).padStart(3, "0"));
  for (const cell of cells) writeFileSync(join(folder, "claims", `${cell}.1`), "gone");
  const built = (file: string) =>
    JSON.stringify(pathToFileURL(join(ROOT, "dist/experiments/grid", file)).href);
  const script = `
    import { existsSync } from "node:fs";
    const { Claims } = await import(${built("claims.js")});
    const { Presence, Watch } = await import(${built("presence.js")});
    const presence = new Presence(${JSON.stringify(join(folder, "workers"))});
    const claims = new Claims(${JSON.stringify(join(folder, "claims"))}, presence, new Watch(${JSON.stringify(join(folder, "workers"))}, 100));
    console.log("ready");
    while (!existsSync(${JSON.stringify(join(folder, "go"))})) await new Promise((done) => setTimeout(done, 1));
    console.log(JSON.stringify(${JSON.stringify(cells)}.filter((cell) => claims.take(cell))));
    await new Promise((done) => process.stdin.once("data", done));
    process.exit();`;
  const runs = Array.from({ length: 3 }, () => {
    const child = spawn(process.execPath, ["--input-type=module", "-e", script]);
    let said = "";
    const waiting: { count: number; done: (lines: string[]) => void }[] = [];
    child.stdout.on("data", (data) => {
      said += data;
      const lines = said.split("\n").slice(0, -1);
      for (const { count, done } of waiting) if (lines.length >= count) done(lines);
    });
    const lines = (count: number) => new Promise<string[]>((done) => waiting.push({ count, done }));
    return { child, ready: lines(1), taken: lines(2), ended: new Promise((done) => child.on("close", done)) };
  });
  await Promise.all(runs.map(({ ready }) => ready));
  writeFileSync(join(folder, "go"), "");
  const taken = (await Promise.all(runs.map(({ taken: lines }) => lines))).map(
    (lines) => JSON.parse(lines[1]!) as string[],
  );
  for (const { child } of runs) child.stdin.write("end\n");
  await Promise.all(runs.map(({ ended }) => ended));
  expect(taken.flat().sort()).toEqual(cells);
  // What ends by itself leaves no claims of its own.
  expect(readdirSync(join(folder, "claims")).filter((name) => name.endsWith(".2"))).toEqual([]);
  expect(existsSync(join(folder, "workers", "gone.json"))).toBe(true);
}, 30_000);
