import { join } from "node:path";
import { writeWhole } from "#src/platform/node-write";
import { addCosts, type Cost, forwardPassEquivalents, NO_COST } from "../framework/cost.ts";
import type { Check, Outcome } from "../framework/experiment.ts";
import type { Lab } from "../framework/lab.ts";
import type { Finished } from "../framework/runner.ts";
import type { Setting } from "../framework/setting.ts";
import { stackNote } from "../framework/stacks.ts";
import type { Figure } from "./figure.ts";
import { escaped } from "./html.ts";
import { drawnFigure } from "./picture.ts";
import { showCell, type Table, type TableCell } from "./table.ts";

const STYLE = `
body { font: 16px/1.5 Georgia, "DejaVu Serif", serif; color: #222; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3, table, figcaption, .verdict, nav, .setting, .command { font-family: "DejaVu Sans", Verdana, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1.5rem; }
h3 { font-size: 1rem; margin-bottom: .3rem; }
table { border-collapse: collapse; font-size: .78rem; margin: .5rem 0 1.5rem; display: block; overflow-x: auto; }
th, td { padding: .25rem .5rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: baseline; }
th { vertical-align: bottom; } td { white-space: nowrap; } td.prose { white-space: normal; }
td.number { font-variant-numeric: tabular-nums; } td small { color: #666; font-size: .68rem; }
summary { font: bold 1rem "DejaVu Sans", Verdana, sans-serif; cursor: pointer; }
figure { margin: 1.5rem 0; overflow-x: auto; } figure svg { max-width: 100%; height: auto; }
figcaption { font-size: .82rem; color: #444; }
.claim { font-style: italic; }
.verdict { font-size: .9rem; padding: .6rem .9rem; border-left: 5px solid; background: #f6f6f6; }
.command { font-size: .78rem; color: #444; } .command code { overflow-wrap: anywhere; }
.setting { font-size: .78rem; color: #444; overflow-wrap: anywhere; } .setting th { vertical-align: baseline; white-space: nowrap; }
`;

const VERDICT_COLOURS: Readonly<Record<Outcome, string>> = {
  replicates: "#009e73",
  "replicates in part": "#e69f00",
  "does not replicate": "#d55e00",
  "too few items to tell": "#0072b2",
  "not testable here": "#888888",
  incomplete: "#888888",
};

/** Rows that a table may have and still be shown unfolded. */
const MOST_ROWS = 14;

/** Writes report.html: the experiments done so far as one page that needs no other file. */
export async function writePage(lab: Lab, finished: readonly Finished[]): Promise<void> {
  const sections: string[] = [];
  for (const [i, one] of finished.entries()) sections.push(await section(lab, one, i + 1));
  const title = `Cross-modal task representations in ${lab.setting.model.name}`;
  const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escaped(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escaped(title)}</h1>
${introduction(lab)}
<h3>Verdicts</h3>
${summary(finished)}
${sections.join("\n")}
</body>
</html>
`;
  await writeWhole(join(lab.folder, "report.html"), page);
}

function introduction(lab: Lab): string {
  const { model, llm, adapter, kernels, versions, options, tasks } = lab.setting;
  const costs = lab.store.records.map(({ cost }) => cost);
  const stack = stackNote(lab);
  const { seeds, promptSeeds, shots, template, validationItems, testItems, layerBy, outsideMeans } = options;
  const { protocol, caseSensitive, pictureWidth } = options;
  const named = ({ name, family, dtypes, layers, hash }: Setting["model"]) =>
    `${name} (${family}, ${layers} layers, ${dtypes.join(" and ")}, SHA-256 ${hash.slice(0, 16)})`;
  const limit = (most: number | undefined) => (most === undefined ? "all" : `at most ${most}`);
  const rows = [
    ["Model", named(model)],
    ...(llm ? [["Language model it came from", named(llm)]] : []),
    ...(stack === undefined ? [] : [["Task vectors", stack]]),
    ["Adapter", `${adapter}, ${kernels} kernels`],
    [
      "Versions",
      Object.entries(versions)
        .map(([name, version]) => `${name} ${version}`)
        .join(", "),
    ],
    ["Tasks", tasks.map(({ name, items }) => `${name} (${items} items)`).join(", ")],
    [
      "Outside of means",
      outsideMeans.filter((name) => tasks.some((task) => task.name === name)).join(", ") || "none",
    ],
    ...(protocol === "paper"
      ? [["Protocol", "the paper's (docs/experiments.md), but for 4-bit weights"]]
      : []),
    ["Right answers", `upper and lower case ${caseSensitive ? "differ" : "are the same"}`],
    ["Pictures", pictureWidth === undefined ? "as they are" : `made ${pictureWidth} pixels wide`],
    ["Prompts", `${shots} examples, template ${JSON.stringify(template)}`],
    [
      "Seeds",
      `${seeds} draws of examples; few-shot prompts of test items with ${promptSeeds}, those of the claim's own difference with all`,
    ],
    ["Items a task", `${limit(validationItems)} for validation, ${limit(testItems)} for test`],
    [
      "Layer chosen by",
      layerBy === "mean" ? "the mean over the tasks on validation items" : "each task's validation items",
    ],
    ["Computed", spent(costs)],
  ];
  const body = rows
    .map(([name, value]) => `<tr><th>${escaped(name!)}</th><td class="prose">${escaped(value!)}</td></tr>`)
    .join("\n");
  return `<p>The claims are those of Luo, Darrell and Bar, “Vision-Language Models Create Cross-Modal Task Representations”
(ICML 2025, arXiv 2410.22330), and some beyond. Accuracies are of one greedy token; brackets are 95 % intervals over different
inputs (tasks may share them) and seeds, n is inputs×seeds. Nothing was chosen on test items. Each verdict follows from a rule
that was written down before: a claim replicates where all that it rests on is clearly above its controls, does not where an
effect of the size stated is excluded, and else there are too few items to tell.</p>
<div class="setting"><table>${body}</table></div>`;
}

function spent(costs: readonly Cost[]): string {
  const total = costs.reduce(addCosts, NO_COST);
  const equivalents = Math.round(forwardPassEquivalents(total)).toLocaleString("en");
  const plain = total.plainPasses.toLocaleString("en");
  return `${equivalents} forward-pass equivalents of the language model, where a full pass for every prompt and patch takes ${plain}`;
}

function summary(finished: readonly Finished[]): string {
  const rows = finished.map(({ experiment: { name, claim }, findings: { verdict } }) =>
    [`<a href="#${name}">${name}</a>`, escaped(claim), outcome(verdict.outcome)]
      .map((cell) => `<td class="prose">${cell}</td>`)
      .join(""),
  );
  return `<table><tr><th>experiment</th><th>claim</th><th>verdict</th></tr>${rows.map((row) => `<tr>${row}</tr>`).join("\n")}</table>`;
}

async function section(lab: Lab, { experiment, findings }: Finished, number: number): Promise<string> {
  const { name, title, claim } = experiment;
  const { preface, verdict, text, figures, tables, controls } = findings;
  const drawn: string[] = [];
  for (const figure of figures) drawn.push(await figureElement(figure));
  return `<section id="${name}">
<h2>${number}. ${escaped(title)}</h2>
${preface === undefined ? "" : `<p>${escaped(preface)}</p>\n`}<p class="claim">${escaped(claim)}</p>
<p class="verdict" style="border-color: ${VERDICT_COLOURS[verdict.outcome]}">${outcome(verdict.outcome)} – ${escaped(verdict.because)}</p>
${verdict.checks.length > 0 ? tableElement(checksTable(verdict.checks)) : ""}
${verdict.sunkBy === undefined ? "" : `<p>What would sink it: ${escaped(verdict.sunkBy)}</p>`}
${text.map((paragraph) => `<p>${escaped(paragraph)}</p>`).join("\n")}
${drawn.join("\n")}
${tables.map(tableElement).join("\n")}
${controls.length > 0 ? `<h3>Controls</h3>\n${controls.map(tableElement).join("\n")}` : ""}
${commandElement(lab, name)}
</section>`;
}

/** What computes the numbers of an experiment again. */
function commandElement(lab: Lab, experiment: string): string {
  const command = lab.command?.(experiment);
  return command === undefined
    ? ""
    : `<p class="command">Every number above is from <code>${escaped(command)}</code></p>`;
}

/** What the verdict rests on. */
function checksTable(checks: readonly Check[]): Table {
  return {
    name: "verdict",
    title: "What the verdict rests on",
    columns: ["part of the claim", "comparison", "value", "has to be", "status"],
    rows: checks.map(({ part, what, estimate, hasToBe, status }) => [
      part,
      what,
      estimate ?? "not there",
      hasToBe,
      status,
    ]),
  };
}

async function figureElement(figure: Figure): Promise<string> {
  const drawn = drawnFigure(figure);
  return `<figure>${await drawn.svg()}<figcaption><b>${escaped(figure.title)}.</b> ${escaped(drawn.caption)}</figcaption></figure>`;
}

function tableElement({ title, columns, rows }: Table): string {
  const body = rows.map((row) => `<tr>${row.map(cellElement).join("")}</tr>`).join("\n");
  const head = columns.map((name) => `<th>${escaped(name)}</th>`).join("");
  const table = `<table><tr>${head}</tr>\n${body}</table>`;
  return rows.length > MOST_ROWS
    ? `<details><summary>${escaped(title)} (${rows.length} rows)</summary>\n${table}</details>`
    : `<h3>${escaped(title)}</h3>\n${table}`;
}

/** An estimate's interval and counts are smaller than its mean. */
function cellElement(cell: TableCell): string {
  const text = escaped(showCell(cell));
  if (typeof cell === "string") return `<td>${text}</td>`;
  return `<td class="number">${text.replace(/ (.+)$/, " <small>$1</small>")}</td>`;
}

function outcome(name: Outcome): string {
  return `<strong style="color: ${VERDICT_COLOURS[name]}">${name}</strong>`;
}
