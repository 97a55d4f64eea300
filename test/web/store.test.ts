import { describe, expect, test } from "vitest";
import { EMPTY } from "../../web/src/document/document.ts";
import { readString } from "../../web/src/document/read.ts";
import { defineSlice } from "../../web/src/document/slice.ts";
import { DocumentStore } from "../../web/src/document/store.ts";

const text = defineSlice<string>({ name: "test text", initial: "", read: String });
const where = defineSlice<number>({ name: "test where", initial: 0, apart: true, read: Number });

const short = defineSlice<string>({
  name: "test short",
  initial: "",
  read: (value, at) => readString(value, at, 5),
});

describe("the document", () => {
  test("holds nothing that could not be read again: what could not is refused, and said", () => {
    const store = new DocumentStore();
    const refused: string[] = [];
    store.onRefused = ({ message }) => refused.push(message);
    store.set(short, "write", () => "12345");
    store.set(short, "write more", () => "123456");
    expect(store.slice(short).value).toBe("12345");
    expect(store.steps.value.map(({ label }) => label)).toEqual(["start", "write"]);
    expect(refused).toEqual([expect.stringContaining("test short: expected a text of at most 5 characters")]);
  });

  test("goes back and forth through its steps; changes of one thing in a row are one", () => {
    const store = new DocumentStore();
    store.set(text, "write", () => "a", "typing");
    store.set(text, "write", (before) => `${before}b`, "typing");
    store.set(text, "replace", () => "c");
    expect(store.steps.value.map(({ label }) => label)).toEqual(["start", "write", "replace"]);
    store.undo();
    expect(store.slice(text).value).toBe("ab");
    expect([store.undoLabel.value, store.redoLabel.value]).toEqual(["write", "replace"]);
    store.redo();
    expect(store.slice(text).value).toBe("c");
  });

  test("has places that are no steps: undo takes back what was made, and leaves the reader there", () => {
    const store = new DocumentStore();
    store.set(text, "write", () => "a");
    store.place(where, 3);
    expect(store.steps.value).toHaveLength(2);
    store.undo();
    expect(store.slice(text).value).toBe("");
    expect(store.slice(where).value).toBe(3);
    expect(store.document.value.slices).toEqual({ "test where": 3 });
    store.change("anew", (document) => ({ ...document, slices: { "test text": "b" } }));
    expect(store.document.value.slices).toEqual({ "test text": "b", "test where": 3 });
    expect(() => store.place(text, "no place")).toThrow(/part of the history/);
  });

  test("that is opened brings its places along, in place of those that there were", () => {
    const store = new DocumentStore();
    store.place(where, 3);
    store.open({ ...EMPTY, slices: { "test text": "a", "test where": 5 } }, "opened");
    expect(store.slice(where).value).toBe(5);
    expect(store.steps.value[0]!.document.slices).toEqual({ "test text": "a" });
    store.open(EMPTY, "opened");
    expect(store.slice(where).value).toBe(0);
  });
});
