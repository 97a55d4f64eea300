import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SessionServer } from "../../src/session/serve/server.ts";
import { CHAPTERS } from "../../web/src/views/tour/chapters.ts";
import { testHost } from "../session/sessions.ts";
import { builtPage } from "./helpers/built-page.ts";
import { Explorer, ExplorerPage } from "./helpers/explorer.ts";

/** A view asks again and draws; on busy machines that takes a while. */
const SOON = { timeout: 60_000 };

let explorer: Explorer;
let server: SessionServer | undefined;
beforeAll(async () => {
  explorer = await Explorer.start();
});
afterAll(async () => {
  await explorer?.close();
  await server?.close();
});

/** Does a chapter's steps with Enter alone, from the button that begins it; gives what `look` sees after each. */
async function walk<T>(
  tab: ExplorerPage,
  chapter: (typeof CHAPTERS)[number],
  look: (title: string) => Promise<T>,
  timeout: number,
): Promise<T[]> {
  const card = tab.page.getByRole("complementary");
  const found: T[] = [];
  for (const [s, step] of chapter.steps.entries()) {
    await card.getByRole("heading", { name: step.title }).waitFor();
    // Whoever reads with a screen reader hears what is next.
    const isFocused = () => card.getByRole("heading").evaluate((head) => head === document.activeElement);
    await expect.poll(isFocused, SOON).toBe(true);
    if (step.doing) {
      await card.getByRole("button", { name: step.doing }).press("Enter");
      await card.getByText("Computed just now").waitFor({ timeout });
      // It is said when nothing is computed any more, and not before.
      expect(await tab.page.locator(".panel progress").count(), step.title).toBe(0);
    }
    await tab.page
      .locator(".panel[data-pointed]")
      .getByRole("heading", { name: step.panel, exact: true })
      .first()
      .waitFor();
    found.push(await look(step.title));
    if (s < chapter.steps.length - 1) await card.getByRole("button", { name: "Next" }).press("Enter");
  }
  return found;
}

const saidOf = (tab: ExplorerPage) => async () =>
  tab.page.locator(".said .answer").evaluateAll((all) => all.map((each) => each.textContent));

test("the tour is walked with the keyboard, left, gone on with after a reload, and ended", async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await tab.go("Tour");
  await page.getByText("The tour is made for xpatch:vlm").waitFor();
  expect(await tab.axe()).toEqual([]);
  const [first, second] = CHAPTERS;
  await page.getByRole("button", { name: `Begin: ${first!.title}` }).press("Enter");
  await walk(tab, first!, async () => undefined, 60_000);
  expect(await tab.axe()).toEqual([]);
  const card = page.getByRole("complementary");
  await card.getByRole("button", { name: "Next chapter" }).press("Enter");
  await card.getByRole("button", { name: "Next" }).press("Enter");
  await card.getByRole("heading", { name: second!.steps[1]!.title }).waitFor();
  await page.locator("#tour-title:focus").waitFor(); // a new step takes the focus, and would take the key
  await card.getByRole("button", { name: "Leave" }).press("Enter");
  await expect.poll(() => card.count(), SOON).toBe(0);
  await page.reload();
  await tab.ready();
  await tab.go("Tour");
  await page.getByRole("button", { name: `Go on: ${second!.steps[1]!.title}` }).press("Enter");
  await page.locator("#tour-title:focus").waitFor();
  await card.getByRole("button", { name: "Back", exact: true }).press("Enter");
  await walk(tab, second!, async () => undefined, 60_000);
  await page.getByRole("button", { name: "History" }).click();
  // What was done, and nothing of where the reader was on the tour; the first is what was there after the reload.
  await expect
    .poll(() => page.getByRole("dialog").getByRole("listitem").count())
    .toBe(1 + second!.steps.filter(({ doing }) => doing).length);
  await page.keyboard.press("Escape");
  await card.getByRole("button", { name: "Finish" }).press("Enter");
  await expect.poll(() => card.count(), SOON).toBe(0);
  tab.expectQuiet();
});

describe("on the shipped model", () => {
  const MOST_MS = 400_000;

  // In a tab it takes many minutes without a GPU; that this model answers in one is in shipped.test.ts.
  test("flags are answered with the task that a vector carries, in the middle layers", async () => {
    const offer = { models: [{ ref: "xpatch:vlm", label: "xpatch:vlm" }], anyRef: false, files: false };
    const host = testHost({ place: "server", offer });
    server = await SessionServer.open(host, { page: await builtPage() });
    const { context } = await explorer.visitor();
    const tab = new ExplorerPage(await context.newPage());
    await tab.page.goto(server.link);
    await tab.load("xpatch:vlm");
    await tab.go("Tour");
    const [chapter, second] = CHAPTERS;
    await tab.page.getByRole("button", { name: `Begin: ${chapter!.title}` }).press("Enter");
    const said = await walk(tab, chapter!, saidOf(tab), MOST_MS);
    const answers = said.at(-1)!;
    expect(answers).toHaveLength(12); // three flags: without, and with three vectors
    const inWords = answers.join("\n");
    // Without a vector the model names the country; with one, what its task asks for.
    expect(inWords).toMatch(/without a vector: ␣Poland/);
    expect(inWords).toMatch(/capital, layer 21: ␣Warsaw/);
    expect(inWords).toMatch(/language, layer 21: ␣Danish/);

    const main = tab.page.getByRole("main");
    await tab.page.getByRole("button", { name: "Next chapter" }).press("Enter");
    const shown = await walk(tab, second!, () => main.innerText(), MOST_MS);
    const [layers, flags, , patches] = shown;
    expect(layers).toMatch(/Layer 21: ␣Warsaw \d+ %; without a vector ␣Poland/);
    const [, best, right] = /Best is layer (\d+) with (\d) of 8\. Without a vector 0/.exec(flags!)!;
    expect(Number(best)).toBeGreaterThanOrEqual(14);
    expect(Number(best)).toBeLessThanOrEqual(24);
    expect(Number(right)).toBeGreaterThanOrEqual(5);
    expect(patches).toMatch(/row 2, column 2/);
    expect(await tab.page.locator(".plane .dot").count()).toBe(12);
    tab.expectQuiet();
  }, 900_000);
});
