import { execFile, execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FileError } from "../../src/errors.ts";
import { writeWhole } from "../../src/platform/node-write.ts";

let folder: string;
const path = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "xpatch-write-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

async function* chunks(...parts: (string | Error)[]) {
  for (const part of parts) {
    if (part instanceof Error) throw part;
    yield new TextEncoder().encode(part);
  }
}

test("text, bytes and chunks, new and in place of an old file; nothing else is left", async () => {
  expect(await writeWhole(path("a"), "Zürich")).toBe(7);
  expect(await writeWhole(path("a"), new Uint8Array([65, 66]))).toBe(2);
  expect(readFileSync(path("a"), "utf8")).toBe("AB");
  expect(await writeWhole(path("b"), chunks("one ", "two"))).toBe(7);
  expect(readFileSync(path("b"), "utf8")).toBe("one two");
  expect(readdirSync(folder)).toEqual(["a", "b"]);
});

test("what fails on the way leaves the old file, and no other", async () => {
  writeFileSync(path("a"), "old");
  const broken = new Error("broken");
  await expect(writeWhole(path("a"), chunks("new", broken))).rejects.toBe(broken);
  expect(readFileSync(path("a"), "utf8")).toBe("old");
  expect(readdirSync(folder)).toEqual(["a"]);
  await expect(writeWhole(path("c"), chunks("new", broken))).rejects.toBe(broken);
  expect(readdirSync(folder)).toEqual(["a"]);
});

test("nobody sees a part of a file", async () => {
  writeFileSync(path("a"), "old");
  async function* slowly() {
    yield new TextEncoder().encode("ne");
    expect(readFileSync(path("a"), "utf8")).toBe("old");
    expect(readdirSync(folder)).toHaveLength(2);
    yield new TextEncoder().encode("w");
  }
  await writeWhole(path("a"), slowly());
  expect(readFileSync(path("a"), "utf8")).toBe("new");
});

test("a full device, a folder, a missing folder: typed errors that name the file and the reason", async () => {
  await expect(writeWhole("/dev/full", "a")).rejects.toThrow(FileError);
  await expect(writeWhole("/dev/full", "a")).rejects.toThrow(
    "cannot write /dev/full: no space left on device (ENOSPC)",
  );
  await expect(writeWhole(folder, "a")).rejects.toThrow(/expected a file, found a folder/);
  await expect(writeWhole(path("none/a"), "a")).rejects.toThrow(
    /none.a: no such file or directory \(ENOENT\)/,
  );
});

test("devices and pipes are written to, not replaced; links are followed; permissions stay", async () => {
  await writeWhole("/dev/null", "a");
  expect(statSync("/dev/null").isCharacterDevice()).toBe(true);
  execFileSync("mkfifo", [path("pipe")]);
  const read = promisify(execFile)("cat", [path("pipe")]);
  await writeWhole(path("pipe"), "through");
  expect((await read).stdout).toBe("through");
  expect(statSync(path("pipe")).isFIFO()).toBe(true);

  mkdirSync(path("real"));
  writeFileSync(path("real/a"), "old");
  chmodSync(path("real/a"), 0o640);
  symlinkSync(path("real/a"), path("link"));
  await writeWhole(path("link"), "new");
  expect(readFileSync(path("real/a"), "utf8")).toBe("new");
  expect(statSync(path("real/a")).mode & 0o777).toBe(0o640);
  expect(readdirSync(path("real"))).toEqual(["a"]);
});
