import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { readTask } from "../../../src/cli/options/task-file.ts";
import { readLines } from "../../../src/cli/options/text-files.ts";
import { FileError } from "../../../src/errors.ts";
import { decodeText } from "../../../src/platform/node-text.ts";

const folder = mkdtempSync(join(tmpdir(), "xpatch-text-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

const MARK = Buffer.from([0xef, 0xbb, 0xbf]);
const utf16le = (text: string) => Buffer.from(`\ufeff${text}`, "utf16le");
const utf16be = (text: string) => utf16le(text).swap16();

describe("encodings", () => {
  const text = "Zürich 🏔\r\n日本\n";
  test.each([
    ["UTF-8", Buffer.from(text)],
    ["UTF-8 with a mark", Buffer.concat([MARK, Buffer.from(text)])],
    ["UTF-16LE with a mark", utf16le(text)],
    ["UTF-16BE with a mark", utf16be(text)],
  ])("%s is read", (_, bytes) => {
    expect(decodeText(bytes, "a.txt")).toBe(text);
  });

  test("a mark within the text, an empty file, and NUL are kept", () => {
    expect(decodeText(Buffer.from("\ufeff\ufeffa"), "a")).toBe("\ufeffa");
    expect(decodeText(Buffer.from("a\ufeff"), "a")).toBe("a\ufeff");
    expect(decodeText(new Uint8Array(), "a")).toBe("");
    expect(decodeText(Buffer.from("ab\0"), "a")).toBe("ab\0");
  });

  test.each<[string, Buffer, string | RegExp]>([
    [
      "Windows-1252",
      Buffer.from("input,output\nSwiss,Z\xfcrich\n", "latin1"),
      'my tasks.csv: expected UTF-8, found line 2 in another encoding (in Windows-1252 it reads "Swiss,Zürich"); save it as ' +
        "UTF-8 (\"CSV UTF-8\" in Excel), or convert it: iconv -f WINDOWS-1252 -t UTF-8 'my tasks.csv' > new-file",
    ],
    ["a character cut off", Buffer.from("a\nb\n日").subarray(0, -1), /found line 3 in another encoding/],
    ["an overlong form", Buffer.from([0x61, 0xc0, 0x80]), /found line 1 in another encoding/],
    ["UTF-16 without a mark", utf16le("ab").subarray(2), /looks like UTF-16LE without.*-f UTF-16LE/],
    ["UTF-16BE without a mark", utf16be("ab").subarray(2), /looks like UTF-16BE without.*-f UTF-16BE/],
    ["UTF-16, cut off", utf16le("ab").subarray(0, -1), /UTF-16 with a broken character/],
    ["UTF-16, half a pair", utf16le("a\ud83cb"), /UTF-16 with a broken character/],
    ["UTF-32", Buffer.from([0xff, 0xfe, 0, 0, 0x61, 0, 0, 0]), /a byte order mark of UTF-32/],
  ])("%s is refused by name", (_, bytes, message) => {
    expect(() => decodeText(bytes, "my tasks.csv")).toThrow(FileError);
    expect(() => decodeText(bytes, "my tasks.csv")).toThrow(message);
  });
});

describe("tasks and prompts", () => {
  const json = JSON.stringify({ name: "t", items: [{ input: "Schweiz", output: "Zürich" }] });
  const csv = "input,output\nSchweiz,Zürich\n";

  test.each([
    ["marked.json", Buffer.from(`\ufeff${json}`)],
    ["wide.json", utf16le(json)],
    ["marked.csv", Buffer.from(`\ufeff${csv}`)],
    ["wide.csv", utf16be(csv)],
  ])("%s", async (name, bytes) => {
    const { items } = await readTask(file(name, bytes));
    expect(items).toMatchObject([{ input: "Schweiz", outputs: ["Zürich"] }]);
  });

  test("the published layout with marks", async () => {
    const items = Buffer.from(`\ufeff${JSON.stringify([{ input: "a", output: "b" }])}`);
    file("pub_val.json", items);
    expect((await readTask(file("pub_test.json", items))).items).toHaveLength(2);
  });

  test("a Latin-1 CSV is refused, not read as Z\ufffdrich", async () => {
    const path = file("latin.csv", Buffer.from("input,output\nSchweiz,Z\xfcrich\n", "latin1"));
    await expect(readTask(path)).rejects.toThrow(/latin\.csv: expected UTF-8, found line 2.*Zürich.*iconv/);
  });

  test("lines of prompts", async () => {
    expect(await readLines(file("lines.txt", utf16le("eins\r\nzwei\r\n")))).toEqual(["eins", "zwei"]);
    expect(await readLines(file("marked.txt", "\ufeffeins\n"))).toEqual(["eins"]);
    await expect(readLines(file("latin.txt", Buffer.from("a\n\xe9t\xe9\n", "latin1")))).rejects.toThrow(
      /line 2.*"été"/,
    );
  });
});
