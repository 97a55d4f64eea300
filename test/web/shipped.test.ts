import { afterAll, beforeAll, expect, test } from "vitest";
import { Explorer } from "./helpers/explorer.ts";
import { shipped } from "./helpers/packed.ts";

const MOST_REQUESTS = 40;
const MOST_BYTES = 160e6;

let explorer: Explorer;
beforeAll(async () => {
  explorer = await Explorer.start(await shipped());
}, 400_000);
afterAll(() => explorer?.close());

test("the shipped model comes with few requests, and the second visit asks for nothing", async () => {
  const visitor = await explorer.visitor();
  const { site } = explorer;
  site.asked.length = 0;
  const tab = await visitor.open("#/?load=xpatch:vlm");
  await tab.ready();
  const asked = site.takeModelRequests();
  expect(asked.length).toBeGreaterThan(0);
  expect(asked.length).toBeLessThanOrEqual(MOST_REQUESTS);
  const bytes = asked.reduce((sum, path) => sum + site.sizeOf(path), 0);
  expect(bytes).toBeGreaterThan(100e6);
  expect(bytes).toBeLessThanOrEqual(MOST_BYTES);
  await tab.page.close();
  const second = await visitor.open("#/?load=xpatch:vlm");
  await second.ready();
  expect(site.takeModelRequests()).toEqual([]);
  tab.expectQuiet();
  second.expectQuiet();
}, 300_000);
