import { pngUri } from "../../figures/data-uri.ts";
import { html, type Markup } from "../../figures/markup.ts";
import { loadImage } from "../../images/files/load.ts";
import { modelView } from "../../images/preprocess.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import { showSetting } from "../../patching/setting.ts";
import { isCorrect } from "../../tasks/correct.ts";
import type { Score } from "../../tasks/score.ts";
import type { TaskItem } from "../../tasks/task.ts";
import { quote, showPercent } from "../terminal/layout.ts";
import type { DemoReport } from "./demo.ts";
import { costLines, namingLine, sourceLines, switchRows, wayNames } from "./demo-text.ts";

/** The pictures of shown items as the model sees them, by their files: URLs that hold the picture. */
type Thumbnails = ReadonlyMap<string, string>;

/** The report of `xpatch demo` as an HTML page that needs no other file and no network. */
export async function demoPage(report: DemoReport, model: LanguageModel): Promise<string> {
  const pictures = await thumbnails(report, model);
  const { task, sweep, patched } = report;
  const [before, after] = sourceLines(report);
  const page = html`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${`xpatch: ${task}`}</title>
<style>${STYLE}</style>
<main>
<h1>${task}</h1>
<p class="setting">${showSetting(report)}</p>
<h2>Answers</h2>
<p>${`The first test items, ticked by what is shown. The vector is that of layer ${sweep.best}.`}</p>
${answersTable(report, pictures)}
<h2>Test</h2>
<p>${`${patched.total} items that chose nothing, one new token each.`}</p>
${scoresTable(report)}
${report.switched.length > 0 ? switchSection(report, pictures) : html``}
<h2>Task vector</h2>
<p>${before}:</p>
<pre>${report.prompt}</pre>
<p>${after}</p>
<h2>Layers</h2>
<p>${`The vector of one layer in the bare question ${quote(report.question)}; ${sweep.layers[0]!.total} validation items.`}</p>
${sweepTable(report)}
<p class="setting">${costLines(report).join(" ")}</p>
</main>
</html>
`;
  return page.text;
}

async function thumbnails({ query, shown }: DemoReport, model: LanguageModel): Promise<Thumbnails> {
  const { vision } = model.config;
  if (query === "text" || !vision) return new Map();
  return new Map(
    await Promise.all(
      shown.map(async ({ item }): Promise<[string, string]> => {
        const view = modelView(await loadImage(item.image!), vision.processor);
        return [item.image!, pngUri(view)];
      }),
    ),
  );
}

function questionCell({ input, image }: Pick<TaskItem, "input" | "image">, pictures: Thumbnails): Markup {
  const picture = image === undefined ? undefined : pictures.get(image);
  const name = html`<div>${input}</div>`;
  return html`<th scope="row">${picture === undefined ? name : html`<img src="${picture}" alt="">${name}`}</th>`;
}

function answerCell(text: string, right: boolean): Markup {
  return right ? html`<td class="right">${text} ✓</td>` : html`<td>${text}</td>`;
}

function answersTable({ shown }: DemoReport, pictures: Thumbnails): Markup {
  const rows = shown.map(
    ({ item, noContext, prompted, patched }) => html`<tr>${questionCell(item, pictures)}
${[noContext, prompted, patched].map((text) => answerCell(text, isCorrect(text, item.outputs)))}
<td class="expected">${item.outputs[0]!}</td></tr>
`,
  );
  return html`<table class="answers"><tr><th></th><th>no context</th><th>prompt</th><th>patch</th><th>expected</th></tr>
${rows}</table>`;
}

function barCell(fraction: number): Markup {
  return html`<td class="bar"><div style="width: ${(100 * fraction).toFixed(1)}%"></div></td>`;
}

function scoresTable(report: DemoReport): Markup {
  const names = wayNames(report);
  const row = (name: string, { accuracy, correct, total, distinct, constant }: Score) => html`<tr>
<th scope="row">${name}</th>${barCell(accuracy)}<td class="number">${showPercent(accuracy)}</td>
<td class="number">${correct}/${total}</td><td class="number">${distinct}</td>
<td class="number">${showPercent(constant)}</td></tr>
`;
  const { majority } = report.patched;
  return html`<table class="numbers"><tr><th></th><th></th><th>accuracy</th><th>correct</th><th>distinct</th><th>constant</th></tr>
${row(names.noContext, report.noContext)}${row(names.prompted, report.prompted)}${row(names.patched, report.patched)}
<tr><th scope="row">majority: always the most frequent output</th>${barCell(majority)}
<td class="number">${showPercent(majority)}</td><td></td><td></td><td></td></tr></table>
<p class="setting">distinct: different answers given; constant: what the best of them would score, were it always given.
${report.query === "image" ? namingLine(report.named) : ""}</p>`;
}

function switchSection(report: DemoReport, pictures: Thumbnails): Markup {
  const { task, switched } = report;
  const rows = switchRows(report).map(
    ({ item, answers }) => html`<tr>${questionCell(item, pictures)}
${answers.map(({ text, right }) => answerCell(text, right))}</tr>
`,
  );
  const scores = switched.map(
    ({ task: other, items, changed, switched: by, unswitched }) => html`<tr><th scope="row">${other}</th>
<td class="number">${changed}/${items.length}</td>
<td class="number">${showPercent(by.accuracy)} (${by.correct}/${by.total})</td><td class="number">${by.distinct}</td>
<td class="number">${showPercent(by.constant)}</td><td class="number">${showPercent(by.majority)}</td>
<td class="number">${showPercent(unswitched.accuracy)} (${unswitched.correct}/${unswitched.total})</td></tr>
`,
  );
  const heads = [task, ...switched.map((other) => other.task)].map((name) => html`<th>${name}</th>`);
  return html`<h2>Task switch</h2>
<p>The same questions with the vectors of other tasks.</p>
${
  rows.length > 0
    ? html`<table class="answers"><tr><th></th>${heads}</tr>
${rows}</table>`
    : html``
}
<table class="numbers"><tr><th>vector of</th><th>changed</th><th>right</th><th>distinct</th><th>constant</th><th>majority</th>
<th>right for ${task}</th></tr>
${scores}</table>`;
}

function sweepTable({ sweep: { layers, best } }: DemoReport): Markup {
  const rows = layers.map(
    ({
      layer,
      accuracy,
      correct,
      total,
      distinct,
      constant,
    }) => html`<tr${layer === best && correct > 0 ? html` class="best"` : html``}>
<th scope="row">${layer}</th>${barCell(accuracy)}<td class="number">${correct}/${total}</td>
<td class="number">${distinct}</td><td class="number">${showPercent(constant)}</td></tr>
`,
  );
  return html`<table class="sweep numbers"><tr><th>layer</th><th></th><th>correct</th><th>distinct</th><th>constant</th></tr>
${rows}</table>`;
}

const STYLE = html`
:root { color-scheme: light dark; --line: #8884; --right: #2a9d5c; --bar: #4878d0; }
body { margin: 0; font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 56em; margin: 2em auto; padding: 0 1em; }
h1 { margin-bottom: 0; } h2 { margin: 1.6em 0 0.3em; font-size: 1.15em; }
.setting { color: #888; font-size: 0.9em; }
table { border-collapse: collapse; margin: 0.6em 0; }
th, td { padding: 0.25em 0.8em; text-align: left; font-weight: normal; border-bottom: 1px solid var(--line); }
tr:first-child th { color: #888; font-size: 0.9em; }
.numbers tr:first-child th:not(:first-child) { text-align: right; }
.answers td, .answers th { vertical-align: middle; }
.answers img { display: block; width: 72px; height: 72px; background: #fff; }
.right { color: var(--right); font-weight: 600; } .expected { color: #888; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.bar { width: 12em; } .bar div { height: 0.8em; background: var(--bar); }
.best th, .best td { font-weight: 600; } .sweep th, .sweep td { padding-block: 0.05em; }
pre { white-space: pre-wrap; border-left: 3px solid var(--line); padding-left: 1em; }
`;
