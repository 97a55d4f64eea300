import type { Command } from "commander";
import { attendCommand } from "./attend.ts";
import { convertCommand } from "./convert.ts";
import { demoCommand } from "./demo.ts";
import { devicesCommand } from "./devices.ts";
import { experimentCommand } from "./experiment.ts";
import { exportCommand } from "./export.ts";
import { extractCommand } from "./extract.ts";
import { generateCommand } from "./generate.ts";
import { inspectCommand } from "./inspect.ts";
import { lensCommand } from "./lens.ts";
import { parityCommand } from "./parity.ts";
import { patchCommand } from "./patch.ts";
import { reproduceCommand } from "./reproduce.ts";
import { sweepCommand } from "./sweep.ts";

/** The commands of `xpatch`, in the order of its help. A new one is a file beside this and a line here. */
export const COMMANDS: readonly (() => Command)[] = [
  devicesCommand,
  inspectCommand,
  generateCommand,
  extractCommand,
  patchCommand,
  sweepCommand,
  lensCommand,
  attendCommand,
  experimentCommand,
  reproduceCommand,
  parityCommand,
  convertCommand,
  exportCommand,
  demoCommand,
];
