import { expect, test } from "vitest";
import { ITEMS, TASK_WORDS } from "../../scripts/known-circuit/facts.ts";
import { findSubspace, type InterchangePair } from "../../src/analysis/find-subspace.ts";
import { answerOf, examplesOf, loadVariant, prompt, says } from "../helpers/known-circuit.ts";

const model = await loadVariant("rotated");

/** A question behind examples of one task, and another behind those of another: the first, were its task the other. */
const pairs: InterchangePair[] = Array.from({ length: 60 }, (_, i) => {
  const [item, other] = [ITEMS[(7 * i) % 100]!, ITEMS[(13 * i + 31) % 100]!];
  const own = i % TASK_WORDS.length;
  const task = (own + 1 + (Math.floor(i / 3) % 2)) % TASK_WORDS.length;
  return {
    base: prompt(model, item, examplesOf(own, item, 3)),
    source: prompt(model, other, examplesOf(task, other, 3)),
    expected: answerOf(task, item),
  };
});

test("finds", async () => {
  for (const layer of [2, 4, 7]) {
    const t = Date.now();
    const found = await findSubspace(model, pairs, { site: `resid_post.${layer}`, at: -1, rank: 2, steps: 40, learningRate: 0.01 });
    console.log(layer, found.accuracyBefore, found.accuracyAfter, found.accuracyWhole, found.losses.map((x) => x.toFixed(2)).join(" "), Date.now() - t, model.config.width);
  }
}, 200000);
