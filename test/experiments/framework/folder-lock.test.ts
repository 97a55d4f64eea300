import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FolderLock } from "../../../experiments/framework/folder-lock.ts";
import { isRunning, processStart } from "../../../experiments/framework/process-identity.ts";
import { FileError } from "../../../src/errors.ts";

let root: string;
let folder: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "xpatch-lock-"));
  folder = join(root, "results");
});
afterEach(() => rmSync(root, { recursive: true }));

const holder = () => JSON.parse(readFileSync(join(folder, "lock"), "utf8"));

/** A lock file as another process would have left it. */
function left(changes: object): void {
  FolderLock.take(folder);
  const own = holder();
  writeFileSync(join(folder, "lock"), `${JSON.stringify({ ...own, ...changes })}\n`);
}

function deadProcess(): number {
  return spawnSync(process.execPath, ["-e", ""]).pid;
}

test("a second one is refused, naming the first, until that gives the folder free", () => {
  const first = FolderLock.take(folder);
  expect(() => FolderLock.take(folder)).toThrow(FileError);
  expect(() => FolderLock.take(folder)).toThrow(
    new RegExp(`results: another command.*process ${process.pid} on ${hostname()}, since 2.*another folder$`),
  );
  first.check();
  first[Symbol.dispose]();
  expect(existsSync(folder)).toBe(false); // made for nothing
  mkdirSync(folder);
  FolderLock.take(folder)[Symbol.dispose]();
  expect(existsSync(folder)).toBe(true);
});

test("the lock of a process that has ended is taken over", () => {
  left({ pid: deadProcess() });
  FolderLock.take(folder).check();
  expect(holder().pid).toBe(process.pid);
});

test.runIf(process.platform === "linux")("so is that of an earlier process with the same id", () => {
  left({ start: "1" });
  FolderLock.take(folder).check();
  expect(holder().start).toBe(processStart(process.pid));
});

test("that of another machine is believed, and the message says what to delete", () => {
  left({ host: "elsewhere", pid: deadProcess() });
  expect(() => FolderLock.take(folder)).toThrow(/on elsewhere, .*if that process has ended, delete .*lock$/);
});

test.runIf(process.platform === "linux")("that of another container is, too", () => {
  left({ space: "pid:[1]", pid: deadProcess() });
  expect(() => FolderLock.take(folder)).toThrow(/if that process has ended, delete .*lock$/);
});

test("a lock file that is still being written is respected, an old one without a holder is not", () => {
  mkdirSync(folder);
  writeFileSync(join(folder, "lock"), "");
  expect(() => FolderLock.take(folder)).toThrow(/another command is writing here \(a process that starts\)/);
  const old = Date.now() / 1000 - 60;
  utimesSync(join(folder, "lock"), old, old);
  FolderLock.take(folder).check();
});

test("whoever has lost the lock stops, and does not remove the other's", () => {
  const first = FolderLock.take(folder);
  const text = `${JSON.stringify({ ...holder(), since: "later" })}\n`;
  writeFileSync(join(folder, "lock"), text);
  expect(() => first.check()).toThrow(/lock is no longer this process's/);
  first[Symbol.dispose]();
  expect(readFileSync(join(folder, "lock"), "utf8")).toBe(text);
});

test("a folder that cannot be made", () => {
  writeFileSync(folder, "");
  expect(() => FolderLock.take(folder)).toThrow(/cannot write the folder .*results: .*\(EEXIST\)/);
});

test("which processes run", () => {
  expect(isRunning(process.pid, processStart(process.pid))).toBe(true);
  expect(isRunning(process.pid, undefined)).toBe(true);
  expect(isRunning(1, undefined)).toBe(true);
  expect(isRunning(deadProcess(), undefined)).toBe(false);
});
