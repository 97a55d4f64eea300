import type { PictureRef } from "../../pictures/picture-ref.ts";
import type { PromptDoc, TaskPrompt, WrittenPrompt } from "../../prompts/prompt-doc.ts";
import { type Program, text } from "./program.ts";

/** The name of a prompt in the program. */
export function promptCode(program: Program, prompt: PromptDoc, hint = "prompt"): string {
  return program.define(`prompt ${JSON.stringify(prompt)}`, hint, () =>
    prompt.kind === "task" ? fromTask(program, prompt) : fromPieces(program, prompt),
  );
}

function fromPieces(program: Program, { pieces, chat }: WrittenPrompt): string {
  const parts = pieces.flatMap((piece): { text?: string; picture?: string }[] => {
    if ("picture" in piece) return [{ picture: pictureCode(program, piece.picture) }];
    return piece.text === "" ? [] : [{ text: text(piece.text) }];
  });
  if (!chat) {
    const list = parts.map((part) => part.text ?? part.picture);
    const [only] = list;
    return `model.prompt(${list.length === 1 && parts[0]!.text ? only : `[${list.join(", ")}]`})`;
  }
  const content = parts.map((part) =>
    part.text === undefined
      ? `{ type: "image", image: ${part.picture} }`
      : `{ type: "text", text: ${part.text} }`,
  );
  return `model.chat([{ role: "user", content: [${content.join(", ")}] }], { addGenerationPrompt: true })`;
}

function fromTask(program: Program, prompt: TaskPrompt): string {
  const { input, asked, specify, count, seed } = prompt;
  const task = taskCode(program, prompt.task);
  const question =
    asked === "image" ? pictureCode(program, { kind: "task", task: prompt.task, input }) : text(input);
  if (specify === "none") {
    program.use(["fewShotPrompt"]);
    return `fewShotPrompt(model, [], ${question})`;
  }
  program.use(["poolOf", "promptInContext", "specify"]);
  program.useType("Task", "Question", "SpecificationKind");
  program.helper(`/** A question about an item of a task, behind examples of its own split, or behind the instruction. */
async function askInContext(
  task: Task,
  input: string,
  question: Question,
  options: { kind: SpecificationKind; count?: number; seed?: number },
) {
  const item = task.items.find((each) => each.input === input)!;
  const pool = poolOf(options.kind, task, item.split);
  return promptInContext(model, await specify(model, task, pool, options), pool, item, question);
}`);
  const options =
    specify === "instruction"
      ? `{ kind: "instruction" }`
      : `{ kind: ${text(specify)}, count: ${count}, seed: ${seed} }`;
  return `await askInContext(${task}, ${text(input)}, ${question}, ${options})`;
}

/** A task that comes with xpatch. */
export function taskCode(program: Program, name: string): string {
  return program.define(`task ${name}`, name, () => {
    program.use(["readFile"], "node:fs/promises");
    program.use(["fileURLToPath"], "node:url");
    program.use(["parseTask"]);
    program.helper(`/** A task that comes with xpatch, with its pictures. */
async function readTask(name: string) {
  const folder = new URL("tasks/", import.meta.resolve("xpatch/package.json"));
  const path = fileURLToPath(new URL(\`\${name}.json\`, folder));
  return parseTask(await readFile(path, "utf8"), path);
}`);
    return `await readTask(${text(name)})`;
  });
}

function pictureCode(program: Program, picture: PictureRef): string {
  program.use(["loadImage"]);
  if (picture.kind === "own") {
    return program.define(`picture ${picture.hash}`, picture.name.replace(/\.\w+$/, ""), () => {
      program.line("// The file that was dropped on the page:");
      return `await loadImage(${text(picture.name)})`;
    });
  }
  const { task, input } = picture;
  const name = taskCode(program, task);
  return program.define(
    `picture ${task} ${input}`,
    `${input} picture`,
    () => `await loadImage(${name}.items.find(({ input }) => input === ${text(input)})!.image!)`,
  );
}
