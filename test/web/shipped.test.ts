import { afterAll, beforeAll, expect, test } from "vitest";
import { Explorer } from "./helpers/explorer.ts";
import { shipped } from "./helpers/packed.ts";
import { chosenPicture } from "./helpers/prompts.ts";

const MOST_REQUESTS = 40;
const MOST_BYTES = 160e6;

let explorer: Explorer;
beforeAll(async () => {
  explorer = await Explorer.start(await shipped());
}, 400_000);
afterAll(() => explorer?.close());

const POLAND = "tasks/pictures/twemoji/1f1f5-1f1f1.png";

test("the shipped model comes with few requests; the second visit asks for nothing, and a flag is named", async () => {
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
  await second.go("Prompt");
  await second.page.getByRole("textbox", { name: "Text of the prompt" }).fill("Q:");
  await chosenPicture(second, POLAND);
  await second.page.getByRole("textbox", { name: "Text 2" }).fill("\nA:");
  const answers = second.page
    .getByRole("table", { name: "The most probable next tokens" })
    .locator("tbody tr");
  const likeliest = async () => (await answers.allTextContents())[0] ?? "";
  await expect.poll(likeliest, { timeout: 120_000 }).toContain("Poland");
  tab.expectQuiet();
  second.expectQuiet();
}, 300_000);
