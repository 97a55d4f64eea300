import type { CDPSession } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Explorer, type ExplorerPage } from "./helpers/explorer.ts";
import { chosenPicture, shownAnswers } from "./helpers/prompts.ts";

const PHOTO = "test/fixtures/images/photo.png";
const PATCHES = 200;
/** By then all that is kept for a while is kept: code, answers, steps of the history. */
const WARM = 50;
const LAYERS = 3;
/** Patches of one place, by different amounts. */
const AMOUNTS = 10;
/** Bytes of the page that may come between: the history, which ends at 300 steps, and answers, which end at 200. */
const MOST_BYTES = 1.5e6;
const MOST_NODES = 300;

let explorer: Explorer;
beforeAll(async () => {
  explorer = await Explorer.start();
});
afterAll(() => explorer?.close());

interface Held {
  readonly heap: number;
  readonly nodes: number;
  readonly listeners: number;
  /** Of tensors, as the page shows them. */
  readonly device: number;
}

async function held(tab: ExplorerPage, protocol: CDPSession): Promise<Held> {
  await tab.ready();
  const line = tab.page.getByRole("contentinfo").getByText(/on the device$/);
  for (let i = 0; i < 3; i++) await protocol.send("HeapProfiler.collectGarbage");
  const { metrics } = await protocol.send("Performance.getMetrics");
  const of = (name: string) => metrics.find((each) => each.name === name)!.value;
  return {
    heap: of("JSHeapUsedSize"),
    nodes: of("Nodes"),
    listeners: of("JSEventListeners"),
    device: parseInt((await line.getAttribute("title"))!, 10),
  };
}

const grid = (tab: ExplorerPage, name: "source" | "target") =>
  tab.page.getByRole("grid", { name: `Tokens and layers of the ${name}` });

async function press(tab: ExplorerPage, name: "source" | "target", keys: readonly string[]): Promise<void> {
  await grid(tab, name).focus();
  for (const key of keys) await grid(tab, name).press(key);
}

/** The i-th patch: each place of the source in turn is put onto the target's last token, by one amount after the other. */
async function patch(tab: ExplorerPage, i: number): Promise<void> {
  const place = Math.floor(i / AMOUNTS);
  const amount = String(1 + (i % AMOUNTS) / 2);
  if (i % AMOUNTS > 0) {
    await tab.panel("Edits (1)").getByRole("spinbutton", { name: "Scale" }).fill(amount);
    return;
  }
  if (i > 0) await tab.page.getByRole("button", { name: "Remove all" }).click();
  const layer = place % LAYERS;
  const down = Math.floor(place / LAYERS);
  const right = Array<string>(layer).fill("ArrowRight");
  await press(tab, "source", ["Control+Home", ...Array<string>(down).fill("ArrowDown"), ...right, "Enter"]);
  const left = Array<string>(LAYERS - 1 - layer).fill("ArrowLeft");
  await press(tab, "target", ["Control+End", ...left, "Enter"]);
}

test(`memory is flat over ${PATCHES} patches`, async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  const protocol = await page.context().newCDPSession(page);
  await protocol.send("Performance.enable");
  await tab.go("Patch lens");
  const text = "Q: Greece\nA: Athens\n\nQ: Egypt\nA:";
  await page.getByRole("textbox", { name: "Text of the source" }).fill(text);
  await page.getByRole("textbox", { name: "Text of the target" }).fill("Q: ");
  await chosenPicture(tab, PHOTO, tab.panel("Target"));
  await page.getByRole("textbox", { name: "Text 2 of the target" }).fill("\nA:");
  await page.getByRole("grid", { name: "Patches of picture of the target" }).waitFor();
  await page.getByLabel("Operation").selectOption("add");
  await tab.ready();

  const shown = async () => JSON.stringify(await shownAnswers(tab, "Next tokens with the edits"));
  const seen = new Set<string>();
  let before = "";
  let warm: Held | undefined;
  for (let i = 0; i < PATCHES; i++) {
    if (i === WARM) warm = await held(tab, protocol);
    await patch(tab, i);
    await expect.poll(shown, { interval: 20, timeout: 60_000 }).not.toBe(before);
    before = await shown();
    seen.add(before);
  }
  const end = await held(tab, protocol);
  const words = `after ${WARM} ${JSON.stringify(warm)}, after ${PATCHES} ${JSON.stringify(end)}`;
  if (process.env.XPATCH_SHOW_TIMES) console.log(words);
  expect(seen.size).toBeGreaterThan(0.9 * PATCHES); // they are different patches
  expect(end.heap - warm!.heap, words).toBeLessThan(MOST_BYTES);
  expect(end.nodes - warm!.nodes, words).toBeLessThan(MOST_NODES);
  expect(end.listeners - warm!.listeners, words).toBeLessThan(MOST_NODES);
  expect(end.device, words).toBe(warm!.device);
  tab.expectQuiet();
}, 600_000);
