import type { TaskSummary } from "../../../../src/session/messages/results.ts";
import type { ExplorerDocument } from "../../document/document.ts";
import { SHELF } from "../../vectors/shelf.ts";
import { SEE } from "../../views/see/see-slice.ts";
import { VECTORS } from "../../views/vectors/vectors-slice.ts";
import { TOP } from "../ask-question.ts";
import { partOf, type Question, questionsOf } from "../questions.ts";
import { lensEditsCode, patchCode, vectorsCode } from "./edit-code.ts";
import { Program, text } from "./program.ts";
import { promptCode, taskCode } from "./prompt-code.ts";
import { seeCode } from "./see-code.ts";

/** Where a program finds the model of the page. */
export interface ModelCode {
  /** A folder, URL, hub id or name; the program takes another as its argument. */
  readonly ref: string;
  readonly quantise?: string | undefined;
}

/**
 * A TypeScript program that prints what the view of a document shows, by the public API of xpatch alone. Undefined for a view that
 * asks nothing.
 */
export function writeProgram(
  document: ExplorerDocument,
  tasks: readonly TaskSummary[],
  { ref, quantise }: ModelCode,
): string | undefined {
  const questions = questionsOf(document, tasks);
  const program = new Program();
  program.reserve("device", "model", "answer", "readTask", "vectorsOf", "askInContext", "process", "console");
  program.use(["loadModel", "openDevice"]);
  program.line("const device = await openDevice();");
  const options = quantise === undefined ? "{ device }" : `{ device, quantise: ${text(quantise)} }`;
  program.line(`const model = await loadModel(process.argv[2] ?? ${text(ref)}, ${options});`);
  program.line();
  for (const question of questions) questionCode(program, question);
  const more =
    document.view === "see" ? seeCode(program, partOf(document, SEE), tasks) : sweepCode(program, document);
  if (questions.length === 0 && !more) return undefined;
  program.line();
  program.line("await device.destroy();");
  return program.toString();
}

function questionCode(program: Program, { label, prompt, patch, lens }: Question): void {
  program.use(["logSoftmax"]);
  program.useType("Edit");
  program.helper(`/** Prints the likeliest next tokens and their probabilities. */
async function answer(label: string, prompt: ReturnType<typeof model.prompt>, edits: Edit[] = []) {
  const { logits } = model.run(prompt, { edits });
  const scores = await logSoftmax(logits!).read();
  const ids = Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]!).slice(0, ${TOP});
  const top = ids.map((id) => [model.tokenizer.decode([id]), Math.exp(scores[id]!).toFixed(4)]);
  console.log(JSON.stringify([label, ...top]));
}`);
  const name = promptCode(program, prompt);
  const edits = patch ? `, [${patchCode(program, patch)}]` : lens ? `, ${lensEditsCode(program, lens)}` : "";
  program.line(`await answer(${text(label)}, ${name}${edits});`);
}

/** The accuracy by layer, where the page shows one. */
function sweepCode(program: Program, document: ExplorerDocument): boolean {
  if (document.view !== "vectors") return false;
  const { sweep } = partOf(document, VECTORS);
  const vector = partOf(document, SHELF).vectors.find(({ id }) => id === sweep?.vector);
  if (sweep?.measure !== "accuracy" || !vector || vector.recipe.kind === "mix") return false;
  const { task, asked, items: count } = sweep;
  const vectors = vectorsCode(program, vector.recipe);
  const name = taskCode(program, task);
  program.use(["askerIn", "fewShotPrompt", "itemsIn", "scoreTokens", "sweepLayers"]);
  const items = program.name("items");
  const queries = program.name("queries");
  const swept = program.name("swept");
  program.line();
  program.line(`const ${items} = itemsIn(${text(asked)}, ${name}, "validation").slice(0, ${count});`);
  program.line(`const asker = await askerIn(${text(asked)}, model, ${items});`);
  program.line(`const ${queries} = ${items}.map((item) => fewShotPrompt(model, [], asker(item)));`);
  program.line(`const ${swept} = await sweepLayers(model, ${queries}, ${vectors});`);
  program.line(`${swept}.layers.forEach((layer, l) => {`);
  program.line(`  const { correct, total } = scoreTokens(model.tokenizer, ${items}, ${swept}.patched[l]!);`);
  program.line(`  console.log(JSON.stringify(["layer", layer, correct, total]));`);
  program.line("});");
  return true;
}
