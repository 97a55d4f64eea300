import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadImage, loadModel, type PatchableModel } from "../../src/index.ts";
import { buildPng } from "../helpers/build-png.ts";
import { testDevice } from "../helpers/device.ts";
import { connect, testHost } from "../session/sessions.ts";
import { Explorer, type ExplorerPage } from "./helpers/explorer.ts";
import { chosenPicture, dropPicture, pastePicture, shownAnswers } from "./helpers/prompts.ts";
import { TINY } from "./helpers/site.ts";

const PHOTO = "test/fixtures/images/photo.png";

let explorer: Explorer;
let library: PatchableModel;
beforeAll(async () => {
  explorer = await Explorer.start();
  library = await loadModel(TINY.tiny, { device: await testDevice() });
});
afterAll(async () => {
  library?.dispose();
  await explorer?.close();
});

async function atPrompt(): Promise<ExplorerPage> {
  const tab = await explorer.loaded();
  await tab.go("Prompt");
  return tab;
}

const text = (tab: ExplorerPage) => tab.page.getByRole("textbox", { name: "Text of the prompt" });

/** Positions and ids, as they are written on the chips. */
async function chips(tab: ExplorerPage): Promise<string[]> {
  return tab.page.locator(".chip .where").allTextContents();
}

test("tokens, probabilities and the generated text are the library's", async () => {
  const tab = await atPrompt();
  await text(tab).fill("Q: Greece\nA: Athens\n\nQ: ");
  await chosenPicture(tab, PHOTO);
  await tab.page.getByRole("textbox", { name: "Text 2" }).fill("\nA:");
  const prompt = library.prompt(["Q: Greece\nA: Athens\n\nQ: ", await loadImage(PHOTO), "\nA:"]);
  await tab.panel(`Tokens (${prompt.length})`).waitFor();
  const { start, end } = prompt.spans["image"]!;
  const expected = [...prompt.ids].flatMap((id, position) => {
    if (position === start) return [`${start}–${end - 1} · 4 × 4 patches`];
    return position > start && position < end ? [] : [`${position} · ${id}`];
  });
  expect(await chips(tab)).toEqual(expected);
  expect(await tab.page.getByRole("grid", { name: "Patches of picture" }).getByRole("gridcell").count()).toBe(
    16,
  );

  const shown = await shownAnswers(tab, "The most probable next tokens");
  const { logits } = library.run(prompt);
  const scores = await logits!.read();
  const most = scores.reduce((a, b) => Math.max(a, b));
  const total = scores.reduce((sum, score) => sum + Math.exp(score - most), 0);
  const order = Array.from(scores, (_, id) => id).sort((a, b) => scores[b]! - scores[a]!);
  expect(shown.map(({ id }) => id)).toEqual(order.slice(0, 10));
  for (const { id, logprob } of shown) {
    expect(logprob).toBeCloseTo(scores[id]! - most - Math.log(total), 3);
  }

  await tab.page.getByRole("button", { name: "Generate" }).click();
  await tab.page.getByText(/^16 tokens/).waitFor();
  const answer = await library.generate(prompt, { maxNewTokens: 16 });
  expect(await tab.page.locator(".generated output").textContent()).toBe(answer.text);
  expect(await tab.panel("Answer").locator("footer").textContent()).toContain("tiny (llava");
  expect(await tab.axe()).toEqual([]);
  tab.expectQuiet();
});

test("a task's item is asked about behind its examples, by name and by picture", async () => {
  const tab = await atPrompt();
  await tab.page.getByRole("radio", { name: "From a task" }).check();
  await tab.page.getByLabel("Asked about").selectOption("Peru");
  await tab.page.getByRole("spinbutton", { name: "Examples" }).fill("4");
  const host = testHost();
  const session = await connect(host);
  const { model } = await session.load({ ref: TINY.tiny });
  for (const asked of ["text", "image"] as const) {
    await tab.page.getByLabel("Asked by").selectOption(asked);
    const specify = { kind: "text", count: 4, seed: 0 } as const;
    const prompt = { task: "country-capital", input: "Peru", asked, specify } as const;
    const { ids, spans } = await session.encode({ model, prompt });
    await tab.panel(`Tokens (${ids.length})`).waitFor();
    const picture = spans["image"];
    const plain = [...ids].flatMap((id, position) =>
      picture && position >= picture.start && position < picture.end ? [] : [`${position} · ${id}`],
    );
    expect((await chips(tab)).filter((each) => !each.includes("–"))).toEqual(plain);
  }
  await session.unload({ model });
  session.close();
  await host.close();
  // So many tokens that their list scrolls.
  expect(await tab.axe()).toEqual([]);
  tab.expectQuiet();
});

describe("pictures", () => {
  test("are dropped and pasted where the caret is, and taken out", async () => {
    const tab = await atPrompt();
    await text(tab).fill("ab");
    await text(tab).press("ArrowLeft");
    await dropPicture(tab, text(tab), PHOTO, "dropped.png");
    const parts = tab.page.getByRole("group", { name: "The prompt, in parts" });
    await parts.getByText("dropped.png").waitFor();
    const texts = parts.getByRole("textbox");
    expect(await texts.evaluateAll((all) => all.map((each) => (each as HTMLTextAreaElement).value))).toEqual([
      "a",
      "b",
    ]);
    await texts.nth(1).focus();
    await texts.nth(1).press("End");
    await pastePicture(texts.nth(1), PHOTO);
    await parts.getByText("pasted.png").waitFor();
    await tab.page.getByText("▦ picture 2").waitFor();
    await parts.getByRole("button", { name: "Take dropped.png out" }).click();
    await tab.page.getByText("▦ picture 2").waitFor({ state: "detached" });
    expect(await texts.count()).toBe(2);
    expect(await texts.first().inputValue()).toBe("ab");
    // A step each: what was taken out comes back.
    await tab.page.getByRole("button", { name: /^Undo/ }).click();
    await parts.getByText("dropped.png").waitFor();
    tab.expectQuiet();
  });

  test("of 20 megapixels work, and are there after a reload", async () => {
    const tab = await atPrompt();
    const rows = new Uint8Array(4000 * (1 + 5000));
    for (let row = 0; row < 4000; row++) rows.fill(row >> 4, row * 5001 + 1, (row + 1) * 5001);
    const buffer = Buffer.from(buildPng({ width: 5000, height: 4000, depth: 8, colorType: 0, rows }));
    await text(tab).fill("Q: ");
    await chosenPicture(tab, { name: "large.png", mimeType: "image/png", buffer });
    await tab.page.getByText("picture: 5000 × 4000, seen as 56 × 56").waitFor({ timeout: 60_000 });
    await tab.page.reload();
    await tab.ready();
    await tab.page.getByText("picture: 5000 × 4000, seen as 56 × 56").waitFor({ timeout: 60_000 });
    tab.expectQuiet();
  });

  test("that are too large, or are none, are refused by name", async () => {
    const tab = await atPrompt();
    await text(tab).fill("Q: ");
    const tooLarge = buildPng({
      width: 20_000,
      height: 20_000,
      depth: 8,
      colorType: 0,
      rows: new Uint8Array(9),
    });
    const messages = tab.page.getByRole("status", { name: "Messages" });
    for (const [name, buffer, words] of [
      ["huge.png", Buffer.from(tooLarge), /huge\.png: .*20000/],
      ["notes.png", readFileSync("LICENSE"), /notes\.png: this is no picture/],
      ["cut.png", readFileSync(PHOTO).subarray(0, 200), /cut\.png: /],
    ] as const) {
      await chosenPicture(tab, { name, mimeType: "image/png", buffer });
      await messages.getByText(words).waitFor();
    }
    expect(await tab.page.locator(".picture-chip").count()).toBe(0);
    tab.expectQuiet();
  });
});

test("by the keyboard alone, and stopped", async () => {
  const tab = await atPrompt();
  const { keyboard } = tab.page;
  await text(tab).focus();
  await keyboard.type("Q: Greece");
  await keyboard.press("Enter");
  await keyboard.type("A:");
  await tab.panel("What comes next").getByRole("table").waitFor();
  const many = tab.page.getByLabel("New tokens");
  await many.focus();
  await keyboard.press("Control+A");
  await keyboard.type("200");
  await keyboard.press("Control+Enter");
  await tab.page.getByText(/^[1-9]\d* tokens so far/).waitFor();
  await keyboard.press("Escape");
  await tab.page.getByText(/^Stopped after \d+ tokens\.$/).waitFor();
  await tab.ready();
  tab.expectQuiet();
});
