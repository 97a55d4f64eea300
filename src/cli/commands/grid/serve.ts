import { resolve } from "node:path";
import type { Command } from "commander";
import { GridStore } from "#experiments/grid/index";
import { type GivenUp, type GridProgress, progressRows, totalOf } from "#experiments/grid/queue/progress";
import { XpatchError } from "../../../errors.ts";
import { adapterChoice } from "../../../platform/node-adapter.ts";
import { isLoopback } from "../../../session/serve/access.ts";
import { wholeNumber } from "../../options/arguments.ts";
import { type CommonArguments, newCommand } from "../../options/command.ts";
import { untilStopped } from "../../terminal/interrupt.ts";
import { printable, table } from "../../terminal/layout.ts";
import { printResult } from "../../terminal/output.ts";
import { gridProgress } from "./progress.ts";
import { cellProgram, givenAddress, REDIS_OPTION } from "./queue.ts";

interface ServeArguments extends CommonArguments {
  readonly redis?: string;
  readonly workers: number;
  readonly page: boolean;
  readonly host: string;
  readonly port: number;
}

export interface ServeReport {
  readonly store: string;
  readonly state: "done" | "done, but for cells that were given up" | "stopped";
  readonly progress: GridProgress;
  readonly givenUp: readonly GivenUp[];
}

/** How long a server that does not answer may keep the command from ending. */
const LEAVE_MS = 5000;

export function gridServeCommand(): Command {
  return newCommand(
    "serve",
    "Hand the cells of a grid out to workers, by queues in Redis or Valkey",
    ["grid serve store --workers 2", "grid serve /shared/store --redis rediss://queue.example:6380"],
    "grid",
  )
    .argument("<store>", 'the folder that "xpatch grid plan" made')
    .option(...REDIS_OPTION)
    .option(
      "--workers <number>",
      "processes of this machine that compute cells, beside other workers",
      wholeNumber(0, 1000),
      0,
    )
    .option("--host <address>", "what the page with the progress listens on", "127.0.0.1")
    .option("--port <number>", "its port; 0 takes any that is free", wholeNumber(0, 65535), 0)
    .option("--no-page", "serve no page")
    .action(async (store: string, _: ServeArguments, command: Command) => {
      await serve(store, command.optsWithGlobals<ServeArguments>());
    });
}

/** Hands cells out until all are finished or given up. */
async function serve(folder: string, args: ServeArguments): Promise<void> {
  adapterChoice(args);
  const store = GridStore.open(folder);
  const stop = new AbortController();
  void untilStopped().then(() => stop.abort());
  let lost: Error | undefined;
  const lose = (error: Error) => {
    lost ??= error;
    stop.abort();
  };
  using display = gridProgress();
  const say = (text: string) => display.note(`xpatch: ${text}`);
  const endings: (() => unknown)[] = [];
  try {
    const { address, end } = await queueOf(folder, args, say, lose);
    endings.push(end);
    const [{ connect }, { coordinate }, { gridId }] = await Promise.all([
      import("#experiments/grid/queue/connection"),
      import("#experiments/grid/queue/coordinator"),
      import("#experiments/grid/queue/queue-folder"),
    ]);
    const redis = await connect(address, 10);
    endings.push(() => redis.disconnect());
    const id = gridId(folder);
    const page = args.page ? await openPage(args, say) : undefined;
    endings.push(() => page?.close());
    if (args.workers > 0) {
      const { work } = await import("#experiments/grid/queue/worker");
      const program = () => cellProgram(folder, args.adapter);
      const { workers: concurrency } = args;
      const working = work({
        redis: address,
        grid: id,
        program,
        concurrency,
        signal: stop.signal,
        note: say,
      }).catch(lose);
      endings.push(() => working);
    } else say(`"xpatch grid work" with this store or queue, here or elsewhere, computes its cells`);
    // Nothing else ends what waits for a server that has gone.
    stop.signal.addEventListener("abort", () => setTimeout(() => redis.disconnect(), LEAVE_MS).unref());
    const outcome = await coordinate({
      redis,
      id,
      folder: resolve(folder),
      store,
      signal: stop.signal,
      onProgress: (progress, givenUp, isOver) => {
        display.show(progress);
        page?.show(folder, progress, givenUp, isOver);
      },
      note: say,
    }).catch((error) => {
      if (!stop.signal.aborted) throw error;
      throw lost ?? new XpatchError("stopped, without an answer of the queue");
    });
    if (lost) throw lost;
    const { isOver, progress, givenUp } = outcome;
    // So that `grid status` names those, too, whose processes were killed.
    const untold = givenUp.filter(({ cell }) => store.state(cell) === "missing");
    store.fail(untold.map(({ cell, error }) => ({ name: cell, error })));
    const state = !isOver
      ? "stopped"
      : givenUp.length > 0
        ? "done, but for cells that were given up"
        : "done";
    display[Symbol.dispose]();
    const report: ServeReport = { store: folder, state, progress, givenUp };
    printResult(report, args.json, formatServed);
    if (state !== "done") process.exitCode = 1;
  } finally {
    stop.abort();
    for (const end of endings.reverse()) await end();
  }
}

/** The server that was named, or the store's own. */
async function queueOf(
  folder: string,
  args: ServeArguments,
  say: (text: string) => void,
  lose: (error: Error) => void,
) {
  const address = await givenAddress(args);
  if (address) return { address, end: () => {} };
  const { OwnServer } = await import("#experiments/grid/queue/own-server");
  const own = await OwnServer.open(folder, say, lose);
  return { address: own.address, end: () => own.close() };
}

async function openPage({ host, port }: ServeArguments, say: (text: string) => void) {
  const { ProgressPage } = await import("#experiments/grid/queue/progress-page");
  const page = await ProgressPage.open(host, port);
  say(`progress: ${page.link}`);
  if (!isLoopback(host))
    say("whoever has the link and reaches this machine may look; the connection is not encrypted");
  return page;
}

/** The table, what was given up, and what to do next. */
export function formatServed({ store, state, progress, givenUp }: ServeReport): string {
  const next = {
    done: `"xpatch grid merge ${store} --out <folder>" writes the results`,
    stopped: "the same command goes on from here",
    "done, but for cells that were given up": "the same command tries these cells anew",
  }[state];
  const { finished, cells } = totalOf(progress);
  return [
    table(progressRows(progress), [1, 2, 3, 4, 5, 6, 7, 8]),
    "",
    ...givenUp.flatMap(({ run, cell, key, attempts, error }) => [
      `given up after ${attempts} attempts: ${run}: ${key} (${cell})`,
      ...error.split("\n").map((line) => `  ${printable(line)}`),
    ]),
    ...(givenUp.length > 0 ? [""] : []),
    `${state}: ${finished} of ${cells} cells are finished; ${next}`,
  ].join("\n");
}
