import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { builtPage } from "./helpers/built-page.ts";
import { Explorer } from "./helpers/explorer.ts";

let explorer: Explorer;
beforeAll(async () => {
  explorer = await Explorer.start();
});
afterAll(() => explorer?.close());

const MOST_KB = 350;

test(`the JavaScript of a first visit is at most ${MOST_KB} KB, gzipped`, async () => {
  const page = await builtPage();
  const { site } = explorer;
  site.asked.length = 0;
  const tab = await (await explorer.visitor()).open();
  await tab.status.getByText("No model is loaded.").waitFor();
  const scripts = [...new Set(site.asked)].filter((path) => path.endsWith(".js"));
  const bytes = scripts.reduce((sum, path) => sum + gzipSync(readFileSync(join(page, path))).length, 0);
  expect(scripts.length).toBeGreaterThanOrEqual(3); // the page, the session's worker, that of models
  expect(bytes).toBeLessThanOrEqual(MOST_KB * 1000);
  // Of itself and of what lies beside it alone: no other origin, nothing at the server's root.
  expect(site.asked.filter((path) => path.startsWith("/"))).toEqual([]);
  tab.expectQuiet();
});

test("the page names no other origin, and nothing by an absolute address", async () => {
  const page = await builtPage();
  const html = readFileSync(join(page, "index.html"), "utf8");
  const addresses = [...html.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, address]) => address!);
  expect(addresses.length).toBeGreaterThan(1);
  for (const address of addresses) expect(address).toMatch(/^(\.\/|data:)/);
  const styles = readdirSync(join(page, "assets")).filter((name) => name.endsWith(".css"));
  for (const name of styles)
    expect(readFileSync(join(page, "assets", name), "utf8")).not.toMatch(/https?:|@import/);
});

describe("a visitor without WebGPU", () => {
  test("is told so, and where else it can be computed", async () => {
    const visitor = await explorer.visitor();
    await visitor.context.addInitScript(() => {
      Object.defineProperty(navigator, "gpu", { value: undefined });
    });
    // The worker has a navigator of its own.
    await visitor.context.route("**/session-worker*.js", async (route) => {
      const response = await route.fetch();
      const body = `Object.defineProperty(navigator,"gpu",{value:undefined});${await response.text()}`;
      await route.fulfill({ response, body });
    });
    const tab = await visitor.open();
    await tab.page.getByText("This browser has no WebGPU").waitFor();
    expect(await tab.page.getByRole("main").textContent()).toContain("npx xpatch serve");
    expect(await tab.page.getByRole("button", { name: "Load tiny" }).isDisabled()).toBe(true);
    expect(await tab.axe()).toEqual([]);
    tab.expectQuiet();
  });
});

test("a software adapter is named as such", async () => {
  const tab = await (await explorer.visitor()).open();
  const header = tab.page.getByRole("banner");
  await header.getByText("software").waitFor();
  await tab.panel("Where it computes").getByText("A software driver").waitFor();
  expect(await header.textContent()).toContain("swiftshader");
});

describe("the state of the page", () => {
  test("is in the link, which opens it elsewhere", async () => {
    const tab = await explorer.loaded({ permissions: ["clipboard-read", "clipboard-write"] });
    await tab.page.getByRole("button", { name: "Copy a link to this state" }).click();
    await tab.page.getByText("The link is copied.").waitFor();
    const link = await tab.page.evaluate(() => navigator.clipboard.readText());
    expect(link).toMatch(/#\/model\?d=1\.[\w-]+$/);
    const other = await (await explorer.visitor()).open(new URL(link).hash);
    await other.ready(); // the model that the link speaks of
    expect(new URL(other.page.url()).hash).toBe("#/model");
    other.expectQuiet();
  });

  test("of every view can be read before any of them has been shown", async () => {
    const slices = ["prompt", "lens", "shelf", "vectors", "see", "tour"];
    const tab = await (await explorer.visitor()).open();
    // What is no part of the document is refused by name; a part of a view, for what is in it.
    for (const name of [...slices, "nothing"]) {
      const json = JSON.stringify({ version: 1, view: "model", slices: { [name]: "wrong" } });
      const link = `#/model?d=1.${deflateRawSync(json).toString("base64url")}`;
      await tab.page.goto(`${explorer.site.url}${link}`);
      const message = slices.includes(name) ? `${name}: expected an object` : `there is no part "${name}"`;
      await tab.page.getByRole("status", { name: "Messages" }).getByText(message).waitFor();
    }
  });

  test.each([
    ["a damaged one", "1.AAAA", /The link is damaged|the link is damaged/],
    ["one of a later version", "2.AAAA", /format 2, of another version/],
  ])("%s is refused by what is wrong with it, and the page works", async (_, text, message) => {
    const tab = await (await explorer.visitor()).open(`#/model?d=${text}`);
    await tab.page.getByText(message).waitFor();
    await tab.status.getByText("No model is loaded.").waitFor();
    tab.expectQuiet();
  });

  test("an unknown view leads to the first that there is", async () => {
    const tab = await (await explorer.visitor()).open("#/nowhere");
    await tab.panel("Offered here").waitFor();
    expect(new URL(tab.page.url()).hash).toBe("#/model");
  });
});
