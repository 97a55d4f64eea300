import {
  DocumentError,
  readBoolean,
  readCount,
  readFields,
  readList,
  readOneOf,
  readRecord,
  readString,
} from "../document/read.ts";
import { type PictureRef, pictureName, readPictureRef } from "../pictures/picture-ref.ts";

/* A prompt as the document has it: plain data without bytes. Types, not interfaces, since those are no Json. */

export type Piece = { readonly text: string } | { readonly picture: PictureRef };

/** Written by the reader. Its pieces alternate: text, picture, text, …, text; texts may be empty. */
export type WrittenPrompt = {
  readonly kind: "written";
  readonly pieces: readonly Piece[];
  /** As a user's message, by the model's chat template. */
  readonly chat: boolean;
};

/** A question of a task, behind what says which task it is. */
export type TaskPrompt = {
  readonly kind: "task";
  readonly task: string;
  readonly input: string;
  readonly asked: Asked;
  readonly specify: Specify;
  /** Examples, where there are any. */
  readonly count: number;
  /** Which are drawn. */
  readonly seed: number;
};

export const ASKED = ["text", "image"] as const;
export type Asked = (typeof ASKED)[number];
export const SPECIFY = ["none", "text", "image", "instruction"] as const;
export type Specify = (typeof SPECIFY)[number];

export type PromptDoc = WrittenPrompt | TaskPrompt;

/** Most examples of a prompt. */
export const MOST_EXAMPLES = 20;
const MOST_PIECES = 200;

export function written(text: string): WrittenPrompt {
  return { kind: "written", pieces: [{ text }], chat: false };
}

/** Pieces in turn: what lies side by side is joined, and between pictures there is text, if an empty one. */
export function alternate(pieces: readonly Piece[]): Piece[] {
  const made: Piece[] = [{ text: "" }];
  for (const piece of pieces) {
    const last = made.at(-1)!;
    if ("picture" in piece) made.push(piece, { text: "" });
    else if ("text" in last) made[made.length - 1] = { text: last.text + piece.text };
  }
  return made;
}

/** Puts a picture into the text of a piece, at a place in it. */
export function insertPicture(
  pieces: readonly Piece[],
  at: { readonly piece: number; readonly offset: number },
  picture: PictureRef,
): Piece[] {
  return alternate(
    pieces.flatMap((piece, i): Piece[] => {
      if (i !== at.piece || !("text" in piece)) return [piece];
      return [{ text: piece.text.slice(0, at.offset) }, { picture }, { text: piece.text.slice(at.offset) }];
    }),
  );
}

/** Whether there is nothing to read yet. */
export function isEmpty(prompt: PromptDoc): boolean {
  if (prompt.kind === "task") return prompt.input === "";
  return prompt.pieces.every((piece) => "text" in piece && piece.text === "");
}

/** On one line, for headings. */
export function promptInWords(prompt: PromptDoc): string {
  if (prompt.kind === "task") {
    const { task, input, asked, specify, count } = prompt;
    const before =
      specify === "none"
        ? ""
        : specify === "instruction"
          ? "instruction, then "
          : `${count} ${specify === "image" ? "picture" : "text"} examples, then `;
    return `${task}: ${before}${asked === "image" ? `picture of ${input}` : input}`;
  }
  const words = prompt.pieces.map((piece) =>
    "text" in piece ? piece.text.replaceAll("\n", "⏎") : `[${pictureName(piece.picture)}]`,
  );
  return words.join("");
}

export function readPromptDoc(value: unknown, at: string): PromptDoc {
  const { kind } = readRecord(value, at, (each) => each);
  if (kind === "task") {
    const fields = readFields(value, at, ["kind", "task", "input", "asked", "specify", "count", "seed"]);
    return {
      kind,
      task: readString(fields["task"], `${at}.task`, 100),
      input: readString(fields["input"], `${at}.input`, 1000),
      asked: readOneOf(fields["asked"], `${at}.asked`, ASKED),
      specify: readOneOf(fields["specify"], `${at}.specify`, SPECIFY),
      count: readCount(fields["count"], `${at}.count`, MOST_EXAMPLES),
      seed: readCount(fields["seed"], `${at}.seed`, 2 ** 31),
    };
  }
  if (kind !== "written") throw new DocumentError(`${at}.kind: expected one of written, task`);
  const fields = readFields(value, at, ["kind", "pieces", "chat"]);
  return {
    kind,
    pieces: alternate(readList(fields["pieces"], `${at}.pieces`, readPiece, MOST_PIECES)),
    chat: readBoolean(fields["chat"], `${at}.chat`),
  };
}

function readPiece(value: unknown, at: string): Piece {
  const { text, picture } = readFields(value, at, ["text", "picture"]);
  if (picture === undefined) return { text: readString(text, `${at}.text`) };
  return { picture: readPictureRef(picture, `${at}.picture`) };
}
