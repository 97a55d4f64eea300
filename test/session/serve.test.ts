import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { connect as connectTcp } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket as NodeSocket } from "ws";
import { addVector, loadModel, tap } from "../../src/index.ts";
import { SessionClient } from "../../src/session/client.ts";
import { encodeMessage } from "../../src/session/messages/message-codec.ts";
import { connectSocket, readLink, SUBPROTOCOL, TOKEN_PREFIX } from "../../src/session/ports/socket-port.ts";
import { isOwnHost, isOwnOrigin, sameToken } from "../../src/session/serve/access.ts";
import { SessionServer } from "../../src/session/serve/server.ts";
import { socketEnd } from "../../src/session/serve/socket-end.ts";
import { testDevice } from "../helpers/device.ts";
import { LLAMA, LLAVA, testHost } from "./sessions.ts";

const OFFER = {
  models: [LLAMA, LLAVA].map((ref) => ({ ref, label: ref })),
  anyRef: false,
  files: false,
};
const MESSAGE_BYTES = 2 ** 20;
const page = mkdtempSync(join(tmpdir(), "xpatch-page-"));
const host = testHost({
  place: "server",
  offer: OFFER,
  bounds: { messageBytes: MESSAGE_BYTES, picturePixels: 2 ** 21 },
});
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

const PROMPT = { parts: "Q: Greece\nA: Athens\n\nQ: Italy\nA:" };

describe("who is let in", () => {
  test("nobody with a wrong token, or none; and they are told", async () => {
    for (const token of ["AAAA", readLink(server.link).token.slice(0, -1)]) {
      const refused = open(`${server.url}#token=${token}`);
      await expect(refused).rejects.toMatchObject({ name: "SessionError", code: "refused" });
      await expect(refused).rejects.toThrow(/wrong token/);
    }
    for (const link of [server.url, `${server.url}#token=`, "nonsense", "file:///etc#token=a"]) {
      expect(() => readLink(link)).toThrow(/expected a link/);
    }
    expect(notes.at(-1)).toContain("wrong token");
    const bare = new NodeSocket(readLink(server.link).url);
    const code = await new Promise((resolve) => bare.on("close", resolve));
    expect(code).toBe(4401);
  });

  test("tokens are long, and compared whole", () => {
    expect(readLink(server.link).token).toHaveLength(43);
    expect(sameToken("abc", "abc")).toBe(true);
    for (const other of ["", "ab", "abd", "abcd"]) expect(sameToken(other, "abc")).toBe(false);
  });

  test("no page of another origin, and nobody who calls the server by another name", async () => {
    const { url, token } = readLink(server.link);
    const status = (headers: Record<string, string>, address = url) =>
      new Promise<number>((resolve) => {
        const socket = new NodeSocket(address, [SUBPROTOCOL, `${TOKEN_PREFIX}${token}`], { headers });
        socket.on("unexpected-response", (_, response: IncomingMessage) => resolve(response.statusCode!));
        socket.on("open", () => {
          resolve(101);
          socket.close();
        });
        socket.on("error", () => {});
      });
    const { host: own } = new URL(url);
    expect(await status({ origin: `http://${own}` })).toBe(101);
    for (const origin of [
      "https://example.org",
      "null",
      "http://localhost:1",
      `http://${own}.example.org`,
      "file://",
    ]) {
      expect(await status({ origin })).toBe(403);
    }
    for (const name of ["example.org", "127.0.0.1", `evil.test:${new URL(url).port}`]) {
      expect(await status({ host: name })).toBe(403);
    }
    expect(await status({}, url.replace("/session", "/other"))).toBe(403);
  });

  test("names and origins", () => {
    const names = { host: "127.0.0.1", port: 80, allowedHosts: [], allowedOrigins: [] };
    const own = (host: string | undefined, more = {}) => isOwnHost(host, { ...names, ...more });
    for (const host of ["localhost", "127.0.0.1:80", "[::1]:80", "LOCALHOST"]) expect(own(host)).toBe(true);
    for (const host of [
      undefined,
      "",
      "127.0.0.1:81",
      "localhost.example.org",
      "10.0.0.1",
      "a b",
      "[::1",
      "1:2:3",
    ]) {
      expect(own(host)).toBe(false);
    }
    expect(own("10.0.0.1", { host: "0.0.0.0" })).toBe(true);
    expect(own("rebound.example.org", { host: "0.0.0.0" })).toBe(false);
    expect(own("gpu.lab:443", { allowedHosts: ["gpu.lab"] })).toBe(true);
    const origin = (from: string | undefined, allowedOrigins: string[] = []) =>
      isOwnOrigin(from, "localhost:80", { ...names, allowedOrigins });
    expect(origin(undefined)).toBe(true);
    expect(origin("https://site.example", ["https://site.example"])).toBe(true);
    expect(origin("http://site.example", ["https://site.example"])).toBe(false);
  });

  test("no more than there is room for", async () => {
    const small = await SessionServer.open(testHost({ offer: OFFER }), { clients: 2 });
    const clients = [await open(small.link), await open(small.link)];
    await expect(open(small.link)).rejects.toMatchObject({ code: "bounds" });
    clients[0]!.close();
    await clients[0]!.ended;
    const next = await retried(() => open(small.link));
    next.close();
    await small.close();
  });
});

/** A connection counts until its end has come through. */
async function retried<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      if (attempt === 20) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

describe("files", () => {
  /** As it is: `fetch` would tidy the path up. */
  const get = (path: string, headers: Record<string, string> = {}, method = "GET") =>
    new Promise<{ status: number; body: string; headers: IncomingMessage["headers"] }>((resolve, reject) => {
      const { port, hostname } = new URL(server.url);
      const sent = httpRequest({ port, hostname, path, headers, method }, (response) => {
        let body = "";
        response.on("data", (chunk) => (body += chunk));
        response.on("end", () => resolve({ status: response.statusCode!, body, headers: response.headers }));
      });
      sent.on("error", reject);
      sent.end();
    });

  test("the page is served, with ranges, and headers that keep it safe", async () => {
    const index = await get("/");
    expect(index).toMatchObject({ status: 200, body: expect.stringContaining("<title>page") });
    expect(index.headers).toMatchObject({
      "content-type": "text/html; charset=utf-8",
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
    });
    expect(await get("/assets/a.js?v=1")).toMatchObject({ status: 200, body: "0123456789" });
    expect(await get("/assets/a.js", { range: "bytes=2-4" })).toMatchObject({ status: 206, body: "234" });
    expect(await get("/assets/a.js", { range: "bytes=-3" })).toMatchObject({ status: 206, body: "789" });
    expect(await get("/assets/a.js", { range: "bytes=20-" })).toMatchObject({ status: 416 });
    expect(await get("/assets/a.js", {}, "HEAD")).toMatchObject({ status: 200, body: "" });
    const { headers } = await get("/assets/a.js");
    expect(await get("/assets/a.js", { "if-none-match": headers.etag! })).toMatchObject({ status: 304 });
    expect(await get("/", {}, "POST")).toMatchObject({ status: 405 });
    expect(await get("/", { host: "example.org" })).toMatchObject({ status: 403 });
  });

  test.each([
    "/../secret.txt",
    "/assets/../../secret.txt",
    "/%2e%2e/secret.txt",
    "/%2e%2e%2fsecret.txt",
    "/..%2fsecret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/link.txt",
    "/up/secret.txt",
    "/.hidden",
    "/%2ehidden",
    "/assets",
    "/assets/",
    "//etc/hostname",
    "/%00",
    "/index.html%00.js",
    "/%",
    "/%ff",
    "/%252e%252e/secret.txt",
    "/C:/secret.txt",
  ])("%s is nothing", async (path) => {
    const { status, body } = await get(path);
    expect(status).toBe(404);
    expect(body).not.toContain("secret\n");
    expect(body).toBe("xpatch: there is no such file\n");
  });

  test("random paths come to nothing outside", async () => {
    const piece = fc.constantFrom(
      "..",
      ".",
      "%2e",
      "/",
      "%2f",
      "\\",
      "%5c",
      "up",
      "link.txt",
      "secret.txt",
      "site",
      "%00",
      "a",
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
        const { body } = await get(`/${pieces.join("")}`);
        expect(body).not.toBe("secret");
      }),
      { numRuns: 150 },
    );
  });
});

describe("what is sent", () => {
  /** A raw connection that has the token. */
  const raw = async () => {
    const { url, token } = readLink(server.link);
    const socket = new NodeSocket(url, [SUBPROTOCOL, `${TOKEN_PREFIX}${token}`]);
    const received: string[] = [];
    socket.on("message", (data) => received.push(String(data)));
    socket.on("error", () => {});
    const closed = new Promise<number>((resolve) => socket.on("close", resolve));
    await new Promise((resolve) => socket.on("open", resolve));
    return { socket, received, closed };
  };

  test("random bytes and random JSON are refused by type, and the server goes on", async () => {
    const frames = fc.oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.string(),
      fc.json(),
      fc
        .record({
          type: fc.constantFrom("request", "cancel", "result", "x"),
          id: fc.oneof(fc.integer(), fc.string(), fc.constant(1)),
          name: fc.constantFrom("hello", "run", "free", "constructor", "__proto__"),
          params: fc.anything(),
        })
        .map((message) => JSON.stringify(message) ?? "0"),
    );
    await fc.assert(
      fc.asyncProperty(frames, async (frame) => {
        const { socket, received, closed } = await raw();
        socket.send(frame);
        socket.send(encodeMessage({ type: "nothing" }));
        await closed;
        for (const text of received) {
          const { type, error } = JSON.parse(text);
          if (type === "error") expect(["SessionError", "ArgumentError"]).toContain(error.name);
        }
      }),
      { numRuns: 60 },
    );
    using session = await open();
    expect((await session.models()).models).toHaveLength(2);
  });

  test("whatever a client asks for, every answer is a result or an error of a kind that is known", async () => {
    using session = await open();
    const { model } = await session.load({ ref: LLAMA });
    const names = [
      "run",
      "encode",
      "lens",
      "record",
      "resume",
      "layers",
      "vector.make",
      "project",
      "sweep",
      "free",
      "reach",
    ];
    const known =
      /^(Session|Argument|Site|Prompt|Shape|Image|Checkpoint|DType|Xpatch|Gradient|Generation|Lifetime)Error$/;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...names),
        fc.dictionary(
          fc.constantFrom(
            "prompt",
            "edits",
            "taps",
            "at",
            "layers",
            "recipe",
            "points",
            "handles",
            "k",
            "top",
            "variants",
          ),
          fc.jsonValue({ maxDepth: 3 }),
        ),
        async (name, params) => {
          const error = await session.request(name as never, { model, ...params } as never).then(
            () => undefined,
            (thrown: Error) => thrown,
          );
          if (error) expect(error.name).toMatch(known);
        },
      ),
      { numRuns: 200 },
    );
    expect(await session.run({ model, prompt: PROMPT, top: 1 })).toMatchObject({ top: [{}] });
  });

  test("a message that is too large ends its sender's connection alone, and the client says so before it sends one", async () => {
    using other = await open();
    const { socket, closed } = await raw();
    socket.send(new Uint8Array(MESSAGE_BYTES + 1));
    expect(await closed).toBe(1009);
    await expect(other.picture({ image: new Uint8Array(MESSAGE_BYTES) })).rejects.toMatchObject({
      code: "bounds",
    });
    expect(await other.models()).toBeDefined();
  });

  test("a picture with too many pixels is refused before it is unpacked", async () => {
    using session = await open();
    // A PNG says its size at its beginning.
    const png = Uint8Array.from(readFileSync("test/fixtures/images/photo.png"));
    new DataView(png.buffer).setUint32(16, 5000);
    new DataView(png.buffer).setUint32(20, 5000);
    await expect(session.picture({ image: png })).rejects.toMatchObject({ name: "ImageError" });
  });

  test("Blobs are read before they are sent; a folder of them is refused", async () => {
    using session = await open();
    const image = new Blob([readFileSync("test/fixtures/images/photo.png")]);
    expect(await session.picture({ image })).toMatchObject({ width: expect.any(Number) });
    const folder = { files: { "config.json": new Blob(["{}"]) }, name: "dropped" };
    await expect(session.load(folder)).rejects.toMatchObject({ code: "refused" });
  });

  test("what is half a handshake, or none, goes nowhere", async () => {
    const { port, hostname } = new URL(server.url);
    for (const text of ["\0\0\0", "GET /session HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]) {
      const socket = connectTcp(Number(port), hostname);
      await new Promise<void>((resolve) => {
        socket.on("close", () => resolve());
        socket.on("error", () => {});
        socket.resume();
        socket.write(text);
      });
    }
    using session = await open();
    expect(await session.models()).toBeDefined();
  });
});

test("50 clients that vanish in mid-request leave the device as it was", async () => {
  const device = await testDevice();
  const before = device.memory.liveBytes;
  const sockets: NodeSocket[] = [];
  const clients = await Promise.all(
    Array.from({ length: 50 }, async () => {
      const Socket = class extends NodeSocket {
        constructor(url: string, protocols: string[]) {
          super(url, protocols);
          sockets.push(this);
        }
      };
      return SessionClient.open(await connectSocket(server.link, { WebSocket: Socket as never }));
    }),
  );
  const asked = clients.map(async (client, i) => {
    const { model } = await client.load({ ref: i % 2 ? LLAMA : LLAVA });
    await client.encode({ model, prompt: PROMPT });
    const requests = [
      client.record({ model, prompt: PROMPT }),
      client.generate({ model, prompt: PROMPT, maxNewTokens: 50, stopIds: [] }),
      client.makeVector({ model, recipe: { prompts: [PROMPT, PROMPT] } }),
      client.lens({ model, prompt: PROMPT }),
    ].map((request) => request.catch((error) => error));
    if (i === 49)
      setTimeout(() => {
        for (const socket of sockets) socket.terminate();
      }, 50);
    return Promise.all(requests);
  });
  for (const answers of await Promise.all(asked)) {
    for (const answer of answers)
      if (answer instanceof Error) expect(answer).toMatchObject({ code: "closed" });
  }
  for (let i = 0; host.clients > 0 && i < 200; i++) await new Promise((resolve) => setTimeout(resolve, 50));
  expect(host.clients).toBe(0);
  expect(device.memory.liveBytes).toBe(before);
  using session = await open();
  const { model } = await session.load({ ref: LLAMA });
  expect(await session.run({ model, prompt: PROMPT, top: 1 })).toMatchObject({ top: [{}] });
});

test("a client that answers no ping is let go", async () => {
  const own = await SessionServer.open(testHost({ offer: OFFER }), { pingEvery: 30 });
  const { url, token } = readLink(own.link);
  const silent = new NodeSocket(url, [SUBPROTOCOL, `${TOKEN_PREFIX}${token}`], { autoPong: false });
  silent.on("error", () => {});
  const lively = await open(own.link);
  expect(await new Promise((resolve) => silent.on("close", resolve))).toBe(1006);
  expect(await lively.models()).toBeDefined();
  await own.close();
  expect(await lively.ended).toMatchObject({ message: expect.stringContaining("has been stopped") });
  await expect(lively.models()).rejects.toMatchObject({ code: "closed" });
});

test("a client that does not read what it is sent is cut off", () => {
  const sent: unknown[] = [];
  let cut = false;
  const socket = {
    OPEN: 1,
    readyState: 1,
    bufferedAmount: 0,
    send: (message: unknown) => sent.push(message),
    terminate: () => {
      cut = true;
    },
  };
  const end = socketEnd(socket as unknown as NodeSocket);
  end.send({ type: "result", id: 1, result: null as never });
  socket.bufferedAmount = 2 ** 28 + 1; // of what nobody has read
  end.send({ type: "result", id: 2, result: null as never });
  expect(sent).toHaveLength(1);
  expect(cut).toBe(true);
});
