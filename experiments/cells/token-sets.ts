import type { Task, TaskItem, Tokenizer } from "xpatch";

/** What is looked for in the logit lens, as token ids. */
export interface TokenSets {
  /** The token that the delimiter itself reads as, in whatever prompt: the paper's input. */
  readonly delimiter: readonly number[];
  /** The item's name: another reading of what the input is. */
  readonly input: readonly number[];
  /** Words of the task's name that its items' kind does not share: `capital` of country-capital. */
  readonly task: readonly number[];
  /** The answers of the task's other items: the type of the answer, without the answer. */
  readonly answers: readonly number[];
  readonly answer: readonly number[];
}

export type Target = keyof TokenSets;

export interface Spellings {
  /** Whether a text may begin as written only, and not in small letters as well. */
  readonly caseSensitive?: boolean;
}

export const TARGETS: readonly Target[] = ["delimiter", "input", "task", "answers", "answer"];

/**
 * The sets of an item, none of which shares a token with another. Undefined where the name and the answer begin alike
 * (Mexico → Mexico City), so that they cannot be told apart, and where the tokenizer has no token for how one of them
 * begins: `<unk>` is in no set.
 *
 * @param delimiter - What the delimiter reads as; no token where it is in another set.
 */
export function tokenSets(
  tokenizer: Tokenizer,
  task: Task,
  items: readonly TaskItem[],
  item: TaskItem,
  delimiter?: number,
  spellings: Spellings = {},
): TokenSets | undefined {
  const input = starts(tokenizer, [item.input], spellings);
  const answer = starts(tokenizer, item.outputs, spellings);
  if (input.length === 0 || answer.length === 0 || input.some((id) => answer.includes(id))) return undefined;
  const without = (ids: readonly number[]) => ids.filter((id) => !input.includes(id) && !answer.includes(id));
  const type = typeTokens(tokenizer, task, items, spellings);
  const others = { input, task: without(type.task), answers: without(type.answers), answer };
  const isApart = delimiter !== undefined && !Object.values(others).flat().includes(delimiter);
  return { delimiter: isApart ? [delimiter] : [], ...others };
}

/** The sets that are of a task, not of an item. */
export function typeTokens(
  tokenizer: Tokenizer,
  task: Task,
  items: readonly TaskItem[],
  spellings: Spellings = {},
): Pick<TokenSets, "task" | "answers"> {
  const words = starts(tokenizer, taskWords(task.name), spellings);
  const answers = starts(
    tokenizer,
    items.flatMap(({ outputs }) => outputs),
    spellings,
  );
  return { task: words, answers: answers.filter((id) => !words.includes(id)) };
}

function starts(tokenizer: Tokenizer, texts: readonly string[], spellings: Spellings): number[] {
  return [...new Set(texts.flatMap((text) => firstTokens(tokenizer, text, spellings)))];
}

/** The words of a name after the first, which says what the items are. */
function taskWords(name: string): string[] {
  const words = name.split(/[^\p{L}]+/u).filter((word) => word !== "");
  return words.length > 1 ? words.slice(1) : words;
}

/** How a text may begin: with and without a space, as written and, unless case differs, in small letters. */
function firstTokens(tokenizer: Tokenizer, text: string, { caseSensitive = false }: Spellings): number[] {
  const cases = caseSensitive ? [text] : [text, text.toLowerCase()];
  return cases
    .flatMap((one) => [one, ` ${one}`])
    .flatMap((spelling) => {
      const ids = tokenizer.encode(spelling, { specials: false });
      const first = ids.find((id) => tokenizer.decode([id]).trim() !== "");
      return first === undefined || first === tokenizer.unknownId ? [] : [first];
    });
}
