import { afterAll, beforeAll, expect, test } from "vitest";
import { Explorer, type ExplorerPage } from "./helpers/explorer.ts";
import { chosenPicture } from "./helpers/prompts.ts";

const PHOTO = "test/fixtures/images/photo.png";
/** Milliseconds that an input may wait longer for what it changes to be seen than in a page that computes nothing. */
const MOST_MS = 100;
/** Of the time, what the page's own thread may be busy with tasks that one would notice. */
const MOST_BUSY = 0.1;
const INPUTS = 24;

let explorer: Explorer;
beforeAll(async () => {
  explorer = await Explorer.start();
});
afterAll(() => explorer?.close());

interface Seen {
  readonly type: string;
  /** From the input, as the browser received it, to the next paint, in milliseconds. */
  readonly milliseconds: number;
  readonly computing: boolean;
}

/** Has the page write down how long each key and click waits, and how long its own thread's tasks are. */
async function watch(tab: ExplorerPage): Promise<void> {
  await tab.page.evaluate(() => {
    const seen: Seen[] = [];
    const tasks: number[] = [];
    const note = ({ type, timeStamp, isTrusted }: Event) => {
      if (!isTrusted) return;
      const computing = document.querySelector("footer [role=status]")!.textContent === "Computing…";
      requestAnimationFrame(() => {
        // What is sent from a frame comes when it has been painted.
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => {
          seen.push({ type, milliseconds: performance.now() - timeStamp, computing });
        };
        port2.postMessage(0);
      });
    };
    for (const type of ["keydown", "click"]) addEventListener(type, note, true);
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) tasks.push(duration);
    }).observe({ type: "longtask" });
    Object.assign(globalThis, { seen, tasks });
  });
}

interface Waits {
  readonly median: number;
  /** Share of the time in tasks of the page's own thread above MOST_MS. */
  readonly busy: number;
  readonly longestTask: number;
}

/** Writes, goes from patch to patch, and changes the theme, one after the other, in a page that computes or in one that does not. */
async function waitsOf(
  tab: ExplorerPage,
  { computing, inputs = INPUTS }: { computing: boolean; inputs?: number },
): Promise<Waits> {
  const { page } = tab;
  const text = page.getByRole("textbox", { name: "Text 2" });
  const patches = page.getByRole("grid", { name: "Patches of picture" }).getByRole("gridcell");
  const acts = [
    async (i: number) => {
      await text.focus();
      await page.keyboard.press(i % 2 ? "Backspace" : "a");
    },
    async (i: number) => {
      await patches.nth(5).focus();
      await page.keyboard.press(i % 2 ? "ArrowRight" : "ArrowDown");
    },
    () => page.getByRole("button", { name: /^Theme: / }).click(),
  ];
  const take = () => page.evaluate(() => (globalThis as unknown as { seen: Seen[] }).seen.splice(0));
  /** What was seen of the one input that it makes. Of each something is seen, so none is left over for the next. */
  const seenOf = async (act: () => Promise<void>): Promise<Seen> => {
    await act();
    const seen: Seen[] = [];
    const isSeen = async () => seen.push(...(await take()));
    await expect.poll(isSeen, { interval: 20, timeout: 60_000 }).toBe(1);
    return seen[0]!;
  };
  await page.evaluate(() => (globalThis as unknown as { tasks: number[] }).tasks.splice(0));
  const begun = performance.now();
  const found: number[] = [];
  for (let i = 0; found.length < inputs && i < 20 * inputs; i++) {
    if (!computing) await tab.ready();
    else if ((await tab.status.textContent()) !== "Computing…") {
      await seenOf(() => page.getByRole("button", { name: "Generate" }).click());
    }
    const seen = await seenOf(() => acts[i % acts.length]!(Math.floor(i / acts.length)));
    if (seen.computing === computing) found.push(seen.milliseconds);
  }
  expect(found.length).toBe(inputs);
  const tasks = await page.evaluate(() => (globalThis as unknown as { tasks: number[] }).tasks.splice(0));
  const long = tasks.filter((each) => each > MOST_MS).reduce((sum, each) => sum + each, 0);
  return {
    median: found.sort((a, b) => a - b)[Math.floor(inputs / 2)]!,
    busy: long / (performance.now() - begun),
    longestTask: Math.max(0, ...tasks),
  };
}

/** Whether the page answers as soon as one that computes nothing, or nearly. */
function answers(waits: Waits, idle: Waits): boolean {
  return waits.median <= idle.median + MOST_MS && waits.busy <= MOST_BUSY;
}

test(`keys and clicks are answered within ${MOST_MS} ms while the model computes`, async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await tab.go("Prompt");
  await page.getByRole("textbox", { name: "Text of the prompt" }).fill("Q: Greece\nA: Athens\n\nQ: ");
  await chosenPicture(tab, PHOTO);
  await page.getByRole("textbox", { name: "Text 2" }).fill("\nA:");
  await page.getByLabel("New tokens").fill("200");
  await page.getByRole("grid", { name: "Patches of picture" }).waitFor();
  await watch(tab);
  const idle = await waitsOf(tab, { computing: false });
  const busy = await waitsOf(tab, { computing: true });
  const words = `idle ${JSON.stringify(idle)}, computing ${JSON.stringify(busy)}`;
  if (process.env.XPATCH_SHOW_TIMES) console.log(words);
  expect(answers(busy, idle), words).toBe(true);
  tab.expectQuiet();

  // The same page, were it to compute on its own thread.
  await page.evaluate(() => {
    const compute = () => {
      const end = performance.now() + 500;
      while (performance.now() < end);
      setTimeout(compute, 10);
    };
    compute();
  });
  const blocked = await waitsOf(tab, { computing: false, inputs: 9 });
  expect(answers(blocked, idle), `idle ${JSON.stringify(idle)}, blocked ${JSON.stringify(blocked)}`).toBe(
    false,
  );
}, 300_000);
