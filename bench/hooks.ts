import { sweepLayers } from "#src/analysis/vectors/sweep-layers";
import { extractTaskVectors } from "#src/analysis/vectors/task-vectors";
import { encodeSafetensors } from "#src/model/checkpoint/safetensors/safetensors-writer";
import type { PatchableModel } from "#src/patching/model";
import { profile, profileWork } from "#src/profile/profile";
import { bestAndMedian, rounded } from "./harness.ts";
import type { JobResult } from "./jobs.ts";
import { limitsOf } from "./limits.ts";
import { nextToken, promptOf, readOnce } from "./model-work.ts";
import { PythonPeer } from "./python-peer.ts";

const PREFILL_TOKENS = 128;
const DECODE_PROMPT = 16;
const DECODE_TOKENS = 32;
const QUERY_TOKENS = 10;

/** The time of one run. */
interface Times {
  bestMs: number;
  medianMs: number;
}

/** A job here, in PyTorch with hooks (in each of its ways), and what the adapter's limits would permit. */
export interface Beside {
  ours: Times;
  torch?: Record<string, Times>;
  limitMs: number;
  /** How many of the tokens chosen are the same, of how many. */
  same?: string;
}

interface Answer {
  readonly ids: readonly number[];
  readonly ms: number;
}

/** Does the job once: how long it took, and the tokens that it chose. */
type Run = () => Promise<Answer>;

/**
 * Prefill, decoding and a sweep over the layers, beside the same with Hugging Face transformers and hooks on PyTorch where `PYTHON`
 * (default python3) has it: in turn, with medians. PyTorch sweeps in two ways, a pass a layer and one batch of a copy a layer.
 */
export async function hooks(model: PatchableModel, rounds: number): Promise<JobResult> {
  const { device } = model;
  const [prompt, short, query] = [PREFILL_TOKENS, DECODE_PROMPT, QUERY_TOKENS].map((n) =>
    promptOf(model, n),
  ) as [ReturnType<typeof promptOf>, ReturnType<typeof promptOf>, ReturnType<typeof promptOf>];
  using vectors = extractTaskVectors(model, [promptOf(model, 24)]);
  const { layers } = vectors.origin;
  const values = (await device.read(layers.map((layer) => vectors.at(layer)))) as Float32Array[];
  const stacked = new Float32Array(values.flatMap((each) => [...each]));
  const torch = await PythonPeer.open("transformers_hooks.py", {
    "request.json": JSON.stringify({
      model: model.name,
      prefill: prompt.ids,
      decode: short.ids,
      new_tokens: DECODE_TOKENS,
      query: query.ids,
    }),
    "vectors.safetensors": await encodeSafetensors([
      {
        name: "vectors",
        stored: "F32",
        shape: [layers.length, model.config.width],
        data: new Uint8Array(stacked.buffer),
      },
    ]),
  });
  const ours: Record<"prefill" | "decode" | "sweep", Run> = {
    prefill: timed(async () => Array.from((await readOnce(device, () => [nextToken(model, prompt)]))[0]!)),
    async decode() {
      let began = 0;
      const onToken = () => {
        began ||= performance.now();
      };
      const options = { maxNewTokens: DECODE_TOKENS + 1, stopIds: [], onToken };
      const { ids } = await model.generate(short, options);
      return { ids, ms: performance.now() - began };
    },
    sweep: timed(async () => (await sweepLayers(model, [query], vectors)).patched.map(([id]) => id!)),
  };
  const ways = { prefill: ["prefill"], decode: ["decode"], sweep: ["plain", "batch"] } as const;
  const limits = await limitsOf(device);
  const options = { limits, rounds: 1 };
  const profiles = {
    prefill: await profileWork(device, ours.prefill, options),
    decode: await profile(model, short, { ...options, maxNewTokens: DECODE_TOKENS + 1 }),
    sweep: await profileWork(device, ours.sweep, options),
  };
  try {
    const results: Record<string, Beside> = {};
    for (const job of ["prefill", "decode", "sweep"] as const) {
      const steps = job === "decode" ? DECODE_TOKENS : 1;
      const peers = torch.missing === undefined ? ways[job] : [];
      const runs = new Map<string, Run>([["ours", ours[job]]]);
      for (const way of peers) runs.set(way, () => torch.ask<Answer>(way));
      const { times, answers } = await inTurn(runs, rounds, steps);
      const { ms, ofLimit } = profiles[job].phases.at(-1)!;
      results[job] = {
        ours: times.get("ours")!,
        ...(peers.length > 0 && {
          torch: Object.fromEntries(peers.map((way) => [way, times.get(way)!])),
          same: agreement(answers.get("ours")!, answers.get(peers[0]!)!),
        }),
        limitMs: rounded((ms * ofLimit) / steps),
      };
    }
    return {
      name: "hooks",
      torch: torch.version ?? torch.missing,
      prefillTokens: prompt.length,
      decodedTokens: DECODE_TOKENS,
      sweep: { layers: layers.length, tokens: query.length },
      limits: { gflops: rounded(limits.gflops), gbPerSecond: rounded(limits.gbPerSecond) },
      results,
    };
  } finally {
    torch.close();
  }
}

function timed(work: () => Promise<readonly number[]>): Run {
  return async () => {
    const began = performance.now();
    const ids = await work();
    return { ids, ms: performance.now() - began };
  };
}

/** Each once to warm up, then one after the other, so that a slow spell of the machine hits all. */
async function inTurn(runs: ReadonlyMap<string, Run>, rounds: number, steps: number) {
  const samples = new Map<string, number[]>();
  const answers = new Map<string, readonly number[]>();
  for (let round = -1; round < rounds; round++) {
    for (const [name, run] of runs) {
      const { ids, ms } = await run();
      answers.set(name, ids);
      if (round >= 0) samples.set(name, [...(samples.get(name) ?? []), ms / steps]);
    }
  }
  const times = new Map(
    [...samples].map(([name, all]): [string, Times] => {
      const { bestMs, medianMs } = bestAndMedian(all);
      return [name, { bestMs: rounded(bestMs), medianMs: rounded(medianMs) }];
    }),
  );
  return { times, answers };
}

function agreement(ours: readonly number[], theirs: readonly number[]): string {
  return `${ours.filter((id, i) => id === theirs[i]).length} of ${theirs.length}`;
}
