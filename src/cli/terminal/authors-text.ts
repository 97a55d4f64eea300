import { type Difference, type SplitCount, WAYS } from "../../parity/authors.ts";
import { type AnswerCount, type AuthorsReport, countOf } from "../../parity/authors-report.ts";
import { showSetting } from "../../patching/setting.ts";
import { printable, quote, table } from "./layout.ts";

/** The report as text for a terminal: a line a file, the vectors, the differences, a line a direction, the sum. */
export function formatAuthors(report: AuthorsReport): string {
  const { authors, weights, counts, differences, vectors, rule, answers, passed } = report;
  const files = counts.map((count) => [
    directionOf(count),
    `${count.task}, ${count.split}`,
    ...WAYS.map((way) => `${count.same[way]}/${count.compared[way]}`),
  ]);
  const lines = [
    authors,
    showSetting(report),
    weights,
    "",
    table([["", "same answers as the authors' program:", ...WAYS], ...files], [2, 3, 4]),
    "",
    ...vectors.map((check) =>
      check.kind === "tensor"
        ? `${check.name}: max abs ${check.maxAbs.toExponential(1)}, rel norm ${check.relativeNorm.toExponential(1)}, ${check.passed ? "pass" : "FAIL"}`
        : `${check.name}: FAIL`,
    ),
  ];
  if (differences.length > 0) {
    lines.push("", `ties: the authors' token is within ${rule.tie} of the top logit`);
    lines.push(...differences.map(formatDifference));
  }
  const directions = [...new Set(counts.map(directionOf))].map((direction) => {
    const own = countOf(
      counts.filter((count) => directionOf(count) === direction),
      differences.filter((difference) => directionOf(difference) === direction),
    );
    return `${direction}: ${showCount(own)}`;
  });
  const { tolerance } = vectors.find((check) => check.kind === "tensor") ?? {};
  const within = tolerance ? ` within ${tolerance.atol} + ${tolerance.rtol}·|b|` : "";
  const agreed = vectors.filter((check) => check.passed).length;
  lines.push("", ...directions, "");
  lines.push(
    `${passed ? "pass" : "FAIL"}: ${showCount(answers)}; ${agreed} of ${vectors.length} sets of task vectors${within}`,
  );
  return lines.join("\n");
}

function directionOf({ examples, query }: Pick<SplitCount, "examples" | "query">): string {
  return `${examples} → ${query}`;
}

function showCount({ compared, same, ties }: AnswerCount): string {
  const n = (count: number) => count.toLocaleString("en");
  const others = compared - same - ties;
  return `${n(same)} of ${n(compared)} answers the same, ${n(ties)} ties, ${n(others)} other differences`;
}

function formatDifference(difference: Difference): string {
  const { task, split, input, way, layer, expected, found, margin, tie } = difference;
  const where = `${directionOf(difference)} ${task}, ${split}, ${printable(input)}, ${way}`;
  const shown = (text: string) => quote(printable(text));
  return `${tie ? "tie " : "FAIL"} ${where}${layer === undefined ? "" : ` of layer ${layer}`}: theirs ${shown(expected)}, here ${shown(found)}, margin ${margin.toExponential(1)}`;
}
