import { readFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { Explorer, type ExplorerPage } from "./helpers/explorer.ts";

const LARGE = "models/tiny/model.safetensors";
const FILES = 6; // of the tiny model
const BYTES = readFileSync("test/fixtures/llava/model/model.safetensors").length;

let explorer: Explorer;
beforeAll(async () => {
  explorer = await Explorer.start();
});
afterEach(() => {
  explorer.site.intercept = undefined;
  explorer.site.asked.length = 0;
});
afterAll(() => explorer?.close());

/** Sends the first half of the large file, and no more until it is let go; ranges are answered as always. */
function stopHalfway(): { readonly sent: Promise<void> } {
  let tell = () => {};
  const sent = new Promise<void>((resolve) => {
    tell = resolve;
  });
  explorer.site.intercept = (path, request, response) => {
    if (path !== LARGE || request.headers.range) return false;
    const file = readFileSync("test/fixtures/llava/model/model.safetensors");
    response
      .writeHead(200, { "content-length": file.length })
      .write(file.subarray(0, BYTES / 2), () => tell());
    return true;
  };
  return { sent };
}

/** Bytes of files that have not come whole. */
function bytesOnTheWay(tab: ExplorerPage): Promise<number> {
  return tab.page.evaluate(async () => {
    const root = await navigator.storage.getDirectory();
    const folder = await (await root.getDirectoryHandle("xpatch-models")).getDirectoryHandle("files");
    let bytes = 0;
    for await (const [name, handle] of folder.entries()) {
      if (name.endsWith(".part")) bytes += (await (handle as FileSystemFileHandle).getFile()).size;
    }
    return bytes;
  });
}

test("a model is fetched with a request a file; the second visit asks for nothing", async () => {
  const visitor = await explorer.visitor();
  const first = await visitor.open();
  await first.load();
  expect(explorer.site.takeModelRequests()).toHaveLength(FILES);
  await first.page.close();
  const second = await visitor.open();
  await second.panel("Offered here").getByText("in this browser already").waitFor();
  await second.load();
  expect(explorer.site.takeModelRequests()).toEqual([]);
  first.expectQuiet();
  second.expectQuiet();
});

test("a reload brings the model back from what the browser keeps", async () => {
  const tab = await explorer.loaded();
  explorer.site.asked.length = 0;
  await tab.page.reload();
  await tab.ready();
  expect(explorer.site.takeModelRequests()).toEqual([]);
  tab.expectQuiet();
});

test("a reload in the middle of a download goes on where it was", async () => {
  const { sent } = stopHalfway();
  const tab = await (await explorer.visitor()).open();
  await tab.page.getByRole("button", { name: "Load tiny" }).click();
  await sent;
  await expect.poll(() => bytesOnTheWay(tab)).toBeGreaterThan(0);
  const before = await bytesOnTheWay(tab);
  const ranges: (string | undefined)[] = [];
  explorer.site.intercept = (path, request) => {
    if (path === LARGE) ranges.push(request.headers.range);
    return false;
  };
  await tab.page.reload();
  await tab.ready();
  expect(ranges).toEqual([expect.stringMatching(/^bytes=\d+-$/)]);
  expect(Number(/\d+/.exec(ranges[0]!)![0])).toBeGreaterThanOrEqual(before);
  expect(await bytesOnTheWay(tab)).toBe(0);
  tab.expectQuiet();
});

test("a download that is given up can be gone on with, and removed", async () => {
  const { sent } = stopHalfway();
  const tab = await (await explorer.visitor()).open();
  await tab.page.getByRole("button", { name: "Load tiny" }).click();
  await sent;
  await expect.poll(() => bytesOnTheWay(tab)).toBeGreaterThan(0);
  await tab.page.getByRole("button", { name: "Cancel" }).click();
  await tab.status.getByText("No model is loaded.").waitFor();
  const kept = tab.panel("Kept in this browser");
  await kept.getByText(/kB of 66\d kB/).waitFor();
  await kept.getByRole("button", { name: "Remove tiny" }).click();
  await kept.getByText("Nothing yet.").waitFor();
  expect(await bytesOnTheWay(tab)).toBe(0);
  tab.expectQuiet();
});

test("two tabs that load at once fetch it once", async () => {
  const visitor = await explorer.visitor();
  const tabs = [await visitor.open(), await visitor.open()];
  await Promise.all(tabs.map((tab) => tab.load()));
  expect(explorer.site.takeModelRequests().sort()).toHaveLength(FILES);
  for (const tab of tabs) tab.expectQuiet();
});

test("a file that is damaged on its way is refused by its hash, and fetched anew", async () => {
  explorer.site.intercept = (path, _request, response) => {
    if (path !== LARGE) return false;
    response.writeHead(200).end(Buffer.alloc(BYTES, 7));
    return true;
  };
  const tab = await (await explorer.visitor()).open();
  await tab.page.getByRole("button", { name: "Load tiny" }).click();
  const loaded = tab.panel("Loaded");
  await loaded.getByText("tiny could not be loaded").waitFor();
  expect(await loaded.textContent()).toMatch(/damaged or another file: expected sha256 [0-9a-f]{64}, found/);
  explorer.site.intercept = undefined;
  await loaded.getByRole("button", { name: "Try again" }).click();
  await tab.ready();
  tab.expectQuiet();
});

test("a server without ranges has the file sent from its start", async () => {
  const { sent } = stopHalfway();
  const tab = await (await explorer.visitor()).open();
  await tab.page.getByRole("button", { name: "Load tiny" }).click();
  await sent;
  await expect.poll(() => bytesOnTheWay(tab)).toBeGreaterThan(0);
  explorer.site.intercept = (path, request) => {
    if (path === LARGE) delete request.headers.range;
    return false;
  };
  await tab.page.reload();
  await tab.ready();
  tab.expectQuiet();
});

test("where there is no room to keep it, a model is read from the network, and the page says so", async () => {
  const tab = await (await explorer.visitor()).open();
  const protocol = await tab.page.context().newCDPSession(tab.page);
  const { origin } = new URL(explorer.site.url);
  await protocol.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 100_000 });
  await tab.load();
  await tab.page
    .getByText(/tiny is not kept for the next visit: the browser's storage for this site is full/)
    .waitFor();
  await tab.panel("Kept in this browser").getByText("Nothing yet.").waitFor();
  tab.expectQuiet();
});

test("what is kept has a size, and a button that removes it", async () => {
  const tab = await explorer.loaded();
  const kept = tab.panel("Kept in this browser");
  await kept.getByText("667 kB").waitFor();
  await kept.getByRole("button", { name: "Remove tiny" }).click();
  await kept.getByText("Nothing yet.").waitFor();
  explorer.site.asked.length = 0;
  await tab.page.reload();
  await tab.ready(); // fetched again
  expect(explorer.site.takeModelRequests()).toHaveLength(FILES);
});

describe("files of the reader", () => {
  const FOLDER = "test/fixtures/llava/model";

  test("a folder that is picked is loaded, and asked for again after a reload", async () => {
    const tab = await (await explorer.visitor()).open();
    await tab.page.locator("input[type=file]").setInputFiles(FOLDER);
    await tab.ready();
    expect(await tab.page.getByRole("banner").textContent()).toContain("model · F32");
    expect(explorer.site.takeModelRequests()).toEqual([]);
    await tab.page.reload();
    await tab
      .panel("Loaded")
      .getByText(/drop it once more/)
      .waitFor();
    tab.expectQuiet();
  });

  test("a file that is none is refused with what was expected", async () => {
    const tab = await (await explorer.visitor()).open();
    await tab.page.locator("input[type=file]").setInputFiles("test/fixtures/images/formats");
    await tab.page.getByText(/this is no model; expected a folder with a config.json/).waitFor();
    await tab.status.getByText("No model is loaded.").waitFor();
    tab.expectQuiet();
  });

  test("a dropped file does not make the browser leave the page; one that is none is refused", async () => {
    const tab = await (await explorer.visitor()).open();
    const data = await tab.page.evaluateHandle(() => {
      const transfer = new DataTransfer();
      transfer.items.add(new File(["no model"], "holiday.jpg"));
      return transfer;
    });
    await tab.page.dispatchEvent("main", "dragover", { dataTransfer: data });
    await tab.page.dispatchEvent("main", "drop", { dataTransfer: data });
    await tab.page.getByText(/holiday.jpg: this is no model/).waitFor();
    tab.expectQuiet();
  });

  test("a URL is loaded from its server, be it chosen before there is a device; one that is none says what is missing", async () => {
    const visitor = await explorer.visitor();
    let letGo = () => {};
    const gate = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    await visitor.context.route("**/session-worker*.js", async (route) => {
      await gate;
      await route.continue();
    });
    const tab = await visitor.open();
    const field = tab.page.getByRole("textbox", { name: /Hugging Face hub/ });
    await field.fill(`${explorer.site.url}models/tiny`);
    await field.press("Enter");
    await tab.panel("Loaded").getByText("Waiting for the device").waitFor();
    letGo();
    await tab.ready();
    await field.fill(`${explorer.site.url}models`);
    await field.press("Enter");
    await tab
      .panel("Loaded")
      .getByText(/there is no config.json/)
      .waitFor();
  });
});

test("a lost device is shown, with a way to go on", async () => {
  const tab = await explorer.loaded();
  const browser = await explorer.browser.newBrowserCDPSession();
  await browser.send("Browser.crashGpuProcess");
  await tab.page.getByText("The device was lost").waitFor();
  expect(await tab.axe()).toEqual([]);
  explorer.site.asked.length = 0;
  await tab.page.getByRole("button", { name: "Start again" }).click();
  await tab.ready();
  expect(explorer.site.takeModelRequests()).toEqual([]);
});
