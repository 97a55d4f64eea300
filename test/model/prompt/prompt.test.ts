import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PromptError } from "../../../src/errors.ts";
import { prompt, promptFromIds } from "../../../src/model/prompt/build-prompt.ts";
import type { ImageRules } from "../../../src/model/prompt/image-rules.ts";
import {
  checkContext,
  hashPrompts,
  type Prompt,
  patchColumn,
  patchRow,
  resolvePosition,
} from "../../../src/model/prompt/prompt.ts";
import { createTokenizer } from "../../../src/model/prompt/tokenizer.ts";
import { tokenizerJson, tokenizerOf } from "../../helpers/tokenizers.ts";

const llama = tokenizerOf("spm-bpe", { bos_token: "<s>", eos_token: "</s>" });
const smol = tokenizerOf("byte-smol", { bos_token: "<|endoftext|>" });
const t5 = tokenizerOf("t5", { eos_token: "</s>" });

/** The text that a span's tokens stand for. */
const textOf = (tokenizer: typeof llama, p: Prompt, name: string) => {
  const { start, end } = p.span(name);
  return tokenizer.decode(p.ids.slice(start, end));
};

describe("prompt", () => {
  it("is the tokenizer's own encoding of the text", () => {
    const p = prompt(llama, "Q: Greece\nA:");
    expect(p.ids).toEqual(llama.encode("Q: Greece\nA:"));
    expect(p.tokens.slice(0, 2)).toEqual(["<s>", "▁"]);
    expect(p.tokens).toHaveLength(p.length);
    expect(p.text).toBe("Q: Greece\nA:");
    expect(p.last).toBe(p.length - 1);
    expect(p.at(-1)).toBe(p.last);
    expect(p.spans).toEqual({});
  });

  it("cannot be changed", () => {
    const p = prompt(llama, ["a", { text: "b", name: "b" }]);
    const values = [p, p.ids, p.tokens, p.spans, p.span("b"), p.images];
    expect(values.every((value) => Object.isFrozen(value))).toBe(true);
  });

  it("keeps its ids when the list it was made from changes", () => {
    const ids = [1, 5, 6];
    const p = promptFromIds(llama, ids);
    ids[0] = 9;
    expect(p.ids).toEqual([1, 5, 6]);
  });

  it("adds BOS as the tokenizer does, always, or never", () => {
    const body = llama.encode("hi", { specials: false });
    expect(prompt(llama, "hi").ids).toEqual([1, ...body]);
    expect(prompt(llama, "hi", { bos: true }).ids).toEqual([1, ...body]);
    expect(prompt(llama, "hi", { bos: false }).ids).toEqual(body);
    expect(prompt(smol, "hi").ids).toEqual(smol.encode("hi"));
    expect(prompt(smol, "hi", { bos: true }).ids).toEqual([316, ...smol.encode("hi")]);
    expect([
      prompt(llama, "hi").bos,
      prompt(llama, "hi", { bos: false }).bos,
      prompt(smol, "hi").bos,
    ]).toEqual([true, false, false]);
  });

  it("keeps what the tokenizer puts behind, unless nothing is to be added", () => {
    expect(prompt(t5, "hi").ids.at(-1)).toBe(1);
    expect(prompt(t5, "hi", { bos: false }).ids.at(-1)).not.toBe(1);
    expect(() => prompt(t5, "hi", { bos: true })).toThrow(/name a bos_token, found none/);
  });

  it("says so when BOS is written in the text", () => {
    expect(prompt(llama, "<s>hi", { bos: false }).bos).toBe(true);
  });

  it("refuses to be empty", () => {
    expect(() => prompt(smol, "")).toThrow(PromptError);
    expect(() => promptFromIds(smol, [])).toThrow(PromptError);
    expect(prompt(llama, "").ids).toEqual([1]);
  });

  it("takes ids as they are", () => {
    const p = promptFromIds(smol, new Uint32Array([39, 68, 400]));
    expect(p.text).toBe("He");
    expect(p.tokens).toEqual(["H", "e", "<#400>"]);
    for (const ids of [[1.5], [-1], [Number.NaN]]) {
      expect(() => promptFromIds(smol, ids)).toThrow(
        /whole numbers from 0 to 2\^32 - 1, found .* at position 0/,
      );
    }
  });
});

describe("spans of text", () => {
  it.each([
    ["spm-bpe", llama],
    ["byte-smol", smol],
  ])("%s: name the tokens of a piece", (_, tokenizer) => {
    const p = prompt(tokenizer, ["Q: what color is the ", { text: "banana", name: "food" }, "?\nA:"]);
    expect(p.ids).toEqual(tokenizer.encode("Q: what color is the banana?\nA:"));
    expect(textOf(tokenizer, p, "food").trim()).toBe("banana");
  });

  it("take in a token that straddles the border", () => {
    // "▁the" covers the blank in front of the piece as well.
    const p = prompt(smol, ["is ", { text: "the", name: "word" }]);
    expect(p.tokens.slice(p.span("word").start, p.span("word").end)).toEqual(["Ġthe"]);
    const inside = prompt(smol, ["is t", { text: "h", name: "letter" }, "e"]);
    expect(inside.ids).toEqual(p.ids);
    expect(inside.span("letter")).toEqual(p.span("word"));
  });

  it("take in all the bytes of a character", () => {
    const p = prompt(smol, ["x", { text: "日", name: "sun" }, "本"]);
    const { start, end } = p.span("sun");
    expect(end - start).toBe(3);
    expect(textOf(smol, p, "sun")).toBe("日");
  });

  it("may overlap the special token that splits the text, and count BOS", () => {
    const p = prompt(llama, ["a", { text: "<image>", name: "picture" }, "b"]);
    expect(p.ids[p.span("picture").start]).toBe(432);
    expect(p.span("picture")).toEqual({ start: p.ids.indexOf(432), end: p.ids.indexOf(432) + 1 });
  });

  it("are numbered when they share a name", () => {
    const country = (text: string) => ({ text, name: "country" });
    const p = prompt(smol, ["Q:", country("Greece"), "\nA:Athens\n\nQ:", country("Italy"), "\nA:"]);
    expect(Object.keys(p.spans)).toEqual(["country", "country2"]);
    expect(textOf(smol, p, "country2")).toBe("Italy");
  });

  it("can be found in the text", () => {
    const p = prompt(smol, "Q:Greece\nA:", { spans: { country: "Greece" } });
    expect(textOf(smol, p, "country")).toBe("Greece");
    expect(() => prompt(smol, "Q:Q:", { spans: { q: "Q:" } })).toThrow(/"Q:".*once, found several/);
    expect(() => prompt(smol, "Q:", { spans: { a: "A:" } })).toThrow(/once, found none/);
    expect(() => prompt(smol, "aaa", { spans: { a: "aa" } })).toThrow(/found several/);
    expect(() => prompt(smol, "Q:", { spans: { a: "" } })).toThrow(/found an empty one/);
  });

  it("survive blanks that the tokenizer drops", () => {
    const p = prompt(t5, ["the  the \n ", { text: "the", name: "last" }]);
    const words = p.tokens.filter((token) => token.startsWith("▁"));
    expect(words).toHaveLength(3);
    expect(p.span("last").end).toBe(p.length - 1);
    expect(textOf(t5, p, "last")).toBe("the");
    expect(() => prompt(t5, ["the", { text: "  ", name: "blanks" }])).toThrow(/drops that text/);
  });

  it("take the parts of a word and added tokens for what they spell", () => {
    const bert = tokenizerOf("bert", {});
    const p = prompt(bert, ["a small ", { text: "cat", name: "animal" }, " sat"]);
    expect(p.tokens.slice(p.span("animal").start, p.span("animal").end)).toEqual(["c", "##a", "##t"]);

    const json = tokenizerJson("byte-smol");
    json.added_tokens[1].content = "<le début>";
    const spaced = prompt(createTokenizer(json), ["a<le début>", { text: "b", name: "b" }]);
    expect(spaced.tokens.slice(spaced.span("b").start, spaced.span("b").end)).toEqual(["b"]);
  });

  it("refuse text that the tokenizer rewrites, saying where", () => {
    const clip = tokenizerOf("clip", {});
    expect(() => prompt(clip, ["a ", { text: "Cat", name: "animal" }])).toThrow(/"c".*byte 2, found "Cat"/);
    expect(textOf(clip, prompt(clip, ["a ", { text: "cat", name: "animal" }]), "animal").trim()).toBe("cat");
  });

  it("are not empty, and are asked for by a name that exists", () => {
    expect(() => prompt(smol, ["a", { text: "", name: "none" }])).toThrow(/span "none", found none/);
    const p = prompt(smol, ["a", { text: "b", name: "b" }]);
    expect(() => p.span("c")).toThrow(/no span "c"; it has b/);
    expect(() => p.span("toString")).toThrow(PromptError);
  });

  it.each([
    ["spm-bpe", llama],
    ["byte-smol", smol],
  ])("%s: wherever a text is cut, its ids stay and its spans cover it in order", (_, tokenizer) => {
    const piece = fc
      .string({ unit: "grapheme", minLength: 1, maxLength: 12 })
      .filter((text) => !text.includes("▁"));
    fc.assert(
      fc.property(fc.array(piece, { minLength: 1, maxLength: 6 }), (texts) => {
        const p = prompt(
          tokenizer,
          texts.map((text, i) => ({ text, name: `p${i}_` })),
        );
        const whole = texts.join("");
        expect(p.ids).toEqual(prompt(tokenizer, whole).ids);
        const spans = texts.map((_, i) => p.span(`p${i}_`));
        for (const [i, span] of spans.entries()) {
          // The tokens from the first to this piece's last spell at least the text up to this piece's end.
          const spelt = tokenizer.decode(p.ids.slice(0, span.end), { skipSpecial: true });
          expect(spelt.startsWith(texts.slice(0, i + 1).join(""))).toBe(true);
          const before = tokenizer.decode(p.ids.slice(0, span.start), { skipSpecial: true });
          expect(before.length).toBeLessThanOrEqual(texts.slice(0, i).join("").length);
          if (i > 0) expect(span.start).toBeGreaterThanOrEqual(spans[i - 1]!.end - 1);
        }
        expect(spans.at(-1)!.end).toBe(p.length);
      }),
    );
  });
});

describe("images", () => {
  /** As LLaVA writes them: one placeholder per patch. */
  const rules = (rows: number, columns: number): ImageRules<string> => ({
    placeholder: "<image>",
    expand: () => ({ text: "<image>".repeat(rows * columns), grid: { rows, columns } }),
  });
  const count = (p: Prompt) => p.ids.filter((id) => id === 432).length;

  it("become their placeholders inside the text, tokenised as a whole", () => {
    const p = prompt(llama, ["Q:", { image: "cat" }, "\nA:"], { imageRules: rules(2, 3) });
    expect(p.ids).toEqual(llama.encode(`Q:${"<image>".repeat(6)}\nA:`));
    expect(p.text).toBe("Q:<image>\nA:");
    expect(p.images).toEqual(["cat"]);
    const first = p.ids.indexOf(432);
    expect(p.span("image")).toEqual({ start: first, end: first + 6, grid: { rows: 2, columns: 3 } });
  });

  it("may be several, next to each other, and among named text", () => {
    const parts = [{ image: "a" }, { image: "b" }, "Q:", { text: "Greece", name: "country" }, { image: "c" }];
    const p = prompt(llama, parts, { imageRules: rules(1, 2) });
    const { start } = p.span("image");
    expect(p.span("image2").start).toBe(start + 2);
    expect(p.span("image3").end).toBe(p.length);
    expect(textOf(llama, p, "country")).toBe("Greece");
    expect(p.images).toEqual(["a", "b", "c"]);
  });

  it("may be written in the text, with a list of them", () => {
    const options = { imageRules: rules(2, 2), images: ["x", "y"] };
    const p = prompt(llama, "Q:<image>\nA: red\n\nQ:<image>\nA:", options);
    expect(count(p)).toBe(8);
    expect(p.images).toEqual(["x", "y"]);
    const mixed = prompt(llama, ["Q:<image>", { image: "part" }, { text: "<image>!", name: "end" }], options);
    expect(mixed.images).toEqual(["x", "part", "y"]);
    expect(mixed.span("end").start).toBe(mixed.span("image3").start);
  });

  it("are told their number, and may differ in size", () => {
    const seen: unknown[] = [];
    const imageRules: ImageRules<number> = {
      placeholder: "<image>",
      expand: (image, index, of) => {
        seen.push([image, index, of]);
        return { text: `(${"<image>".repeat(image)})` };
      },
    };
    const p = prompt(llama, [{ image: 1 }, "and", { image: 3 }], { imageRules });
    expect(seen).toEqual([
      [1, 0, 2],
      [3, 1, 2],
    ]);
    expect([p.span("image"), p.span("image2")].map(({ start, end }) => end - start)).toEqual([1, 3]);
  });

  it("span what a family puts between their placeholders", () => {
    const imageRules: ImageRules<string> = {
      placeholder: "<image>",
      expand: () => ({ text: "<s><image><image>\n<image><image></s>" }),
    };
    const p = prompt(llama, ["a", { image: "tiles" }, "b"], { imageRules });
    const { start, end, grid } = p.span("image");
    expect(grid).toBeUndefined();
    expect([p.ids[start], p.ids[end - 1], p.ids[start - 1], p.ids[end]]).toEqual([432, 432, 1, 2]);
    expect(() => patchRow(p.span("image"), 0)).toThrow(/grid of patches, found none/);
  });

  it("say how many there are when the placeholders are not as many", () => {
    const imageRules = rules(1, 1);
    const few = () => prompt(llama, "<image><image>", { imageRules, images: ["a"] });
    expect(few).toThrow(/2 placeholder\(s\) and 1 image\(s\)/);
    expect(few).toThrow(PromptError);
    expect(() => prompt(llama, "a", { imageRules, images: ["a"] })).toThrow(/0 placeholder\(s\) and 1 image/);
    expect(() => prompt(llama, ["<image>", { image: "a" }], { imageRules })).toThrow(
      /1 placeholder\(s\) and 0 image/,
    );
  });

  it("are refused by a model without images, where placeholders are text", () => {
    expect(() => prompt(llama, ["a", { image: "cat" }])).toThrow(/takes no images, found 1/);
    expect(() => prompt(llama, "a", { images: ["cat"] })).toThrow(PromptError);
    expect(count(prompt(llama, "a<image>b"))).toBe(1);
  });

  it("are refused where the tokenizer or the family gives them no tokens", () => {
    const absent: ImageRules<string> = { placeholder: "<picture>", expand: () => ({ text: "<picture>" }) };
    expect(() => prompt(llama, [{ image: "cat" }], { imageRules: absent })).toThrow(
      /1 tokens <picture>.*found 0/,
    );
    const none: ImageRules<string> = { placeholder: "<image>", expand: () => ({ text: "" }) };
    expect(() => prompt(llama, [{ image: "cat" }], { imageRules: none })).toThrow(
      /at least one each, found 0/,
    );
    const grid: ImageRules<string> = {
      placeholder: "<image>",
      expand: () => ({ text: "<image>", grid: { rows: 2, columns: 2 } }),
    };
    expect(() => prompt(llama, [{ image: "cat" }], { imageRules: grid })).toThrow(
      /grid of 1 patches, found 2 by 2/,
    );
  });

  it("have rows and columns of patches", () => {
    const image = { start: 4, end: 10, grid: { rows: 2, columns: 3 } };
    expect(patchRow(image, 1)).toEqual({ start: 7, end: 10 });
    expect(patchRow(image, -2)).toEqual({ start: 4, end: 7 });
    expect(patchColumn(image, 0)).toEqual([4, 7]);
    expect(patchColumn(image, -1)).toEqual([6, 9]);
    expect(() => patchRow(image, 2)).toThrow(PromptError);
    expect(() => patchColumn(image, 3)).toThrow(PromptError);
  });
});

describe("positions", () => {
  it("count from either end", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), fc.nat(), (length, n) => {
        const position = n % length;
        expect(resolvePosition(position, length)).toBe(position);
        expect(resolvePosition(position - length, length)).toBe(position);
        expect(() => resolvePosition(length + position, length)).toThrow(PromptError);
        expect(() => resolvePosition(-length - 1 - position, length)).toThrow(PromptError);
      }),
    );
  });

  it("name both numbers when they are out of range, and are whole", () => {
    expect(() => resolvePosition(7, 5)).toThrow("Expected a position from -5 to 4 (5 tokens), found 7.");
    for (const wrong of [0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => resolvePosition(wrong, 5)).toThrow(PromptError);
    }
  });

  it("fit the model's context", () => {
    expect(() => checkContext(2048, 2048)).not.toThrow();
    expect(() => checkContext(2049, 2048)).toThrow(
      "Expected at most 2048 tokens (the model's context), found 2049.",
    );
  });
});

describe("hashPrompts", () => {
  it("is 64-bit FNV-1a of lengths and ids", () => {
    expect(hashPrompts([])).toBe("cbf29ce484222325");
    // Computed apart, over the bytes 03 00 00 00 01 00 00 00 02 01 00 00 ff ff 0f 00.
    expect(hashPrompts([{ ids: [1, 258, 0xfffff] }])).toBe("88b1c6ca5923e787");
  });

  it("tells ids, their order, and how they are shared out from each other", () => {
    const hash = (...prompts: number[][]) => hashPrompts(prompts.map((ids) => ({ ids })));
    const hashes = [
      hash([1, 2]),
      hash([2, 1]),
      hash([1], [2]),
      hash([1, 2], []),
      hash([], [1, 2]),
      hash([1, 2, 0]),
    ];
    expect(new Set(hashes).size).toBe(hashes.length);
    expect(hash([1, 2])).toBe(hash([1, 2]));
  });
});
