import { expect, test } from "vitest";
import { fileOf, hasFile, takePicture } from "../../web/src/pictures/own-pictures.ts";
import { pictureKey, pictureSpec, readPictureRef } from "../../web/src/pictures/picture-ref.ts";

const PNG = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10);

test("pictures are named, by their task or the hash of their file", async () => {
  const flag = { kind: "task", task: "country-capital", input: "Italy" } as const;
  expect(readPictureRef(JSON.parse(JSON.stringify(flag)), "p")).toEqual(flag);
  expect(pictureSpec(flag, fileOf)).toEqual({ task: "country-capital", input: "Italy" });
  const own = await takePicture(new Blob([PNG]), "mine.png");
  expect(own.hash).toMatch(/^[0-9a-f]{64}$/);
  expect(readPictureRef(JSON.parse(JSON.stringify(own)), "p")).toEqual(own);
  expect(hasFile(own)).toBe(true);
  expect(new Uint8Array(await (pictureSpec(own, fileOf) as Blob).arrayBuffer())).toEqual(PNG);
  expect(pictureKey(flag)).not.toBe(pictureKey(own));
});

test("what is no picture is refused by name, as are pictures that are not here", async () => {
  await expect(takePicture(new Blob(["hello"]), "a.png")).rejects.toThrow(/a\.png: this is no picture/);
  const absent = { kind: "own", hash: "0".repeat(64), name: "theirs.png" } as const;
  expect(hasFile(absent)).toBe(false);
  expect(() => fileOf(absent)).toThrow(/theirs\.png lies with whoever dropped it/);
  expect(() => readPictureRef({ kind: "own", hash: "../x", name: "a" }, "p")).toThrow(/p\.hash/);
  expect(() => readPictureRef({ kind: "web" }, "p")).toThrow(/p\.kind/);
});
