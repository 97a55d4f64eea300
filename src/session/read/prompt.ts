import { aListOf, aString, checkArgument, checkOptions, type Expected, oneOf } from "../../arguments.ts";
import { ArgumentError, PromptError } from "../../errors.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { ChatMessage } from "../../model/prompt/chat-template.ts";
import type { PromptPart } from "../../model/prompt/image-rules.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { PromptImage } from "../../model/prompt/prompt-image.ts";
import { type Example, fewShotPrompt, instructedPrompt, type Question } from "../../tasks/few-shot.ts";
import type { MessageSpec, PartSpec, PromptSpec, QuestionSpec } from "../messages/values.ts";
import { readPicture } from "./picture.ts";
import { preparePictures } from "./prepare-pictures.ts";
import { readSpecify } from "./specify.ts";
import { taskPrompts } from "./task-prompts.ts";
import type { Work } from "./work.ts";

type Of<Key extends string> = Extract<PromptSpec, Record<Key, unknown>>;

const anything: Expected = { words: "anything", holds: () => true };
/** Lists of a message's own: their items are checked one by one. */
const aList: Expected = { words: "a list", holds: Array.isArray };

/**
 * The prompt of a request: one that has a handle, or made here. Throws PromptError for what the model does not take,
 * ArgumentError for what is no prompt, and ImageError.
 */
export async function readPrompt(
  work: Work,
  model: ModelOutline,
  ref: unknown,
): Promise<Prompt<PromptImage>> {
  if (typeof ref === "string") return model.check(work.kept.get("prompt", ref));
  const prompt = await madeOf(work, model, ref);
  await preparePictures(work, model, [prompt]);
  return prompt;
}

async function madeOf(work: Work, model: ModelOutline, ref: unknown): Promise<Prompt<PromptImage>> {
  if (typeof ref === "object" && ref !== null) {
    if ("parts" in ref) return fromParts(work, model, ref as Of<"parts">);
    if ("chat" in ref) return fromChat(work, model, ref as Of<"chat">);
    if ("ids" in ref) return fromIds(work, model, ref as Of<"ids">);
    if ("question" in ref) return fromQuestion(work, model, ref as Of<"question">);
    if ("task" in ref) return fromTask(work, model, ref as Of<"task">);
  }
  throw new ArgumentError(
    "expected a prompt: a handle of one, or an object with parts, chat, ids, question or task",
  );
}

async function fromParts(work: Work, model: ModelOutline, spec: Of<"parts">): Promise<Prompt<PromptImage>> {
  checkOptions("prompt", spec, { parts: anything, bos: anything, answer: aString }, { name: "the prompt" });
  const { parts, ...options } = spec;
  if (typeof parts === "string") return model.prompt(parts, options);
  checkArgument("prompt", "parts", parts, aList);
  const read: PromptPart<PromptImage>[] = [];
  for (const part of parts as readonly PartSpec[]) {
    const isPicture = typeof part === "object" && part !== null && "image" in part;
    read.push(isPicture ? { image: await readPicture(work, part.image) } : part);
  }
  return model.prompt(read, options);
}

async function fromChat(work: Work, model: ModelOutline, spec: Of<"chat">): Promise<Prompt<PromptImage>> {
  const known = { chat: aList, bos: anything, addGenerationPrompt: anything, continueFinalMessage: anything };
  checkOptions("chat", spec, known, { name: "the prompt", required: ["chat"] });
  const { chat, ...options } = spec;
  const messages: ChatMessage<PromptImage>[] = [];
  for (const message of chat as readonly MessageSpec[]) messages.push(await readMessage(work, message));
  return model.chat(messages, options);
}

async function readMessage(work: Work, message: MessageSpec): Promise<ChatMessage<PromptImage>> {
  const content = message?.content;
  // What is none is refused, in words, by the model.
  if (!Array.isArray(content)) return message as ChatMessage<PromptImage>;
  const pieces = [];
  for (const piece of content as Exclude<MessageSpec["content"], string>) {
    const isPicture = piece?.type === "image";
    pieces.push(isPicture ? { ...piece, image: await readPicture(work, piece.image) } : piece);
  }
  return { ...message, content: pieces };
}

async function fromIds(work: Work, model: ModelOutline, spec: Of<"ids">): Promise<Prompt<PromptImage>> {
  const known = { ids: anything, images: aList, answer: anything };
  checkOptions("prompt", spec, known, { name: "the prompt" });
  const { ids, images = [], answer } = spec;
  const pictures: PromptImage[] = [];
  for (const image of images) pictures.push(await readPicture(work, image));
  return model.promptFromIds(ids, pictures, answer);
}

async function fromQuestion(
  work: Work,
  model: ModelOutline,
  spec: Of<"question">,
): Promise<Prompt<PromptImage>> {
  const known = { question: anything, examples: aList, instruction: aString, template: aString };
  checkOptions("prompt", spec, known, { name: "the prompt" });
  const { examples = [], instruction, template } = spec;
  const question = await readQuestion(work, spec.question);
  if (instruction !== undefined) {
    if (examples.length > 0) throw new PromptError("Expected examples or an instruction, found both.");
    return instructedPrompt(model, instruction, question, template);
  }
  const shown: Example[] = [];
  for (const example of examples) {
    checkArgument("prompt", "an example's answer", example?.answer, aString);
    shown.push({ question: await readQuestion(work, example.question), answer: example.answer });
  }
  return fewShotPrompt(model, shown, question, template);
}

async function readQuestion(work: Work, question: QuestionSpec): Promise<Question> {
  if (typeof question === "string") return question;
  if (typeof question === "object" && question !== null && "image" in question) {
    return readPicture(work, question.image);
  }
  throw new ArgumentError("expected a question: a string, or { image }");
}

async function fromTask(work: Work, model: ModelOutline, spec: Of<"task">): Promise<Prompt<PromptImage>> {
  const known = { task: anything, input: aString, asked: oneOf("text", "image"), specify: anything };
  checkOptions("prompt", spec, known, { name: "the prompt", required: ["task", "input"] });
  const usable = await work.tasks.use(work, spec.task);
  const item = usable.task.items.find(({ input }) => input === spec.input);
  if (!item) {
    throw new PromptError(`task ${usable.task.name} has no item ${JSON.stringify(spec.input.slice(0, 60))}`);
  }
  const [prompt] = await taskPrompts(model, usable, [item], spec.asked ?? "text", readSpecify(spec.specify));
  return prompt!;
}

/** Several prompts. Throws ArgumentError for an empty list. */
export async function readPrompts(
  work: Work,
  model: ModelOutline,
  refs: unknown,
): Promise<Prompt<PromptImage>[]> {
  checkArgument("request", "prompts", refs, aListOf(anything));
  const prompts: Prompt<PromptImage>[] = [];
  for (const ref of refs as unknown[]) {
    work.signal.throwIfAborted();
    prompts.push(await readPrompt(work, model, ref));
  }
  return prompts;
}
