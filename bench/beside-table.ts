import type { Limits } from "#src/profile/limits";
import { rounded } from "./harness.ts";
import type { Beside } from "./hooks.ts";
import type { JobResult } from "./jobs.ts";
import type { PeerComparison } from "./peers.ts";

/** A job here, at the best peer, and at the adapter's limit: medians of one run, in milliseconds. */
export interface BesideRow {
  job: string;
  ours: number;
  peer?: { name: string; ms: number };
  limitMs?: number;
}

/** What one run says of us, the best peer and the limit. */
export function besideRows(
  peers: PeerComparison | undefined,
  jobs: readonly JobResult[],
  limits: Limits | undefined,
): BesideRow[] {
  return [
    ...(peers ? [matmulRow(peers, limits)] : []),
    ...jobs.flatMap((job) => {
      if (job.name === "hooks") return hookRows(job["results"] as Record<string, Beside>);
      return job.name === "lora-step" ? [loraRow(job)] : [];
    }),
  ];
}

function matmulRow({ xpatch, peers }: PeerComparison, limits: Limits | undefined): BesideRow {
  const measured = peers.filter(({ backend, medianMs }) => backend === "webgpu" && medianMs !== undefined);
  const best = measured.toSorted((a, b) => a.medianMs! - b.medianMs!)[0];
  const n = xpatch.shapes["a"]![0]!;
  return {
    job: `matmul ${n}³, f32`,
    ours: xpatch.medianMs,
    ...(best && { peer: { name: `${best.library}, WebGPU`, ms: best.medianMs! } }),
    ...(limits && { limitMs: rounded((2 * n ** 3) / limits.gflops / 1e6) }),
  };
}

const TITLES: Readonly<Record<string, string>> = {
  prefill: "prefill of 128 tokens",
  decode: "decoding, a token",
  sweep: "sweep over the layers",
};

function hookRows(results: Readonly<Record<string, Beside>>): BesideRow[] {
  return Object.entries(results).map(([job, { ours, torch = {}, limitMs }]) => {
    const best = Object.entries(torch).toSorted(([, a], [, b]) => a.medianMs - b.medianMs)[0];
    return {
      job: TITLES[job] ?? job,
      ours: ours.medianMs,
      ...(best && {
        peer: {
          name: `PyTorch${best[0] === "batch" ? ", one batch" : best[0] === "plain" ? ", a pass a layer" : ""}`,
          ms: best[1].medianMs,
        },
      }),
      limitMs,
    };
  });
}

function loraRow({ medianMs, torchMedianMs }: JobResult): BesideRow {
  return {
    job: "LoRA step, 8 × 64 tokens",
    ours: medianMs as number,
    ...(torchMedianMs !== undefined && { peer: { name: "PyTorch, peft", ms: torchMedianMs as number } }),
  };
}

/** As a table in Markdown: times, and ours as a multiple of the others'. */
export function formatBeside(rows: readonly BesideRow[]): string {
  const cells = rows.map(({ job, ours, peer, limitMs }) => [
    job,
    `${ours} ms`,
    peer ? `${peer.ms} ms (${peer.name})` : "–",
    limitMs === undefined ? "–" : `${limitMs} ms`,
    peer ? `${rounded(ours / peer.ms)}` : "–",
    limitMs === undefined ? "–" : `${rounded(ours / limitMs)}`,
  ]);
  const table = [["job", "ours", "best peer", "limit", "ours ÷ peer", "ours ÷ limit"], ...cells];
  const lines = table.map((row) => `| ${row.join(" | ")} |`);
  return [lines[0], `|${"---|".repeat(table[0]!.length)}`, ...lines.slice(1)].join("\n");
}
