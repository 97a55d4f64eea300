import { type ChildProcess, fork } from "node:child_process";
import { XpatchError } from "xpatch";

/** What became of a cell; `failed` ones come with why. */
export interface CellOutcome {
  readonly state: "finished" | "already" | "refused" | "failed";
  readonly seconds: number;
  readonly error?: string | undefined;
}

/** What goes to a process that computes cells. */
export type CellOrder = { readonly compute: string } | { readonly stop: true };

/** What comes from it; `unfit` says why this process can compute none of the grid's cells. */
export type CellMessage =
  | { readonly doing: string }
  | { readonly outcome: CellOutcome }
  | { readonly unfit: string };

/** The program of such a process, and what it is started with. */
export interface CellProgram {
  readonly file: string;
  readonly args: readonly string[];
  readonly execArgv?: readonly string[];
}

/** How long a process may take to give back what it holds before it is killed. */
const STOP_MS = 5000;
/** Characters of what it said last that go into the error should it end. */
const TAIL = 4000;

/** The process that computed a cell ended, or was ended, before it had done so. */
export class CellCrash extends Error {
  override readonly name = "CellCrash";
}

/**
 * A process that computes cells, one at a time, so that whoever holds their locks can renew these however long a cell takes, and
 * survives what a cell does to its process. It is started when the first cell comes, keeps its model, and ends with this
 * process, however that ends.
 */
export class CellProcess {
  readonly #program: CellProgram;
  #child: ChildProcess | undefined;
  #doing = "";

  constructor(program: CellProgram) {
    this.#program = program;
  }

  /** What it last said that it does. */
  get doing(): string {
    return this.#doing;
  }

  /**
   * Throws CellCrash where the process ends on the way (the next cell then gets a new one), and XpatchError where it can compute no
   * cell of the grid at all: it has another driver than those before it, or the store cannot be written.
   */
  compute(name: string): Promise<CellOutcome> {
    this.#child ??= this.#start();
    const child = this.#child;
    return new Promise((settle, fail) => {
      const onMessage = (message: CellMessage) => {
        if ("doing" in message) this.#doing = message.doing;
        else if ("outcome" in message) end(() => settle(message.outcome));
        else end(() => fail(new XpatchError(message.unfit)));
      };
      const onCrash = (error: CellCrash) => end(() => fail(error));
      const end = (act: () => void) => {
        child.off("message", onMessage);
        child.off("crash", onCrash);
        act();
      };
      child.on("message", onMessage);
      child.once("crash", onCrash);
      // It may have ended since the last cell; then "crash" says so.
      child.send({ compute: name } satisfies CellOrder, () => {});
    });
  }

  /** Ends the process; a cell that it computes is given up. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((settle) => child.once("exit", settle));
    child.send({ stop: true } satisfies CellOrder, () => {});
    const late = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    await ended;
    clearTimeout(late);
  }

  #start(): ChildProcess {
    const { file, args, execArgv } = this.#program;
    const child = fork(file, args, {
      // Out of the reach of the terminal's Ctrl-C: who holds the locks says when it ends.
      detached: true,
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      ...(execArgv && { execArgv: [...execArgv] }),
    });
    let said = "";
    for (const stream of [child.stdout!, child.stderr!]) {
      stream.on("data", (chunk: Buffer) => {
        said = `${said}${chunk}`.slice(-TAIL);
      });
    }
    const crash = (how: string) => {
      if (this.#child === child) this.#child = undefined;
      child.emit("crash", new CellCrash(`the process that computed it ${how}${said && `:\n${said.trim()}`}`));
    };
    child.on("error", (error) => crash(`could not be started (${error.message})`));
    child.on("close", (code, signal) =>
      crash(signal ? `was ended by ${signal}` : `ended with status ${code}`),
    );
    return child;
  }
}
