import type { PictureSpec } from "../../../src/session/messages/values.ts";
import { DocumentError, readFields, readOneOf, readString } from "../document/read.ts";

/** A picture as the document names it: of a task's item, or one that the reader brought, by the hash of its file. Never its bytes. */
export type PictureRef =
  | { readonly kind: "task"; readonly task: string; readonly input: string }
  | { readonly kind: "own"; readonly hash: string; readonly name: string };

/** Equal pictures have equal keys. */
export function pictureKey(picture: PictureRef): string {
  return picture.kind === "task" ? `task/${picture.task}/${picture.input}` : `own/${picture.hash}`;
}

/** What the reader knows it by. */
export function pictureName(picture: PictureRef): string {
  return picture.kind === "task" ? picture.input : picture.name;
}

export function readPictureRef(value: unknown, at: string): PictureRef {
  const { kind, ...rest } = readFields(value, at, ["kind", "task", "input", "hash", "name"]);
  if (readOneOf(kind, `${at}.kind`, ["task", "own"]) === "task") {
    const { task, input } = readFields(rest, at, ["task", "input"]);
    return {
      kind: "task",
      task: readString(task, `${at}.task`, 100),
      input: readString(input, `${at}.input`, 200),
    };
  }
  const { hash, name } = readFields(rest, at, ["hash", "name"]);
  if (typeof hash !== "string" || !/^[0-9a-f]{64}$/.test(hash)) {
    throw new DocumentError(`${at}.hash: expected 64 hexadecimal digits`);
  }
  return { kind: "own", hash, name: readString(name, `${at}.name`, 200) };
}

/** What a request is given. Own pictures as their files, of which `fileOf` has those that are here. */
export function pictureSpec(
  picture: PictureRef,
  fileOf: (picture: PictureRef & { kind: "own" }) => Blob,
): PictureSpec {
  return picture.kind === "task" ? { task: picture.task, input: picture.input } : fileOf(picture);
}
