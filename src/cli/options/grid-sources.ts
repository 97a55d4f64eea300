import type { GridSources } from "#experiments/grid/index";
import { checkPictures } from "./checks.ts";
import { knownLlm } from "./session.ts";
import { readTask } from "./task-file.ts";

/** Where the tasks and models of a grid come from: as of all commands. */
export const GRID_SOURCES: GridSources = { readTask, knownLlm, checkPictures };
