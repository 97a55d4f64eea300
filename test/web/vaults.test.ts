import { createHash } from "node:crypto";
import type { JSHandle } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BrowserPage } from "../helpers/browser.ts";

type CacheModule = typeof import("../../web/src/models/cache-vault.ts");
type FetchModule = typeof import("../../web/src/models/fetch-file.ts");

/** Two pieces and a bit. */
const BYTES = Buffer.alloc(2 * 8 * 2 ** 20 + 12345, "The Cache API keeps pieces. ");
const FILE = {
  path: "model.bin",
  bytes: BYTES.length,
  algorithm: "sha256" as const,
  hash: createHash("sha256").update(BYTES).digest("hex"),
  url: "/file",
};

let browser: BrowserPage;
let modules: [JSHandle<CacheModule>, JSHandle<FetchModule>];
const ranges: (string | undefined)[] = [];
beforeAll(async () => {
  browser = await BrowserPage.open();
  modules = [
    await browser.import<CacheModule>("/web/src/models/cache-vault.ts"),
    await browser.import<FetchModule>("/web/src/models/fetch-file.ts"),
  ];
  await browser.page.route("**/file", async (route) => {
    const { range } = route.request().headers();
    ranges.push(range);
    const begin = Number(/\d+/.exec(range ?? "0")![0]);
    await route.fulfill({ status: range ? 206 : 200, body: BYTES.subarray(begin) });
  });
});
afterAll(() => browser?.close());

test("without a private file system the Cache API keeps files, in pieces, and goes on with them", async () => {
  const [cache, fetching] = modules;
  const found = await browser.page.evaluate(
    async ([{ CacheVault }, { fetchFile }, file, start]) => {
      const vault = (await CacheVault.open())!;
      const key = `sha256-${file.hash}`;
      // What an earlier visit has left, in two sittings that end in the middle of pieces.
      for (const [from, to] of [
        [0, 1000],
        [1000, 9_000_000],
      ] as const) {
        const writer = await vault.write(key, false);
        const bytes = new TextEncoder().encode(start.repeat(Math.ceil(to / start.length)));
        await writer.append(bytes.slice(from, to));
        await writer.close();
      }
      const before = (await vault.part(key)).size;
      const told: number[] = [];
      await fetchFile(vault, file, {
        signal: new AbortController().signal,
        onBytes: (bytes) => told.push(bytes),
      });
      const whole = await (await vault.whole(key))!.arrayBuffer();
      const hash = [...new Uint8Array(await crypto.subtle.digest("SHA-256", whole))];
      const manifest = { title: "a model", files: [file] };
      await vault.addModel({ id: "a/b c", manifest });
      const models = await vault.models();
      const files = [...(await vault.files())];
      await vault.removeFile(key);
      await vault.removeModel("a/b c");
      return {
        before,
        told: [told[0], told.at(-1)],
        hash: hash.map((byte) => byte.toString(16).padStart(2, "0")).join(""),
        models,
        files,
        after: [(await vault.files()).size, (await vault.models()).length],
      };
    },
    [cache, fetching, FILE, "The Cache API keeps pieces. "] as const,
  );
  expect(found).toMatchObject({
    before: 9_000_000,
    told: [9_000_000, FILE.bytes],
    hash: FILE.hash,
    models: [{ id: "a/b c", manifest: { title: "a model", files: [FILE] } }],
    files: [[`sha256-${FILE.hash}`, { bytes: FILE.bytes, whole: true }]],
    after: [0, 0],
  });
  expect(ranges).toEqual(["bytes=9000000-"]);
});
