import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { GridStore } from "#experiments/grid/index";
import type { RedisAddress } from "#experiments/grid/queue/redis-address";
import type { WorkDone } from "#experiments/grid/queue/worker";
import { XpatchError } from "../../../errors.ts";
import { adapterChoice } from "../../../platform/node-adapter.ts";
import { wholeNumber } from "../../options/arguments.ts";
import { type CommonArguments, newCommand } from "../../options/command.ts";
import { untilStopped } from "../../terminal/interrupt.ts";
import { note, printResult } from "../../terminal/output.ts";
import { cellProgram, givenAddress, REDIS_OPTION } from "./queue.ts";

interface WorkArguments extends CommonArguments {
  readonly redis?: string;
  readonly concurrency: number;
  readonly wait: number;
}

/** How long the process may outlast its work. */
const LINGER_MS = 5000;

export function gridWorkCommand(): Command {
  return newCommand(
    "work",
    'Compute cells that "grid serve" hands out, until there are no more',
    ["grid work store", "grid work --redis rediss://queue.example:6380 --concurrency 2"],
    "grid",
  )
    .argument("[store]", "the grid's folder, as it is called here (default: as the queue says)")
    .option(...REDIS_OPTION)
    .option("--concurrency <number>", "processes, each with a model of its own", wholeNumber(1, 1000), 1)
    .option(
      "--wait <seconds>",
      "how long to wait for a queue, a grid, and who serves it, before giving up",
      wholeNumber(0),
      600,
    )
    .action(async (store: string | undefined, _: WorkArguments, command: Command) => {
      const args = command.optsWithGlobals<WorkArguments>();
      printResult(await work(store, args), args.json, formatWork);
      // Should anything of a connection linger: an allocation on a cluster is not to wait for it.
      setTimeout(() => process.exit(), LINGER_MS).unref();
    });
}

async function work(store: string | undefined, args: WorkArguments): Promise<WorkDone> {
  adapterChoice(args);
  if (store !== undefined) GridStore.open(store);
  const stop = new AbortController();
  void untilStopped().then(() => stop.abort());
  const say = (text: string) => note(`xpatch: ${text}`);
  const redis = (await givenAddress(args)) ?? (await ownAddress(store, args.wait, stop.signal, say));
  const { gridId } = await import("#experiments/grid/queue/queue-folder");
  const { work: compute } = await import("#experiments/grid/queue/worker");
  return compute({
    redis,
    ...(store !== undefined && { grid: gridId(store) }),
    program: ({ folder }) => cellProgram(storeHere(store ?? folder), args.adapter),
    concurrency: args.concurrency,
    signal: stop.signal,
    wait: args.wait,
    note: say,
  });
}

/** The store's own server, which may not have been started yet. */
async function ownAddress(
  store: string | undefined,
  wait: number,
  signal: AbortSignal,
  say: (text: string) => void,
): Promise<RedisAddress> {
  if (store === undefined) {
    throw new XpatchError(
      "expected the store of the grid, or the server of its queue: --redis, or XPATCH_REDIS",
    );
  }
  const { addressIn } = await import("#experiments/grid/queue/redis-server");
  const { serverFolder } = await import("#experiments/grid/queue/own-server");
  const begin = performance.now();
  for (let isTold = false; ; isTold = true) {
    const address = addressIn(serverFolder(store));
    if (address) return address;
    if (signal.aborted || performance.now() - begin > wait * 1000) {
      throw new XpatchError(
        `${store} has no queue; "xpatch grid serve ${store}" starts one, --redis takes another`,
      );
    }
    if (!isTold) say(`${store} has no queue yet; waiting for "xpatch grid serve"`);
    await new Promise((settle) => setTimeout(settle, 500));
  }
}

/** Throws XpatchError where the folder that the queue names is not that of a grid on this machine. */
function storeHere(folder: string): string {
  if (existsSync(join(folder, "grid.json"))) return folder;
  throw new XpatchError(
    `the store of the queue's grid is ${folder}, where there is none on this machine; name the folder that it is here: xpatch grid work <store>`,
  );
}

function formatWork({ computed, failed, because }: WorkDone): string {
  return `${because}: ${computed} cells computed here${failed > 0 ? `, ${failed} attempts failed` : ""}`;
}
