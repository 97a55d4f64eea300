import {
  drawItems,
  exampleOf,
  fewShotPrompt,
  type Modality,
  mostProbableTokens,
  type Prompt,
  type PromptImage,
  record,
  resume,
  type Tensor,
} from "xpatch";
import { rowLayersOf } from "#src/patching/row-layers";
import { defineCell } from "../framework/cell.ts";
import type { Lab } from "../framework/lab.ts";
import { sample } from "../statistics/random.ts";
import { chosenLayer, patchAt } from "./layer-sweep.ts";
import { vectorsOf } from "./task-vectors.ts";

/** Examples in the prompt; as many as the pool has, where it has fewer. */
const COUNTS = [0, 5, 10, 20, 30] as const;

/** Queries that are measured, each once; fewer items are gone through again. */
const MOST_QUERIES = 12;
const FEWEST_RUNS = 5;

/** How a query can be answered. */
export const WAYS = ["prompt", "patch", "resumed", "further"] as const;

export type Way = (typeof WAYS)[number];

/** What an answer took. */
export interface Work {
  /** Rows of the language model that the answer is computed from: tokens, with those of pictures. */
  readonly tokens: number;
  /** Rows times layers of the language model. */
  readonly rowLayers: number;
  readonly dispatches: number;
  /** Bytes that went from the host to the device. */
  readonly written: number;
  /** Most bytes in use on the device at a time, without the weights and whatever else was there before. */
  readonly peak: number;
}

export interface Measured {
  readonly way: Way;
  /** In the prompt; of the other ways 0, whose vector was made before. */
  readonly examples: number;
  /** By run: the input asked about, what was counted, the token chosen, and the time. */
  readonly runs: readonly (Work & {
    readonly input: string;
    readonly answer: number;
    readonly seconds: number;
  })[];
}

export interface EfficiencyResult {
  readonly layer: number;
  /** Bytes in use before: the weights, above all. */
  readonly resident: number;
  readonly measured: readonly Measured[];
}

/**
 * What it takes to answer a query behind so many text examples; by itself, with a vector patched in; and by a recording
 * that the patched run goes on from, which a further vector in the same query can use again.
 */
export const efficiency = defineCell(
  "efficiency",
  async (lab, { task: name, query }: { task: string; query: Modality }): Promise<EfficiencyResult> => {
    const { model } = lab;
    const task = lab.task(name);
    const setup = { specification: "text", query } as const;
    const layer = chosenLayer(lab, setup, task);
    const vectors = await vectorsOf(lab, { source: "model", task: name, specification: "text", seed: 0 });
    const edits = patchAt(lab, layer, vectors[layer]!);
    const pool = lab.pool(task, "test");
    const ask = await lab.asker(task, "test", query);
    const items = sample(lab.items(task, "test"), MOST_QUERIES);
    const counts = [...new Set(COUNTS.map((count) => Math.min(count, pool.length - 1)))];

    const whereOf = ({ text }: Prompt) => `${model.name}, logits of the prompt ${JSON.stringify(text)}`;
    const whole = (prompt: Prompt<PromptImage>, patched: boolean) => async (): Promise<Done> => {
      using logits = model.run([prompt], patched ? { edits } : {}).logits as Tensor;
      const [answer] = await mostProbableTokens(logits, () => whereOf(prompt));
      return { answer: answer!, tokens: prompt.length, rowLayers: rowLayersOf(model, prompt) };
    };
    const resumed = async (recording: ReturnType<typeof record>): Promise<Done> => {
      const result = resume(recording, [{ edits }]);
      using logits = result.logits;
      const [prompt] = recording.prompts;
      const [answer] = await mostProbableTokens(logits, () => whereOf(prompt!));
      return { answer: answer!, tokens: prompt!.length, rowLayers: result.rowLayers };
    };

    const runs = new Map<string, Measured["runs"][number][]>();
    const { device } = model;
    await device.sync();
    const resident = device.memory.liveBytes;
    const rounds = Math.ceil(FEWEST_RUNS / items.length);
    // The first round is to compile, to allocate and to warm up; it is not kept.
    for (let round = -1; round < rounds; round++) {
      for (const [i, item] of (round < 0 ? items.slice(0, 1) : items).entries()) {
        const bare = fewShotPrompt(model, [], ask(item), lab.options.template);
        const jobs = counts.map((count) => {
          const shown = drawItems(pool, item, { count, seed: Math.max(0, round) }).map((one) =>
            exampleOf(one),
          );
          const prompt = count === 0 ? bare : fewShotPrompt(model, shown, ask(item), lab.options.template);
          return { key: keyOf("prompt", count), run: whole(prompt, false) };
        });
        jobs.push(
          { key: keyOf("patch", 0), run: whole(bare, true) },
          {
            key: keyOf("resumed", 0),
            run: async () => {
              using recording = record(model, [bare]);
              const done = await resumed(recording);
              return { ...done, rowLayers: done.rowLayers + recording.rowLayers };
            },
          },
        );
        using recording = record(model, [bare]);
        jobs.push({ key: keyOf("further", 0), run: () => resumed(recording) });
        // In another order each time, so that no way has the machine's mood for itself.
        const turned = jobs.map((_, j) => jobs[(j + i + Math.max(0, round)) % jobs.length]!);
        for (const { key, run } of turned) {
          const found = await measuredRun(lab, run);
          if (round < 0) continue;
          runs.set(key, [...(runs.get(key) ?? []), { input: item.input, ...found }]);
        }
      }
    }
    const measured = [...counts.map((count) => ["prompt", count] as const), ...others()].map(
      ([way, examples]): Measured => ({ way, examples, runs: runs.get(keyOf(way, examples))! }),
    );
    return { layer, resident, measured };
  },
);

type Done = Pick<Work, "tokens" | "rowLayers"> & { readonly answer: number };

const keyOf = (way: Way, examples: number) => `${way} ${examples}`;

function others(): (readonly [Way, number])[] {
  return WAYS.filter((way) => way !== "prompt").map((way) => [way, 0] as const);
}

async function measuredRun({ model: { device } }: Lab, run: () => Promise<Done>) {
  await device.sync();
  device.resetPeak();
  const { liveBytes } = device.memory;
  const before = device.counters;
  const start = performance.now();
  const done = await run();
  const seconds = (performance.now() - start) / 1000;
  const after = device.counters;
  return {
    ...done,
    dispatches: after.dispatches - before.dispatches,
    written: after.bytesWritten - before.bytesWritten,
    peak: device.peakBytes - liveBytes,
    seconds,
  };
}
