import { decodeStream, type SpecificationKind, softmax, topK } from "xpatch";
import { defineCell } from "../framework/cell.ts";
import { checkReading } from "../framework/readings.ts";
import { vectorsOf } from "./task-vectors.ts";

const TOKENS = 5;

/** The most probable tokens of the task vectors read through the unembedding: `tokens[layer]`, as text. */
export const decodedVectors = defineCell(
  "decoded-vectors",
  async (
    lab,
    { task, specification }: { task: string; specification: SpecificationKind },
  ): Promise<{ tokens: readonly (readonly string[])[]; probabilities: readonly (readonly number[])[] }> => {
    const { model } = lab;
    const vectors = await vectorsOf(lab, { source: "model", task, specification, seed: 0 });
    const width = vectors[0]!.length;
    const flat = new Float32Array(vectors.length * width);
    vectors.forEach((vector, layer) => {
      flat.set(vector, layer * width);
    });
    const scope = model.device.openScope();
    try {
      const top = scope.enter(() => {
        const stream = model.device.tensor(flat, { shape: [vectors.length, width] });
        return topK(softmax(decodeStream(model, stream)), TOKENS);
      });
      const [values, ids] = await model.device.read([top.values, top.indices]);
      for (const layer of vectors.keys()) {
        const read = `the ${specification} vector of ${task}, layer ${layer},`;
        checkReading(values![layer * TOKENS]!, model, read);
      }
      const byLayer = <T>(of: (i: number) => T) =>
        vectors.map((_, layer) => Array.from({ length: TOKENS }, (_, i) => of(layer * TOKENS + i)));
      return {
        tokens: byLayer((i) => model.tokenizer.decode([ids![i]!])),
        probabilities: byLayer((i) => values![i]!),
      };
    } finally {
      scope.dispose();
    }
  },
);
