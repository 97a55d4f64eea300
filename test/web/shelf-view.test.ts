import { afterAll, beforeAll, expect, test } from "vitest";
import type { SessionClient } from "../../src/session/client.ts";
import type { ModelSummary } from "../../src/session/messages/results.ts";
import type { EditSpec } from "../../src/session/messages/values.ts";
import { percentInWords, tokenInWords } from "../../web/src/ui/words.ts";
import { connect, LLAVA, testHost } from "../session/sessions.ts";
import { Explorer, type ExplorerPage } from "./helpers/explorer.ts";
import { Finger } from "./helpers/touch.ts";

const SOURCE = "Q: Greece\nA: Athens";
const TABLET = { viewport: { width: 820, height: 1180 }, hasTouch: true };
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

const gridOf = (tab: ExplorerPage, name: "source" | "target") =>
  tab.page.getByRole("grid", { name: `Tokens and layers of the ${name}` });
const cardOf = (tab: ExplorerPage, country: string) =>
  tab.panel("Pictures").getByRole("listitem").filter({ hasText: country }).first();
const saidOn = (tab: ExplorerPage, country: string) => cardOf(tab, country).locator(".said .answer");

/** The patch lens with a source and a target that are read, their editors folded. */
async function atLens(tab: ExplorerPage): Promise<void> {
  await tab.go("Patch lens");
  for (const name of ["source", "target"] as const) {
    await tab.page.getByRole("textbox", { name: `Text of the ${name}` }).fill(SOURCE);
    await gridOf(tab, name).waitFor();
  }
  for (const name of ["Source", "Target"]) await tab.panel(name).locator("summary").click();
  await tab.ready();
}

/** Chooses the last token of the source in a layer. */
async function chooseLast(tab: ExplorerPage, layer: number): Promise<void> {
  const grid = gridOf(tab, "source");
  await grid.press("Control+End");
  for (let l = model.layers - 1; l > layer; l--) await grid.press("ArrowLeft");
}

/** What a flag's question is answered with under an edit at its last token, as the page writes it. */
async function answerWith(country: string, edit: Omit<EditSpec, "operation" | "at">): Promise<string> {
  const { top } = await session.run({
    model: model.model,
    prompt: { task: "country-capital", input: country, asked: "image" },
    edits: [{ operation: "set", at: -1, ...edit }],
  });
  return `${tokenInWords(top[0]!.text)}${percentInWords(top[0]!.probability)}`;
}

test("what a token holds is kept as a vector: of one layer, of a head, of all layers; and put on pictures", async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await atLens(tab);
  const keep = tab.panel("Source").getByRole("button", { name: "To the shelf" });
  await chooseLast(tab, 1);
  await keep.press("Enter");
  await tab.panel("Source").getByRole("button", { name: "All layers" }).press("Enter");
  await keep.press("Enter");
  await tab.panel("Source").getByRole("button", { name: "All layers" }).press("Enter");
  await page.getByRole("combobox", { name: "Site" }).selectOption("z");
  await page.getByRole("combobox", { name: "Head" }).selectOption("2");
  await keep.press("Enter");
  // Two tokens are no vector.
  await gridOf(tab, "source").press("Shift+ArrowUp");
  await expect.poll(() => keep.isDisabled(), SOON).toBe(true);

  await tab.go("Task vectors");
  await tab.ready();
  const held = tab.panel("Shelf").getByRole("listitem");
  expect(await held.count()).toBe(3);
  const { positions } = await session.lens({ model: model.model, prompt: { parts: SOURCE }, at: "all" });
  const at = positions.at(-1)!;
  expect(await held.nth(0).locator(".recipe").textContent()).toBe(
    `resid_post.1 at position ${at} of Q: Greece⏎A: Athens`,
  );
  for (const i of [0, 1, 2]) {
    const layer = held.nth(i).getByRole("spinbutton", { name: "Layer" });
    await layer.fill("2");
    await layer.press("Tab");
    await held.nth(i).getByRole("button", { name: "Pick up" }).press("Enter");
    await page.getByRole("button", { name: "Put the vector on Egypt" }).press("Enter");
  }
  await tab.ready();
  const make = async (site: string, head?: number) =>
    (
      await session.makeVector({
        model: model.model,
        recipe: { prompt: { parts: SOURCE }, site, at, ...(head !== undefined && { head }) },
      })
    ).vector;
  const expected = [
    await answerWith("Egypt", { site: "resid_post.2", value: { vector: await make("resid_post.1") } }),
    await answerWith("Egypt", { site: "resid_post.2", value: { vector: await make("resid_post.2") } }),
    await answerWith("Egypt", { site: "z.2", head: 2, value: { vector: await make("z.1", 2) } }),
  ];
  for (const [i, answer] of expected.entries())
    expect(
      await saidOn(tab, "Egypt")
        .nth(i + 1)
        .textContent(),
    ).toContain(answer);
  expect(await tab.axe()).toEqual([]);

  // A file that is dropped on the shelf is a vector, not a model.
  const { bytes } = await session.saveVector({ vector: await make("resid_post.1") });
  const files = await page.evaluateHandle(
    (numbers) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(numbers)], "own.safetensors"));
      return transfer;
    },
    [...bytes],
  );
  for (const type of ["dragover", "drop"])
    await tab.panel("Shelf").getByRole("list").dispatchEvent(type, { dataTransfer: files });
  await expect.poll(() => held.count(), SOON).toBe(4);
  await expect
    .poll(() => held.nth(3).textContent(), SOON)
    .toMatch(new RegExp(`file own\\.safetensors${model.width} numbers; length`));
  await page.getByRole("button", { name: "Take own off the shelf" }).press("Enter");

  // They are in the document: made anew after a reload.
  await page.reload();
  await tab.ready();
  for (const [i, answer] of expected.entries())
    expect(
      await saidOn(tab, "Egypt")
        .nth(i + 1)
        .textContent(),
    ).toContain(answer);
  tab.expectQuiet();
}, 300_000);

test("a vector that is taken off the shelf goes with all that it was put on; the next one does not take its place", async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await tab.go("Task vectors");
  const make = async (text: string) => {
    const form = page.getByRole("form", { name: "Make a vector" });
    await form.getByRole("radio", { name: "Instruction" }).check();
    await form.getByRole("textbox").first().fill(text);
    await form.getByRole("button", { name: "Make" }).press("Enter");
    await tab.ready();
  };
  await make("The capital:");
  await page.getByRole("button", { name: "Pick up" }).press("Enter");
  await page.getByRole("button", { name: "Put the vector on Egypt" }).press("Enter");
  await expect.poll(() => saidOn(tab, "Egypt").count(), SOON).toBe(2);
  await page.getByRole("button", { name: "Take The capital off the shelf" }).press("Enter");
  await expect.poll(() => saidOn(tab, "Egypt").count(), SOON).toBe(1);
  await make("The language:");
  expect(await saidOn(tab, "Egypt").count()).toBe(1);
  for (let i = 0; i < 3; i++) await page.keyboard.press("Control+z");
  await expect.poll(() => saidOn(tab, "Egypt").count(), SOON).toBe(2);
  tab.expectQuiet();
});

test("a finger that rests picks up: a cell onto the target, a vector onto a picture; one that moves scrolls", async () => {
  const tab = await explorer.loaded(TABLET);
  const { page } = tab;
  const finger = await Finger.on(page);
  await atLens(tab);
  // The last row of both, in the middle layer.
  const inGrid = async (name: "source" | "target") => {
    await gridOf(tab, name).press("Control+End");
    const { clientWidth, clientHeight } = await gridOf(tab, name).evaluate((field) => ({
      clientWidth: field.clientWidth,
      clientHeight: field.clientHeight,
    }));
    return { x: 84 + ((clientWidth - 84) * 1.5) / 3, y: clientHeight - 8 };
  };
  const [from, to] = [await inGrid("source"), await inGrid("target")];
  await finger.swipe(gridOf(tab, "source"), { x: 0, y: -60 });
  expect(await page.locator(".touch-dragged").count()).toBe(0);
  await finger.drag(gridOf(tab, "source"), gridOf(tab, "target"), { from, to });
  await tab.panel("Edits (1)").getByText("layer 1, position", { exact: false }).first().waitFor();
  expect(await page.locator(".touch-dragged").count()).toBe(0);

  await tab.panel("Source").getByRole("button", { name: "To the shelf" }).tap();
  await tab.go("Task vectors");
  await tab.ready();
  const card = tab.panel("Shelf").getByRole("listitem").first();
  await finger.drag(card, cardOf(tab, "Poland"), { from: { x: 40, y: 50 } });
  await expect.poll(() => saidOn(tab, "Poland").count(), SOON).toBe(2);
  // Dropped beside every picture it is put nowhere.
  await finger.drag(card, page.getByRole("banner"), { from: { x: 40, y: 50 } });
  await tab.ready();
  expect(await saidOn(tab, "Poland").count()).toBe(2);
  tab.expectQuiet();
}, 300_000);
