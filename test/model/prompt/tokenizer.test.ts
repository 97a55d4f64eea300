import { readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CheckpointError, PromptError } from "../../../src/errors.ts";
import { TextStream } from "../../../src/model/prompt/text-stream.ts";
import { createTokenizer } from "../../../src/model/prompt/tokenizer.ts";
import { tokenizerStages } from "../../../src/model/prompt/tokenizer-stages.ts";
import { tokenizerJson, tokenizerOf } from "../../helpers/tokenizers.ts";

interface GoldenRow {
  text: string;
  ids: number[];
  ids_no_special: number[];
  tokens: string[];
  decoded: string;
  decoded_skip_special: string;
}

const folder = new URL("../../fixtures/tokenizers/", import.meta.url);
const kinds = readdirSync(folder);
const read = (path: string) => JSON.parse(readFileSync(new URL(path, folder), "utf8"));
const golden = (kind: string): GoldenRow[] => read(`${kind}/golden.json`).rows;

/** The library normalises with Unicode's NFKC where the file has a character map that keeps zero-width joiners. */
const JOINED_EMOJI = "👍🏽 emoji 👨‍👩‍👧";
const LIBRARY_DIFFERS: Record<string, string[]> = { t5: [JOINED_EMOJI], siglip: [JOINED_EMOJI] };

describe.each(kinds)("goldens of the reference implementation: %s", (kind) => {
  const subject = tokenizerOf(kind);
  const rows = golden(kind);

  it("has the ids of every text, with and without special tokens", () => {
    const differing = rows.filter((row) => {
      const ids = [subject.encode(row.text), subject.encode(row.text, { specials: false })];
      return JSON.stringify(ids) !== JSON.stringify([row.ids, row.ids_no_special]);
    });
    expect(differing.map((row) => row.text)).toEqual(LIBRARY_DIFFERS[kind] ?? []);
  });

  it("has the token string of every id, unknown ones aside", () => {
    const unknown = subject.idOf("<unk>") ?? subject.idOf("[UNK]");
    for (const row of rows) {
      for (const [i, id] of row.ids_no_special.entries()) {
        if (id !== unknown) expect(subject.tokenOf(id)).toBe(row.tokens[i]);
      }
    }
  });

  it("decodes the golden ids to the golden text", () => {
    // The library turns CLIP's word ends into blanks, as transformers does; the reference file alone does not.
    const expected = (text: string, trim: boolean) => {
      if (kind !== "clip") return text;
      const spaced = text.replaceAll("</w>", " ");
      return trim ? spaced.trim() : spaced;
    };
    for (const row of rows) {
      expect(subject.decode(row.ids_no_special)).toBe(expected(row.decoded, false));
      expect(subject.decode(row.ids, { skipSpecial: true })).toBe(expected(row.decoded_skip_special, true));
    }
  });
});

const REST = { normalizer: null, post_processor: null };

/** Pieces of Python's `tokenizers`; see scripts/make-text-goldens.py. */
describe("pre-tokenizers cut texts", () => {
  const { cases } = read("../pre-tokenizers.json") as {
    cases: { stage: { type: string }; rows: [text: string, pieces: string[]][] }[];
  };

  it.each(cases.map(({ stage, rows }) => [JSON.stringify(stage), stage, rows] as const))(
    "%s",
    (_, stage, rows) => {
      const model = { type: "WordLevel", vocab: { a: 0 }, unk_token: "a" };
      const json = { model, added_tokens: [], pre_tokenizer: stage, decoder: null, ...REST };
      const { pre_tokenizer: subject } = tokenizerStages(json, {}, new Set());
      for (const [text, pieces] of rows) {
        const found = subject!.pre_tokenize(text, { section_index: 0 });
        expect(
          found.filter((piece) => piece !== ""),
          JSON.stringify(text),
        ).toEqual(pieces);
      }
    },
  );

  it("but not in a way that is not known", () => {
    const model = { type: "WordLevel", vocab: { a: 0 }, unk_token: "a" };
    const pre_tokenizer = { type: "Split", pattern: { String: " " }, behavior: "Sideways" };
    const json = { model, added_tokens: [], pre_tokenizer, decoder: null, ...REST };
    expect(() => tokenizerStages(json, {}, new Set())).toThrow(/known behavior, found .*Sideways/);
  });
});

/** Flags drawn at random, ids of Python's `tokenizers`; see scripts/make-text-goldens.py. */
describe("added tokens with flags", () => {
  const { cases } = read("../added-tokens.json") as {
    cases: { kind: string; added: object[]; rows: [text: string, ids: number[]][] }[];
  };
  const withAdded = (kind: string, added: object[]) => {
    const json = tokenizerJson(kind);
    return createTokenizer({ ...json, added_tokens: [...json.added_tokens, ...added] });
  };

  it.each(cases.map(({ kind, ...rest }, i) => [`${kind} ${i}`, { kind, ...rest }] as const))(
    "%s",
    (_, { kind, added, rows }) => {
      const subject = withAdded(kind, added);
      for (const [text, ids] of rows) {
        expect(subject.encode(text, { specials: false }), JSON.stringify(text)).toEqual(ids);
      }
    },
  );

  it("are single words, take white space along, and are known by their ids", () => {
    const ids = (flags: object, text: string) => {
      const token = { id: 900, content: "<tok>", special: false, normalized: false, ...flags };
      const subject = withAdded("byte-smol", [token]);
      expect([subject.size, subject.tokenOf(900), subject.idOf("<tok>")]).toEqual([901, "<tok>", 900]);
      return subject.encode(text).map((id) => subject.tokenOf(id));
    };
    expect(ids({}, "a<tok>b")).toEqual(["a", "<tok>", "b"]);
    expect(ids({ single_word: true }, "a<tok>b")).toEqual(["a", "<", "t", "o", "k", ">", "b"]);
    expect(ids({ single_word: true }, "-<tok>-")).toEqual(["-", "<tok>", "-"]);
    expect(ids({ lstrip: true, rstrip: true }, "a <tok>\u0085b")).toEqual(["a", "<tok>", "b"]);
    expect(ids({ lstrip: true, rstrip: true }, "\ufeff<tok>")).toEqual(["ï", "»", "¿", "<tok>"]);
  });
});

describe("Tokenizer", () => {
  it.each(kinds.filter((kind) => !["t5", "siglip", "bert", "clip"].includes(kind)))(
    "%s keeps U+FEFF",
    (kind) => {
      const subject = tokenizerOf(kind);
      for (const text of ["\ufeffa", "a\ufeff", "a \ufeff\ufeff!"]) {
        const ids = subject.encode(text, { specials: false });
        expect(subject.decode(ids).replace(/^ /, "")).toBe(text);
      }
    },
  );

  it.each([
    ["spm-unigram", "ab c"],
    ["spm-unigram", "日"],
    ["spm-bpe", "ab c"],
    ["byte-smol", "日"],
  ])("%s takes a text of 210,000 characters: %s", (kind, unit) => {
    const subject = tokenizerOf(kind);
    const ids = (times: number) => subject.encode(unit.repeat(times), { specials: false });
    const [long, short] = [ids(200).length, ids(100).length];
    const times = 210_000 / unit.length;
    expect(ids(times).length).toBe(long + ((times - 200) / 100) * (long - short));
  });

  it("knows what it puts round a text", () => {
    const framing = (kind: string) => {
      const { prefix, suffix } = tokenizerOf(kind);
      return { prefix, suffix };
    };
    expect(framing("spm-bpe")).toEqual({ prefix: [1], suffix: [] });
    expect(framing("byte-smol")).toEqual({ prefix: [], suffix: [] });
    expect(framing("t5")).toEqual({ prefix: [], suffix: [1] });
    expect(framing("clip")).toEqual({ prefix: [572], suffix: [573] });
  });

  it("reads special tokens as text and as objects, and finds their ids", () => {
    const subject = tokenizerOf("spm-bpe", {
      bos_token: "<s>",
      eos_token: { content: "</s>" },
      add_bos_token: false,
    });
    expect(subject.specialTokens).toEqual({ bos_token: "<s>", eos_token: "</s>" });
    expect([subject.bosId, subject.eosId]).toEqual([1, 2]);
    expect(tokenizerOf("spm-bpe").bosId).toBeUndefined();
    expect(subject.encode("a")[0]).toBe(1);
  });

  it("skips special tokens that only the config names", () => {
    const json = tokenizerJson("byte-smol");
    for (const token of json.added_tokens) token.special = false;
    const ids = createTokenizer(json).encode("a<image>b");
    expect(createTokenizer(json).decode(ids, { skipSpecial: true })).toBe("a<image>b");
    const named = createTokenizer(json, { additional_special_tokens: [{ content: "<image>" }] });
    expect(named.decode(ids, { skipSpecial: true })).toBe("ab");
    // As transformers 5.24 does with each of these.
    for (const config of [{ image_token: "<image>" }, { extra_special_tokens: { image_token: "<image>" } }]) {
      const subject = createTokenizer(json, config);
      expect(subject.specialTokens).toEqual({ image_token: "<image>" });
      expect(subject.decode(ids, { skipSpecial: true })).toBe("ab");
    }
  });

  it("refuses half of a character", () => {
    expect(() => tokenizerOf("byte-smol").encode("ab\ud83d")).toThrow("found a lone surrogate at 2.");
    expect(tokenizerOf("byte-smol").encode("\ud83d\ude00")).toHaveLength(4);
  });

  it("leaves blanks before punctuation alone, whatever the config says", () => {
    const subject = tokenizerOf("byte-smol", { clean_up_tokenization_spaces: true });
    expect(subject.decode(subject.encode("a , b ."))).toBe("a , b .");
  });

  it("decodes ids beyond the vocabulary as nothing and shows them as numbers", () => {
    const subject = tokenizerOf("byte-smol");
    expect(subject.size).toBe(318);
    expect(subject.decode([39, 400, 68])).toBe("He");
    expect(subject.decode([400])).toBe("");
    expect(subject.decode([])).toBe("");
    expect(tokenizerOf("spm-bpe").decode([500, 304])).toBe(tokenizerOf("spm-bpe").decode([304]));
    expect(subject.tokenOf(400)).toBe("<#400>");
    expect(subject.idOf("no such token")).toBeUndefined();
  });

  it("refuses text for which there is no token", () => {
    const json = tokenizerJson("spm-unigram");
    json.model.byte_fallback = false;
    json.model.unk_id = null;
    expect(() => createTokenizer(json).encode("€")).toThrow(PromptError);
  });

  it("spells out unknown text in bytes only where the vocabulary has them all", () => {
    const json = tokenizerJson("spm-unigram");
    const subject = createTokenizer(json);
    const ids = subject.encode("a¿");
    expect(ids.map((id) => subject.tokenOf(id))).toEqual(["▁a", "<0xC2>", "<0xBF>"]);
    json.model.vocab[ids[1]!][0] = "taken away";
    expect(createTokenizer(json).encode("a¿").slice(1)).toEqual([0]);
  });

  it.each(["byte-gpt2", "byte-smol", "byte-llama3", "byte-opt", "spm-gemma"])(
    "%s gives any text back",
    (kind) => {
      const subject = tokenizerOf(kind);
      fc.assert(
        fc.property(fc.string({ unit: "grapheme", maxLength: 40 }), (text) => {
          // The blank of SentencePiece is a letter of its own: a text that holds it comes back with blanks.
          fc.pre(!text.includes("▁"));
          expect(subject.decode(subject.encode(text, { specials: false }))).toBe(text);
        }),
      );
    },
  );

  it("gives any text back from SentencePiece, which puts a blank in front and takes it off again", () => {
    const subject = tokenizerOf("spm-bpe");
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1, maxLength: 40 }), (text) => {
        fc.pre(!text.includes("▁"));
        expect(subject.decode(subject.encode(text, { specials: false }))).toBe(text);
      }),
    );
  });
});

/** Text that is cut into bytes, blanks and words. */
const TEXTS = ["the cat in the house", "été Łódź 日本", " a  b", "👨‍👩‍👧!", "\ufffd\ufeff", "Łódź"];

describe("TextStream", () => {
  it("keeps the blanks between the words of SentencePiece", () => {
    const subject = tokenizerOf("spm-bpe");
    const ids = subject.encode("the cat in the house", { specials: false });
    const stream = new TextStream(subject);
    const pieces = ids.map((id, i) => stream.next(id, i === ids.length - 1));
    expect(pieces.join("")).toBe("the cat in the house");
    expect(pieces).toContain(" ca");
  });

  it("gives a character when its bytes are all there", () => {
    const subject = tokenizerOf("byte-gpt2");
    const stream = new TextStream(subject);
    const ids = subject.encode("aŁ");
    expect(ids.map((id) => subject.tokenOf(id))).toEqual(["a", "Å", "ģ"]);
    expect(ids.map((id) => stream.next(id))).toEqual(["a", "", "Ł"]);
    const cut = new TextStream(subject);
    expect([cut.next(ids[1]!), cut.end(), cut.end()]).toEqual(["", "\ufffd", ""]);
  });

  it.each(kinds)("%s: the pieces joined are the text, for any tokens", (kind) => {
    const subject = tokenizerOf(kind);
    const id = fc.nat({ max: subject.size + 1 });
    const texts = fc.constantFrom(...TEXTS).map((text) => subject.encode(text));
    const sequences = fc.array(
      fc.oneof(
        id.map((one) => [one]),
        texts,
      ),
      { minLength: 1, maxLength: 12 },
    );
    fc.assert(
      fc.property(sequences, (parts) => {
        const ids = parts.flat();
        const stream = new TextStream(subject);
        const pieces = ids.map((one, i) => stream.next(one, i === ids.length - 1));
        expect(pieces.join("")).toBe(subject.decode(ids, { skipSpecial: true }));
      }),
    );
  });

  it.each(kinds)("%s: a prefix is text that is kept, and the first bytes of what follows", (kind) => {
    const subject = tokenizerOf(kind);
    for (const text of TEXTS) {
      const ids = subject.encode(text, { specials: false });
      const whole = new TextEncoder().encode(subject.decode(ids));
      for (const count of ids.keys()) {
        const { text: given, tail } = subject.decodePrefix(ids.slice(0, count));
        const bytes = [...new TextEncoder().encode(given), ...tail];
        if (tail.length === 0) expect(given).toBe(subject.decode(ids.slice(0, count)));
        else expect(bytes).toEqual([...whole.slice(0, bytes.length)]);
      }
    }
  });
});

describe("createTokenizer", () => {
  it("says what to do about a checkpoint without tokenizer.json", () => {
    expect(() => createTokenizer(undefined)).toThrow(/no tokenizer\.json.*tokenizer\.model/);
    expect(() => createTokenizer(undefined)).toThrow(CheckpointError);
  });

  it.each([
    ["an array", []],
    ["text", "tokenizer"],
    ["an object without model", { added_tokens: [] }],
    ["an unknown model", { model: { type: "Magic", vocab: {} } }],
    ["an unknown decoder", { model: { type: "BPE", vocab: {}, merges: [] }, decoder: { type: "Magic" } }],
    ["a model without vocabulary", { model: { type: "BPE" } }],
    ["a damaged added token", { model: { type: "BPE", vocab: {}, merges: [] }, added_tokens: [null] }],
  ])("refuses %s", (_, json) => {
    expect(() => createTokenizer(json)).toThrow(CheckpointError);
    expect(() => createTokenizer(json)).toThrow(/^tokenizer\.json: /);
  });

  it("refuses a post-processor whose token is not in the vocabulary", () => {
    const json = tokenizerJson("spm-bpe");
    json.post_processor.single[0].SpecialToken.id = "<start>";
    expect(() => createTokenizer(json)).toThrow(/"<start>", which the vocabulary does not have/);
  });
});
