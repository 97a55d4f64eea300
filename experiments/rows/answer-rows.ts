import { isWholeAnswer, type TaskItem } from "xpatch";
import type { ParquetColumn } from "#src/tables/parquet-writer";
import { describedItems } from "../cells/dense-text.ts";
import { anotherItem } from "../cells/entity.ts";
import { asQuestion } from "../cells/overriding.ts";
import { type Pair, sharedItems } from "../cells/pairs.ts";
import type { AskedItemsOf } from "../framework/asked-tasks.ts";
import type { CellRecord } from "../framework/cell-store.ts";
import type { Setting } from "../framework/setting.ts";
import { type ScoreGroup, scoreGroups, textsOf } from "./score-groups.ts";

/** To be raised whenever a column changes its name, type or meaning. */
export const ANSWERS_SCHEMA = 1;

/** The columns of answers; docs/exchange.md says what they mean. */
export const ANSWER_COLUMNS = [
  { name: "schema", type: "int32" },
  { name: "model", type: "string" },
  { name: "model_hash", type: "string" },
  { name: "experiments", type: "string", nullable: true },
  { name: "cell", type: "string" },
  { name: "task", type: "string" },
  { name: "judge", type: "string" },
  { name: "split", type: "string" },
  { name: "item", type: "string" },
  { name: "specification", type: "string", nullable: true },
  { name: "query", type: "string" },
  { name: "method", type: "string" },
  { name: "variant", type: "string", nullable: true },
  { name: "layer", type: "int32", nullable: true },
  { name: "seed", type: "int32", nullable: true },
  { name: "answer", type: "string", nullable: true },
  { name: "right", type: "boolean" },
  { name: "strict", type: "boolean", nullable: true },
  { name: "first_token", type: "boolean", nullable: true },
  { name: "named", type: "boolean", nullable: true },
  { name: "logprob", type: "float64", nullable: true },
] as const satisfies readonly ParquetColumn[];

export type AnswerRow = Readonly<
  Record<(typeof ANSWER_COLUMNS)[number]["name"], string | number | boolean | null>
>;

export interface RowsOf {
  readonly setting: Setting;
  /** By key. */
  readonly records: readonly CellRecord[];
  readonly asked: AskedItemsOf;
  /** The experiments that a cell is a part of, by its key. */
  readonly experimentsOf: (key: string) => readonly string[];
}

/** Every answer of a run as a row, in the order of the cells' keys. */
export function* answerRows({ setting, records, asked, experimentsOf }: RowsOf): Generator<AnswerRow> {
  const { model, options } = setting;
  const inOrder = [...records].sort((a, b) => (a.key < b.key ? -1 : 1));
  for (const record of inOrder) {
    const experiments = experimentsOf(record.key).join("|") || null;
    for (const group of scoreGroups(record)) {
      const { scores } = group;
      const { items, judge } = itemsOf(record, group, asked);
      const hits = "hits" in scores ? scores.hits : scores.prefix;
      if (items.length !== hits.length) {
        throw new Error(
          `the cell "${record.key}" has ${hits.length} answers, its task ${items.length} items`,
        );
      }
      const texts = textsOf(scores);
      const flag = (marks: string | undefined, i: number) => (marks === undefined ? null : marks[i] === "1");
      for (const [i, { input, outputs }] of items.entries()) {
        const answer = texts?.[i] ?? null;
        const whole =
          answer !== null && isWholeAnswer(answer, outputs, { ignoreCase: !options.caseSensitive });
        yield {
          schema: ANSWERS_SCHEMA,
          model: model.name,
          model_hash: model.hash,
          experiments,
          cell: record.key,
          task: `${record.params["task"]}`,
          judge,
          split: group.split,
          item: input,
          specification: group.specification ?? null,
          query: group.query,
          method: group.method,
          variant: group.variant ?? null,
          layer: group.layer ?? null,
          seed: group.seed ?? null,
          answer,
          right: hits[i] === "1",
          strict: "whole" in scores ? flag(scores.whole, i) : answer === null ? null : whole,
          first_token: flag("firstToken" in scores ? scores.firstToken : undefined, i),
          named: flag("named" in scores ? scores.named : undefined, i),
          logprob: null,
        };
      }
    }
  }
}

/** The items that a group's answers are to, and whose outputs judge them. */
function itemsOf(
  { params }: CellRecord,
  { split, asked: by }: ScoreGroup,
  asked: AskedItemsOf,
): { items: readonly TaskItem[]; judge: string } {
  const judge = `${params["task"]}`;
  const task = asked.task(judge);
  if (by === "question") return { items: asked.items(task, split).map(asQuestion), judge: "question" };
  if (by === "another") {
    const items = asked.items(task, split);
    return { items: items.map((_, i) => items[anotherItem(items, i)]!), judge };
  }
  if (params["other"] !== undefined) {
    const pair = { task: judge, other: `${params["other"]}` } satisfies Pair;
    const shared = sharedItems(asked, pair, split);
    return by === "other" ? { items: shared.other, judge: pair.other } : { items: shared.own, judge };
  }
  return {
    items: params["asked"] === undefined ? asked.items(task, split) : describedItems(asked, task),
    judge,
  };
}
