import type { Modality, Task, TaskItem } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import type { AskedSplit, Lab } from "../framework/lab.ts";
import { queries } from "../framework/prompts.ts";
import { type Answered, answered, beside, type Scored, taskHits } from "../framework/scored.ts";
import type { Table, TableCell } from "../report/table.ts";
import { accuracy, type Hits } from "../statistics/accuracy.ts";

/** How the bare questions of a task are answered: a model that was told no task may name what it sees. */
export const bareAnswers = defineCell(
  "bare-answers",
  async (
    lab,
    { task: name, query, split }: { task: string; query: Modality; split: AskedSplit },
  ): Promise<Answered> => {
    const task = lab.task(name);
    const ids = await lab.answers(await queries(lab, task, split, query));
    return answered(lab.model.tokenizer, lab.items(task, split), ids, lab.options);
  },
);

/** Which of a task's pictures a model names rightly by itself, for all tasks that have pictures. */
export function namingCells(lab: Lab, split: AskedSplit = "test") {
  const pictured = lab.tasks.filter((task) => lab.isPictured(task));
  return pictured.map(({ name: task }) => bareAnswers({ task, query: "image", split }));
}

/** Answers to questions about pictures of a task's items, or of some of them. */
export interface PictureAnswers {
  /** The task that is asked for, whose pictures they are. */
  readonly task: Task;
  /** As they are scored. */
  readonly items: readonly TaskItem[];
  /** By seed. */
  readonly seeds: readonly Scored[];
}

/** Answers that name the item and are not right: regurgitation (Luo et al. 2025). */
export function regurgitated(answers: readonly PictureAnswers[]): Hits {
  return answers.map(({ items, seeds }) => ({
    inputs: items.map(({ input }) => input),
    seeds: seeds.map(({ named, hits }) =>
      items.map((_, i) => (named[i] === "1" && hits[i] === "0" ? "1" : "0")).join(""),
    ),
  }));
}

/** Right and wrong answers about the pictures that the model names rightly without context; undefined if there are none. */
export function givenName(
  lab: Lab,
  answers: readonly PictureAnswers[],
  split: AskedSplit = "test",
): Hits | undefined {
  const kept = answers.flatMap(({ task, items, seeds }) => {
    const { named } = lab.result(bareAnswers({ task: task.name, query: "image", split }));
    const all = lab.items(task, split).filter((_, i) => named[i] === "1");
    const inputs = new Set(all.map(({ input }) => input));
    const places = [...items.keys()].filter((i) => inputs.has(items[i]!.input));
    if (places.length === 0) return [];
    const pick = (text: string) => places.map((i) => text[i]).join("");
    return [
      taskHits(
        places.map((i) => items[i]!),
        seeds.map(({ hits }) => ({ hits: pick(hits) })),
      ),
    ];
  });
  return kept.length > 0 ? kept : undefined;
}

const COLUMNS = [
  "majority",
  "accuracy",
  "names the item instead",
  "accuracy given a right name",
  "distinct answers",
];

/**
 * Beside accuracies of questions about pictures, how many answers name what is seen in place of what is asked, and the
 * accuracy where the model can name it.
 *
 * @param head - Titles of the columns before these.
 * @param rows - With the cells of those, and answers for each task of the mean.
 */
export function namingTable(
  lab: Lab,
  head: readonly string[],
  rows: readonly { readonly head: readonly TableCell[]; readonly answers: readonly PictureAnswers[] }[],
  split: AskedSplit = "test",
): Table[] {
  if (rows.length === 0) return [];
  return [
    {
      name: "naming",
      title:
        "Questions about pictures: answers that name the item and are not right, and accuracy where the bare question is answered by its name",
      columns: [...head, ...COLUMNS],
      rows: rows.map(({ head: cells, answers }) => {
        const hits = answers.map(({ items, seeds }) => taskHits(items, seeds));
        const given = givenName(lab, answers, split);
        const { majority, distinct } = beside(answers.map(({ seeds }) => seeds[0]!));
        return [
          ...cells,
          majority,
          accuracy(hits),
          accuracy(regurgitated(answers)),
          given ? accuracy(given) : "–",
          distinct,
        ];
      }),
    },
  ];
}
