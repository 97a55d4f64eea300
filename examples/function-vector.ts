/**
 * A function vector (Todd et al. 2024): the heads that carry a task from its examples to the answer, exactly and estimated by
 * gradients, and what the sum of their outputs does to a bare question, layer by layer.
 *
 *   npm run setup -- model
 *   node scripts/run-ts.mjs examples/function-vector.ts [model] [task file]
 *
 * Without arguments: the shipped model, and countries with their capitals.
 */
import { readFileSync } from "node:fs";
import {
  addVector,
  drawExamples,
  exampleOf,
  fewShotPrompt,
  functionVector,
  itemsOf,
  loadModel,
  logProbability,
  openDevice,
  parseTask,
  patchEach,
  scoreTokens,
} from "../src/index.ts"; // in your own project: from "xpatch"

const [ref = "xpatch:vlm", file = "tasks/country-capital.json"] = process.argv.slice(2);
const device = await openDevice();
const model = await loadModel(ref, { device });
const task = parseTask(readFileSync(file, "utf8"), file);
const [train, asked] = [itemsOf(task, "train"), itemsOf(task, "test").slice(0, 12)];

const examplesFor = (i: number) => drawExamples(train, train[i]!, { count: 5, seed: i });
const shown = train.slice(0, 12).map((item, i) => fewShotPrompt(model, examplesFor(i), item.input));
// Bare questions: from what heads write after examples, they should bring back the answer, of which the first token counts.
const corrupted = train.slice(0, 4).map((item) => {
  const [answer] = model.tokenizer.encode(` ${exampleOf(item).answer}`, { specials: false });
  return { prompt: fewShotPrompt(model, [], item.input), answer: answer! };
});

const options = { corrupted, metric: logProbability, heads: 30 };
const found = await functionVector(model, shown, options);
console.log(`${found}\n`);
const estimate = await functionVector(model, shown, { ...options, method: "attribution" });
const place = ({ layer, head }: { layer: number; head: number }) => `${layer}.${head}`;
const exact = new Set(found.heads.map(place));
const shared = estimate.heads.filter((head) => exact.has(place(head))).length;
console.log(
  `by gradients, ${shared} of these ${exact.size} heads: ${estimate.heads.map(place).join(", ")}\n`,
);

const queries = asked.map(({ input }) => fewShotPrompt(model, [], input));
const layers = [6, 14, 22].filter((layer) => layer < model.config.layers);
const edits = layers.map((layer) => [addVector(`resid_post.${layer}`, -1, found.vector)]);
const { patched, unpatched } = await patchEach(model, queries, edits);
const accuracy = (tokens: readonly number[]) =>
  scoreTokens(model.tokenizer, asked, tokens).accuracy.toFixed(2);
console.log(`bare questions: ${accuracy(unpatched)} right`);
layers.forEach((layer, i) => {
  console.log(`with the vector added behind layer ${layer}: ${accuracy(patched[i]!)}`);
});

model.dispose();
await device.destroy();
