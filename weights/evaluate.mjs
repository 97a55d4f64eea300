// The figures of the model card: node weights/evaluate.mjs <validation | test> [--layer L] [--model folder] [--json file]
//
// Vectors come from validation items, by the paper's protocol. On validation the layer with the highest mean over tasks is
// found; the test split is scored with that layer, given by --layer, once. --model is for controls.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import * as xpatch from "xpatch";

const TASKS = [
  "country-capital",
  "country-currency",
  "country-continent",
  "country-language",
  "animal-latin",
  "animal-young",
  "animal-class",
  "food-color",
  "food-type",
  "food-flavor",
];
const OUTSIDE_MEANS = "food-flavor";
const LAYERS = Array.from({ length: 12 }, (_, i) => 14 + i);
const SHOTS = 5;
/** Prompts that a task vector is the mean of. */
const PROMPTS = 12;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { layer: { type: "string" }, model: { type: "string" }, json: { type: "string" } },
});
const split = positionals[0];
if (split !== "validation" && split !== "test") throw new Error("expected: validation or test");
const layers = values.layer === undefined ? LAYERS : [Number(values.layer)];
const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const cache = process.env.XPATCH_CACHE ?? resolve(process.env.HOME, ".cache/xpatch");

const device = await xpatch.openDevice();
const load = (path) => xpatch.loadModel(path, { device });
const vlm = await load(values.model ?? `${root}/weights/vlm`);
const sources = { "VLM, text examples": { model: vlm, kind: "text" } };
const choosing = split === "validation";
const control = values.model !== undefined;
if (!choosing && !control) {
  Object.assign(sources, {
    "VLM, image examples": { model: vlm, kind: "image" },
    "VLM, instruction": { model: vlm, kind: "instruction" },
    "base LLM, text examples": { model: await load(`${root}/weights/llm`), kind: "text" },
    "untouched SmolLM2, text examples": {
      model: await load(`${cache}/models/smollm2-135m-instruct`),
      kind: "text",
    },
  });
}

const tasks = TASKS.map((name) => {
  const file = `${root}/tasks/${name}.json`;
  return xpatch.parseTask(readFileSync(file, "utf8"), file);
});
const rows = [];
const add = (row) => {
  rows.push(row);
  console.log(JSON.stringify(row));
  if (values.json)
    writeFileSync(values.json, `${JSON.stringify({ split, layers, device: device.info, rows }, null, 1)}\n`);
};

if (!control) for (const row of await naming()) add(row);
for (const task of tasks) {
  const vectors = {};
  for (const [name, { model, kind }] of Object.entries(sources)) {
    const source = await xpatch.taskSource(model, task, "validation", { kind, count: SHOTS, items: PROMPTS });
    vectors[name] = xpatch.extractTaskVectors(model, source.prompts, { at: source.at, layers });
  }
  for (const query of ["image", "text"]) {
    const items = query === "image" ? xpatch.picturedItemsOf(task, split) : xpatch.itemsOf(task, split);
    const asked = await xpatch.askerIn(query, vlm, items);
    const queries = items.map((item) => xpatch.fewShotPrompt(vlm, [], asked(item)));
    for (const [name, of] of Object.entries(vectors)) {
      const { unpatched, patched } = await xpatch.sweepLayers(vlm, queries, of, { layers });
      if (name === "VLM, text examples")
        add({ task: task.name, query, method: "no context", ...scored(items, unpatched) });
      layers.forEach((layer, l) => {
        add({ task: task.name, query, method: `patch: ${name}`, layer, ...scored(items, patched[l]) });
      });
    }
    if (!choosing) {
      const pool = xpatch.itemsOf(task, split);
      const ids = [];
      const prompts = items.map((item) =>
        xpatch.fewShotPrompt(vlm, xpatch.drawExamples(pool, item, { count: SHOTS, seed: 0 }), asked(item)),
      );
      for (const part of chunks(prompts, 8)) {
        ids.push(...(await vlm.generate(part, { maxNewTokens: 1 })).map((g) => g.ids[0]));
      }
      add({ task: task.name, query, method: "prompt: text examples", ...scored(items, ids) });
    }
  }
  for (const of of Object.values(vectors)) of.dispose();
}

const counted = rows.filter((row) => row.task && row.task !== OUTSIDE_MEANS);
for (const key of new Set(
  counted.map(({ query, method, layer }) => JSON.stringify([query, method, layer ?? null])),
)) {
  const [query, method, layer] = JSON.parse(key);
  const same = counted.filter((r) => r.query === query && r.method === method && (r.layer ?? null) === layer);
  const mean = (field) => same.reduce((sum, r) => sum + r[field], 0) / same.length;
  add({ mean: same.length, query, method, layer, accuracy: mean("accuracy"), majority: mean("majority") });
}
await device.destroy();

function scored(items, ids) {
  const answers = ids.map((id) => vlm.tokenizer.decode([id], { skipSpecial: true }));
  const { correct, total, accuracy, majority, distinct, constant } = xpatch.scoreAnswers(items, answers);
  return { correct, total, accuracy, majority, distinct, constant };
}

/** Whole names, greedy, of all pictures of the split's style. */
async function naming() {
  const style = split === "test" ? "emojione" : "twemoji";
  const kinds = { flags: new Map(), animals: new Map(), foods: new Map() };
  for (const task of tasks) {
    const kind = task.name.startsWith("country")
      ? "flags"
      : task.name.startsWith("animal")
        ? "animals"
        : "foods";
    for (const { input, emoji } of task.items) {
      // What is an animal and a food counts as an animal.
      if (emoji && !(kind === "foods" && kinds.animals.has(emoji))) kinds[kind].set(emoji, input);
    }
  }
  const found = [];
  for (const [kind, names] of Object.entries(kinds)) {
    let correct = 0;
    let total = 0;
    for (const part of chunks([...names], 32)) {
      const seen = [];
      for (const [emoji, name] of part) {
        const file = `${root}/tasks/pictures/${style}/${emoji}.png`;
        const image = await xpatch.loadImage(file).catch(() => undefined);
        if (image) seen.push({ name, prompt: xpatch.fewShotPrompt(vlm, [], image) });
      }
      if (seen.length === 0) continue;
      const said = await vlm.generate(
        seen.map((s) => s.prompt),
        { maxNewTokens: 9 },
      );
      total += seen.length;
      correct += said.filter(
        (s, i) => s.text.trim().split("\n")[0].toLowerCase() === seen[i].name.toLowerCase(),
      ).length;
    }
    found.push({ naming: kind, style, correct, total, accuracy: correct / total });
  }
  return found;
}

function* chunks(list, size) {
  for (let i = 0; i < list.length; i += size) yield list.slice(i, i + size);
}
