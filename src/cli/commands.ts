import type { Command } from "commander";
import { attendCommand } from "./commands/attend.ts";
import { attributeCommand } from "./commands/attribute.ts";
import { convertCommand } from "./commands/convert.ts";
import { demoCommand } from "./commands/demo.ts";
import { devicesCommand } from "./commands/devices.ts";
import { experimentCommand } from "./commands/experiment.ts";
import { exportCommand } from "./commands/export.ts";
import { extractCommand } from "./commands/extract.ts";
import { generateCommand } from "./commands/generate.ts";
import { inspectCommand } from "./commands/inspect.ts";
import { lensCommand } from "./commands/lens.ts";
import { parityCommand } from "./commands/parity.ts";
import { patchCommand } from "./commands/patch.ts";
import { profileCommand } from "./commands/profile.ts";
import { quantiseCommand } from "./commands/quantise.ts";
import { reproduceCommand } from "./commands/reproduce.ts";
import { serveCommand } from "./commands/serve.ts";
import { sweepCommand } from "./commands/sweep.ts";
import { trainCommand } from "./commands/train.ts";

/** The commands of `xpatch`, in the order of its help. A new one is a file in commands/ and a line here. */
export const COMMANDS: readonly (() => Command)[] = [
  devicesCommand,
  inspectCommand,
  generateCommand,
  extractCommand,
  patchCommand,
  sweepCommand,
  lensCommand,
  attendCommand,
  profileCommand,
  trainCommand,
  attributeCommand,
  experimentCommand,
  reproduceCommand,
  parityCommand,
  convertCommand,
  exportCommand,
  quantiseCommand,
  serveCommand,
  demoCommand,
];
