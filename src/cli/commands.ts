import type { Command } from "commander";

/**
 * The commands of `xpatch` by name, in the order of its help. A new one is a file in commands/ and a line here. A command is
 * loaded when it is made: reading the files of all takes longer than what some of them do.
 */
export const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  devices: async () => (await import("./commands/devices.ts")).devicesCommand(),
  inspect: async () => (await import("./commands/inspect.ts")).inspectCommand(),
  generate: async () => (await import("./commands/generate.ts")).generateCommand(),
  extract: async () => (await import("./commands/extract.ts")).extractCommand(),
  collect: async () => (await import("./commands/collect.ts")).collectCommand(),
  "control-vector": async () => (await import("./commands/control-vector.ts")).controlVectorCommand(),
  patch: async () => (await import("./commands/patch.ts")).patchCommand(),
  sweep: async () => (await import("./commands/sweep.ts")).sweepCommand(),
  lens: async () => (await import("./commands/lens.ts")).lensCommand(),
  attend: async () => (await import("./commands/attend.ts")).attendCommand(),
  profile: async () => (await import("./commands/profile.ts")).profileCommand(),
  train: async () => (await import("./commands/train.ts")).trainCommand(),
  attribute: async () => (await import("./commands/attribute.ts")).attributeCommand(),
  experiment: async () => (await import("./commands/experiment.ts")).experimentCommand(),
  reproduce: async () => (await import("./commands/reproduce.ts")).reproduceCommand(),
  rows: async () => (await import("./commands/rows.ts")).rowsCommand(),
  grid: async () => (await import("./commands/grid.ts")).gridCommand(),
  task: async () => (await import("./commands/task.ts")).taskCommand(),
  parity: async () => (await import("./commands/parity.ts")).parityCommand(),
  convert: async () => (await import("./commands/convert.ts")).convertCommand(),
  export: async () => (await import("./commands/export.ts")).exportCommand(),
  quantise: async () => (await import("./commands/quantise.ts")).quantiseCommand(),
  serve: async () => (await import("./commands/serve.ts")).serveCommand(),
  demo: async () => (await import("./commands/demo.ts")).demoCommand(),
};

export function allCommands(): Promise<Command[]> {
  return Promise.all(Object.values(COMMANDS).map((make) => make()));
}

/** The command of this name; all where there is none, for the help and for what it may have been meant to be. */
export async function commandsCalled(name: string | undefined): Promise<Command[]> {
  const known = name !== undefined && Object.hasOwn(COMMANDS, name);
  return known ? [await COMMANDS[name]!()] : allCommands();
}
