import type { Profile, ProfilePhase } from "../../profile/profile.ts";
import type { ProfileRow } from "../../profile/rows.ts";
import { adapterName } from "../../tensor/adapter-name.ts";
import { showBytes, showPercent, table } from "../terminal/layout.ts";

/** Rows of kernels that a table shows; the JSON has all. */
const MOST_ROWS = 24;

/** A profile as tables for a terminal. */
export function formatProfile({ adapter, limits, method, resolutionMs, phases }: Profile): string {
  const timing =
    method === "timestamps"
      ? `times: the GPU's timestamps${resolutionMs >= 0.001 ? `, in steps of ${showMs(resolutionMs)}` : ""}`
      : `times: each dispatch submitted and waited for by itself, since there are no timestamps; each has about ` +
        `${showMs(resolutionMs)} of waiting in it`;
  return [
    `adapter: ${adapterName(adapter)}${adapter.fallback ? ", a software driver" : ""}`,
    `limits, measured: ${number(limits.gbPerSecond)} GB/s, ${number(limits.gflops)} GFLOP/s (f32)`,
    timing,
    ...phases.flatMap((phase) => ["", ...formatPhase(phase)]),
  ].join("\n");
}

function formatPhase(phase: ProfilePhase): string[] {
  const { name, steps, plainMs, ms, dispatches, bytes, bindGroups, submits, ofLimit, kernels, places } =
    phase;
  const shown = kernels.slice(0, MOST_ROWS);
  const rest = kernels.slice(MOST_ROWS);
  const left = rest.length > 0 ? [`${rest.length} more take ${showMs(sum(rest))}`] : [];
  return [
    `${name}${steps > 1 ? `, ${steps} steps` : ""}: ${showMs(ms)} in ${dispatches} dispatches, ${showPercent(ofLimit)} of the limit; ` +
      `${showMs(plainMs)} without profiling`,
    `${showBytes(bytes)}, ${bindGroups} new bind groups, ${submits} submits`,
    "",
    rows(["kernel", "inputs"], shown, ({ name: kernel, operation, inputs }) => [
      kernel === operation ? kernel : `${kernel} (${operation})`,
      inputs,
    ]),
    ...left,
    "",
    rows(["part"], places, ({ name: part }) => [part]),
  ];
}

/** Rows as a table, each led by the cells that `lead` makes of it. */
function rows<T extends ProfileRow>(
  heads: readonly string[],
  all: readonly T[],
  lead: (row: T) => readonly string[],
): string {
  const head = [
    ...heads,
    "dispatches",
    "time",
    "share",
    "moved",
    "GB/s",
    "GFLOP/s",
    "of limit",
    "new groups",
  ];
  const cells = all.map((row) => [
    ...lead(row),
    `${row.dispatches}`,
    showMs(row.ms),
    showPercent(row.share),
    showBytes(row.bytes),
    rate(row.bytes, row.ms),
    rate(row.flops, row.ms),
    showPercent(row.ofLimit),
    `${row.bindGroups}`,
  ]);
  const right = head.map((_, i) => i).slice(heads.length);
  return table([head, ...cells], right);
}

/** Billions a second. */
function rate(count: number, ms: number): string {
  return count === 0 || ms === 0 ? "" : number(count / ms / 1e6);
}

function sum(rows: readonly ProfileRow[]): number {
  return rows.reduce((total, { ms }) => total + ms, 0);
}

function showMs(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 0.1 ? `${ms.toFixed(2)} ms` : `${(ms * 1000).toFixed(1)} µs`;
}

function number(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(2);
}
