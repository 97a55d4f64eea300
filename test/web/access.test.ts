import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Explorer, type ExplorerPage } from "./helpers/explorer.ts";

let explorer: Explorer;
beforeAll(async () => {
  explorer = await Explorer.start();
});
afterAll(() => explorer?.close());

describe.each(["light", "dark"] as const)("in a %s theme", (colorScheme) => {
  test("axe finds nothing serious, before and after a model is loaded, on a tablet too", async () => {
    const tab = await (await explorer.visitor({ colorScheme })).open();
    await tab.status.getByText("No model is loaded.").waitFor();
    expect(await tab.axe()).toEqual([]);
    await tab.load();
    expect(await tab.axe()).toEqual([]);
    await tab.page.keyboard.press("?");
    await tab.page.getByRole("dialog").waitFor();
    expect(await tab.axe()).toEqual([]);
    await tab.page.keyboard.press("Escape");
    await tab.page.setViewportSize({ width: 1024, height: 768 });
    expect(await tab.axe()).toEqual([]);
    tab.expectQuiet();
  });
});

test.each([
  [1280, 800],
  [1024, 768],
  [390, 844],
])("at %i × %i nothing sticks out at the side", async (width, height) => {
  const tab = await (await explorer.visitor({ viewport: { width, height } })).open();
  await tab.load();
  const sizes = await tab.page.evaluate(() => {
    const main = document.querySelector("main")!;
    return [document.documentElement.scrollWidth - innerWidth, main.scrollWidth - main.clientWidth];
  });
  expect(sizes).toEqual([0, 0]);
});

test("the theme goes from the system's to light and dark, and stays over a reload", async () => {
  const tab = await (await explorer.visitor({ colorScheme: "light" })).open();
  const ground = () =>
    tab.page.evaluate(() => getComputedStyle(document.querySelector("header")!).backgroundColor);
  const light = await ground();
  await tab.page.getByRole("button", { name: "Theme: system" }).click();
  expect(await ground()).toBe(light);
  await tab.page.getByRole("button", { name: "Theme: light" }).click();
  const dark = await ground();
  expect(dark).not.toBe(light);
  await tab.page.reload();
  await tab.page.getByRole("button", { name: "Theme: dark" }).waitFor();
  expect(await ground()).toBe(dark);
});

/** Role and name of what has the focus. */
function focused(tab: ExplorerPage): Promise<string> {
  return tab.page.evaluate(() => {
    const { activeElement: at } = document;
    const label = at?.getAttribute("aria-label") ?? at?.textContent?.trim() ?? "";
    return `${at?.tagName.toLowerCase()} ${label}`;
  });
}

describe("by the keyboard alone", () => {
  test("the Tab key goes from the header through the navigation to the view", async () => {
    const tab = await (await explorer.visitor()).open();
    await tab.status.getByText("No model is loaded.").waitFor();
    const order: string[] = [];
    for (let i = 0; i < 30; i++) {
      await tab.page.keyboard.press("Tab");
      order.push(await focused(tab));
    }
    const names = [
      "button To the view",
      "a Model none",
      "button Undo",
      "button Keys",
      "a Model",
      "button Load tiny",
    ];
    const places = names.map((name) => order.indexOf(name));
    expect(places).not.toContain(-1);
    expect(places).toEqual([...places].sort((a, b) => a - b));
    expect(places[0]).toBe(0);
  });

  test("a model is loaded, and the focus can be seen wherever it is", async () => {
    const tab = await (await explorer.visitor()).open();
    await tab.status.getByText("No model is loaded.").waitFor();
    await tab.page.keyboard.press("Tab");
    await tab.page.keyboard.press("Enter"); // to the view
    await tab.page.keyboard.press("Tab");
    expect(await focused(tab)).toBe("button Load tiny");
    const outline = await tab.page.evaluate(() => getComputedStyle(document.activeElement!).outlineStyle);
    expect(outline).toBe("solid");
    await tab.page.keyboard.press("Enter");
    await tab.ready();
    tab.expectQuiet();
  });

  test("a number shows a view, ? the keys, and neither while a field is written in", async () => {
    const tab = await (await explorer.visitor()).open("#/model");
    const views = await tab.page.getByRole("navigation").getByRole("link").allTextContents();
    await tab.page.keyboard.press(String(views.length));
    await expect.poll(() => tab.page.title()).toContain(views.at(-1)!);
    await tab.page.keyboard.press("1");
    await expect.poll(() => tab.page.title()).toContain(views[0]!);
    const field = tab.page.getByRole("textbox", { name: /Hugging Face hub/ });
    await field.focus();
    await tab.page.keyboard.type("org/2?");
    expect(await field.inputValue()).toBe("org/2?");
    expect(await tab.page.title()).toContain(views[0]!);
  });
});
