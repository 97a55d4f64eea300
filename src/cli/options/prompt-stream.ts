import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { showFound } from "../../arguments.ts";
import { FileError, PromptError, XpatchError } from "../../errors.ts";
import { type ImageSource, loadImage } from "../../images/files/load.ts";
import { isObject } from "../../model/checkpoint/json/config-reader.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { openFile } from "../../platform/node-file.ts";
import { readTextFile } from "../../platform/node-text.ts";
import { ParquetFile } from "../../tables/parquet-file.ts";
import { parquetRows } from "../../tables/parquet-rows.ts";
import { escapedText } from "./arguments.ts";
import { checkLengths } from "./checks.ts";

/** A line of a text file. */
interface Line {
  readonly text: string;
  /** From 1. */
  readonly number: number;
}

/** What a line or row of a data set asks. */
interface Asked {
  readonly text: string;
  readonly images: readonly ImageSource[];
}

/** Names of the columns of Parquet files, and of the keys of JSON lines: the first of each that is there counts. */
const TEXTS = ["prompt", "text"];
const PICTURES = ["images", "image"];

/**
 * The prompts of a file, as they are asked for, so that it may be of any length. Of `.jsonl` an object a line, of `.parquet` a row, with
 * `prompt` (or `text`) and, for each `<image>` in it, a picture in `images` (or one in `image`): a path or URL, relative to the file, or in
 * Parquet a struct of bytes and path as Hugging Face's data sets have it. Of other files a prompt a line with the escapes of `--prompt`; empty
 * lines are left out.
 *
 * Throws FileError and PromptError that begin with file and line or row.
 */
export async function* promptsOfFile(path: string, model: ModelOutline): AsyncGenerator<Prompt, void> {
  let found = false;
  for await (const { where, asked } of questionsOf(path)) {
    found = true;
    yield await at(where, async () => {
      const { text, images } = asked();
      const pictures = await Promise.all(
        images.map((image) => loadImage(typeof image === "string" ? beside(path, image) : image)),
      );
      const prompt = model.prompt(text, { images: pictures });
      checkLengths(model, [prompt]);
      return prompt;
    });
  }
  if (!found) throw new PromptError(`${path}: expected a prompt a line, found none`);
}

/** What each line or row asks, read when it is wanted, and what messages call it. */
async function* questionsOf(path: string): AsyncGenerator<{ where: string; asked: () => Asked }, void> {
  if (/\.parquet$/i.test(path)) return yield* rowsOf(path);
  const isJson = /\.jsonl$/i.test(path);
  for await (const { text, number } of linesOf(path)) {
    if (text.trim() === "") continue;
    const asked = () => (isJson ? parseLine(text) : { text: escapedText(text), images: [] });
    yield { where: `${path}:${number}`, asked };
  }
}

async function* rowsOf(path: string): AsyncGenerator<{ where: string; asked: () => Asked }, void> {
  const file = await ParquetFile.open(await openFile(path));
  try {
    const names = file.fields.map(({ name }) => name);
    const text = TEXTS.find((name) => names.includes(name));
    const picture = PICTURES.find((name) => names.includes(name));
    if (text === undefined) {
      throw new FileError(`${path}: expected a column ${TEXTS.join(" or ")}, found ${names.join(", ")}`);
    }
    let number = 0;
    for await (const row of parquetRows(file, [text, ...(picture === undefined ? [] : [picture])])) {
      const where = `${path}, row ${number++}`;
      yield { where, asked: () => askedBy(row[text], picture === undefined ? undefined : row[picture]) };
    }
  } finally {
    await file.close();
  }
}

/** Throws FileError and PromptError for the first lines of a file, if they are no prompts of a model. */
export async function checkFirstPrompts(path: string, model: ModelOutline, count = 3): Promise<void> {
  let left = count;
  for await (const _ of promptsOfFile(path, model)) if (--left === 0) return;
}

/** What `make` gives; its error begins with the line. */
async function at<T>(where: string, make: () => Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (error) {
    if (error instanceof XpatchError) error.message = `${where}: ${error.message}`;
    throw error;
  }
}

function parseLine(text: string): Asked {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw new FileError(`expected a JSON object, found ${text.slice(0, 60)}`);
  }
  const row = isObject(json) ? json : {};
  const [prompt, pictures] = [TEXTS, PICTURES].map(
    (names) => row[names.find((name) => row[name] !== undefined) ?? ""],
  );
  return askedBy(prompt, pictures, text);
}

/** Throws FileError for what is no text, and for pictures that are none. */
function askedBy(text: unknown, given: unknown, found = showFound(text)): Asked {
  const pictures = given === undefined || given === null ? [] : Array.isArray(given) ? given : [given];
  const images = pictures.map(pictureOf);
  if (typeof text === "string" && images.every((image) => image !== undefined)) return { text, images };
  throw new FileError(
    `expected ${TEXTS.join(" or ")}, a string, and perhaps ${PICTURES.join(" or ")}, ${typeof text === "string" ? "files or structs of bytes and path, found something else" : `found ${found.slice(0, 60)}`}`,
  );
}

/** The bytes are the picture where they are there; the path is where it was once. */
function pictureOf(value: unknown): ImageSource | undefined {
  if (typeof value === "string" || value instanceof Uint8Array) return value;
  const { bytes, path } = isObject(value) ? value : {};
  if (bytes instanceof Uint8Array) return bytes;
  return typeof path === "string" ? path : undefined;
}

function beside(file: string, image: string): string {
  return /^[a-z][a-z0-9+.-]+:/i.test(image) ? image : resolve(dirname(file), image);
}

/** The lines of a file of UTF-8, piece by piece. What is in another encoding is read at once. */
async function* linesOf(path: string): AsyncGenerator<Line, void> {
  let number = 0;
  if (await isMarkedOtherwise(path)) {
    for (const text of (await readTextFile(path)).split(/\r?\n/)) yield { text, number: ++number };
    return;
  }
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let rest = "";
  for await (const chunk of createReadStream(path)) {
    const lines = (rest + (await decoded(decoder, path, chunk as Uint8Array))).split(/\r?\n/);
    rest = lines.pop()!;
    for (const text of lines) yield { text, number: ++number };
  }
  const end = rest + (await decoded(decoder, path));
  if (end !== "") yield { text: end, number: ++number };
}

async function decoded(decoder: TextDecoder, path: string, chunk?: Uint8Array): Promise<string> {
  try {
    return chunk ? decoder.decode(chunk, { stream: true }) : decoder.decode();
  } catch {
    await readTextFile(path); // which says in which line, and what to do
    throw new FileError(`${path}: expected UTF-8`);
  }
}

/** Whether a file begins with the byte order mark of UTF-16 or UTF-32. */
async function isMarkedOtherwise(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(new Uint8Array(2), 0, 2, 0);
    return bytesRead === 2 && [0xfffe, 0xfeff, 0].includes(buffer[0]! * 256 + buffer[1]!);
  } finally {
    await file.close();
  }
}
