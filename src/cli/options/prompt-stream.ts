import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { FileError, PromptError, XpatchError } from "../../errors.ts";
import { loadImage } from "../../images/files/load.ts";
import { isObject } from "../../model/checkpoint/json/config-reader.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { readTextFile } from "../../platform/node-text.ts";
import { escapedText } from "./arguments.ts";
import { checkLengths } from "./checks.ts";

/** A line of a text file. */
interface Line {
  readonly text: string;
  /** From 1. */
  readonly number: number;
}

/** What a line of a data set asks. */
interface Asked {
  readonly text: string;
  readonly images: readonly string[];
}

/**
 * The prompts of a file, as they are asked for, so that it may be of any length: of `.jsonl` an object a line with `prompt` (or `text`) and, for
 * each `<image>` in it, a path or URL in `images` (or one in `image`), relative to the file; of other files a prompt a line with the escapes of
 * `--prompt`. Empty lines are left out.
 *
 * Throws FileError and PromptError that begin with file and line.
 */
export async function* promptsOfFile(path: string, model: ModelOutline): AsyncGenerator<Prompt, void> {
  let found = false;
  const isJson = /\.jsonl$/i.test(path);
  for await (const { text, number } of linesOf(path)) {
    if (text.trim() === "") continue;
    found = true;
    const where = `${path}:${number}`;
    yield await at(where, async () => {
      const asked = isJson ? parseLine(text) : { text: escapedText(text), images: [] };
      const images = await Promise.all(asked.images.map((image) => loadImage(beside(path, image))));
      const prompt = model.prompt(asked.text, { images });
      checkLengths(model, [prompt]);
      return prompt;
    });
  }
  if (!found) throw new PromptError(`${path}: expected a prompt a line, found none`);
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
  const { prompt, text: other, images, image } = isObject(json) ? json : {};
  const asked = prompt ?? other;
  const pictures = images ?? (image === undefined ? [] : [image]);
  if (
    typeof asked === "string" &&
    Array.isArray(pictures) &&
    pictures.every((each) => typeof each === "string")
  ) {
    return { text: asked, images: pictures as string[] };
  }
  throw new FileError(
    `expected an object with prompt, a string, and perhaps images, a list of files, found ${text.slice(0, 60)}`,
  );
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
