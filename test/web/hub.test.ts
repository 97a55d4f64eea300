import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Locator } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Explorer, type Visitor } from "./helpers/explorer.ts";

const FOLDER = "test/fixtures/llama/model";
const HUB = "https://huggingface.co";
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const HEADERS = { "access-control-allow-origin": "*" };

let explorer: Explorer;
beforeAll(async () => {
  explorer = await Explorer.start();
});
afterAll(() => explorer?.close());

const gitHash = (bytes: Buffer) =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");

/** As the hub answers; `changed` is sent in place of a file. */
async function hub(visitor: Visitor, changed: Readonly<Record<string, Buffer>> = {}): Promise<string[]> {
  const asked: string[] = [];
  const files = new Map(readdirSync(FOLDER).map((name) => [name, readFileSync(join(FOLDER, name))]));
  const siblings = [...files, ["README.md", Buffer.from("# about")] as const].map(([rfilename, bytes]) => ({
    rfilename,
    size: bytes.length,
    blobId: gitHash(bytes),
    ...(rfilename.endsWith(".safetensors") && {
      lfs: { sha256: createHash("sha256").update(bytes).digest("hex"), size: bytes.length },
    }),
  }));
  await visitor.context.route(`${HUB}/**`, async (route) => {
    const path = new URL(route.request().url()).pathname;
    asked.push(path);
    if (path === "/api/models/tiny/llama")
      return route.fulfill({ headers: HEADERS, json: { sha: COMMIT, siblings } });
    const name = path.replace(`/tiny/llama/resolve/${COMMIT}/`, "");
    const body = changed[name] ?? files.get(name);
    return route.fulfill(body ? { headers: HEADERS, body } : { status: 404, headers: HEADERS });
  });
  return asked;
}

test("a model of the hub is fetched once, without what is not needed, checked by the hub's hashes", async () => {
  const visitor = await explorer.visitor();
  const asked = await hub(visitor);
  const tab = await visitor.open();
  const field = tab.page.getByRole("textbox", { name: /Hugging Face hub/ });
  await field.fill("tiny/llama");
  await whenItCanLoad(field);
  await field.press("Enter");
  await tab.ready();
  expect(asked).toHaveLength(1 + readdirSync(FOLDER).length);
  expect(asked.join()).not.toContain("README");
  await tab.panel("Kept in this browser").getByText("tiny/llama").waitFor();
  asked.length = 0;
  await tab.page.reload();
  await tab.ready();
  expect(asked).toEqual([]);
  tab.expectQuiet();
});

/** The page takes no model before its session is open. */
const whenItCanLoad = (field: Locator) =>
  field.page().locator("form").filter({ has: field }).locator("button:enabled").waitFor();

test("a file whose hash is another is refused, whichever kind of hash the hub states", async () => {
  for (const name of ["config.json", "model.safetensors"]) {
    const visitor = await explorer.visitor();
    const bytes = Buffer.from(readFileSync(join(FOLDER, name)));
    bytes[bytes.length - 2]! ^= 1;
    await hub(visitor, { [name]: bytes });
    const tab = await visitor.open();
    const field = tab.page.getByRole("textbox", { name: /Hugging Face hub/ });
    await field.fill("tiny/llama");
    await whenItCanLoad(field);
    await field.press("Enter");
    await tab
      .panel("Loaded")
      .getByText(new RegExp(`${name}: .*damaged or another file`))
      .waitFor();
  }
});

test("a model that the hub does not have is refused by its name", async () => {
  const visitor = await explorer.visitor();
  await hub(visitor);
  const tab = await visitor.open();
  const field = tab.page.getByRole("textbox", { name: /Hugging Face hub/ });
  await field.fill("nobody/nothing");
  await whenItCanLoad(field);
  await field.press("Enter");
  await tab
    .panel("Loaded")
    .getByText(/nobody\/nothing: there is no such model on the hub/)
    .waitFor();
});
