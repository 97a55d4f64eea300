import { Template } from "@huggingface/jinja";
import { PromptError } from "../tensor/errors.ts";
import { type PromptOptions, prompt } from "./build-prompt.ts";
import type { Prompt } from "./prompt.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** One piece of a message with several; which of them a template takes is up to the template. */
export type ChatContent<Image = unknown> =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "image"; readonly image: Image };

export interface ChatMessage<Image = unknown> {
  readonly role: string;
  readonly content: string | readonly ChatContent<Image>[];
}

/** The parsed files of a checkpoint that may hold a chat template; leave out those it does not have. */
export interface ChatTemplateFiles {
  /** chat_template.jinja, as text. */
  readonly jinja?: string;
  /** chat_template.json. */
  readonly json?: unknown;
  /** processor_config.json. */
  readonly processorConfig?: unknown;
  /** tokenizer_config.json. */
  readonly tokenizerConfig?: unknown;
}

export interface ChatOptions<Image = unknown> extends Omit<PromptOptions<Image>, "images"> {
  /** End with what opens the assistant's turn, so that the model answers (default true). */
  readonly addGenerationPrompt?: boolean;
  /** Further variables for the template, such as `tools`. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/**
 * The source of a checkpoint's chat template, or undefined if it has none. A file of its own goes before one
 * inside a config, the processor's before the tokenizer's. Of several named templates it is `name`.
 */
export function findChatTemplate(files: ChatTemplateFiles, name = "default"): string | undefined {
  if (files.jinja !== undefined) return files.jinja;
  for (const file of [files.json, files.processorConfig, files.tokenizerConfig]) {
    const field = (file as { chat_template?: unknown } | null | undefined)?.chat_template;
    if (typeof field === "string") return field;
    if (Array.isArray(field)) return field.find((entry) => entry?.name === name)?.template;
    if (typeof field === "object" && field !== null) return (field as Record<string, string>)[name];
  }
  return undefined;
}

/**
 * The text of a conversation, by a Jinja chat template. The template sees `messages`, `add_generation_prompt`,
 * and the tokenizer's special tokens (`bos_token`, `eos_token`, …), as in Hugging Face's `apply_chat_template`.
 *
 * @throws PromptError if there is no template, it does not parse, or it refuses the messages
 */
export function renderChat(
  template: string | undefined,
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  { addGenerationPrompt = true, variables = {} }: Pick<ChatOptions, "addGenerationPrompt" | "variables"> = {},
): string {
  if (template === undefined) {
    throw new PromptError("The checkpoint has no chat template; write the prompt as plain text instead.");
  }
  try {
    return new Template(template).render({
      ...tokenizer.specialTokens,
      ...variables,
      messages: messages.map(withoutPixels),
      add_generation_prompt: addGenerationPrompt,
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PromptError(`The chat template failed: ${reason}`, { cause });
  }
}

/** Templates ask only that there is an image; its pixels need not be turned into Jinja values. */
function withoutPixels(message: ChatMessage): ChatMessage | { content: object[] } {
  const { content } = message;
  if (typeof content === "string") return message;
  return {
    ...message,
    content: content.map((piece) => (piece.type === "image" ? { type: "image" } : piece)),
  };
}

/**
 * A prompt from a conversation. Images stand where the template writes their placeholders. Unless `bos` says
 * otherwise, special tokens are added as for plain text, but not if the template has written BOS itself.
 *
 * @throws PromptError as `renderChat` and `prompt` do
 */
export function chatPrompt<Image = unknown>(
  template: string | undefined,
  tokenizer: Tokenizer,
  messages: readonly ChatMessage<Image>[],
  options: ChatOptions<Image> = {},
): Prompt<Image> {
  const text = renderChat(template, tokenizer, messages, options);
  const images = messages.flatMap(({ content }) =>
    typeof content === "string"
      ? []
      : content.flatMap((piece) => (piece.type === "image" ? [piece.image] : [])),
  );
  const bosToken = tokenizer.specialTokens["bos_token"];
  const hasBos = bosToken !== undefined && text.startsWith(bosToken);
  return prompt(tokenizer, text, { ...options, images, bos: options.bos ?? (hasBos ? false : "auto") });
}
