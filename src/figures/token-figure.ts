import { textTable } from "../analysis/text-table.ts";
import {
  aBoolean,
  aListOf,
  anObject,
  anyNumber,
  aString,
  checkArgument,
  checkOptions,
  isList,
  type Options,
} from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import { Figure } from "./figure.ts";
import { showNumber, showToken } from "./text.ts";
import { tokenLinesSpec } from "./vega-lite/token-lines.ts";

/** Titles and the scale of {@link tokenFigure}. */
export interface TokenFigureOptions {
  title?: string;
  caption?: string;
  /** What the numbers are. */
  value?: string;
  /** Whether values have a middle, 0. Default: whether any is below it. */
  diverging?: boolean;
  /** Lines below the title, such as the model's name. */
  lines?: readonly string[];
}

const OPTIONS: Options<TokenFigureOptions> = {
  title: aString,
  caption: aString,
  value: aString,
  diverging: aBoolean,
  lines: aListOf(aString),
};

const someNumbers = aListOf(anyNumber);

/**
 * A text whose tokens stand on the colours of their numbers: attention from a token, what each adds to a logit, a probe's
 * output. `values` has a number for each token; or several lists by name, a block of text each. A number that is not finite has no
 * colour. Throws ArgumentError.
 */
export function tokenFigure(
  tokens: readonly string[],
  values: ArrayLike<number> | Readonly<Record<string, ArrayLike<number>>>,
  options: TokenFigureOptions = {},
): Figure {
  checkArgument("tokenFigure", "tokens", tokens, aListOf(aString));
  checkArgument("tokenFigure", "values", values, isList(values) ? someNumbers : anObject);
  checkOptions("tokenFigure", options, OPTIONS);
  const { title = "", caption = "", value = "value", lines = [] } = options;
  const blocks = Object.entries(
    isList(values) ? { "": values as ArrayLike<number> } : (values as Record<string, ArrayLike<number>>),
  ).map(([name, list]) => {
    checkArgument("tokenFigure", name === "" ? "values" : `values.${name}`, list, someNumbers);
    if (list.length === tokens.length) return { name, list: Array.from(list) };
    throw new ArgumentError(
      `tokenFigure: expected a number for each of ${tokens.length} tokens, found ${list.length}${name && ` of "${name}"`}`,
    );
  });
  if (tokens.length === 0 || blocks.length === 0) {
    throw new ArgumentError("tokenFigure: expected at least one token and one list of numbers, found none");
  }
  const diverging = options.diverging ?? blocks.some(({ list }) => list.some((number) => number < 0));
  const spec = () =>
    tokenLinesSpec({
      title,
      lines,
      value,
      diverging,
      panels: blocks.map(({ name, list }) => ({
        caption: name,
        tokens: tokens.map((token, i) => ({
          shown: JSON.stringify(token).slice(1, -1).replaceAll('\\"', '"'),
          value: list[i]!,
          tooltip: `${showToken(i, token)}: ${showNumber(list[i]!)}`,
        })),
      })),
    });
  const table = textTable([
    ["token", ...blocks.map(({ name }) => name || value)],
    ...tokens.map((token, i) => [showToken(i, token), ...blocks.map(({ list }) => showNumber(list[i]!))]),
  ]);
  return new Figure({ title, caption, text: [title, table].filter(Boolean).join("\n"), spec });
}
