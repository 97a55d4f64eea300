import type { TaskSummary } from "../../../../src/session/messages/results.ts";
import type { ExplorerDocument } from "../../document/document.ts";
import { pictureKey } from "../../pictures/picture-ref.ts";
import type { PromptDoc } from "../../prompts/prompt-doc.ts";
import { queryOf, rightAnswers } from "../../vectors/query.ts";
import { placeOf, taskOf } from "../../vectors/recipe.ts";
import { SHELF, type ShelfVector } from "../../vectors/shelf.ts";
import { SEE } from "../../views/see/see-slice.ts";
import { type Sweep, VECTORS } from "../../views/vectors/vectors-slice.ts";
import { TOP } from "../ask-question.ts";
import { partOf, type Question, questionsOf } from "../questions.ts";
import { lensEditsCode, patchCode, patcherCode, vectorsCode } from "./edit-code.ts";
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
  program.reserve(
    "device",
    "model",
    "answer",
    "right",
    "readTask",
    "readPlace",
    "vectorsOf",
    "askInContext",
    "beginningOf",
    "process",
    "console",
  );
  program.use(["loadModel", "openDevice"]);
  program.line("const device = await openDevice();");
  const options = quantise === undefined ? "{ device }" : `{ device, quantise: ${text(quantise)} }`;
  program.line(`const model = await loadModel(process.argv[2] ?? ${text(ref)}, ${options});`);
  program.line();
  for (const question of questions) questionCode(program, question);
  const more =
    document.view === "see"
      ? seeCode(program, partOf(document, SEE), tasks)
      : sweepCode(program, document, tasks);
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

/** What the page shows by layer, where it does. */
function sweepCode(program: Program, document: ExplorerDocument, tasks: readonly TaskSummary[]): boolean {
  if (document.view !== "vectors") return false;
  const { sweep, pictures, context } = partOf(document, VECTORS);
  const vector = partOf(document, SHELF).vectors.find(({ id }) => id === sweep?.vector);
  if (!sweep || !vector) return false;
  if (sweep.measure === "accuracy") return accuracyCode(program, sweep, vector);
  const picture = pictures.find((each) => pictureKey(each) === sweep.picture);
  if (!picture) return false;
  let prompt: PromptDoc;
  try {
    prompt = queryOf(picture, context, tasks);
  } catch {
    return false; // the page says so at the picture
  }
  answersCode(program, prompt, vector, rightAnswers(picture, taskOf(vector.recipe), tasks)[0]);
  return true;
}

/** What a question is answered with, by the layer that the vector is put into, and how probable the right answer is. */
function answersCode(
  program: Program,
  prompt: PromptDoc,
  { recipe }: ShelfVector,
  right: string | undefined,
): void {
  const name = promptCode(program, prompt);
  const edit = patcherCode(program, recipe);
  const layers = placeOf(recipe)
    ? "[...Array(model.config.layers).keys()]"
    : `${vectorsCode(program, recipe)}.origin.layers`;
  program.use(["logSoftmax", "record", "resume"]);
  const recorded = program.name("recorded");
  program.line();
  if (right !== undefined) {
    program.helper(`/** The id of the token that an answer begins with behind a question. */
function beginningOf(answer: string) {
  const cue = model.prompt("A:").ids;
  return model.prompt(\`A: \${answer}\`).ids.find((id, i) => id !== cue[i])!;
}`);
    program.line(`const right = beginningOf(${text(right)});`);
  }
  program.line(`const ${recorded} = record(model, [${name}]);`);
  program.line(`for (const layer of ${layers}) {`);
  program.line(`  const { logits } = resume(${recorded}, [{ edits: [${edit("layer")}] }]);`);
  program.line("  const scores = await logSoftmax(logits).read();");
  program.line("  const best = scores.reduce((best, score, id) => (score > scores[best]! ? id : best), 0);");
  const more = right === undefined ? "" : ", Math.exp(scores[right]!).toFixed(4)";
  program.line(
    `  console.log(JSON.stringify(["layer", layer, model.tokenizer.decode([best]), Math.exp(scores[best]!).toFixed(4)${more}]));`,
  );
  program.line("}");
}

/** How often the vector's answers are right, by layer. */
function accuracyCode(program: Program, { task, asked, items: count }: Sweep, vector: ShelfVector): boolean {
  if (placeOf(vector.recipe)) return false; // it has no vector a layer, which the page says
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
