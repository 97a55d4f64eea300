import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterEach, beforeEach, expect, test } from "vitest";
import { connect } from "../../../../experiments/grid/queue/connection.ts";
import { OwnServer } from "../../../../experiments/grid/queue/own-server.ts";
import { gridId, queueFolder } from "../../../../experiments/grid/queue/queue-folder.ts";

let store: string;
beforeEach(() => {
  store = mkdtempSync(join(tmpdir(), "xpatch-own-"));
});
afterEach(() => rmSync(store, { recursive: true, force: true }));

test("a store has one id, and a folder for its queue that others cannot look into", () => {
  const id = gridId(store);
  expect(id).toMatch(/^[0-9a-f]{16}$/);
  expect(gridId(store)).toBe(id);
  expect(statSync(queueFolder(store)).mode & 0o777).toBe(0o700);
  writeFileSync(join(queueFolder(store), "id"), "nonsense");
  expect(() => gridId(store)).toThrow("expected 16 hex digits; delete it");
});

test("who comes second joins the server, and goes on with it when the first is killed", async () => {
  const first = await holder(store);
  const notes: string[] = [];
  const own = await OwnServer.open(store, (text) => notes.push(text));
  const redis = await connect(own.address);
  await redis.set("key", "value");
  // The log is flushed each second.
  await new Promise((settle) => setTimeout(settle, 1200));
  first.kill("SIGKILL");
  await expect
    .poll(() => notes, { timeout: 20_000 })
    .toEqual([
      "another process runs the queue's server; joining it",
      "whoever ran the queue's server has ended; going on with it",
    ]);
  expect(await redis.get("key")).toBe("value");
  redis.disconnect();
  await own.close();
  await expect(connect(own.address)).rejects.toThrow("ECONNREFUSED");
});

test("a server that ends by itself is started again, but not for ever", async () => {
  const notes: string[] = [];
  let lost: Error | undefined;
  const own = await OwnServer.open(
    store,
    (text) => notes.push(text),
    (error) => {
      lost = error;
    },
  );
  while (!lost) {
    await shutDown(own).catch(() => {}); // it may be on its way down, or up
    await new Promise((settle) => setTimeout(settle, 50));
  }
  expect(notes[0]).toMatch(/ended with status 0.*; starting it again/);
  expect(lost.message).toContain("has ended 5 times");
  await own.close();
});

/** Has the server end. A connection that comes back would ask the next one to end, too. */
async function shutDown({ address }: OwnServer): Promise<void> {
  (await connect(address, 2)).disconnect();
  const redis = new Redis({ ...address.options, retryStrategy: () => null });
  redis.on("error", () => {});
  await redis.call("SHUTDOWN", "NOSAVE").catch(() => {});
  redis.disconnect();
}

/** A process that runs the server of a store. */
async function holder(folder: string): Promise<ChildProcess> {
  const module = new URL("../../../../dist/experiments/grid/queue/own-server.js", import.meta.url);
  const script = `
    const { OwnServer } = await import(${JSON.stringify(module.href)});
    await OwnServer.open(${JSON.stringify(folder)}, console.error);
    console.log("started");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", 2],
  });
  await once(child.stdout!, "data");
  return child;
}
