import { spawn } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fetched } from "./runtimes.ts";

/** A notebook file (nbformat 4), as far as it is used here. */
export interface Notebook {
  cells: Cell[];
}

export interface Cell {
  cell_type: "markdown" | "code";
  source: string[];
  execution_count?: number;
  outputs?: Output[];
}

/** One of a stream, a display, a result and an error. */
export interface Output {
  output_type: string;
  name?: string;
  text?: string[];
  data?: Record<string, string[]>;
  evalue?: string;
  [field: string]: unknown;
}

interface Message {
  header: { msg_id: string; msg_type: string };
  parent: { msg_id?: string };
  content: {
    data?: Record<string, string>;
    text?: string;
    execution_state?: string;
    [field: string]: unknown;
  };
}

/** Of npm's package zeromq. */
interface ZeroMq {
  Dealer: new () => Socket;
  Subscriber: new () => Socket & { subscribe(): void };
}

interface Socket extends AsyncIterable<Buffer[]> {
  connect(address: string): void;
  close(): void;
  send(frames: readonly string[]): Promise<void>;
  receive(): Promise<Buffer[]>;
}

const DELIMITER = "<IDS|MSG>";
const LAST_CELL = "0";
const START_TIMEOUT = 20_000; // ms

/** Runs the code cells of a notebook in Deno's Jupyter kernel, in order, in the notebook's folder; their outputs. */
export async function outputsOf(notebook: Notebook, file: string): Promise<Output[][]> {
  const { Dealer, Subscriber } = createRequire(import.meta.url)(fetched("node_modules/zeromq")) as ZeroMq;
  const folder = mkdtempSync(join(tmpdir(), "xpatch-notebook-"));
  const ports = await freePorts(5);
  const [shell_port, iopub_port, stdin_port, control_port, hb_port] = ports;
  const key = randomUUID();
  const connection = join(folder, "connection.json");
  const settings = { shell_port, iopub_port, stdin_port, control_port, hb_port, key };
  writeFileSync(
    connection,
    JSON.stringify({ ...settings, ip: "127.0.0.1", transport: "tcp", signature_scheme: "hmac-sha256" }),
  );
  const env: NodeJS.ProcessEnv = { ...process.env, NO_COLOR: "1" };
  const kernel = spawn(fetched("deno"), ["jupyter", "--kernel", "--conn", connection], {
    cwd: dirname(file),
    env,
    stdio: "ignore",
  });
  const shell = new Dealer();
  const published = new Subscriber();
  const messages = published[Symbol.asyncIterator]();
  const next = async () => decoded((await messages.next()).value as Buffer[]);
  const ask = async (type: string, content: object) => {
    const { header, frames } = encoded(key, type, content);
    await shell.send(frames);
    return header.msg_id;
  };
  try {
    shell.connect(`tcp://127.0.0.1:${shell_port}`);
    published.connect(`tcp://127.0.0.1:${iopub_port}`);
    published.subscribe();
    await subscribed(() => ask("kernel_info_request", {}), next);
    // Deno may publish a cell's result after it said that it is idle: what comes belongs to the cell that it names, and
    // nothing is owed any more when the result of a last cell is there.
    const cells = [...codeCells(notebook).map(({ source }) => source.join("")), LAST_CELL];
    const outputs = new Map<string, Output[]>();
    for (const code of cells) {
      const request = await ask("execute_request", { code, store_history: true });
      outputs.set(request, []);
      for (let idle = false; !idle || (code === LAST_CELL && outputs.get(request)!.length === 0); ) {
        const { header, parent, content } = await next();
        const output = outputOf(header.msg_type, content);
        if (output) outputs.get(parent.msg_id!)!.push(output);
        const status = header.msg_type === "status" && parent.msg_id === request;
        if (status && content.execution_state === "idle") idle = true;
      }
    }
    return [...outputs.values()].slice(0, -1);
  } finally {
    shell.close();
    published.close();
    kernel.kill();
    rmSync(folder, { recursive: true });
  }
}

export function codeCells(notebook: Notebook): Cell[] {
  return notebook.cells.filter(({ cell_type }) => cell_type === "code");
}

/** What is published before a subscription has reached the kernel is lost: asks until something comes. */
async function subscribed(ask: () => Promise<unknown>, next: () => Promise<Message>): Promise<void> {
  const first = next();
  for (const start = Date.now(); Date.now() - start < START_TIMEOUT; ) {
    await ask();
    const waited = new Promise<undefined>((resolve) => setTimeout(resolve, 100));
    if (await Promise.race([first, waited])) return;
  }
  throw new Error(`Deno's kernel did not answer within ${START_TIMEOUT / 1000} seconds`);
}

function encoded(key: string, msg_type: string, content: object) {
  const header = {
    msg_id: randomUUID(),
    session: key,
    username: "test",
    date: new Date().toISOString(),
    msg_type,
    version: "5.3",
  };
  const parts = [header, {}, {}, content].map((part) => JSON.stringify(part));
  const signature = createHmac("sha256", key).update(parts.join("")).digest("hex");
  return { header, frames: [DELIMITER, signature, ...parts] };
}

function decoded(frames: readonly Buffer[]): Message {
  const start = frames.findIndex((frame) => frame.toString() === DELIMITER) + 2;
  const [header, parent, , content] = frames.slice(start).map((frame) => JSON.parse(frame.toString()));
  return { header, parent, content };
}

/** A message as the notebook's file keeps it; undefined for those that are no output. */
function outputOf(
  type: string,
  { transient, data, text, ...content }: Message["content"],
): Output | undefined {
  if (type === "stream") return { output_type: type, name: content["name"] as string, text: lines(text!) };
  if (type === "error") return { output_type: type, ...content };
  if (type !== "execute_result" && type !== "display_data") return undefined;
  const kept = Object.entries(data!).map(([mime, value]) => [mime, lines(value)] as const);
  return { output_type: type, ...content, data: Object.fromEntries(kept) };
}

function lines(text: string): string[] {
  return text.split(/(?<=\n)/);
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((closed) => server.close(closed))));
  return ports;
}
