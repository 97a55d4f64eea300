import type { LlamaConfig } from "../../checkpoint/config/decoder-config.ts";
import type { TextFamily } from "../family.ts";
import { buildLlama } from "./llama.ts";
import { QWEN2_DEFAULTS, readQwenConfig } from "./qwen2.ts";

/** Values that Hugging Face's Qwen3Config has where a config.json is silent. */
const DEFAULTS = { ...QWEN2_DEFAULTS, head_dim: 128, attention_bias: false };

/** Qwen 3 (Yang et al. 2025, arXiv 2505.09388): Llama with RMSNorm on the queries and keys of each head. */
export const qwen3: TextFamily<LlamaConfig> = {
  modelType: "qwen3",
  readConfig: (values, where) => ({
    ...readQwenConfig(values, { defaults: DEFAULTS, attentionBias: true }, where),
    qkNorm: true,
  }),
  build: buildLlama,
};
