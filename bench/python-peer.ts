import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** A script of bench/peers that does the same in PyTorch, a line of JSON for each line that it is given; or why there is none. */
export class PythonPeer {
  readonly #process: ChildProcess | undefined;
  readonly #lines: AsyncIterator<string> | undefined;
  readonly #folder: string;
  readonly #script: string;
  /** Of torch, with its threads. */
  readonly version: string | undefined;
  readonly missing: string | undefined;

  private constructor(
    script: string,
    folder: string,
    rest: { process?: ChildProcess; lines?: AsyncIterator<string>; version?: string; missing?: string },
  ) {
    this.#script = script;
    this.#folder = folder;
    this.#process = rest.process;
    this.#lines = rest.lines;
    this.version = rest.version;
    this.missing = rest.missing;
  }

  /** Starts it with `PYTHON` (default python3) on a folder with these files. */
  static async open(
    script: string,
    files: Readonly<Record<string, string | Uint8Array>>,
  ): Promise<PythonPeer> {
    const folder = mkdtempSync(join(tmpdir(), "python-peer-"));
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    const path = fileURLToPath(new URL(`../../bench/peers/${script}`, import.meta.url));
    const python = process.env["PYTHON"] ?? "python3";
    const child = spawn(python, [path, folder], { stdio: ["pipe", "pipe", "pipe"] });
    let complaint = "";
    child.stderr!.on("data", (chunk) => {
      complaint += chunk;
    });
    child.on("error", (error) => {
      complaint += error.message;
    });
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done) {
      if (child.exitCode === null && child.pid !== undefined) await once(child, "close");
      const missing = `not measured: ${python}: ${complaint.trim().split("\n").at(-1)} (PYTHON names another)`;
      return new PythonPeer(script, folder, { missing });
    }
    const { version, threads } = JSON.parse(first.value);
    return new PythonPeer(script, folder, {
      process: child,
      lines,
      version: `${version}, ${threads} threads`,
    });
  }

  async ask<T>(line: string): Promise<T> {
    this.#process!.stdin!.write(`${line}\n`);
    const { value, done } = await this.#lines!.next();
    if (done) throw new Error(`bench/peers/${this.#script} ended early`);
    return JSON.parse(value);
  }

  close(): void {
    this.#process?.stdin?.end();
    rmSync(this.#folder, { recursive: true });
  }
}
