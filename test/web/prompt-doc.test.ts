import { describe, expect, test } from "vitest";
import {
  alternate,
  insertPicture,
  isEmpty,
  type PromptDoc,
  promptInWords,
  readPromptDoc,
  written,
} from "../../web/src/prompts/prompt-doc.ts";

const flag = { kind: "task", task: "country-capital", input: "Peru" } as const;
const own = { kind: "own", hash: "0f".repeat(32), name: "mine.png" } as const;

describe("pieces of a written prompt", () => {
  test("alternate, with text at both ends", () => {
    expect(alternate([])).toEqual([{ text: "" }]);
    expect(alternate([{ picture: flag }, { picture: own }])).toEqual([
      { text: "" },
      { picture: flag },
      { text: "" },
      { picture: own },
      { text: "" },
    ]);
    expect(alternate([{ text: "a" }, { text: "b" }, { picture: flag }, { text: "c" }])).toEqual([
      { text: "ab" },
      { picture: flag },
      { text: "c" },
    ]);
  });

  test("take a picture in where the caret is", () => {
    const pieces = [{ text: "Q: \nA:" }];
    expect(insertPicture(pieces, { piece: 0, offset: 3 }, flag)).toEqual([
      { text: "Q: " },
      { picture: flag },
      { text: "\nA:" },
    ]);
    const more = insertPicture(
      [{ text: "a" }, { picture: flag }, { text: "b" }],
      { piece: 2, offset: 1 },
      own,
    );
    expect(more).toEqual([{ text: "a" }, { picture: flag }, { text: "b" }, { picture: own }, { text: "" }]);
  });
});

describe("a prompt in a document", () => {
  const prompts: PromptDoc[] = [
    written("Q: Greece\nA:"),
    { kind: "written", pieces: [{ text: "" }, { picture: own }, { text: "\nA:" }], chat: true },
    {
      kind: "task",
      task: "country-capital",
      input: "Peru",
      asked: "image",
      specify: "text",
      count: 5,
      seed: 3,
    },
  ];
  test("is read back as it was written", () => {
    for (const prompt of prompts) {
      expect(readPromptDoc(JSON.parse(JSON.stringify(prompt)), "p")).toEqual(prompt);
    }
  });

  test("is refused by the place where it says something that it cannot", () => {
    expect(() => readPromptDoc({ kind: "spoken" }, "prompt")).toThrow("prompt.kind");
    expect(() => readPromptDoc({ ...prompts[0], bos: true }, "prompt")).toThrow('no field "bos"');
    expect(() => readPromptDoc({ ...prompts[2], asked: "smell" }, "prompt")).toThrow("prompt.asked");
    const piece = { picture: { ...own, hash: "no hash" } };
    expect(() => readPromptDoc({ kind: "written", pieces: [piece], chat: false }, "prompt")).toThrow(
      "prompt.pieces[0].picture.hash",
    );
  });

  test("in words", () => {
    expect(prompts.map(promptInWords)).toEqual([
      "Q: Greece⏎A:",
      "[mine.png]⏎A:",
      "country-capital: 5 text examples, then picture of Peru",
    ]);
    expect(prompts.map(isEmpty)).toEqual([false, false, false]);
    expect(isEmpty(written(""))).toBe(true);
  });
});
