import { GridStore, GridWorker } from "#experiments/grid/index";
import { serveCells } from "#experiments/grid/queue/serve-cells";
import { DeviceLostError, OutOfMemoryError, XpatchError } from "../../../errors.ts";
import type { AdapterChoice } from "../../../platform/platform.ts";
import { isSystemError } from "../../options/checks.ts";
import { GRID_SOURCES } from "../../options/grid-sources.ts";

/* The program of a process that computes cells of a store: `grid work` starts it, and tells it which. */

const [folder, adapter] = process.argv.slice(2) as [string, AdapterChoice | undefined];

let tell: (doing: string) => void = () => {};
let opened: GridWorker | undefined;

serveCells(
  async (cell, doing, signal) => {
    tell = doing;
    opened ??= new GridWorker(GridStore.open(folder), GRID_SOURCES, {
      ...(adapter !== undefined && { adapter }),
      onProgress: (progress) => tell(`${progress.doing} ${progress.what}`),
    });
    const outcome = await opened.compute(cell, { signal });
    // Who hears of it may count on it.
    opened.flush();
    return outcome;
  },
  // What a cell does to the device may be the cell's fault; what else is thrown, a file that is not there, is none of a cell's.
  (error): error is Error => !isOfDevice(error) && (error instanceof XpatchError || isSystemError(error)),
  async () => {
    await opened?.[Symbol.asyncDispose]();
  },
);

function isOfDevice(error: unknown): boolean {
  return error instanceof DeviceLostError || error instanceof OutOfMemoryError;
}
