import { type Command, InvalidArgumentError } from "commander";
import {
  GridStore,
  GridWorker,
  parseShard,
  runShard,
  type Shard,
  type ShardProgress,
  shardOfEnvironment,
} from "#experiments/grid/index";
import { XpatchError } from "../../../errors.ts";
import { adapterChoice } from "../../../platform/node-adapter.ts";
import { wholeNumber } from "../../options/arguments.ts";
import { type CommonArguments, newCommand } from "../../options/command.ts";
import { GRID_SOURCES } from "../../options/grid-sources.ts";
import { stoppable, untilStopped } from "../../terminal/interrupt.ts";
import { note, printResult } from "../../terminal/output.ts";
import { experimentProgress } from "../experiment-progress.ts";

interface RunArguments extends CommonArguments {
  readonly shard?: Shard;
  readonly stale: number;
}

interface RunReport {
  readonly store: string;
  readonly shard: Shard;
  readonly cells: number;
  readonly computed: number;
  readonly refused: number;
  readonly failed: readonly { readonly name: string; readonly key: string; readonly error: string }[];
}

/** Failures that are printed; the others are in `status`. */
const SHOWN = 10;

export function gridRunCommand(): Command {
  return newCommand(
    "run",
    "Compute the cells of a shard that nobody has finished",
    ["grid run store", "grid run store --shard 3/8"],
    "grid",
  )
    .argument("<store>", 'the folder that "grid plan" wrote')
    .option(
      "--shard <i/n>",
      "the i-th of n shards (default: that of SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, else all cells)",
      shard,
    )
    .option(
      "--stale <seconds>",
      "take over the cells of a worker that has given no sign for so long",
      wholeNumber(1),
      180,
    )
    .action(async (folder: string, _: RunArguments, command: Command) => {
      const args = command.optsWithGlobals<RunArguments>();
      const report = await stoppable(
        () => "the same command goes on from here",
        () => run(folder, args),
      );
      printResult(report, args.json, formatReport);
      if (report.failed.length > 0) process.exitCode = 1;
    });
}

async function run(folder: string, args: RunArguments): Promise<RunReport> {
  const shardHere = args.shard ??
    shardOfEnvironment(process.env) ?? { index: 1, count: 1, from: "no shard given" };
  note(`shard ${shardHere.index} of ${shardHere.count} (${shardHere.from})`);
  const adapter = adapterChoice(args);
  const store = GridStore.open(folder);
  await using worker = new GridWorker(store, GRID_SOURCES, { adapter, staleSeconds: args.stale });
  // What is finished is kept; claims and the worker's sign go as the process ends by the signal.
  untilStopped().then((signal) => {
    worker.flush();
    process.kill(process.pid, signal);
  });
  using progress = shardProgress();
  const result = await runShard(store, worker, shardHere, { onProgress: progress.update });
  return {
    store: folder,
    shard: shardHere,
    ...result,
    failed: result.failed.map(({ cell: { name, key }, error }) => ({ name, key, error })),
  };
}

function shardProgress(): { update: (progress: ShardProgress) => void } & Disposable {
  const shown = experimentProgress();
  const start = performance.now();
  let first: number | undefined;
  return {
    update({ cell, done, total, failed, waiting }) {
      first ??= done;
      const each = (performance.now() - start) / 1000 / (done - first);
      const experiment = [waiting ? "waiting for other workers" : "", failed > 0 ? `${failed} failed` : ""]
        .filter(Boolean)
        .join(", ");
      shown.update({
        experiment,
        cell,
        done,
        total,
        secondsLeft: done > first ? each * (total - done) : undefined,
      });
    },
    [Symbol.dispose]: () => shown[Symbol.dispose](),
  };
}

function formatReport({ shard: { index, count }, cells, computed, refused, failed }: RunReport): string {
  const more = failed.length > SHOWN ? [`and ${failed.length - SHOWN} more, see "xpatch grid status"`] : [];
  return [
    `shard ${index} of ${count}: ${cells} cells, ${computed} computed here${refused > 0 ? `, ${refused} of them refused by the model` : ""}, ${failed.length} failed`,
    ...failed.slice(0, SHOWN).map(({ name, error }) => `${name}: ${error}`),
    ...more,
  ].join("\n");
}

function shard(text: string): Shard {
  try {
    return parseShard(text);
  } catch (error) {
    if (error instanceof XpatchError) throw new InvalidArgumentError("Expected a shard such as 1/8 to 8/8.");
    throw error;
  }
}
