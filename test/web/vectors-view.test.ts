import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SessionClient } from "../../src/session/client.ts";
import type { ModelSummary } from "../../src/session/messages/results.ts";
import { percentInWords, tokenInWords } from "../../web/src/ui/words.ts";
import { connect, LLAVA, testHost } from "../session/sessions.ts";
import { Explorer, type ExplorerPage } from "./helpers/explorer.ts";

/** A view asks again and draws; on busy machines that takes a while. */
const SOON = { timeout: 60_000 };

const host = testHost();
let explorer: Explorer;
let session: SessionClient;
let model: ModelSummary;
beforeAll(async () => {
  explorer = await Explorer.start();
  session = await connect(host);
  model = await session.load({ ref: LLAVA });
});
afterAll(async () => {
  await explorer?.close();
  await host.close();
});

const COUNT = 2;
const ITEMS = 3;
const LAYER = 1;

/** The vector of a task by two text examples in three prompts, on the shelf. */
async function make(tab: ExplorerPage, task: string): Promise<void> {
  const form = tab.page.getByRole("form", { name: "Make a vector" });
  await form.getByRole("combobox", { name: "Task" }).selectOption(task);
  for (const [name, value] of [
    ["Examples", COUNT],
    ["Prompts", ITEMS],
  ] as const) {
    await form.getByRole("spinbutton", { name }).fill(String(value));
    await form.getByRole("spinbutton", { name }).press("Tab");
  }
  await form.getByRole("button", { name: "Make" }).press("Enter");
  await tab.ready();
}

/** What the library answers with the vector in a layer, in the words of the page. */
async function answerOf(task: string, input: string, layer = LAYER): Promise<string> {
  const { vector } = await session.makeVector({
    model: model.model,
    recipe: { task, specify: { kind: "text", count: COUNT, seed: 0 }, items: ITEMS },
  });
  const { top } = await session.run({
    model: model.model,
    prompt: { task: "country-capital", input, asked: "image" },
    edits: [{ operation: "set", site: `resid_post.${layer}`, at: -1, value: { vector, layer } }],
  });
  return `${tokenInWords(top[0]!.text)}${percentInWords(top[0]!.probability)}`;
}

const answersTo = (tab: ExplorerPage, input: string) =>
  tab.page.getByRole("list", { name: `Answers to ${input}` }).getByRole("listitem");

test("a vector is made and put on a picture with the keyboard alone; its answers are the library's", async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await tab.go("Task vectors");
  await make(tab, "country-capital");
  const layer = page.getByRole("spinbutton", { name: "Layer" });
  await layer.fill(String(LAYER));
  await layer.press("Tab");
  await page.getByRole("button", { name: "Pick up" }).press("Enter");
  await page.getByText("is picked up").waitFor();
  await page.keyboard.press("Escape");
  expect(await page.getByText("is picked up").count()).toBe(0);
  await page.getByRole("button", { name: "Pick up" }).press("Enter");
  await page.getByRole("button", { name: "Put the vector on Egypt" }).press("Enter");
  await tab.ready();
  const said = answersTo(tab, "Egypt");
  expect(await said.count()).toBe(2);
  expect(await said.nth(1).textContent()).toContain(await answerOf("country-capital", "Egypt"));
  const { top } = await session.run({
    model: model.model,
    prompt: { task: "country-capital", input: "Egypt", asked: "image" },
  });
  expect(await said.nth(0).textContent()).toContain(
    `${tokenInWords(top[0]!.text)}${percentInWords(top[0]!.probability)}`,
  );
  // Undone, and done again.
  await page.keyboard.press("Control+z");
  await expect.poll(() => said.count(), SOON).toBe(1);
  await page.keyboard.press("Control+Shift+z");
  await expect.poll(() => said.count(), SOON).toBe(2);
  expect(await tab.axe()).toEqual([]);
  tab.expectQuiet();
});

test("vectors are dropped, mixed and swept; a reload has it all again", async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await tab.go("Task vectors");
  await make(tab, "country-capital");
  await make(tab, "food-color");
  const layers = page.getByRole("spinbutton", { name: "Layer" });
  for (const i of [0, 1]) {
    await layers.nth(i).fill(String(LAYER));
    await layers.nth(i).press("Tab");
  }
  const cards = tab.panel("Shelf").getByRole("listitem");
  const poland = tab.panel("Pictures").getByRole("listitem").filter({ hasText: "Poland" }).first();
  for (const i of [0, 1]) await cards.nth(i).dragTo(poland, { sourcePosition: { x: 40, y: 50 } });
  await tab.ready();
  const said = answersTo(tab, "Poland");
  expect(await said.count()).toBe(3);
  expect(await said.nth(1).textContent()).toContain(await answerOf("country-capital", "Poland"));
  expect(await said.nth(2).textContent()).toContain(await answerOf("food-color", "Poland"));

  await tab.panel("Mix").getByRole("button", { name: "Mix", exact: true }).click();
  await tab.ready();
  const slider = tab.panel("Mix").getByRole("slider");
  await slider.press("Home");
  const first = tab.panel("Mix").getByRole("row").nth(1);
  const own = await answerOf("country-capital", "Poland");
  await expect
    .poll(async () => own.startsWith((await first.getByRole("cell").first().textContent())!), SOON)
    .toBe(true);
  await slider.press("End");
  const other = await answerOf("food-color", "Poland");
  await expect
    .poll(async () => other.startsWith((await first.getByRole("cell").first().textContent())!), SOON)
    .toBe(true);

  const form = page.getByRole("form", { name: "Sweep by layer" });
  await form.getByRole("spinbutton", { name: "Items" }).fill("4");
  await form.getByRole("spinbutton", { name: "Items" }).press("Tab");
  await form.getByRole("button", { name: "Sweep" }).click();
  await tab.panel("By layer").getByText("computed were").waitFor();
  const { vector } = await session.makeVector({
    model: model.model,
    recipe: { task: "country-capital", specify: { kind: "text", count: COUNT, seed: 0 }, items: ITEMS },
  });
  const swept = await session.sweep({
    model: model.model,
    vector,
    task: "country-capital",
    asked: "image",
    items: 4,
  });
  const bars = page.getByRole("radiogroup", { name: "Layer of country-capital by text" }).getByRole("radio");
  expect(await bars.evaluateAll((all) => all.map((each) => each.getAttribute("aria-label")))).toEqual(
    swept.layers.map(({ layer, correct, total }) => `layer ${layer}: ${correct} of ${total} right`),
  );
  // The arrows choose the layer that the vector is put into.
  await bars.nth(LAYER).press("ArrowRight");
  await expect.poll(() => layers.nth(0).inputValue(), SOON).toBe(String(LAYER + 1));
  await tab.ready();
  const moved = await answerOf("country-capital", "Poland", LAYER + 1);
  await expect.poll(() => said.nth(1).textContent(), SOON).toContain(moved);

  const csv = page.waitForEvent("download");
  await tab.panel("By layer").getByRole("button", { name: "CSV" }).click();
  const table = readFileSync(await (await csv).path(), "utf8")
    .trim()
    .split("\r\n");
  expect(table.slice(2)).toEqual(
    swept.layers.map(({ layer, correct, total, accuracy }) => `${layer},${correct},${total},${accuracy}`),
  );

  await page.reload();
  await tab.ready();
  await expect.poll(() => said.nth(1).textContent(), SOON).toContain(moved);
  tab.expectQuiet();
});

test("a vector is saved, loaded, and does the same; what is none is refused by its name", async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await tab.go("Task vectors");
  await make(tab, "country-capital");
  const saved = page.waitForEvent("download");
  await tab.panel("Shelf").getByRole("button", { name: "Save" }).click();
  const path = await (await saved).path();
  const input = page.getByLabel("Load vectors from safetensors files");
  await input.setInputFiles({
    name: "mine.safetensors",
    mimeType: "application/octet-stream",
    buffer: readFileSync(path),
  });
  await tab.ready();
  for (const i of [0, 1]) {
    await tab.panel("Shelf").getByRole("button", { name: "Pick up" }).nth(i).click();
    await page.getByRole("button", { name: "Put the vector on Denmark" }).click();
  }
  await tab.ready();
  const said = answersTo(tab, "Denmark");
  await expect.poll(() => said.count(), SOON).toBe(3);
  const shown = async (i: number) => (await said.nth(i).textContent())!.replace(/^.*?: /, "");
  await expect
    .poll(async () => (await shown(1)) === (await shown(2)) && (await shown(1)) !== "…", SOON)
    .toBe(true);
  await input.setInputFiles({
    name: "notes.safetensors",
    mimeType: "text/plain",
    buffer: Buffer.from("hello"),
  });
  await tab.panel("Shelf").getByRole("alert").getByText("notes.safetensors").waitFor();
  tab.expectQuiet();
});
