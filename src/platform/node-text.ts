import { readFile } from "node:fs/promises";
import { FileError } from "../errors.ts";

const BYTE_ORDER_MARKS = [
  ["UTF-32", [0xff, 0xfe, 0, 0]],
  ["UTF-32", [0, 0, 0xfe, 0xff]],
  ["utf-16le", [0xff, 0xfe]],
  ["utf-16be", [0xfe, 0xff]],
] as const;

const LINE_FEED = 0x0a;

/**
 * Reads a text file: UTF-8, with or without a byte order mark, or UTF-16 with one. The mark is no part of the text.
 *
 * @throws FileError naming the line that is not of that encoding, and how to convert the file; the system's own error
 * when the file cannot be read
 */
export async function readTextFile(path: string): Promise<string> {
  return decodeText(await readFile(path), path);
}

/** The text in the bytes of a file; see {@link readTextFile}. */
export function decodeText(bytes: Uint8Array, path: string): string {
  const [mark] = BYTE_ORDER_MARKS.find(([, start]) => start.every((byte, i) => bytes[i] === byte)) ?? [];
  const refuse = (found: string, from: string): never => {
    throw new FileError(
      `${path}: expected UTF-8, found ${found}; save it as UTF-8 ("CSV UTF-8" in Excel), or convert it: ` +
        `iconv -f ${from} -t UTF-8 ${shellWord(path)} > new-file`,
    );
  };
  if (mark === "UTF-32") return refuse("a byte order mark of UTF-32", "UTF-32");
  if (mark) {
    // A mark in the middle of a text is an ordinary character, so only the first is dropped.
    const text = decode(bytes, mark);
    return text ?? refuse(`UTF-16 with a broken character or an odd number of bytes`, "UTF-16");
  }
  const text = decode(bytes, "utf-8");
  if (text === undefined) return refuse(...describe(bytes));
  // No text begins like this, and letters in UTF-16 do.
  const [first, second] = bytes;
  if (bytes.length > 1 && (first === 0) !== (second === 0)) {
    const kind = first === 0 ? "UTF-16BE" : "UTF-16LE";
    return refuse(`what looks like ${kind} without a byte order mark`, kind);
  }
  return text;
}

function decode(bytes: Uint8Array, encoding: string): string | undefined {
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    return undefined;
  }
}

/** What is wrong, and what the encoding probably is: of single bytes that are no UTF-8, nearly always Windows-1252. */
function describe(bytes: Uint8Array): [found: string, from: string] {
  let start = 0;
  for (let line = 1; ; line++) {
    const feed = bytes.indexOf(LINE_FEED, start);
    const end = feed < 0 ? bytes.length : feed;
    const own = bytes.subarray(start, end);
    if (decode(own, "utf-8") === undefined) {
      const read = JSON.stringify(new TextDecoder("windows-1252").decode(own).trim().slice(0, 60));
      return [`line ${line} in another encoding (in Windows-1252 it reads ${read})`, "WINDOWS-1252"];
    }
    start = end + 1;
  }
}

function shellWord(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
