import type { Tokenizer } from "../../model/prompt/tokenizer.ts";
import { type ScoredAnswers, scoreTokens } from "../../tasks/score.ts";
import type { Task, TaskItem } from "../../tasks/task.ts";

/** The same questions under the vector of one task, then of another, for the items that both tasks have. */
export interface SwitchedTask {
  /** The other task. */
  readonly task: string;
  /** What the other task has for the questions that both tasks have. */
  readonly items: readonly TaskItem[];
  /** With the first task's vector, scored by its outputs. */
  readonly own: ScoredAnswers;
  /** With the other task's vector, scored by the other task's outputs, and by those of the first. */
  readonly switched: ScoredAnswers;
  readonly unswitched: ScoredAnswers;
  /** Questions that the two vectors give different tokens for. */
  readonly changed: number;
}

/**
 * Tasks that ask about the same things as `items`: those of `tasks` with most of their inputs, at most `count`, and no
 * task twice by its name.
 */
export function relatedTasks(
  name: string,
  items: readonly TaskItem[],
  tasks: readonly Task[],
  count: number,
): Task[] {
  const inputs = new Set(items.map(({ input }) => input));
  return tasks
    .map((task) => ({ task, shared: task.items.filter(({ input }) => inputs.has(input)).length }))
    .filter(({ task, shared }) => task.name !== name && shared > 0)
    .sort((a, b) => b.shared - a.shared || (a.task.name < b.task.name ? -1 : 1))
    .slice(0, count)
    .map(({ task }) => task);
}

/** Scores tokens `own[i]` and `switched[i]` of the question about `items[i]`. */
export function scoreSwitch(
  tokenizer: Tokenizer,
  items: readonly TaskItem[],
  own: readonly number[],
  task: Task,
  switched: readonly number[],
): SwitchedTask {
  const byInput = new Map(task.items.map((item) => [item.input, item]));
  const shared = items.flatMap((item, i) => {
    const other = byInput.get(item.input);
    return other ? [{ item, other, own: own[i]!, switched: switched[i]! }] : [];
  });
  const first = shared.map(({ item }) => item);
  const second = shared.map(({ other }) => other);
  const given = shared.map((row) => row.switched);
  return {
    task: task.name,
    items: second,
    own: scoreTokens(
      tokenizer,
      first,
      shared.map((row) => row.own),
    ),
    switched: scoreTokens(tokenizer, second, given),
    unswitched: scoreTokens(tokenizer, first, given),
    changed: shared.filter((row) => row.own !== row.switched).length,
  };
}
