import { isCorrect, type Score } from "../patching/score.ts";
import type { DemoReport, ShownItem } from "./demo.ts";
import { bar, quote, showPercent, table } from "./layout.ts";
import { formatSetting } from "./session.ts";

/** The report of `xpatch demo` for a terminal. */
export function formatDemo(report: DemoReport): string {
  return [
    formatSetting(report),
    "",
    `1. Task vectors: ${report.prompts} prompts of ${report.shots} examples, each with a question at the end:`,
    "",
    `     ${quote(report.prompt)}`,
    "",
    "   The mean activation at the last example's colon, where nothing is known of the question: a vector a layer.",
    "",
    `2. Sweep: that vector, patched into the bare question ("Q: …\\nA:") at one layer; ${report.sweep[0]!.total} validation items.`,
    "",
    formatSweep(report),
    "",
    `3. Test: ${report.patched.total} items that had no part in the above, one new token each.`,
    "",
    formatScores(report),
    "",
    "   The first of them at more length, ticked by what is shown:",
    "",
    formatShown(report.shown),
    "",
    formatCosts(report),
    "",
    formatNext(report),
  ].join("\n");
}

function formatSweep({ sweep, best }: DemoReport): string {
  const rows = sweep.map(({ layer, correct, accuracy, distinct, constant }) => [
    `${layer}`,
    `${correct}`,
    `${distinct}`,
    showPercent(constant),
    `${bar(accuracy, 30)}${layer === best && correct > 0 ? " ← best" : ""}`,
  ]);
  return table([["   layer", "correct", "distinct", "constant", ""], ...rows], [0, 1, 2, 3]);
}

function formatScores({ noContext, prompted, patched, best, shots }: DemoReport): string {
  const row = (name: string, { accuracy, correct, total, distinct, constant }: Score) => [
    `   ${name}`,
    showPercent(accuracy),
    `${correct}/${total}`,
    `${distinct}`,
    showPercent(constant),
    bar(accuracy, 30),
  ];
  const rows = [
    ["", "accuracy", "correct", "distinct", "constant", ""],
    row("no context: the question alone", noContext),
    row(`prompt: ${shots} examples, then the question`, prompted),
    row(`patch: the question, vector in layer ${best}`, patched),
    [
      "   majority: always the most frequent output",
      showPercent(patched.majority),
      "",
      "",
      "",
      bar(patched.majority, 30),
    ],
  ];
  return [
    table(rows, [1, 2, 3, 4]),
    "   distinct: different answers given; constant: what the best of them would score, were it always given",
  ].join("\n");
}

function formatShown(shown: readonly ShownItem[]): string {
  const answer = (text: string, { expected }: ShownItem) =>
    // Control characters that a model writes must not reach the terminal.
    `${isCorrect(text, expected) ? "✓" : " "} ${text.replace(/\p{C}/gu, "�")}`;
  const rows = shown.map((item) => [
    `   ${item.input}`,
    answer(item.noContext, item),
    answer(item.prompted, item),
    answer(item.patched, item),
    item.expected[0]!,
  ]);
  return table([["   question", "  no context", "  prompt", "  patch", "expected"], ...rows]);
}

function formatCosts({ seconds, rowLayers, plainRowLayers }: DemoReport): string {
  const { load, extract, sweep, test } = seconds;
  const show = (value: number) => `${value.toFixed(1)} s`;
  return [
    `Loading ${show(load)}, extraction ${show(extract)}, sweep ${show(sweep)}, test ${show(test)};` +
      ` together ${show(load + extract + sweep + test)}.`,
    `The sweep computed ${rowLayers} rows × layers; a full pass for every layer and question takes ${plainRowLayers}` +
      ` (${(plainRowLayers / rowLayers).toFixed(1)} times as many).`,
  ].join("\n");
}

function formatNext({ model, task }: DemoReport): string {
  const other = task === "country-currency" ? "animal-young" : "country-currency";
  return [
    "Next:",
    `  npx xpatch demo ${model} --task ${other}`,
    `  npx xpatch extract --model ${model} --task ${task} --out vectors.safetensors`,
    `  npx xpatch lens --model ${model} --prompt "Q: Italy\\nA:"`,
    "  your own task: docs/tasks.md; all commands: npx xpatch --help",
  ].join("\n");
}
