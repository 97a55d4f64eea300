import { defineCell } from "../framework/cell.ts";
import { seedsOf } from "../framework/prompts.ts";
import { cosine, meanOf } from "../statistics/vectors.ts";
import { tasksWith } from "./layer-sweep.ts";
import { type Source, vectorsOf } from "./task-vectors.ts";

/** Cosines by layer. */
export interface LlmSimilarityResult {
  /** Between the two models' vectors of this task. */
  readonly own: readonly number[];
  /** Between the language model's vector of this task and the model's of the others, on average; none for one task. */
  readonly others: readonly number[];
  /**
   * As `own`, of vectors less the mean over the tasks in their own model, which most of a residual stream is. Of other
   * tasks there is none: with the mean removed they are −1 / (tasks − 1) on average, whatever the vectors are.
   */
  readonly centred: readonly number[];
}

/** How alike the text vectors of the model are to those of the language model that it was fine-tuned from. */
export const llmSimilarity = defineCell(
  "llm-similarity",
  async (lab, { task }: { task: string }): Promise<LlmSimilarityResult> => {
    const names = tasksWith(lab, { specification: "text", query: "text" }).map(({ name }) => name);
    const layers = Math.min(lab.layers, lab.stackOf(lab.llm!)!.layers);
    /** `[task][layer]`, means over the seeds. */
    const vectorsIn = async (source: Source) => {
      const ofTasks: Float32Array[][] = [];
      for (const name of names) {
        const bySeed: (readonly Float32Array[])[] = [];
        for (const seed of seedsOf(lab, "text")) {
          bySeed.push(await vectorsOf(lab, { source, task: name, specification: "text", seed }));
        }
        ofTasks.push(
          Array.from({ length: layers }, (_, layer) => meanOf(bySeed.map((vectors) => vectors[layer]!))),
        );
      }
      return ofTasks;
    };
    const [llm, model] = [await vectorsIn("llm"), await vectorsIn("model")];
    const index = names.indexOf(task);
    const own = (a: Float32Array[][], b: Float32Array[][]) =>
      a[index]!.map((vector, layer) => cosine(vector, b[index]![layer]!));
    const foreign = model.filter((_, other) => other !== index);
    return {
      own: own(llm, model),
      others: llm[index]!.flatMap((vector, layer) => {
        const cosines = foreign.map((other) => cosine(vector, other[layer]!));
        return cosines.length === 0 ? [] : [cosines.reduce((sum, c) => sum + c, 0) / cosines.length];
      }),
      centred: own(centred(llm), centred(model)),
    };
  },
);

function centred(ofTasks: readonly Float32Array[][]): Float32Array[][] {
  const means = ofTasks[0]!.map((_, layer) => meanOf(ofTasks.map((vectors) => vectors[layer]!)));
  return ofTasks.map((vectors) =>
    vectors.map((vector, layer) => vector.map((x, i) => x - means[layer]![i]!)),
  );
}
