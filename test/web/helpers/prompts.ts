import { readFileSync } from "node:fs";
import type { Locator } from "playwright-core";
import type { ExplorerPage } from "./explorer.ts";

interface FilePayload {
  readonly name: string;
  readonly mimeType: string;
  readonly buffer: Buffer;
}

/** Picks a picture by the button "Put a picture in…" of a prompt. */
export async function chosenPicture(
  tab: ExplorerPage,
  file: string | FilePayload,
  within?: Locator,
): Promise<void> {
  await (within ?? tab.page.getByRole("main"))
    .locator("input[type=file][accept*='image']")
    .setInputFiles(file);
}

/** Drops a file onto an element, as from a file manager. */
export async function dropPicture(
  tab: ExplorerPage,
  onto: Locator,
  path: string,
  name: string,
): Promise<void> {
  const dataTransfer = await tab.page.evaluateHandle(
    ([bytes, called]) => {
      const data = new DataTransfer();
      const binary = Uint8Array.from(atob(bytes!), (character) => character.charCodeAt(0));
      data.items.add(new File([binary], called!, { type: "image/png" }));
      return data;
    },
    [readFileSync(path).toString("base64"), name],
  );
  await onto.dispatchEvent("dragover", { dataTransfer });
  await onto.dispatchEvent("drop", { dataTransfer });
}

/** Pastes a picture, as from another program. */
export async function pastePicture(into: Locator, path: string): Promise<void> {
  await into.evaluate((element, bytes) => {
    const data = new DataTransfer();
    const binary = Uint8Array.from(atob(bytes), (character) => character.charCodeAt(0));
    data.items.add(new File([binary], "pasted.png", { type: "image/png" }));
    element.dispatchEvent(
      new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }),
    );
  }, readFileSync(path).toString("base64"));
}

/** The rows of a table of answers: ids, and natural logarithms of probabilities with four decimals. */
export async function shownAnswers(
  tab: ExplorerPage,
  label: string,
): Promise<{ id: number; logprob: number }[]> {
  const table = tab.page.getByRole("table", { name: label, exact: true });
  await table.waitFor();
  return table.locator("tbody tr").evaluateAll((rows) =>
    rows.map((row) => ({
      id: Number(row.children[1]!.textContent),
      logprob: Number(/log probability (-?[\d.]+)$/.exec((row as HTMLElement).title)![1]),
    })),
  );
}
