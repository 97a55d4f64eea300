import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { EMPTY, type ExplorerDocument, readDocument } from "../../web/src/document/document.ts";
import { encodeLink } from "../../web/src/document/link.ts";
import { DocumentError, type Json } from "../../web/src/document/read.ts";
import { mixOf } from "../../web/src/vectors/mix.ts";
import type { Recipe } from "../../web/src/vectors/recipe.ts";
import { SHELF } from "../../web/src/vectors/shelf.ts";
import { lensSlice } from "../../web/src/views/lens/lens-slice.ts";
import { promptSlice } from "../../web/src/views/prompt/prompt-slice.ts";
import { SEE } from "../../web/src/views/see/see-slice.ts";
import { TOUR } from "../../web/src/views/tour/tour-slice.ts";
import { VECTORS } from "../../web/src/views/vectors/vectors-slice.ts";
import { Explorer } from "./helpers/explorer.ts";

// Links are written by anybody: what is no state of the page is refused in words, and what is one is shown.

let explorer: Explorer;
beforeAll(async () => {
  explorer = await Explorer.start();
});
afterAll(() => explorer?.close());

const prompt = { kind: "written", pieces: [{ text: "Q: Greece\nA:" }], chat: false } as const;
const flag = { kind: "task", task: "country-capital", input: "Poland" } as const;
const asked = {
  kind: "task",
  task: "country-capital",
  input: "Egypt",
  asked: "image",
  specify: "text",
  count: 2,
  seed: 0,
} as const;
const capital: Recipe = {
  kind: "examples",
  task: "country-capital",
  asked: "text",
  count: 2,
  seed: 0,
  items: 2,
};
const place: Recipe = { kind: "place", prompt, site: "resid_post", position: 2, layer: 1 };
const plane = { ...SEE.initial.plane, tasks: ["country-capital"], items: 2, count: 1, layer: 1 };
const range = (start: number) => ({ start, end: start + 1 });
const put = { positions: range(2), layers: range(1) };

const VIEWS = ["model", promptSlice.name, lensSlice.name, VECTORS.name, SEE.name, TOUR.name];

/** A state in which every view has something of every kind. */
const FULL: ExplorerDocument = {
  ...EMPTY,
  view: "vectors",
  model: { kind: "offered", ref: "tiny" },
  slices: {
    prompt: { prompt: asked, maxNewTokens: 2, temperature: 0, seed: 0 },
    lens: {
      ...lensSlice.initial,
      source: prompt,
      target: asked,
      edits: [
        { id: 1, on: true, operation: "set", amount: 1, site: "resid_post", from: put, to: put },
        { id: 2, on: true, operation: "zero", amount: 1, site: "z", head: 1, to: put },
      ],
    },
    [SHELF.name]: {
      vectors: [
        { id: "v1", name: "capital", recipe: capital, layer: 1 },
        { id: "v2", name: "place", recipe: place, layer: 2 },
        { id: "v3", name: "mixed", recipe: mixOf(capital, capital, 0.5), layer: 0 },
      ],
    },
    vectors: {
      ...VECTORS.initial,
      pictures: [flag],
      context: { specify: "text", task: "country-currency", count: 1, seed: 0 },
      drops: [
        { vector: "v1", picture: "task/country-capital/Poland" },
        { vector: "v2", picture: "task/country-capital/Poland" },
      ],
      mix: { first: "v1", second: "v3", amount: 0.5, picture: "task/country-capital/Poland" },
      sweep: {
        vector: "v1",
        measure: "picture",
        task: "country-capital",
        asked: "text",
        items: 2,
        picture: "task/country-capital/Poland",
      },
    },
    see: { ...SEE.initial, prompt: asked, plane, shown: plane, layer: 1, head: 0 },
    tour: { on: true, chapter: 1, step: 2 },
  },
};

/** Where there is something in a document, as keys from its top. */
function placesOf(value: Json | undefined, at: readonly string[] = []): string[][] {
  const own = at.length > 0 ? [[...at]] : [];
  if (typeof value !== "object" || value === null) return own;
  return [...own, ...Object.entries(value).flatMap(([key, each]) => placesOf(each, [...at, key]))];
}

/** A copy with something else in a place; `undefined` takes it away. */
function replaced(value: Json, [key, ...rest]: readonly string[], by: Json | undefined): Json {
  const copy = structuredClone(value) as Record<string, Json> | Json[];
  const next = rest.length === 0 ? by : replaced((copy as Record<string, Json>)[key!]!, rest, by);
  if (next === undefined && Array.isArray(copy)) copy.splice(Number(key), 1);
  else if (next === undefined) delete (copy as Record<string, Json>)[key!];
  else (copy as Record<string, Json>)[key!] = next;
  return copy;
}

const PLACES = placesOf(FULL as unknown as Json).filter(([top]) => top !== "version" && top !== "model");
const anything = fc.oneof(
  fc.constantFrom<Json | undefined>(undefined, null, true, false, "", "nobody", "__proto__", "text", "image"),
  fc.constantFrom<Json>(0, 1, -1, 3, 50, 0.5, 1000, 1e6, 1e9, -1e9, 2 ** 31),
  fc.constantFrom<Json>([], {}, ["text"], [{ text: "" }], "x".repeat(5000), "resid_post", "pattern"),
);
const changes = fc.array(fc.tuple(fc.constantFrom(...PLACES), anything), { minLength: 1, maxLength: 2 });
const changedBy = (list: readonly (readonly [string[], Json | undefined])[]): unknown =>
  list.reduce<Json>(
    (document, [at, by]) => {
      try {
        return replaced(document, at, by);
      } catch {
        return document; // the first change took away where the second would be
      }
    },
    FULL as unknown as Json,
  );

test("whatever is written into a link is read, or refused in words", () => {
  expect(readDocument(FULL)).toEqual(FULL);
  fc.assert(
    fc.property(changes, (list) => {
      try {
        readDocument(changedBy(list));
      } catch (error) {
        expect(error).toBeInstanceOf(DocumentError);
      }
    }),
    { numRuns: 3000 },
  );
});

/** Documents that are looked at: most of the samples are refused. */
const SEEN = 40;

test("every view shows whatever could be read, or says what is wrong with it", async () => {
  const tab = await explorer.loaded();
  const documents = fc.sample(changes, { numRuns: 900, seed: 1 }).flatMap((list) => {
    try {
      return [{ list, document: readDocument(changedBy(list)) }];
    } catch {
      return [];
    }
  });
  const seen = documents.slice(0, SEEN);
  expect(seen).toHaveLength(SEEN);
  for (const [i, { list, document }] of seen.entries()) {
    const id = VIEWS[i % VIEWS.length]!;
    const link = await encodeLink({ ...document, view: id });
    await tab.page.evaluate((hash) => {
      location.hash = hash;
    }, `/${id}?d=${link}`);
    await tab.page.waitForFunction(() => !location.hash.includes("?"));
    await tab.ready();
    const said = JSON.stringify([id, list]);
    expect(await tab.page.getByText("cannot be shown").allTextContents(), said).toEqual([]);
    expect(tab.complaints, said).toEqual([]);
  }
}, 600_000);

test("a view that cannot be drawn says so in its place; the page goes on, and the next change draws it again", async () => {
  const tab = await explorer.loaded();
  const { page } = tab;
  await tab.go("Patch lens");
  await page.getByRole("button", { name: "Begin with an example" }).waitFor();
  // As an error in the explorer itself would.
  await page.evaluate(() => {
    const { toFixed } = Number.prototype;
    Object.assign(globalThis, {
      mend: () => {
        Number.prototype.toFixed = toFixed;
      },
    });
    Number.prototype.toFixed = () => {
      throw new Error("sabotage");
    };
  });
  await page.getByRole("button", { name: "Begin with an example" }).click();
  await page.getByText("Patch lens cannot be shown").waitFor();
  await page.getByText("sabotage").waitFor();
  await page.evaluate(() => (globalThis as unknown as { mend(): void }).mend());
  await tab.go("Model");
  await page.getByText("Vocabulary").waitFor();
  await tab.go("Patch lens");
  await page.getByRole("grid", { name: "Tokens and layers of the target" }).waitFor();
  await tab.ready();
  expect(await page.getByText("cannot be shown").count()).toBe(0);
  expect(tab.complaints.filter((complaint) => !complaint.includes("sabotage"))).toEqual([]);
});
