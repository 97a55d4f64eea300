import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket as NodeSocket } from "ws";
import { SessionError } from "../../src/errors.ts";
import { addVector, loadModel, tap } from "../../src/index.ts";
import { SessionClient } from "../../src/session/client.ts";
import { SessionServer } from "../../src/session/serve/server.ts";
import { connectSocket } from "../../src/session/socket-port.ts";
import { testDevice } from "../helpers/device.ts";
import { LLAMA, testHost } from "./sessions.ts";

const OFFER = { models: [{ ref: LLAMA, label: "llama" }], anyRef: false, files: false };
const page = mkdtempSync(join(tmpdir(), "xpatch-page-"));
const host = testHost({ place: "server", offer: OFFER });
let server: SessionServer;
const notes: string[] = [];

beforeAll(async () => {
  mkdirSync(join(page, "site/assets"), { recursive: true });
  writeFileSync(join(page, "secret.txt"), "secret");
  writeFileSync(join(page, "site/index.html"), "<!doctype html><title>page</title>");
  writeFileSync(join(page, "site/assets/a.js"), "0123456789");
  writeFileSync(join(page, "site/.hidden"), "secret");
  symlinkSync(join(page, "secret.txt"), join(page, "site/link.txt"));
  symlinkSync(page, join(page, "site/up"));
  server = await SessionServer.open(host, {
    page: join(page, "site"),
    clients: 60,
    note: (text) => notes.push(text),
  });
});
afterAll(async () => {
  await server.close();
  rmSync(page, { recursive: true });
});

/** Node 20 has no WebSocket of its own. */
const port = (link: string) =>
  connectSocket(link, { WebSocket: (globalThis.WebSocket ?? NodeSocket) as never });
const open = async (link = server.link) => SessionClient.open(await port(link));

test("a session over a WebSocket gives what the library gives", async () => {
  using session = await open();
  expect(session.host).toMatchObject({ place: "server", version: 1 });
  const told: string[] = [];
  const { model, width } = await session.load(
    { ref: LLAMA },
    { onProgress: ({ phase }) => told.push(phase) },
  );
  expect(told).toContain("load");
  const value = new Float32Array(width).map((_, i) => Math.sin(i));
  const { taps, top } = await session.run({
    model,
    prompt: { parts: "Q: Greece" },
    taps: { v: { site: "resid_post.1", at: -1 } },
    edits: [{ operation: "add", site: "resid_post.0", at: -1, value }],
  });
  using library = await loadModel(LLAMA, { device: await testDevice() });
  const expected = library.run(library.prompt("Q: Greece"), {
    taps: { v: tap("resid_post.1", -1) },
    edits: [addVector("resid_post.0", -1, value)],
  });
  expect(taps["v"]!.data).toEqual(await expected.v.read());
  expect(top).toHaveLength(10);
});
