/** A word a token. Spaces between words are dropped, so that `Q:Italy` and `Q: Italy` are the same tokens. */

export const UNKNOWN = "<unk>";
export const START = "<s>";
export const END = "</s>";

const SPECIALS = [UNKNOWN, START, END];

/** Ids by token: the special ones, then `words` in their order. */
export function vocabularyOf(words: readonly string[]): ReadonlyMap<string, number> {
  const tokens = [...SPECIALS, ...words];
  const vocabulary = new Map(tokens.map((token, id) => [token, id]));
  if (vocabulary.size !== tokens.length) throw new Error("expected each word once");
  return vocabulary;
}

/** A tokenizer.json, with START in front of every text, and its tokenizer_config.json. */
export function tokenizerFiles(vocabulary: ReadonlyMap<string, number>): Record<string, object> {
  const id = (token: string) => vocabulary.get(token)!;
  return {
    "tokenizer.json": {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: SPECIALS.map((content) => ({
        id: id(content),
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: null,
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [
          { type: "Split", pattern: { Regex: " +" }, behavior: "Removed", invert: false },
          {
            type: "Split",
            pattern: { Regex: "\\n\\n|\\n|:|[A-Za-z]+" },
            behavior: "Isolated",
            invert: false,
          },
        ],
      },
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: START, type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        pair: [
          { SpecialToken: { id: START, type_id: 0 } },
          { Sequence: { id: "A", type_id: 0 } },
          { Sequence: { id: "B", type_id: 1 } },
        ],
        special_tokens: { [START]: { id: START, ids: [id(START)], tokens: [START] } },
      },
      decoder: { type: "Fuse" },
      model: {
        type: "BPE",
        dropout: null,
        unk_token: UNKNOWN,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: true,
        byte_fallback: false,
        ignore_merges: true,
        vocab: Object.fromEntries(vocabulary),
        merges: [],
      },
    },
    "tokenizer_config.json": {
      tokenizer_class: "PreTrainedTokenizerFast",
      unk_token: UNKNOWN,
      bos_token: START,
      eos_token: END,
      model_max_length: 512,
    },
  };
}
