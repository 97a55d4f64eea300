import { patchOf, sweepLayers } from "#src/analysis/vectors/sweep-layers";
import { extractTaskVectors } from "#src/analysis/vectors/task-vectors";
import { readTask } from "#src/cli/options/task-file";
import { argmax } from "#src/kernels/reduction/reduce";
import type { PatchableModel } from "#src/patching/model";
import { fewShotPrompt } from "#src/tasks/few-shot";
import { scoreTokens } from "#src/tasks/score";
import { askerIn, itemsIn, taskSource } from "#src/tasks/specification";
import { rounded } from "./harness.ts";
import type { JobResult } from "./jobs.ts";

const ITEMS = 12;

/**
 * How the experiments choose a layer: the vectors of text examples in bare questions (about pictures, if the model takes
 * them) about validation items, by `sweepLayers` and the plain way, a full pass for every layer and question. Throws unless
 * every answer, every layer's accuracy and the chosen layer are the same.
 */
export async function layerChoice(model: PatchableModel): Promise<JobResult> {
  const query = model.config.vision ? "image" : "text";
  const task = await readTask("country-capital");
  const items = itemsIn(query, task, "validation").slice(0, ITEMS);
  const { prompts, at } = await taskSource(model, task, "validation", { kind: "text", items: ITEMS });
  using vectors = extractTaskVectors(model, prompts, { at });
  const { layers } = vectors.origin;
  const asked = await askerIn(query, model, items);
  const queries = items.map((item) => fewShotPrompt(model, [], asked(item)));
  /** The next token of a query with one layer patched, by a pass over all of it. */
  const inFull = async (layer: number, q: number) => {
    using next = model.device.scope(() => {
      const { logits } = model.run(queries[q]!, { edits: [patchOf(vectors, layer)] });
      return argmax(logits!, -1);
    });
    return (await next.read())[0]!;
  };
  await inFull(layers[0]!, 0);

  let start = performance.now();
  const { patched, rowLayers, plainRowLayers } = await sweepLayers(model, queries, vectors);
  const sweepSeconds = (performance.now() - start) / 1000;

  start = performance.now();
  const plain: number[][] = [];
  for (const layer of layers) {
    const ids: number[] = [];
    for (const q of queries.keys()) ids.push(await inFull(layer, q));
    plain.push(ids);
  }
  const plainSeconds = (performance.now() - start) / 1000;

  patched.forEach((ids, l) => {
    const other = ids.findIndex((id, q) => id !== plain[l]![q]);
    if (other >= 0)
      throw new Error(`layer-choice: layer ${layers[l]}, ${items[other]!.input}: other answers`);
  });
  const accuracies = patched.map((ids) => scoreTokens(model.tokenizer, items, ids).accuracy);
  const best = Math.max(...accuracies);
  return {
    name: "layer-choice",
    query,
    questions: items.length,
    layers: layers.length,
    layer: layers[accuracies.indexOf(best)]!,
    accuracy: rounded(best),
    sweepSeconds: rounded(sweepSeconds),
    plainSeconds: rounded(plainSeconds),
    ratio: { seconds: rounded(sweepSeconds / plainSeconds), rowLayers: rounded(rowLayers / plainRowLayers) },
  };
}
