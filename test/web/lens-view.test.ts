import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  addVector,
  type Edit,
  interpolate,
  loadImage,
  loadModel,
  logitLens,
  type PatchableModel,
  type Prompt,
  projectOut,
  reach,
  type SiteName,
  set,
  type Tensor,
  tap,
  zero,
} from "../../src/index.ts";
import { percentInWords, tokenInWords } from "../../web/src/ui/words.ts";
import { testDevice } from "../helpers/device.ts";
import { Explorer, type ExplorerPage } from "./helpers/explorer.ts";
import { chosenPicture, shownAnswers } from "./helpers/prompts.ts";
import { TINY } from "./helpers/site.ts";

const PHOTO = "test/fixtures/images/photo.png";
const SOURCE = "Q: Greece\nA: Athens\n\nQ: Egypt\nA:";

let explorer: Explorer;
let library: PatchableModel;
let source: Prompt;
let target: Prompt;
beforeAll(async () => {
  explorer = await Explorer.start();
  library = await loadModel(TINY.tiny, { device: await testDevice() });
  source = library.prompt(SOURCE);
  target = library.prompt(["Q: ", await loadImage(PHOTO), "\nA:"]);
});
afterAll(async () => {
  library?.dispose();
  await explorer?.close();
});

/** The view with both prompts read. */
async function atLens(): Promise<ExplorerPage> {
  const tab = await explorer.loaded({ permissions: ["clipboard-read", "clipboard-write"] });
  const { page } = tab;
  await tab.go("Patch lens");
  await page.getByRole("textbox", { name: "Text of the source" }).fill(SOURCE);
  await page.getByRole("textbox", { name: "Text of the target" }).fill("Q: ");
  await chosenPicture(tab, PHOTO, tab.panel("Target"));
  await page.getByRole("textbox", { name: "Text 2 of the target" }).fill("\nA:");
  for (const name of ["Source", "Target"]) await tab.panel(name).locator("summary").click();
  await active(tab, "source").waitFor({ state: "attached" });
  await page.getByRole("grid", { name: "Patches of picture of the target" }).waitFor();
  return tab;
}

const grid = (tab: ExplorerPage, name: "source" | "target") =>
  tab.page.getByRole("grid", { name: `Tokens and layers of the ${name}` });

/** The cell of a grid that is active, which says what it reads as. */
const active = (tab: ExplorerPage, name: "source" | "target") => grid(tab, name).locator("[role=gridcell]");

/** Goes to a cell by the keyboard alone. */
async function go(tab: ExplorerPage, name: "source" | "target", layer: number, position: number) {
  const field = grid(tab, name);
  await field.focus();
  await field.press("Control+Home");
  for (let i = 0; i < position; i++) await field.press("ArrowDown");
  for (let i = 0; i < layer; i++) await field.press("ArrowRight");
  await active(tab, name).getByText(`layer ${layer}, position ${position} `).waitFor({ state: "attached" });
}

/** Puts what is chosen in the source onto a cell of the target, by keys. */
async function putOnto(tab: ExplorerPage, layer: number, position: number) {
  await grid(tab, "source").press("Enter");
  await go(tab, "target", layer, position);
  await grid(tab, "target").press("Enter");
}

/** Next tokens of the target under edits, as the library has them in a pass from the beginning. */
async function expectAnswer(tab: ExplorerPage, edits: readonly Edit[]): Promise<void> {
  const { logits } = library.run(target, { edits });
  const scores = await logits!.read();
  const most = scores.reduce((a, b) => Math.max(a, b));
  const total = scores.reduce((sum, score) => sum + Math.exp(score - most), 0);
  const order = Array.from(scores, (_, id) => id).sort((a, b) => scores[b]! - scores[a]!);
  const label = edits.length > 0 ? "Next tokens with the edits" : "Next tokens";
  await expect
    .poll(async () => (await shownAnswers(tab, label)).map(({ id }) => id), { timeout: 20_000 })
    .toEqual(order.slice(0, 8));
  for (const { id, logprob } of await shownAnswers(tab, label)) {
    expect(logprob).toBeCloseTo(scores[id]! - most - Math.log(total), 3);
  }
}

/** What the source holds at one position. */
function held(site: SiteName, at: number, part: { head?: number } = {}): Tensor {
  return library.run(source, { taps: { v: tap(site, at, part) } }).v as unknown as Tensor;
}

test("cells read as the library's logit lens, on the grid and on the picture", async () => {
  const tab = await atLens();
  const cells = await logitLens(library, target, { at: "all", k: 1 });
  const words = (layer: number, position: number) => {
    const cell = [...cells].find((each) => each.layer === layer && each.position === position)!;
    const { text, probability } = cell.tokens[0]!;
    return `reads ${tokenInWords(text)}, ${percentInWords(probability)}`;
  };
  const last = target.length - 1;
  for (const [layer, position] of [
    [0, 1],
    [2, last],
  ] as const) {
    await go(tab, "target", layer, position);
    await expect
      .poll(() => active(tab, "target").textContent(), { timeout: 20_000 })
      .toContain(words(layer, position));
  }
  const { start } = target.spans["image"]!;
  const patches = tab.page.getByRole("grid", { name: "Patches of picture of the target, layer 2" });
  const patch = patches.getByRole("gridcell").nth(5);
  expect(await patch.getAttribute("aria-label")).toBe(
    `layer 2, position ${start + 5} ▦ 2,2: ${words(2, start + 5)}`,
  );
  // Picture and grid show the same choice.
  await patch.click();
  await active(tab, "target")
    .getByText(`layer 2, position ${start + 5} `)
    .waitFor({ state: "attached" });
  await expectAnswer(tab, []);
  expect(await tab.axe()).toEqual([]);
  tab.expectQuiet();
});

test("a cell is dragged from the source onto the target; what can change is marked", async () => {
  const tab = await atLens();
  const last = target.length - 1;
  // Both cells in sight.
  await go(tab, "source", 1, source.length - 1);
  await go(tab, "target", 1, last);
  const center = async (name: "source" | "target") => {
    const field = grid(tab, name);
    await field.scrollIntoViewIfNeeded();
    const { clientWidth, clientHeight } = await field.evaluate(({ clientWidth, clientHeight }) => ({
      clientWidth,
      clientHeight,
    }));
    return { x: 84 + ((clientWidth - 84) * 1.5) / 3, y: clientHeight - 8 };
  };
  await grid(tab, "source").dragTo(grid(tab, "target"), {
    sourcePosition: await center("source"),
    targetPosition: await center("target"),
  });
  await tab.panel("Edits (1)").getByText(`layer 1, position ${last}`, { exact: false }).first().waitFor();
  const edit = set("resid_post.1", last, held("resid_post.1", source.length - 1));
  await expectAnswer(tab, [edit]);
  const { cells } = reach(library, target, [edit]);
  for (const layer of [0, 1, 2]) {
    await go(tab, "target", layer, last);
    await tab.ready();
    expect((await active(tab, "target").textContent())!.includes("can change")).toBe(
      cells[layer]!.includes(last),
    );
  }
  expect(await tab.panel("Answer, patched").locator("footer").textContent()).toContain(
    `1 of ${target.length * 3} rows × layers`,
  );
  tab.expectQuiet();
});

describe("by the keyboard alone", () => {
  test("spans, all layers, heads, and every operation", async () => {
    const tab = await atLens();
    const { page } = tab;
    const last = target.length - 1;
    const from = source.length - 1;
    const clear = () => page.getByRole("button", { name: "Remove all" }).click();

    // A span of two tokens.
    await go(tab, "source", 0, from - 1);
    await grid(tab, "source").press("Shift+ArrowDown");
    await putOnto(tab, 1, last - 1);
    const values = await library
      .run(source, { taps: { v: tap("resid_post.0", { start: from - 1, end: from + 1 }) } })
      .v.read();
    const rows = library.device.tensor(values, { shape: [2, library.config.width] });
    await expectAnswer(tab, [set("resid_post.1", { start: last - 1, end: last + 1 }, rows)]);
    await clear();

    // All layers of a token.
    await go(tab, "source", 2, from);
    await grid(tab, "source").press("r");
    await putOnto(tab, 1, last);
    await tab.panel("Edits (1)").getByText(`all layers, position ${last}`).first().waitFor();
    await expectAnswer(
      tab,
      [0, 1, 2].map((layer) => set(`resid_post.${layer}`, last, held(`resid_post.${layer}`, from))),
    );
    await clear();

    const operation = page.getByLabel("Operation");
    for (const [name, edit] of [
      ["add", addVector("resid_post.1", last, held("resid_post.0", from), { scale: 0.5 })],
      ["interpolate", interpolate("resid_post.1", last, held("resid_post.0", from), 0.5)],
      ["projectOut", projectOut("resid_post.1", last, held("resid_post.0", from))],
    ] as const) {
      await operation.selectOption(name);
      if (name !== "projectOut") await page.getByLabel("Amount").fill("0.5");
      await go(tab, "source", 0, from);
      await putOnto(tab, 1, last);
      await expectAnswer(tab, [edit]);
      await clear();
    }

    // A head, then nothing of it.
    await operation.selectOption("set");
    await page.getByLabel("Site").selectOption("z");
    await page.getByLabel("Head").selectOption("2");
    await go(tab, "source", 1, from);
    await putOnto(tab, 2, last);
    const head = set("z.2", last, held("z.1", from, { head: 2 }), { head: 2 });
    await expectAnswer(tab, [head]);
    await go(tab, "target", 1, last);
    await grid(tab, "target").press("Delete");
    await expectAnswer(tab, [head, zero("z.1", last, { head: 2 })]);
    tab.expectQuiet();
  });

  test("Escape lets go, and what does not fit is said", async () => {
    const tab = await atLens();
    const last = target.length - 1;
    await go(tab, "source", 0, 1);
    await grid(tab, "source").press("Shift+ArrowDown");
    await grid(tab, "source").press("Enter");
    const hand = tab.page.getByText("In hand: resid_post, layer 0, positions 1–2 of the source.");
    await hand.waitFor();
    await go(tab, "target", 0, last);
    await grid(tab, "target").press("Enter");
    await tab.page.getByText(`Not put: 2 tokens do not fit at position ${last} of ${last + 1}.`).waitFor();
    await grid(tab, "target").press("Escape");
    await hand.waitFor({ state: "detached" });
    expect(await grid(tab, "source").evaluate((element) => element === document.activeElement)).toBe(true);
    await tab.panel("Edits").getByText("None yet").waitFor();
    tab.expectQuiet();
  });
});

test("all layers at once are the library's, layer by layer", async () => {
  const tab = await atLens();
  const last = target.length - 1;
  const from = source.length - 1;
  await go(tab, "source", 1, from);
  await putOnto(tab, 1, last);
  const strip = tab.page.getByRole("list", { name: "Answers by layer" });
  await strip.waitFor();
  const shown = await strip
    .getByRole("listitem")
    .evaluateAll((items) => items.map((item) => (item as HTMLElement).title));
  const top = async (edits: readonly Edit[], of: Prompt = target) => {
    const scores = await library.run(of, { edits }).logits!.read();
    const most = scores.reduce((a, b) => Math.max(a, b));
    const total = scores.reduce((sum, score) => sum + Math.exp(score - most), 0);
    const probability = (id: number) => Math.exp(scores[id]! - most) / total;
    return { id: scores.indexOf(most), probability };
  };
  const { id: before } = await top([]);
  const { id: wanted } = await top([], source);
  const words = (id: number, probability: number) =>
    `${tokenInWords(library.tokenizer.decode([id]))} ${percentInWords(probability)}`;
  for (const layer of [0, 1, 2]) {
    const { id, probability } = await top([
      set(`resid_post.${layer}`, last, held(`resid_post.${layer}`, from)),
    ]);
    const parts = [id, ...new Set([before, wanted])].map((each) => words(each, probability(each)));
    expect(shown[layer]).toBe(`layer ${layer}: ${parts.join("; ")}`);
  }
  tab.expectQuiet();
});

test("edits are switched off, copied, removed, undone, and there after a reload and by a link", async () => {
  const tab = await atLens();
  const { page } = tab;
  const last = target.length - 1;
  const from = source.length - 1;
  await page.getByLabel("Operation").selectOption("add");
  await go(tab, "source", 0, from);
  await putOnto(tab, 0, last);
  const once = addVector("resid_post.0", last, held("resid_post.0", from), { scale: 1 });
  await expectAnswer(tab, [once]);
  await page.getByRole("button", { name: /^Copy: / }).click();
  await expectAnswer(tab, [once, once]);
  const scale = tab.panel("Edits (2)").getByRole("spinbutton", { name: "Scale" }).last();
  await scale.fill("2");
  const twice = addVector("resid_post.0", last, held("resid_post.0", from), { scale: 2 });
  await expectAnswer(tab, [once, twice]);
  await tab.panel("Edits (2)").getByRole("checkbox").first().uncheck();
  await expectAnswer(tab, [twice]);
  await page.reload();
  await expectAnswer(tab, [twice]);
  await page.getByRole("button", { name: "Copy a link to this state" }).click();
  await page.getByText("The link is copied.").waitFor();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  // The picture is not in the link; to whoever does not have it that is said.
  const other = await (await explorer.visitor()).open(new URL(link).hash);
  await other.panel("Edits (2)").getByText("does nothing: the target is empty").first().waitFor();
  await other.page.getByText(/photo\.png lies with whoever dropped it/).waitFor();
  await page
    .getByRole("button", { name: /^Remove: / })
    .last()
    .click();
  await expectAnswer(tab, []);
  await page.getByRole("button", { name: /^Undo: remove an edit/ }).click();
  await expectAnswer(tab, [twice]);
  tab.expectQuiet();
});
