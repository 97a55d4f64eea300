import type { Comparison, Rule } from "./framework/rule.ts";
import type { Table } from "./report/table.ts";
import { RULES } from "./rules.ts";

/** The rules as docs/experiments.md has them, a row a part of a claim. */
export const RULES_TABLE: Table = {
  name: "rules",
  title: "What each verdict rests on",
  columns: ["experiment", "parts", "part of the claim", "comparisons"],
  rows: Object.entries<Rule>(RULES).flatMap(([experiment, { order, parts }]) =>
    Object.values(parts).map(({ says, comparisons }) => [
      `\`${experiment}\``,
      order,
      says,
      Object.values(comparisons).map(shown).join("; "),
    ]),
  ),
};

function shown({ what, test, size }: Comparison): string {
  if (size === undefined) return what;
  return `${what} (${test === "above" ? "" : "not below −"}${size})`;
}
