import { Template } from "@huggingface/jinja";
import { PromptError } from "../../errors.ts";
import { nearestHint } from "../../nearest.ts";
import { type PromptOptions, prompt } from "./build-prompt.ts";
import { type ChatTemplates, pickChatTemplate } from "./find-chat-template.ts";
import type { Prompt } from "./prompt.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** One piece of a message with several; which of them a template takes is up to the template. */
export type ChatContent<Image = unknown> =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "image"; readonly image: Image };

/** A turn of a conversation. Roles are the template's: mostly `system`, `user` and `assistant`. */
export interface ChatMessage<Image = unknown> {
  readonly role: string;
  readonly content: string | readonly ChatContent<Image>[];
}

/** What the template is given beside the messages. */
export interface RenderOptions {
  /** End with what opens the assistant's turn, so that the model answers (default true; transformers: false). */
  readonly addGenerationPrompt?: boolean;
  /**
   * Leave the last message open, for the model to go on with it: its `content`, or the field of this name. Not together
   * with `addGenerationPrompt`, which is then false by default.
   */
  readonly continueFinalMessage?: boolean | string;
  /** JSON schemas of functions that the model may call. */
  readonly tools?: readonly object[];
  /** Texts to answer from, mostly `{ title, text }`. */
  readonly documents?: readonly object[];
  /** Further variables for the template. */
  readonly variables?: Readonly<Record<string, unknown>>;
}

/** How a conversation becomes a prompt; named as in `apply_chat_template` of transformers. */
export interface ChatOptions<Image = unknown> extends Omit<PromptOptions<Image>, "images">, RenderOptions {
  /**
   * `"auto"` (default): as `apply_chat_template` of transformers. A text model's prompt has the special tokens that the
   * template writes, and no others; that of a model with pictures also those of the tokenizer, unless the text begins
   * with BOS. `true`: BOS in front if the text does not begin with it. `false`: nothing is added.
   */
  readonly bos?: boolean | "auto";
}

/** Variables that have an option of their own. */
const RESERVED: Readonly<Record<string, keyof RenderOptions | "messages">> = {
  messages: "messages",
  add_generation_prompt: "addGenerationPrompt",
  continue_final_message: "continueFinalMessage",
};

const OPTIONS = [
  "addGenerationPrompt",
  "continueFinalMessage",
  "tools",
  "documents",
  "variables",
  "bos",
  "spans",
  "imageRules",
];

/** Transformers' mark for where a final message that is to be continued ends. */
const END_MARK = "CONTINUE_FINAL_MESSAGE_TAG ";

/** Names under which a message has its reasoning; templates read the first. */
const REASONING = ["reasoning_content", "thinking", "reasoning"];

type Plain = Record<string, unknown>;

/**
 * The text of a conversation, by a Jinja chat template. The template sees `messages`, `tools`, `documents`,
 * `add_generation_prompt`, and the tokenizer's special tokens (`bos_token`, `eos_token`, …), as in Hugging Face's
 * `apply_chat_template`.
 *
 * @throws PromptError if the template does not parse, refuses the messages or takes no tools or documents; if the final
 *   message that is to be continued is not in the text; and for options that exclude each other
 */
export function renderChat(
  template: string,
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: RenderOptions = {},
): string {
  const { continueFinalMessage = false, variables = {} } = options;
  const { addGenerationPrompt = !continueFinalMessage } = options;
  if (messages.length === 0) throw new PromptError("Expected at least one message, found none.");
  if (continueFinalMessage && addGenerationPrompt) {
    throw new PromptError("Expected addGenerationPrompt or continueFinalMessage, found both.");
  }
  const { tools = null, documents = null, ...others } = variables;
  const given: Plain = { tools: options.tools ?? tools, documents: options.documents ?? documents };
  checkVariables(template, others, given);
  const plain = messages.map(plainMessage);
  const field = continueFinalMessage === true ? "content" : continueFinalMessage;
  const final = field ? markEnd(plain.at(-1)!, field, template) : undefined;
  let text: string;
  try {
    // As Jinja does: a checkout on Windows may have changed them.
    text = new Template(template.replace(/\r\n?/g, "\n")).render({
      ...tokenizer.specialTokens,
      ...others,
      ...given,
      messages: plain,
      add_generation_prompt: addGenerationPrompt,
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new PromptError(`The chat template failed: ${reason}`, { cause });
  }
  return final === undefined ? text : cutBehind(text, final);
}

function checkVariables(template: string, others: Plain, given: Plain): void {
  for (const name of Object.keys(others)) {
    const option = Object.hasOwn(RESERVED, name) ? RESERVED[name] : undefined;
    if (option) throw new PromptError(`Expected ${option} in place of the template variable ${name}.`);
  }
  for (const [name, list] of Object.entries(given)) {
    if (list === null || list === undefined) continue;
    const inside = Array.isArray(list) && list.every((item) => typeof item === "object" && item !== null);
    if (!inside) throw new PromptError(`Expected ${name} to be a list of objects, found ${show(list)}.`);
    if (!new RegExp(`\\b${name}\\b`).test(template)) {
      throw new PromptError(`The chat template does not use ${name}, so they would be lost.`);
    }
  }
}

const show = (value: unknown) => JSON.stringify(value) ?? String(value);

/**
 * A message as the template sees it: without pixels, which it only asks about, without fields that are null, and with
 * reasoning under the names that templates read.
 */
function plainMessage(message: ChatMessage): Plain {
  const { content } = message;
  const plain: Plain = Array.isArray(content)
    ? { ...message, content: content.map(plainPiece) }
    : { ...message };
  for (const [key, value] of Object.entries(plain)) {
    if (value === null || value === undefined) delete plain[key];
  }
  const reasoning = REASONING.map((key) => plain[key]).find((value) => value !== undefined);
  return reasoning === undefined ? plain : { thinking: reasoning, ...plain, reasoning_content: reasoning };
}

function plainPiece(piece: ChatContent): Plain {
  const { type } = piece;
  if (type === "text") return { ...piece };
  if (type === "image" && piece.image) return { type, image: "<image>" };
  const found = type === "image" ? "no image in one of type image" : `one of type ${type}`;
  throw new PromptError(
    `Expected pieces of type text, or of type image with a picture as image, found ${found}.`,
  );
}

/** Marks the end of a message's last text, and returns that text. */
function markEnd(message: Plain, field: string, template: string): string {
  const value = message[field];
  const fields = REASONING.includes(field)
    ? REASONING.filter((key) => value !== undefined && message[key] === value)
    : [field];
  if (!fields.some((key) => template.includes(key))) {
    throw new PromptError(`The chat template does not use ${field}, so it cannot be continued.`);
  }
  const pieces: Plain[] = Array.isArray(value) ? value : [];
  const piece = pieces.findLast(({ text }) => typeof text === "string");
  const text = piece ? piece["text"] : value;
  if (typeof text !== "string") {
    throw new PromptError(`Expected the final message to have text to continue as ${field}, found none.`);
  }
  if (piece) piece["text"] = text + END_MARK;
  else for (const key of fields) message[key] = text + END_MARK;
  return text;
}

function cutBehind(text: string, final: string): string {
  const at = text.lastIndexOf(END_MARK.trimEnd());
  if (at < 0 || !text.includes(final.trim())) {
    throw new PromptError("The chat template leaves the final message out, so it cannot be continued.");
  }
  const kept = text.slice(0, at);
  // Where the template has trimmed the mark's blank, it has trimmed the message.
  return text.startsWith(END_MARK, at) ? kept : kept.trimEnd();
}

/**
 * A prompt from a conversation. Images stand where the template writes their placeholders.
 *
 * @throws PromptError as `renderChat` and `prompt` do, if there is no template, and for an option that does not exist
 */
export function chatPrompt<Image = unknown>(
  templates: ChatTemplates,
  tokenizer: Tokenizer,
  messages: readonly ChatMessage<Image>[],
  options: ChatOptions<Image> = {},
): Prompt<Image> {
  const unknown = Object.keys(options).find((key) => !OPTIONS.includes(key));
  if (unknown !== undefined)
    throw new PromptError(
      `chat: there is no option ${unknown}; expected one of ${OPTIONS.join(", ")}${nearestHint(unknown, OPTIONS)}.`,
    );
  const { bos = "auto", spans, imageRules, ...rendering } = options;
  const takesPictures = imageRules !== undefined;
  const withTools = (rendering.tools ?? rendering.variables?.["tools"] ?? null) !== null;
  const template = pickChatTemplate(templates, withTools, takesPictures);
  const text = renderChat(template, tokenizer, messages, rendering);
  const images = messages.flatMap(({ content }) =>
    Array.isArray(content) ? content.flatMap((piece) => (piece.type === "image" ? [piece.image] : [])) : [],
  );
  const bosToken = tokenizer.specialTokens["bos_token"];
  const written = bosToken !== undefined && text.startsWith(bosToken);
  const added = written || (bos === "auto" && !takesPictures) ? false : bos;
  return prompt(tokenizer, text, { spans, imageRules, images, bos: added });
}
