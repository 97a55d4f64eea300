import {
  byText,
  fewShotPrompt,
  promptInContext,
  type Question,
  type Specification,
  type SpecificationKind,
  type Task,
  type TaskItem,
} from "xpatch";
import type { AskedItemsOf } from "../framework/asked-tasks.ts";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { instructionOf } from "../framework/prompts.ts";
import { answered } from "../framework/scored.ts";
import { layerSweep } from "./layer-sweep.ts";
import { patchTestItems, type TestPatchResult, type TestPromptResult } from "./test-answers.ts";

/** How a described item is asked about: by its description, or, to compare with, by its name. */
export type Asked = "description" | "name";

export interface DenseTextParams {
  readonly task: string;
  readonly specification: SpecificationKind;
  readonly asked: Asked;
}

interface DescribedItem extends TaskItem {
  readonly text: string;
}

/** The test items that are described, but for those whose description has a right answer in it. */
export function describedItems(lab: AskedItemsOf, task: Task): DescribedItem[] {
  const described = lab.pool(task, "test").filter((item) => isDescribed(item) && !isGivenAway(item));
  return lab.items(task, "test", described) as DescribedItem[];
}

/** How many test items are left out, because their description has an answer in it. */
export function givenAway(lab: Lab, task: Task): number {
  return lab.pool(task, "test").filter((item) => isDescribed(item) && isGivenAway(item)).length;
}

function isDescribed(item: TaskItem): item is DescribedItem {
  return item.text !== undefined;
}

/** Scripts that leave no blanks between words. */
const SPACELESS =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;

/** Whether a right answer stands in the description, as a word or words by itself. */
function isGivenAway({ text = "", outputs }: TaskItem): boolean {
  const words = (of: string) =>
    ` ${of
      .toLowerCase()
      .split(/[^\p{L}\p{M}\p{N}]+/u)
      .filter((word) => word !== "")
      .join(" ")} `;
  return outputs.some((output) =>
    SPACELESS.test(output) ? text.includes(output) : words(text).includes(words(output)),
  );
}

/** Described test items of a task, patched in the layer that validation items chose for queries by name. */
export const densePatch = defineCell(
  "dense-patch",
  async (lab, { task: name, specification, asked }: DenseTextParams): Promise<TestPatchResult> => {
    const items = describedItems(lab, lab.task(name));
    const bare = items.map((item) =>
      fewShotPrompt(lab.model, [], questionOf(item, asked), lab.options.template),
    );
    const setup = { task: name, specification, query: "text" } as const;
    return patchTestItems(lab, setup, "model", layerSweep, { items, bare });
  },
);

/** The same items behind their specification. */
export const densePrompt = defineCell(
  "dense-prompt",
  async (
    lab,
    { task: name, specification, asked, seed }: DenseTextParams & { seed: number },
  ): Promise<TestPromptResult> => {
    const task = lab.task(name);
    const items = describedItems(lab, task);
    const { shots: count, template } = lab.options;
    const told: Specification =
      specification === "instruction"
        ? { kind: specification, text: instructionOf(task), template }
        : {
            kind: "examples",
            asked: await lab.asker(task, "test", specification),
            count,
            seed,
            template,
          };
    const pool = lab.pool(task, "test");
    const prompts = items.map((item) =>
      promptInContext(lab.model, told, pool, item, questionOf(item, asked)),
    );
    const answers = await lab.answers(prompts);
    return {
      ...answered(lab.model.tokenizer, items, answers, lab.options),
      prompts: prompts.map(({ text }) => text),
    };
  },
);

function questionOf(item: DescribedItem, asked: Asked): Question {
  return asked === "description" ? item.text : byText(item);
}
