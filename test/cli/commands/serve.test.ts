import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket as NodeSocket } from "ws";
import { SessionClient } from "../../../src/session/client.ts";
import { connectSocket } from "../../../src/session/ports/socket-port.ts";
import { buildPng } from "../../helpers/build-png.ts";
import { fetched } from "../../helpers/runtimes.ts";

// The command as it is started, and the programs of docs/serve.md against it.

const PAGE = readFileSync("docs/serve.md", "utf8");
const PROGRAM = /^```js\n(\/\/ vector\.mjs.*?)^```$/ms.exec(PAGE)![1]!;

let folder: string;
let server: ChildProcess;
let said = "";
let link: string;

beforeAll(async () => {
  // Within the checkout, which "xpatch" then means.
  mkdirSync("dist", { recursive: true });
  folder = mkdtempSync(join("dist", "serve-"));
  writeFileSync(join(folder, "vector.mjs"), PROGRAM);
  server = spawn(process.execPath, ["dist/cli/main.js", "serve", "--port", "0", "--json"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  server.stderr!.on("data", (chunk) => (said += chunk));
  let printed = "";
  for await (const chunk of server.stdout!) {
    printed += chunk;
    if (printed.includes("}")) break;
  }
  ({ link } = JSON.parse(printed));
});
afterAll(() => {
  server.kill("SIGKILL");
  rmSync(folder, { recursive: true });
});

async function printedBy(program: string, ...args: string[]): Promise<string[]> {
  const env = { ...process.env };
  delete env["NODE_OPTIONS"]; // vitest's own are Node's
  const { stdout } = await promisify(execFile)(program, [...args, join(folder, "vector.mjs"), link], { env });
  return stdout.trimEnd().split("\n");
}

const expected = [...PROGRAM.matchAll(/^\/\/ → (.*)$/gm)].map(([, line]) => line!);

test("the link has a token, and the page is where it points, if it has been built", async () => {
  expect(link).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/#token=[\w-]{43}$/);
  const { status } = await fetch(link);
  expect([200, 404]).toContain(status);
});

test("the program of docs/serve.md prints in Node what it says", async () => {
  const flags = globalThis.WebSocket ? [] : ["--experimental-websocket"];
  expect(expected).toHaveLength(2);
  expect(await printedBy(process.execPath, "--no-warnings", ...flags)).toEqual(expected);
});

test("and in Deno, with the one permission that it names", async () => {
  expect(await printedBy(fetched("deno"), "run", "--no-prompt", "--allow-net")).toEqual(expected);
});

test("a picture of 20 megapixels is taken, and others are answered meanwhile", async () => {
  const Socket = (globalThis.WebSocket ?? NodeSocket) as never;
  const connect = async () => SessionClient.open(await connectSocket(link, { WebSocket: Socket }));
  const [a, b] = [await connect(), await connect()];
  const [width, height] = [5000, 4000];
  const rows = new Uint8Array(height * (1 + 3 * width));
  const photograph = (wide: number) => buildPng({ width: wide, height, depth: 8, colorType: 2, rows });
  let done = false;
  const taking = a.picture({ image: photograph(width) }).finally(() => {
    done = true;
  });
  let answers = 0;
  while (!done) {
    await b.models();
    answers += 1;
  }
  expect(await taking).toMatchObject({ width, height });
  // Were it unpacked by the thread that answers, there would be one or two.
  expect(answers).toBeGreaterThan(20);
  const refused = a.picture({ image: photograph(2 * width) });
  await expect(refused).rejects.toMatchObject({
    name: "ImageError",
    message: expect.stringMatching(/at most \d+ pixels/),
  });
  a.close();
  b.close();
});

test("Ctrl-C ends it, sessions and all, with success", async () => {
  const code = new Promise((resolve) => server.on("exit", (...ended) => resolve(ended)));
  server.kill("SIGINT");
  expect(await code).toEqual([0, null]);
  expect(said).not.toMatch(/error/i);
});

test("a port that is taken is named, with what to do", async () => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const { port } = taken.address() as { port: number };
  const started = promisify(execFile)(process.execPath, ["dist/cli/main.js", "serve", "--port", `${port}`]);
  await expect(started).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^xpatch: cannot listen .*--port/),
  });
  taken.close();
});
