import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readOffered } from "../../web/src/models/manifest.ts";

/* `npm run explore`, which builds the site and serves it. */

let explore: ChildProcess;
let page: URL;
beforeAll(async () => {
  explore = spawn(process.execPath, ["scripts/explore.mjs", "--no-open"], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  page = await new Promise((resolve, reject) => {
    let text = "";
    const listen = (part: Buffer) => {
      text += part;
      const [, address] = /^The explorer: (\S+)$/m.exec(text) ?? [];
      if (address) resolve(new URL(address));
    };
    explore.stdout!.on("data", listen);
    explore.stderr!.on("data", listen);
    explore.on("close", () => reject(new Error(text)));
  });
}, 500_000);
afterAll(() => explore?.kill());

test("its address is on this machine, with the shipped model to begin with", () => {
  expect(page.hostname).toBe("127.0.0.1");
  expect(page.hash).toBe("#/?load=xpatch:vlm");
});

test("the page knows the hashes of what lies beside it, by relative addresses, within the bounds", async () => {
  const html = await (await fetch(page)).text();
  const [, json] = /id="offered">(.*?)<\/script>/.exec(html)!;
  const { models, tasks } = readOffered(json!);
  expect(models.map(({ id }) => id)).toEqual(["xpatch:vlm"]);
  const files = [...models[0]!.files, ...tasks!.files];
  expect(files.length).toBeLessThanOrEqual(40);
  expect(files.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(160e6);
  for (const { url, bytes, hash } of files) {
    expect(url).toMatch(/^models\/[\w/.-]+$/);
    const response = await fetch(new URL(url, page));
    const content = Buffer.from(await response.arrayBuffer());
    expect([content.length, createHash("sha256").update(content).digest("hex")]).toEqual([bytes, hash]);
  }
});

test("ranges are answered, so that a download can be gone on with", async () => {
  const url = new URL("models/vlm-int8/config.json", page);
  const whole = await (await fetch(url)).text();
  const part = await fetch(url, { headers: { range: "bytes=10-" } });
  expect(part.status).toBe(206);
  expect(part.headers.get("content-range")).toBe(`bytes 10-${whole.length - 1}/${whole.length}`);
  expect(await part.text()).toBe(whole.slice(10));
  expect((await fetch(url, { headers: { range: `bytes=${whole.length}-` } })).status).toBe(416);
});

test.each([
  "../package.json",
  "..%2fpackage.json",
  "%2e%2e/%2e%2e/package.json",
  "assets/../../../package.json",
  "%00",
])("nothing outside is served: %s", async (path) => {
  // fetch would tidy the path up before it asks.
  const answer = await new Promise<string>((resolve) => {
    const socket = connect(Number(page.port), "127.0.0.1", () => {
      socket.write(`GET /${path} HTTP/1.1\r\nHost: ${page.host}\r\nConnection: close\r\n\r\n`);
    });
    let text = "";
    socket.on("data", (part) => {
      text += part;
    });
    socket.on("close", () => resolve(text));
  });
  expect(answer).toMatch(/^HTTP\/1.1 40[04]/);
  expect(answer).not.toContain("devDependencies");
});

test("it ends when it is told to", async () => {
  const ended = new Promise((resolve) => explore.once("close", resolve));
  explore.kill("SIGTERM");
  expect(await ended).toBe(0);
});
