import { PromptError } from "../../errors.ts";
import type { RgbImage } from "../../images/files/rgb.ts";
import type { ModelOutline } from "../../model/language-model.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import type { PromptImage } from "../../model/prompt/prompt-image.ts";
import { type Asker, byText, drawItems, fewShotPrompt } from "../../tasks/few-shot.ts";
import {
  instructionOf,
  poolOf,
  promptInContext,
  type Specification,
  type VectorSource,
  vectorSource,
} from "../../tasks/specification.ts";
import type { Split, TaskItem } from "../../tasks/task.ts";
import type { SpecifySpec } from "../messages/values.ts";
import type { UsableTask } from "./task-shelf.ts";

const DEFAULT_EXAMPLES = 5;

/** How to ask about these items, whose pictures are loaded here where that is how. */
async function askerOf(
  asked: "text" | "image",
  { pictureOf }: UsableTask,
  items: readonly TaskItem[],
): Promise<Asker> {
  if (asked === "text") return byText;
  const pictures = new Map<string, RgbImage>();
  for (const { input } of items) if (!pictures.has(input)) pictures.set(input, await pictureOf(input));
  return ({ input }) => pictures.get(input)!;
}

/** A prompt that asks about each of these items, as `specify` says behind something else or alone. */
export async function taskPrompts(
  model: ModelOutline,
  usable: UsableTask,
  items: readonly TaskItem[],
  asked: "text" | "image",
  specify: SpecifySpec = { kind: "none" },
): Promise<Prompt<PromptImage>[]> {
  const question = await askerOf(asked, usable, items);
  const { kind, template } = specify;
  if (kind === "none") return items.map((item) => fewShotPrompt(model, [], question(item), template));
  const prompts: Prompt<PromptImage>[] = [];
  for (const item of items) {
    const pool = poolOf(kind, usable.task, item.split);
    const specification = await specificationOf(usable, pool, [item], specify);
    prompts.push(promptInContext(model, specification, pool, item, question(item)));
  }
  return prompts;
}

/** The prompts that a task's vector is read from, and where in each; as `taskSource`. */
export async function vectorPrompts(
  model: ModelOutline,
  usable: UsableTask,
  split: Split,
  specify: SpecifySpec,
  most: number,
): Promise<VectorSource> {
  if (specify.kind === "none") throw new PromptError("a task vector needs examples or an instruction");
  const pool = poolOf(specify.kind, usable.task, split);
  const items = pool.slice(0, most);
  return vectorSource(model, await specificationOf(usable, pool, items, specify, true), pool, items);
}

/** With the pictures of the examples that prompts about `items` draw, and of these themselves where they are asked about alike. */
async function specificationOf(
  usable: UsableTask,
  pool: readonly TaskItem[],
  items: readonly TaskItem[],
  { kind, count = DEFAULT_EXAMPLES, seed = 0, template }: SpecifySpec,
  askedAlike = false,
): Promise<Specification> {
  const own = template === undefined ? {} : { template };
  if (kind === "instruction") return { kind, text: instructionOf(usable.task), ...own };
  const drawn = items.flatMap((item) => drawItems(pool, item, { count, seed }));
  const shown = askedAlike ? [...drawn, ...items] : drawn;
  const asked = await askerOf(kind === "image" ? "image" : "text", usable, shown);
  return { kind: "examples", asked, count, seed, ...own };
}
