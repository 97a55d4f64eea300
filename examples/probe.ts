/**
 * A probe on an activation store: in which layers the continent can be read off a country's name, by the nearest class mean.
 *
 *   npm run setup -- model
 *   node scripts/run-ts.mjs examples/probe.ts [model] [folder for the store]
 *
 * Without arguments: the shipped language model, and a temporary folder.
 */
import { mkdtemp, readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type ActivationStore,
  collectActivations,
  itemsOf,
  loadModel,
  openDevice,
  parseTask,
  type SiteName,
} from "../src/index.ts"; // in your own project: from "xpatch"

const [ref = "xpatch:llm", given] = process.argv.slice(2);
const folder = given ?? join(await mkdtemp(join(tmpdir(), "xpatch-probe-")), "store");

const path = "tasks/country-continent.json";
const task = parseTask(await readFile(path, "utf8"), path);
const [train, test] = [itemsOf(task, "train"), itemsOf(task, "test")];
const items = [...train, ...test];
const labels = items.map(({ outputs }) => outputs[0]!);

const device = await openDevice();
const model = await loadModel(ref, { device });
const prompts = items.map(({ input }) => model.prompt(`The country ${input}`));
const store = await collectActivations(model, prompts, folder, { sites: "resid_post.*", at: -1 });
await device.destroy();
console.log(`${store.rows} activations of ${store.prompts} countries, ${new Set(labels).size} continents`);

// What follows reads the store alone: one site at a time is in memory.
const most = Math.max(...[...new Set(labels)].map((label) => count(train.length, items.length, label)));
console.log(`right of ${test.length} countries that the means are not of:`);
console.log(`always the same  ${((100 * most) / test.length).toFixed(0)} %`);
const accuracies: number[] = [];
for (const site of store.sites) {
  const accuracy = await nearestMean(store, site);
  accuracies.push(accuracy);
  console.log(`${site.padEnd(16)} ${(100 * accuracy).toFixed(0).padStart(3)} %`);
}
console.log(`Read best behind layer ${accuracies.indexOf(Math.max(...accuracies))}.`); // by one country or two: so few say no more

/** The share of test items whose class mean, over the training items, is the nearest by angle, the mean of all taken away. */
async function nearestMean(from: ActivationStore, site: SiteName): Promise<number> {
  const vectors: Float32Array[] = [];
  for await (const { rows, width, vectors: batch, prompts: of } of from.read({ sites: site })) {
    for (let row = 0; row < rows; row++) vectors[of[row]!] = batch.slice(row * width, (row + 1) * width);
  }
  const seen = vectors.slice(0, train.length);
  const centre = mean(seen);
  const classes = [...new Set(labels)].map((label) => {
    return { label, mean: minus(mean(seen.filter((_, i) => labels[i] === label)), centre) };
  });
  const right = vectors.slice(train.length).filter((vector, i) => {
    const scores = classes.map((one) => cosine(minus(vector, centre), one.mean));
    return classes[scores.indexOf(Math.max(...scores))]!.label === labels[train.length + i];
  });
  return right.length / test.length;
}

function count(from: number, to: number, label: string): number {
  return labels.slice(from, to).filter((one) => one === label).length;
}

function mean(vectors: readonly Float32Array[]): Float32Array {
  return vectors[0]!.map((_, i) => vectors.reduce((sum, vector) => sum + vector[i]!, 0) / vectors.length);
}

function minus(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((x, i) => x - b[i]!);
}

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, v, i) => sum + v * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}
