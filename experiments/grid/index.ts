/** Grids: plans of many models, tasks and options, whose cells many machines compute. See docs/grids.md. */

export { expandPlan } from "./expand.ts";
export { GridStore, type StoredRun } from "./grid-store.ts";
export { type MergedRun, type MergeOptions, mergeGrid } from "./merge.ts";
export type { GridSources } from "./models.ts";
export type { ExpandedPlan, GridPlan, PlannedCell, PlannedRun, RunCells } from "./plan.ts";
export { readPlan } from "./plan-file.ts";
export { runShard, type ShardProgress, type ShardResult } from "./run-shard.ts";
export type { CellState } from "./run-store.ts";
export { parseShard, type Shard, shardOfEnvironment } from "./shard.ts";
export { type GridStatus, gridStatus, type RunStatus, type WorkerStatus } from "./status.ts";
export { type CellOutcome, type ComputeOptions, GridWorker, type WorkerOptions } from "./worker.ts";
