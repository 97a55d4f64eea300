import type { SwitchedTask } from "../../analysis/vectors/switch.ts";
import type { ShownItem } from "../../analysis/vectors/transfer.ts";
import { showSetting } from "../../patching/setting.ts";
import { isCorrect } from "../../tasks/correct.ts";
import type { Score } from "../../tasks/score.ts";
import { bar, printable, quote, showPercent, table } from "../terminal/layout.ts";
import type { DemoReport, ReadAt } from "./demo.ts";

/** The report of `xpatch demo` for a terminal. */
export function formatDemo(report: DemoReport): string {
  const { switched, html } = report;
  return [
    showSetting(report),
    "",
    formatSource(report),
    "",
    `2. Sweep: that vector, patched into the bare question (${quote(report.question)}) at one layer;` +
      ` ${report.sweep.layers[0]!.total} validation items.`,
    "",
    formatSweep(report),
    "",
    `3. Test: ${report.patched.total} items that had no part in the above, one new token each.`,
    "",
    formatScores(report),
    "",
    "   The first of them at more length, ticked by what is shown:",
    "",
    formatShown(report),
    "",
    ...(switched.length > 0 ? [formatSwitch(report), ""] : []),
    ...costLines(report),
    ...(html === undefined ? [] : [`The same with the pictures: ${html}`]),
    "",
    formatNext(report),
  ].join("\n");
}

function formatSource(report: DemoReport): string {
  const [before, after] = sourceLines(report);
  return `1. ${before}:\n\n     ${quote(report.prompt)}\n\n   ${after}`;
}

const END_NAMES = {
  end: "its last token",
  "encoder's end": "the last token of what the encoder reads",
  "decoder's end": "the last token of what the decoder reads, its start token",
} as const satisfies Record<Exclude<ReadAt, "answer cue">, string>;

/** What the vectors come from, above and below a prompt. */
export function sourceLines(report: DemoReport): [before: string, after: string] {
  const { specification, prompts, shots, readAt } = report;
  const place = END_NAMES[readAt === "answer cue" ? "end" : readAt];
  if (specification === "instruction") {
    return ["Task vectors: the instruction alone", `The activation at ${place}: a vector a layer.`];
  }
  const examples = specification === "image" ? "examples with pictures" : "examples";
  if (readAt !== "answer cue") {
    return [
      `Task vectors: ${prompts} prompts of ${shots} ${examples}, up to the last one's answer`,
      `The mean activation at ${place}: a vector a layer.`,
    ];
  }
  return [
    `Task vectors: ${prompts} prompts of ${shots} ${examples}, each with a question at the end`,
    "The mean activation at the last example's colon, where nothing is known of the question: a vector a layer.",
  ];
}

function formatSweep({ sweep: { layers, best } }: DemoReport): string {
  const rows = layers.map(({ layer, correct, accuracy, distinct, constant }) => [
    `${layer}`,
    `${correct}`,
    `${distinct}`,
    showPercent(constant),
    `${bar(accuracy, 30)}${layer === best && correct > 0 ? " ← best" : ""}`,
  ]);
  return table([["   layer", "correct", "distinct", "constant", ""], ...rows], [0, 1, 2, 3]);
}

/** What each of the three ways is, in words. */
export function wayNames({ specification, shots, sweep }: DemoReport) {
  const context = specification === "instruction" ? "the instruction" : `${shots} examples`;
  return {
    noContext: "no context: the question alone",
    prompted: `prompt: ${context}, then the question`,
    patched: `patch: the question, vector in layer ${sweep.best}`,
  };
}

function formatScores(report: DemoReport): string {
  const { noContext, prompted, patched, named, query } = report;
  const names = wayNames(report);
  const row = (name: string, { accuracy, correct, total, distinct, constant }: Score) => [
    `   ${name}`,
    showPercent(accuracy),
    `${correct}/${total}`,
    `${distinct}`,
    showPercent(constant),
    bar(accuracy, 30),
  ];
  const majority = "   majority: always the most frequent output";
  const rows = [
    ["", "accuracy", "correct", "distinct", "constant", ""],
    row(names.noContext, noContext),
    row(names.prompted, prompted),
    row(names.patched, patched),
    [majority, showPercent(patched.majority), "", "", "", bar(patched.majority, 30)],
  ];
  const lines = [
    table(rows, [1, 2, 3, 4]),
    "   distinct: different answers given; constant: what the best of them would score, were it always given",
  ];
  if (query === "image") lines.push(`   ${namingLine(named)}`);
  return lines.join("\n");
}

/** What the model takes the pictures for. */
export function namingLine({ accuracy, correct, total }: Score): string {
  return `Without context it names the picture: ${showPercent(accuracy)} (${correct}/${total}) are named right.`;
}

function tick(right: boolean): string {
  return right ? "✓" : " ";
}

function formatShown({ shown, query }: DemoReport): string {
  const answer = (text: string, { item }: ShownItem) =>
    `${tick(isCorrect(text, item.outputs))} ${printable(text)}`;
  const rows = shown.map((row) => [
    `   ${printable(row.item.input)}`,
    answer(row.noContext, row),
    answer(row.prompted, row),
    answer(row.patched, row),
    printable(row.item.outputs[0]!),
  ]);
  const asked = query === "image" ? "picture of" : "question";
  return table([[`   ${asked}`, "  no context", "  prompt", "  patch", "expected"], ...rows]);
}

function formatSwitch(report: DemoReport): string {
  const { task, switched, sweep, query } = report;
  const heads = [task, ...switched.map((other) => other.task)].map((name) => `  ${name}`);
  const rows = switchRows(report).map(({ item, answers }) => [
    `   ${printable(item.input)}`,
    ...answers.map(({ text, right }) => `${tick(right)} ${printable(text)}`),
  ]);
  const scores = switched.map(({ task: other, items, changed, switched: by, unswitched }) => [
    `   ${other}`,
    `${changed}/${items.length}`,
    showScore(by),
    `${by.distinct}`,
    showPercent(by.constant),
    showPercent(by.majority),
    showScore(unswitched),
  ]);
  const columns = ["changed", "right", "distinct", "constant", "majority", `right for ${task}`];
  return [
    `4. Task switch: the same ${query === "image" ? "pictures" : "questions"}, layer ${sweep.best}, vectors of other tasks.`,
    "",
    ...(rows.length > 0 ? [table([["", ...heads], ...rows]), ""] : []),
    table([["   vector of", ...columns], ...scores], [1, 2, 3, 4, 5, 6]),
    `   changed: answers that differ from those with the vector of ${task}`,
  ].join("\n");
}

function showScore({ accuracy, correct, total }: Score): string {
  return `${showPercent(accuracy)} (${correct}/${total})`;
}

/** The shown questions that every task has an answer to, with the answers under each task's vector. */
export function switchRows({ shown, switched }: DemoReport) {
  return shown.flatMap(({ item, patched, switched: answers }) => {
    const outputs = switched.map((other) => outputsFor(other, item.input));
    if (!outputs.every((found) => found !== undefined)) return [];
    const all = [
      { text: patched, right: isCorrect(patched, item.outputs) },
      ...answers.map((text, i) => ({ text, right: isCorrect(text, outputs[i]!) })),
    ];
    return [{ item, answers: all }];
  });
}

function outputsFor({ items }: SwitchedTask, input: string): readonly string[] | undefined {
  return items.find((item) => item.input === input)?.outputs;
}

/** Times, and the sweep's work in passes over its questions. */
export function costLines({ seconds, sweep }: DemoReport): string[] {
  const { load, extract, sweep: swept, test } = seconds;
  const show = (value: number) => `${value.toFixed(1)} s`;
  const full = sweep.layers.length + 1;
  const passes = (full * sweep.rowLayers) / sweep.plainRowLayers;
  return [
    `Loading ${show(load)}, extraction ${show(extract)}, sweep ${show(swept)}, test ${show(test)};` +
      ` together ${show(load + extract + swept + test)}.`,
    `The sweep took the work of ${passes.toFixed(1)} forward passes over its questions, in place of ${full}` +
      ` (${sweep.rowLayers} rows × layers of ${sweep.plainRowLayers}).`,
  ];
}

function formatNext({ model, task, query, specification }: DemoReport): string {
  const other = task === "country-currency" ? "animal-young" : "country-currency";
  const kind = specification === "instruction" ? "text" : "instruction";
  const patch =
    query === "image"
      ? `  npx xpatch patch --model ${model} --task ${task} --image picture.png`
      : `  npx xpatch patch --model ${model} --task ${task} --question Italy`;
  return [
    "Next:",
    `  npx xpatch demo ${model} --task ${other}`,
    `  npx xpatch demo ${model} --task ${task} --spec ${kind}`,
    patch,
    "  your own task: docs/tasks.md; all commands: npx xpatch --help",
  ].join("\n");
}
