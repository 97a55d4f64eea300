import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import ts from "typescript-5.9";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SessionClient } from "../../src/session/client.ts";
import type { ModelSummary } from "../../src/session/messages/results.ts";
import { percentInWords, tokenInWords } from "../../web/src/ui/words.ts";
import { ROOT } from "../helpers/rooms.ts";
import { connect, LLAVA, testHost } from "../session/sessions.ts";
import { Explorer, type ExplorerPage } from "./helpers/explorer.ts";

/** A view asks again and draws; on busy machines that takes a while. */
const SOON = { timeout: 60_000 };

const host = testHost();
let explorer: Explorer;
let session: SessionClient;
let model: ModelSummary;
const folder = join(ROOT, ".cache", `kept-${process.pid}`);
beforeAll(async () => {
  explorer = await Explorer.start();
  session = await connect(host);
  model = await session.load({ ref: LLAVA });
  mkdirSync(folder, { recursive: true });
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await explorer?.close();
  await host.close();
});

async function download(tab: ExplorerPage, press: () => Promise<void>): Promise<Buffer> {
  const coming = tab.page.waitForEvent("download");
  await press();
  return readFileSync(await (await coming).path());
}

test("attention is seen by layer, by head and as rollout, in the library's numbers, and saved", async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await tab.go("See");
  const tiles = page.getByRole("radiogroup", { name: "Attention maps" }).getByRole("radio");
  const shown = () => tiles.evaluateAll((all) => all.map((each) => each.getAttribute("aria-label")));
  const prompt = { task: "country-capital", input: "Canada", asked: "image" } as const;
  const expected = async (heads: "mean" | "each" | "rollout", layers?: number[]) => {
    const { maps } = await session.attention({
      model: model.model,
      prompt,
      heads,
      ...(layers && { layers }),
    });
    return maps.map(
      ({ layer, head, share, weights }) =>
        `Layer ${layer}${head === undefined ? "" : `, head ${head}`}: ${percentInWords(share)} on the picture, peak ${percentInWords(Math.max(...weights))}`,
    );
  };
  const mean = await expected("mean");
  await expect.poll(shown, SOON).toEqual(mean);
  const choose = page.getByRole("combobox", { name: "Shown" });
  await choose.selectOption("rollout");
  const rolled = await expected("rollout");
  await expect.poll(shown, SOON).toEqual(rolled);
  await choose.selectOption("heads");
  const heads = await expected("each", [2]);
  await expect.poll(shown, SOON).toEqual(heads);
  await tiles.nth(0).press("ArrowRight");
  await page.getByRole("heading", { name: "Layer 2, head 1" }).waitFor();
  expect(await tab.axe()).toEqual([]);

  const panel = tab.panel("Attention");
  const csv = String(await download(tab, () => panel.getByRole("button", { name: "CSV" }).click()));
  expect(csv.split("\r\n")[0]).toBe("layer,head,row,column,weight");
  const { maps } = await session.attention({ model: model.model, prompt, heads: "each", layers: [2] });
  const values = csv
    .trim()
    .split("\r\n")
    .slice(1)
    .map((line) => Number(line.split(",")[4]));
  expect(values).toHaveLength(maps.length * 16);
  maps
    .flatMap(({ weights }) => [...weights])
    .forEach((weight, i) => {
      expect(values[i]).toBeCloseTo(weight, 5);
    });
  const svg = String(await download(tab, () => panel.getByRole("button", { name: "SVG" }).click()));
  expect(svg).toMatch(/^<svg/);
  expect(svg).toContain("layer 2, head 1");
  const png = await download(tab, () => panel.getByRole("button", { name: "PNG" }).click());
  expect([...png.subarray(1, 4)]).toEqual([..."PNG"].map((letter) => letter.charCodeAt(0)));
  tab.expectQuiet();
});

test("patches read as words, and vectors lie on a plane with their pictures", async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await tab.go("See");
  await page.getByRole("radio", { name: "Words of patches" }).check();
  const slider = page.getByRole("slider", { name: "Layer" });
  await slider.press("Home");
  const prompt = { task: "country-capital", input: "Canada", asked: "image" } as const;
  const encoded = await session.encode({ model: model.model, prompt, views: true });
  const positions = [...encoded.pictures[0]!.patches!.positions];
  const { ids, texts } = await session.lens({ model: model.model, prompt, at: positions, k: 1, layers: [0] });
  const cells = page.getByRole("grid", { name: "Patches of the picture" }).getByRole("gridcell");
  await expect
    .poll(() => cells.evaluateAll((all) => all.map((each) => each.textContent)), SOON)
    .toEqual(Array.from(ids, (id) => tokenInWords(texts[id]!)));
  expect(await tab.axe()).toEqual([]);

  await page.getByRole("radio", { name: "Vectors on a plane" }).check();
  const form = page.getByRole("form", { name: "Set of vectors" });
  await form.getByRole("checkbox", { name: "animal-young" }).uncheck();
  for (const name of ["Items", "Examples"]) {
    await form.getByRole("spinbutton", { name }).fill("2");
    await form.getByRole("spinbutton", { name }).press("Tab");
  }
  await form.getByRole("button", { name: "Draw" }).press("Enter");
  const dots = page.getByRole("listbox").getByRole("option");
  await dots.first().waitFor();
  expect(await dots.count()).toBe(8);
  await dots.first().press("ArrowRight");
  const second = await dots.nth(1).getAttribute("aria-label");
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label"));
  await expect.poll(focused, SOON).toBe(second);
  await dots.nth(3).hover();
  await expect.poll(() => tab.panel("Vectors on a plane").locator("img.thumb").count(), SOON).toBe(1);
  expect(await tab.axe()).toEqual([]);
  tab.expectQuiet();
});

test("two states are compared, the history gone back in, and the program prints the page's answers", async () => {
  const tab = await explorer.loaded({ permissions: ["clipboard-read", "clipboard-write"] });
  const { page } = tab;
  await tab.go("Task vectors");
  const form = page.getByRole("form", { name: "Make a vector" });
  await form.getByRole("radio", { name: "Instruction" }).check();
  await form.getByRole("button", { name: "Make" }).click();
  await page.getByRole("button", { name: "Pick up" }).click();
  await page.getByRole("button", { name: "put it on all of them" }).click();
  await tab.ready();
  const pictures = ["Poland", "Egypt", "Denmark"];
  const shown: string[] = [];
  for (const input of pictures) {
    const said = page.getByRole("list", { name: `Answers to ${input}` }).locator(".token");
    await expect.poll(() => said.count(), SOON).toBe(2);
    shown.push(...(await said.allTextContents()));
  }

  await page.getByRole("button", { name: "History" }).press("Enter");
  const differs = page.getByRole("table", { name: "What differs" });
  await expect.poll(() => differs.getByRole("row").count(), SOON).toBe(1 + pictures.length);
  const both = page.getByRole("table", { name: "Both answers" });
  await expect.poll(() => both.getAttribute("aria-busy"), SOON).toBe("false");
  expect(await both.getByRole("row").count()).toBe(1 + 2 * pictures.length);
  expect(await both.getByRole("row").nth(1).textContent()).toContain(shown[0]!);
  expect(await tab.axe()).toEqual([]);
  await page.getByRole("button", { name: /^0 start$/ }).click();
  await page.getByRole("button", { name: /^\d+ put / }).click();
  await page.keyboard.press("Escape");
  expect(await page.getByRole("dialog").count()).toBe(0);

  await page.getByRole("button", { name: "Copy as code" }).click();
  await page.getByRole("button", { name: "Copy", exact: true }).click();
  const code = await page.evaluate(() => navigator.clipboard.readText());
  // The very files that the page has: from its own address.
  expect(code).toContain(`${explorer.site.url}models/tiny`);
  const { outputText } = ts.transpileModule(code, {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
  });
  const file = join(folder, "explore.mjs");
  writeFileSync(file, outputText);
  const { stdout } = await promisify(execFile)(process.execPath, [file], { cwd: ROOT });
  const printed = stdout
    .trim()
    .split("\n")
    .map((line) => tokenInWords(JSON.parse(line)[1][0]));
  expect(printed).toEqual(shown);
  tab.expectQuiet();
});
