import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { Redis } from "ioredis";
import { connect } from "../../experiments/grid/queue/connection.ts";
import { type CellStore, coordinate, type GridOutcome } from "../../experiments/grid/queue/coordinator.ts";
import type { QueueLimits } from "../../experiments/grid/queue/limits.ts";
import type { GridProgress } from "../../experiments/grid/queue/progress.ts";
import type { RedisAddress } from "../../experiments/grid/queue/redis-address.ts";

/** Impatient, so that what takes minutes takes a second or so. */
export const FAST: QueueLimits = {
  lock: 2500,
  renew: 400,
  stalled: 300,
  stalls: 2,
  attempts: 3,
  backoff: 50,
  patience: 300,
  queued: 6,
  givenUp: 50,
  lost: 700,
  tick: 50,
};

const ROOM = new URL("../experiments/grid/queue/", import.meta.url);

/** A grid of cells that are no cells (fake-cells.mjs), in a folder of its own, with real workers on a real server. */
export class FakeGrid {
  readonly id = randomBytes(4).toString("hex");
  readonly folder = mkdtempSync(join(tmpdir(), "xpatch-grid-"));
  readonly store: CellStore;
  readonly #address: RedisAddress;
  readonly #limits: QueueLimits;
  readonly #workers: ChildProcess[] = [];
  readonly #stop = new AbortController();
  readonly #ends: Promise<unknown>[] = [];
  readonly #connections: Redis[] = [];

  /** @param runs - Cells by run. */
  constructor(
    address: RedisAddress,
    runs: Readonly<Record<string, readonly string[]>>,
    limits: Partial<QueueLimits> = {},
  ) {
    this.#address = address;
    this.#limits = { ...FAST, ...limits };
    writeFileSync(join(this.folder, "log"), "");
    mkdirSync(join(this.folder, "cells"));
    this.store = {
      runs: Object.keys(runs).map((id) => ({ id, label: `run ${id}` })),
      cellsOf: (run) => runs[run]!.map((name) => ({ name, key: `the ${name}` })),
      refresh: () => {},
      state: (cell) => (existsSync(join(this.folder, "cells", cell)) ? "finished" : "missing"),
      record: (cell) => ({ result: JSON.parse(readFileSync(join(this.folder, "cells", cell), "utf8")) }),
    };
  }

  /** Fills the queue, from a connection of its own. */
  async coordinate(
    onProgress: (progress: GridProgress) => void = () => {},
    notes: string[] = [],
  ): Promise<GridOutcome> {
    const redis = await this.connect();
    const work = coordinate({
      redis,
      id: this.id,
      folder: this.folder,
      store: this.store,
      limits: this.#limits,
      signal: this.#stop.signal,
      onProgress,
      note: (text) => notes.push(text),
    });
    this.#ends.push(work.catch(() => {}));
    return work;
  }

  async connect(): Promise<Redis> {
    const redis = await connect(this.#address, 10);
    this.#connections.push(redis);
    return redis;
  }

  /** Starts a worker in a process of its own. @param preload - Code that it runs before anything else. */
  worker({
    concurrency = 1,
    preload,
  }: {
    readonly concurrency?: number;
    readonly preload?: string;
  } = {}): FakeWorker {
    const { host, port, password } = this.#address.options;
    const url = `redis://:${password}@${host}:${port}`;
    const imported = join(this.folder, "preload.mjs");
    if (preload !== undefined) writeFileSync(imported, preload);
    const program = fileURLToPath(new URL("fake-worker.mjs", ROOM));
    const args = preload === undefined ? [] : ["--import", pathToFileURL(imported).href];
    const child = spawn(process.execPath, [...args, program, url, this.folder, `${concurrency}`, this.id], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#workers.push(child);
    return new FakeWorker(child);
  }

  /** What has happened to cells, line by line: what, the cell, and the process. */
  get log(): { readonly what: string; readonly cell: string; readonly pid: number }[] {
    const lines = readFileSync(join(this.folder, "log"), "utf8").split("\n").slice(0, -1);
    return lines
      .map((line) => line.split(" "))
      .map(([what, cell, pid]) => ({ what: what!, cell: cell!, pid: Number(pid) }));
  }

  /** How often a cell was begun. */
  begun(cell: string): number {
    return this.log.filter((line) => line.what === "begun" && line.cell === cell).length;
  }

  get finished(): string[] {
    return readdirSync(join(this.folder, "cells")).sort();
  }

  /** Has slow cells go on until they are let go. */
  hold(): void {
    writeFileSync(join(this.folder, "hold"), "");
  }

  letGo(): void {
    rmSync(join(this.folder, "hold"), { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    for (const worker of this.#workers) worker.kill("SIGKILL");
    await Promise.race([Promise.all(this.#ends), new Promise((settle) => setTimeout(settle, 2000))]);
    for (const redis of this.#connections) redis.disconnect();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export class FakeWorker {
  readonly #child: ChildProcess;
  /** What it has said by the way. */
  notes = "";
  /** Its exit code or signal, and what it printed at its end. */
  readonly end: Promise<{ readonly code: number | string; readonly done: unknown }>;

  constructor(child: ChildProcess) {
    this.#child = child;
    let printed = "";
    child.stdout!.on("data", (text) => {
      printed += text;
    });
    child.stderr!.on("data", (text) => {
      this.notes += text;
    });
    this.end = new Promise((settle) => {
      child.on("close", (code, signal) => {
        settle({ code: code ?? signal!, done: printed === "" ? undefined : JSON.parse(printed) });
      });
    });
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }
}
