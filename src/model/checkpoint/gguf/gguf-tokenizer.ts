import type { GgufFile } from "./gguf.ts";
import { GgufValues } from "./gguf-values.ts";

/** What `tokenizer.ggml.token_type` calls tokens that are matched in the text before anything else. */
const CONTROL = 3;
const USER_DEFINED = 4;

/** The contents of tokenizer.json and tokenizer_config.json. */
export interface TokenizerFiles {
  readonly tokenizer: object;
  readonly config: object;
}

/**
 * The tokenizer in a GGUF file's metadata, as Hugging Face's files describe it: byte-level BPE with the `smollm`
 * pre-tokenizer (digits one by one, then GPT-2's pattern), no BOS added. Throws CheckpointError for other tokenizers.
 */
export function tokenizerFiles(file: GgufFile): TokenizerFiles {
  const values = new GgufValues(file);
  const model = values.string("tokenizer.ggml.model");
  const pre = values.string("tokenizer.ggml.pre", "default");
  if (model !== "gpt2" || pre !== "smollm") {
    throw values.error(`tokenizer ${model} with pre-tokenizer ${pre}; supported is gpt2 with smollm`);
  }
  for (const key of ["tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"]) {
    if (file.metadata.get(key) === true) throw values.error(`${key} is not supported with this tokenizer`);
  }

  const tokens = values.strings("tokenizer.ggml.tokens");
  const types = values.integers("tokenizer.ggml.token_type");
  if (types.length !== tokens.length) {
    throw values.error(`${tokens.length} tokens, but ${types.length} token types`);
  }
  const vocab = new Map(tokens.map((token, id) => [token, id]));
  if (vocab.size !== tokens.length) throw values.error("the same token occurs twice");
  const merges = values.strings("tokenizer.ggml.merges").map((merge) => {
    const parts = merge.split(" ");
    if (parts.length !== 2) throw values.error(`${JSON.stringify(merge)} is not a merge of two tokens`);
    return parts;
  });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: tokens.flatMap((content, id) =>
      types[id] === CONTROL || types[id] === USER_DEFINED ? [addedToken(id, content, types[id])] : [],
    ),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [{ type: "Digits", individual_digits: true }, byteLevel],
    },
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocab),
      merges,
    },
  };

  const named = (name: string) => {
    const key = `tokenizer.ggml.${name}_token_id`;
    return values.has(key) ? (tokens[values.number(key)] ?? null) : null;
  };
  const config = {
    add_prefix_space: false,
    bos_token: named("bos"),
    eos_token: named("eos"),
    unk_token: named("unknown"),
    pad_token: named("padding"),
    clean_up_tokenization_spaces: false,
    model_max_length: values.size("llama.context_length"),
    tokenizer_class: "GPT2Tokenizer",
    ...(values.has("tokenizer.chat_template") && { chat_template: values.string("tokenizer.chat_template") }),
  };
  return { tokenizer, config };
}

function addedToken(id: number, content: string, type: number) {
  const special = type === CONTROL;
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special };
}
