import { rankHeads } from "#src/analysis/heads/rank-heads";
import { patchMap } from "#src/analysis/maps/patch-map";
import type { PatchableModel } from "#src/patching/model";
import { bestAndMedian, rounded } from "./harness.ts";
import type { JobResult } from "./jobs.ts";

const EXAMPLES = "Q: Greece\nA: Athens\n\nQ: Japan\nA: Tokyo\n\n";
const POSITIONS = 8;
/** Runs of each; the first compiles kernels and does not count. */
const RUNS = 4;

/** A patch map of all layers and the last positions of two prompts, and the ranking of all heads: each from both prompts to its numbers. */
export async function maps(model: PatchableModel): Promise<JobResult> {
  const promptOf = (name: string) => model.prompt(`${EXAMPLES}Q: ${name}\nA:`);
  const [clean, corrupted] = [promptOf("France"), promptOf("Spain")];
  const positions = Array.from({ length: POSITIONS }, (_, i) => i - POSITIONS);
  const mapSeconds: number[] = [];
  const headSeconds: number[] = [];
  let cells = 0;
  let heads = 0;
  for (let run = 0; run < RUNS; run++) {
    const began = performance.now();
    cells = (await patchMap(model, clean, corrupted, { positions })).values.flat().length;
    const between = performance.now();
    heads = (await rankHeads(model, clean, corrupted)).heads.length;
    if (run === 0) continue;
    mapSeconds.push((between - began) / 1000);
    headSeconds.push((performance.now() - between) / 1000);
  }
  return {
    name: "maps",
    tokens: clean.length,
    map: { cells, medianSeconds: rounded(bestAndMedian(mapSeconds).medianMs) },
    ranking: { heads, medianSeconds: rounded(bestAndMedian(headSeconds).medianMs) },
  };
}
