import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Queue } from "bullmq";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PREFIX, queueName } from "../../../../experiments/grid/queue/board.ts";
import type { GridProgress } from "../../../../experiments/grid/queue/progress.ts";
import { RedisServer } from "../../../../experiments/grid/queue/redis-server.ts";
import { FakeGrid } from "../../../helpers/fake-grid.ts";

let folder: string;
let server: RedisServer;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "xpatch-queue-"));
  server = await RedisServer.start(join(folder, "shared"), { persist: false });
});
afterAll(async () => {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

const many = (kind: string, count: number) => Array.from({ length: count }, (_, i) => `${kind}-${i}`);
/** Of a condition that a process of its own brings about. */
const soon = { timeout: 20_000, interval: 25 };

describe("a grid with a queue", () => {
  test("is done by several workers, each cell once, those of a run by whoever has it loaded", async () => {
    const runs = { a: many("quick-a", 25), b: many("quick-b", 25) };
    await using grid = new FakeGrid(server.address, runs, { patience: 2000 });
    const seen: GridProgress[] = [];
    const redis = await grid.connect();
    const waiting: Promise<number>[] = [];
    const outcome = grid.coordinate((progress) => {
      seen.push(progress);
      waiting.push(redis.llen(`${PREFIX}:${queueName(grid.id, "a")}:wait`));
    });
    const workers = [grid.worker(), grid.worker({ concurrency: 2 })];
    const { isOver, givenUp, progress } = await outcome;
    expect({ isOver, givenUp }).toEqual({ isOver: true, givenUp: [] });
    expect(grid.finished).toEqual([...runs.a, ...runs.b].sort());
    expect(grid.log.filter(({ what }) => what === "begun")).toHaveLength(50);
    // Workers are told that it is done, and end.
    const ends = await Promise.all(workers.map(({ end }) => end));
    expect(ends.map(({ code }) => code)).toEqual([0, 0]);
    const done = ends.map((end) => end.done as { computed: number; because: string });
    expect(done.reduce((sum, { computed }) => sum + computed, 0)).toBe(50);
    expect(done.map(({ because }) => because)).toEqual(["the grid is done", "the grid is done"]);

    // A process changes from one run to the other once, if at all.
    const runsBy = new Map<number, string[]>();
    for (const { what, cell, pid } of grid.log) {
      if (what !== "begun") continue;
      const list = runsBy.get(pid) ?? [];
      if (list.at(-1) !== cell.split("-")[1]) list.push(cell.split("-")[1]!);
      runsBy.set(pid, list);
    }
    for (const list of runsBy.values()) expect(list.length).toBeLessThanOrEqual(2);

    // Never more than so many at a time in the queue, and what was finished only grows.
    expect(Math.max(...(await Promise.all(waiting)))).toBeLessThanOrEqual(6);
    const finished = seen.map(({ runs }) => runs.reduce((sum, run) => sum + run.finished, 0));
    expect(finished).toEqual([...finished].sort((a, b) => a - b));
    expect(
      progress.runs.map(({ label, cells, finished, accuracy }) => ({ label, cells, finished, accuracy })),
    ).toEqual([
      { label: "run a", cells: 25, finished: 25, accuracy: 0.5 },
      { label: "run b", cells: 25, finished: 25, accuracy: 0.5 },
    ]);
    // One that comes too late is told so.
    expect(await grid.worker().end).toMatchObject({
      code: 0,
      done: { computed: 0, because: "the grid is done" },
    });
    // Nothing stays behind but that it is done.
    expect(await redis.keys(`*${grid.id}*`)).toEqual([`${PREFIX}:grid:${grid.id}`]);
  });

  test("a worker that is killed in the middle of a cell loses it to another", async () => {
    await using grid = new FakeGrid(server.address, { a: ["slow-1", ...many("quick", 5)] });
    grid.hold();
    const outcome = grid.coordinate();
    const first = grid.worker();
    await expect.poll(() => grid.begun("slow-1"), soon).toBe(1);
    first.kill("SIGKILL");
    grid.worker();
    await expect.poll(() => grid.begun("slow-1"), soon).toBe(2);
    grid.letGo();
    expect(await outcome).toMatchObject({ isOver: true, givenUp: [] });
    expect(grid.finished).toHaveLength(6);
    // The killed one's process has not gone on by itself.
    expect(grid.log.filter(({ what, cell }) => what === "done" && cell === "slow-1")).toHaveLength(1);
  });

  test("a worker that is told to end gives its cell back at once, and the cell has lost no attempt", async () => {
    const limits = { lock: 60_000, renew: 10_000, attempts: 1, stalls: 0 };
    await using grid = new FakeGrid(server.address, { a: ["slow-1"] }, limits);
    grid.hold();
    const outcome = grid.coordinate();
    const first = grid.worker();
    await expect.poll(() => grid.begun("slow-1"), soon).toBe(1);
    first.kill("SIGTERM");
    expect(await first.end).toEqual({ code: 0, done: { computed: 0, failed: 0, because: "stopped" } });
    expect(grid.log.at(-1)!.what).toBe("stopped");
    grid.letGo();
    grid.worker();
    expect(await outcome).toMatchObject({ isOver: true, givenUp: [] });
    expect(grid.begun("slow-1")).toBe(2);
  });

  test("a cell that kills its process each time is given up after its attempts; the worker goes on", async () => {
    await using grid = new FakeGrid(server.address, {
      a: ["poison-1", "broken-1", "flaky-1", ...many("quick", 5)],
    });
    const outcome = grid.coordinate();
    const worker = grid.worker();
    const { isOver, givenUp, progress } = await outcome;
    expect(isOver).toBe(true);
    expect(grid.finished).toEqual(["flaky-1", ...many("quick", 5)]);
    expect([...givenUp].sort((a, b) => (a.cell < b.cell ? -1 : 1))).toEqual([
      {
        run: "run a",
        cell: "broken-1",
        key: "the broken-1",
        attempts: 3,
        error: "Error: broken-1 cannot be computed",
        stack: expect.stringContaining("at compute (fake-cells.mjs:1:1)"),
      },
      {
        run: "run a",
        cell: "poison-1",
        key: "the poison-1",
        attempts: 3,
        error: "the process that computed it was ended by SIGKILL:\nout of memory, or so",
        stack: expect.stringContaining("CellCrash"),
      },
    ]);
    expect([grid.begun("poison-1"), grid.begun("broken-1"), grid.begun("flaky-1")]).toEqual([3, 3, 3]);
    expect(progress.runs[0]).toMatchObject({ cells: 8, finished: 6, givenUp: 2, waiting: 0, computing: 0 });
    expect(await worker.end).toMatchObject({ code: 0, done: { computed: 6, failed: 8 } });

    // The same command tries them anew.
    grid.worker();
    expect((await grid.coordinate()).givenUp).toHaveLength(2);
    expect(grid.begun("poison-1")).toBe(6);
    expect(grid.begun("quick-0")).toBe(1);
  });

  test("a cell that takes its whole worker down each time is given up, too", async () => {
    await using grid = new FakeGrid(
      server.address,
      { a: ["slow-1", "quick-1"] },
      { lock: 900, renew: 200, stalls: 1 },
    );
    grid.hold();
    const outcome = grid.coordinate();
    for (let times = 1; times <= 2; times++) {
      const worker = grid.worker();
      await expect.poll(() => grid.begun("slow-1"), soon).toBe(times);
      worker.kill("SIGKILL");
    }
    grid.worker();
    const { isOver, givenUp } = await outcome;
    expect(isOver).toBe(true);
    expect(givenUp).toMatchObject([
      { cell: "slow-1", error: "its workers ended 2 times without a word (killed, out of memory, cut off)" },
    ]);
    expect(grid.begun("slow-1")).toBe(2);
  });

  test("two who fill the queue at once double nothing", async () => {
    await using grid = new FakeGrid(server.address, { a: many("quick", 40) });
    const outcomes = [grid.coordinate(), grid.coordinate()];
    grid.worker({ concurrency: 2 });
    for (const outcome of await Promise.all(outcomes)) {
      expect(outcome).toMatchObject({
        isOver: true,
        givenUp: [],
        progress: { runs: [{ cells: 40, finished: 40 }] },
      });
    }
    expect(grid.log.filter(({ what }) => what === "done")).toHaveLength(40);
    expect(new Set(grid.finished).size).toBe(40);
  });

  test("a clock that jumps back and forth takes no cell from whoever computes it", async () => {
    await using grid = new FakeGrid(server.address, { a: ["slow-1", "flaky-1"] }, { lock: 1200, renew: 250 });
    grid.hold();
    const outcome = grid.coordinate();
    // An hour back, or forth, all the time.
    const preload = `
      const now = Date.now;
      const begin = now();
      Date.now = () => now() + 3600_000 * ((Math.floor((now() - begin) / 300) % 3) - 1);`;
    const worker = grid.worker({ concurrency: 2, preload });
    await expect.poll(() => grid.begun("slow-1"), soon).toBe(1);
    const other = grid.worker();
    await new Promise((settle) => setTimeout(settle, 3500));
    expect(grid.begun("slow-1")).toBe(1);
    grid.letGo();
    expect(await outcome).toMatchObject({ isOver: true, givenUp: [] });
    expect(grid.begun("slow-1")).toBe(1);
    expect(grid.begun("flaky-1")).toBe(3);
    expect([(await worker.end).code, (await other.end).code]).toEqual([0, 0]);
  });

  test("what is finished already is not computed again, whatever the queue says", async () => {
    await using grid = new FakeGrid(server.address, { a: many("quick", 8) });
    // In the store and in the queue, as of a worker that was killed between the two.
    for (const cell of ["quick-2", "quick-3"])
      writeFileSync(join(grid.folder, "cells", cell), JSON.stringify({ patched: [] }));
    const queue = new Queue(queueName(grid.id, "a"), { connection: await grid.connect(), prefix: PREFIX });
    await queue.add("cell", {}, { jobId: "quick-3", removeOnComplete: true });
    const outcome = grid.coordinate();
    const worker = grid.worker();
    expect(await outcome).toMatchObject({ isOver: true, progress: { runs: [{ finished: 8 }] } });
    expect(await worker.end).toMatchObject({ done: { computed: 6, failed: 0 } });
    expect(grid.begun("quick-2")).toBe(0);
    await queue.close();
  });

  test("what the server has forgotten is queued again", async () => {
    await using grid = new FakeGrid(server.address, { a: many("quick", 4) });
    const notes: string[] = [];
    const outcome = grid.coordinate(() => {}, notes);
    const redis = await grid.connect();
    const wait = `${PREFIX}:${queueName(grid.id, "a")}:wait`;
    await expect.poll(() => redis.llen(wait), soon).toBe(4);
    await redis.del(...(await redis.keys(`${PREFIX}:${queueName(grid.id, "a")}:*`)));
    await expect.poll(() => redis.llen(wait), soon).toBe(4);
    expect(notes).toEqual(["run a: 4 cells are neither queued nor finished; queueing them again"]);
    grid.worker();
    expect(await outcome).toMatchObject({ isOver: true, givenUp: [] });
  });

  test("a worker that can compute nothing ends, and does not use up the cells' attempts", async () => {
    await using grid = new FakeGrid(server.address, { a: ["unfit-1", "quick-1"] }, { attempts: 1 });
    const outcome = grid.coordinate();
    const unfit = grid.worker();
    expect((await unfit.end).code).toBe(1);
    expect(unfit.notes).toContain("XpatchError: another driver than the one before");
    grid.worker();
    expect(await outcome).toMatchObject({ isOver: true, givenUp: [] });
  });

  test("nor does one on which every process dies go through all cells", async () => {
    await using grid = new FakeGrid(server.address, { a: many("poison", 30) }, { queued: 30 });
    void grid.coordinate().catch(() => {});
    const worker = grid.worker();
    expect((await worker.end).code).toBe(1);
    expect(worker.notes).toContain("5 cells one after the other have ended the process that computed them");
    expect(grid.log.length).toBeLessThan(12);
  });

  test("nothing more is handed out when too many cells were given up", async () => {
    const limits = { givenUp: 2, queued: 3, attempts: 1 };
    await using grid = new FakeGrid(
      server.address,
      { a: [...many("broken", 3), ...many("quick", 20)] },
      limits,
    );
    const outcome = grid.coordinate();
    grid.worker();
    const { isOver, givenUp } = await outcome;
    expect(isOver).toBe(true);
    expect(givenUp.length).toBeGreaterThanOrEqual(2);
    expect(grid.finished.length).toBeLessThan(10);
  });
});

describe("a server that is restarted", () => {
  test.each([
    ["remembers", true],
    ["has forgotten everything", false],
  ])("and %s: workers come back, and nothing is lost", async (_, persist) => {
    const place = join(folder, `restarted-${persist}`);
    let own = await RedisServer.start(place, { persist });
    await using grid = new FakeGrid(own.address, { a: ["slow-1", "slow-2", ...many("quick", 30)] });
    grid.hold();
    const outcome = grid.coordinate();
    const workers = [grid.worker(), grid.worker()];
    await expect.poll(() => grid.begun("slow-1") + grid.begun("slow-2"), soon).toBe(2);
    await own.stop();
    await new Promise((settle) => setTimeout(settle, 300));
    own = await RedisServer.start(place, { persist });
    grid.letGo();
    expect(await outcome).toMatchObject({
      isOver: true,
      givenUp: [],
      progress: { runs: [{ finished: 32 }] },
    });
    expect(grid.finished).toHaveLength(32);
    expect((await Promise.all(workers.map(({ end }) => end))).map(({ code }) => code)).toEqual([0, 0]);
    expect(workers[0]!.notes).toContain("does not answer; waiting for it");
    await own.stop();
  });

  test("keeps no worker from ending that is told to while it is away", async () => {
    const own = await RedisServer.start(join(folder, "away"), { persist: false });
    await using grid = new FakeGrid(own.address, { a: ["slow-1"] });
    grid.hold();
    void grid.coordinate().catch(() => {});
    const worker = grid.worker();
    await expect.poll(() => grid.begun("slow-1"), soon).toBe(1);
    await own.stop();
    await expect.poll(() => worker.notes, soon).toContain("does not answer; waiting for it");
    worker.kill("SIGTERM");
    expect(await worker.end).toMatchObject({ code: 0, done: { because: "stopped" } });
  });
});
