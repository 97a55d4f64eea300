import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { CELL_FORMAT } from "../framework/cell-format.ts";
import type { PlannedCell, PlannedSetting } from "./plan.ts";

/** Of what a grid's folder holds. To be raised whenever that changes. */
export const GRID_FORMAT = 1;

export const VERSION: string = createRequire(import.meta.url)("xpatch/package.json").version;

export function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

/** Over model, language model, tasks, options and the versions of what could change a number. */
export function runId(setting: PlannedSetting): string {
  const { model, llm, options, tasks } = setting;
  const parts = [GRID_FORMAT, CELL_FORMAT, VERSION, model, llm ?? null, options, tasks];
  return sha256(JSON.stringify(parts)).slice(0, 16);
}

/** Of a cell or a file, within its run. */
export function idOf(run: string, key: string): string {
  return sha256(`${run}\n${key}`).slice(0, 24);
}

export function plannedCell(run: string, key: string): PlannedCell {
  return { name: `${run}-${idOf(run, key)}`, key, kind: key.split(" ", 1)[0]!, run };
}

/** The parts of a cell's name; undefined for what is none. */
export function nameParts(name: string): { readonly run: string; readonly id: string } | undefined {
  const [, run, id] = /^([0-9a-f]{16})-([0-9a-f]{24})$/.exec(name) ?? [];
  return run !== undefined && id !== undefined ? { run, id } : undefined;
}
