import type { TextFamily } from "../family.ts";
import { gemma } from "./gemma.ts";
import { gemma2 } from "./gemma2.ts";
import { gemma3Text } from "./gemma3-text.ts";
import { gptNeox } from "./gpt-neox.ts";
import { gpt2 } from "./gpt2.ts";
import { llama } from "./llama.ts";
import { mistral } from "./mistral.ts";
import { olmo2 } from "./olmo2.ts";
import { opt } from "./opt.ts";
import { persimmon } from "./persimmon.ts";
import { phi3 } from "./phi3.ts";
import { qwen2 } from "./qwen2.ts";
import { qwen3 } from "./qwen3.ts";

/** The decoders of words, each of which may also be inside of a LLaVA. */
export const TEXT_FAMILIES: readonly TextFamily[] = [
  ...[llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3Text],
  ...[gpt2, gptNeox, opt, olmo2, phi3, persimmon],
];
