import { PromptError } from "../../errors.ts";

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

/** Sources of chat templates by name; a single one is called `default`. */
export type ChatTemplates = Readonly<Record<string, string>>;

/**
 * A checkpoint's chat templates; none if it has none. Of several files one counts, in the order of transformers 5: that
 * of its processors for a model that takes pictures, that of its tokenizers for others. A file that transformers would
 * not look into comes last.
 */
export function findChatTemplates(files: ChatTemplateFiles, takesPictures: boolean): ChatTemplates {
  const { jinja, json, processorConfig, tokenizerConfig } = files;
  const asFile = jinja === undefined ? undefined : { chat_template: jinja };
  const order = takesPictures
    ? [processorConfig, json, asFile, tokenizerConfig]
    : [asFile, tokenizerConfig, json, processorConfig];
  for (const file of order) {
    const field = (file as { chat_template?: unknown } | null | undefined)?.chat_template;
    if (typeof field === "string") return { default: field };
    if (Array.isArray(field)) return Object.fromEntries(field.map((entry) => [entry?.name, entry?.template]));
    if (typeof field === "object" && field !== null) return field as ChatTemplates;
  }
  return {};
}

/**
 * The template for a conversation: `default`, or where a text model is given tools and has it, `tool_use`.
 * @throws PromptError if there is none
 */
export function pickChatTemplate(
  templates: ChatTemplates,
  withTools: boolean,
  takesPictures: boolean,
): string {
  const name = withTools && !takesPictures && Object.hasOwn(templates, "tool_use") ? "tool_use" : "default";
  const template = Object.hasOwn(templates, name) ? templates[name] : undefined;
  if (typeof template === "string") return template;
  const names = Object.keys(templates);
  throw new PromptError(
    names.length === 0
      ? "The checkpoint has no chat template; write the prompt as plain text instead."
      : `Expected a chat template called default, found ${names.join(", ")}; write the prompt as plain text instead.`,
  );
}
