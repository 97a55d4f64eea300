import { afterEach, beforeEach, expect, test } from "vitest";
import { Explorer, type ExplorerPage, type Visitor } from "./helpers/explorer.ts";

const WORKER = "service-worker.js";
const SOON = { timeout: 60_000 };

let explorer: Explorer;
beforeEach(async () => {
  explorer = await Explorer.start();
});
afterEach(() => explorer?.close());

/** A visit to the page as it is hosted somewhere: the browser keeps it. */
const visit = (visitor: Visitor, hash = ""): Promise<ExplorerPage> =>
  visitor.open(hash, explorer.site.hosted);

/** Waits until the page is kept whole. */
async function kept(tab: ExplorerPage): Promise<void> {
  await tab.page.evaluate(async () => void (await navigator.serviceWorker.ready));
}

test("the second visit asks for nothing; the page, its views and the model are there without the server", async () => {
  const { site } = explorer;
  const visitor = await explorer.visitor();
  const first = await visit(visitor);
  await first.load();
  await first.go("Task vectors");
  await first.page.getByRole("form", { name: "Make a vector" }).waitFor(); // the tasks are here, too
  await first.ready();
  await kept(first);
  first.expectQuiet();
  await first.page.close();

  site.asked.length = 0;
  const second = await visit(visitor, "#/?load=tiny");
  await second.ready();
  // The browser itself asks whether there is another worker.
  expect(site.asked.filter((path) => path !== WORKER)).toEqual([]);
  second.expectQuiet();
  await second.page.close();

  site.close();
  const third = await visit(visitor, "?from=somewhere#/?load=tiny");
  const { page } = third;
  await third.ready();
  await third.go("Prompt");
  await page.getByRole("textbox", { name: "Text of the prompt" }).fill("Q: Greece\nA:");
  await page.getByRole("table", { name: "The most probable next tokens" }).waitFor(SOON);
  await third.go("Patch lens");
  await third.panel("Source").waitFor();
  await third.go("Task vectors");
  await page.getByRole("form", { name: "Make a vector" }).waitFor();
  await third.go("See");
  await third.panel("Attention").first().waitFor();
  await third.go("Tour");
  await page
    .getByRole("button", { name: /^Begin: / })
    .first()
    .waitFor();
  await page.getByRole("button", { name: "Copy as code" }).click();
  await page.getByRole("dialog").first().waitFor();
  third.expectQuiet();
  await page.reload();
  await third.ready();
  third.expectQuiet();
}, 300_000);

test("a newer page is said, and is there at the next visit; what was kept of the old one is gone", async () => {
  const { site } = explorer;
  const visitor = await explorer.visitor();
  const isNew = (tab: ExplorerPage) => tab.page.locator("meta[name=newer]").count();
  const caches = (tab: ExplorerPage) => tab.page.evaluate(() => globalThis.caches.keys());
  const first = await visit(visitor);
  await kept(first);
  const [old, ...others] = await caches(first);
  expect(others).toEqual([]);
  await first.page.close();

  site.publish(site.html.replace("<head>", '<head><meta name="newer" />'));
  const second = await visit(visitor);
  expect(await isNew(second)).toBe(0);
  const messages = second.page.getByRole("status", { name: "Messages" });
  await messages.getByText("There is a newer version of this page.").waitFor(SOON);
  second.expectQuiet();
  await second.page.close();

  // The browser changes workers when it has seen that the last tab is gone.
  let third = await visit(visitor);
  await expect
    .poll(async () => {
      if (await isNew(third)) return true;
      await third.page.close();
      third = await visit(visitor);
      return false;
    }, SOON)
    .toBe(true);
  await expect.poll(() => caches(third), SOON).toHaveLength(1);
  expect(await caches(third)).not.toEqual([old]);
  third.expectQuiet();
}, 300_000);

test("a page whose files are those of two builds is not kept, and works", async () => {
  const { site } = explorer;
  site.intercept = (path, _request, response) => {
    if (path !== "") return false;
    response.writeHead(200, { "content-type": "text/html" }).end(`${site.html}<!-- in between -->`);
    return true;
  };
  const visitor = await explorer.visitor();
  const tab = await visit(visitor);
  // The page itself, and the worker that was to keep it.
  await expect.poll(() => site.asked.filter((path) => path === "").length, SOON).toBeGreaterThan(1);
  const isGone = () =>
    tab.page.evaluate(async () => {
      const { installing, waiting, active } = (await navigator.serviceWorker.getRegistration()) ?? {};
      return !installing && !waiting && !active && (await caches.keys()).length === 0;
    });
  await expect.poll(isGone, SOON).toBe(true);
  await tab.load();
});

test("on this machine's own address the page is not kept: the newest is wanted there", async () => {
  const tab = await explorer.loaded();
  expect(await tab.page.evaluate(() => navigator.serviceWorker.getRegistrations())).toEqual([]);
  expect(explorer.site.asked).not.toContain(WORKER);
  tab.expectQuiet();
});
