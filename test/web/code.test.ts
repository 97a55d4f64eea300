import { execFile } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import ts from "typescript-5.9";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { SessionClient } from "../../src/session/client.ts";
import type { ModelSummary, TaskSummary } from "../../src/session/messages/results.ts";
import type { Asking } from "../../web/src/ask.ts";
import { EMPTY, type ExplorerDocument } from "../../web/src/document/document.ts";
import type { Json } from "../../web/src/document/read.ts";
import { askQuestion } from "../../web/src/keep/ask-question.ts";
import { writeProgram } from "../../web/src/keep/code/write-program.ts";
import { questionsOf } from "../../web/src/keep/questions.ts";
import { vectorOf } from "../../web/src/vectors/make-vector.ts";
import { mixOf } from "../../web/src/vectors/mix.ts";
import { askLayers, firstTokenOf } from "../../web/src/vectors/patched.ts";
import type { Recipe } from "../../web/src/vectors/recipe.ts";
import { takeVectorFile } from "../../web/src/vectors/vector-files.ts";
import { askPlane } from "../../web/src/views/see/plane.ts";
import { SEE } from "../../web/src/views/see/see-slice.ts";
import { VECTORS } from "../../web/src/views/vectors/vectors-slice.ts";
import { ROOT } from "../helpers/rooms.ts";
import { connect, LLAVA, testHost } from "../session/sessions.ts";

const host = testHost();
let session: SessionClient;
let model: ModelSummary;
let tasks: readonly TaskSummary[];
let asking: Asking;
const folderName = join(".cache", `programs-${process.pid}`);
const folder = join(ROOT, folderName);

beforeAll(async () => {
  session = await connect(host);
  model = await session.load({ ref: LLAVA });
  ({ tasks } = await session.tasks());
  const { signal } = new AbortController();
  asking = { client: session, model: model.model, signal, onProgress: () => {} };
  mkdirSync(folder, { recursive: true });
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await host.close();
});

let count = 0;

/** What a program prints, a JSON value a line. */
async function printed(document: ExplorerDocument): Promise<unknown[]> {
  const code = writeProgram(document, tasks, { ref: "a model that is not there" })!;
  const { outputText, diagnostics } = ts.transpileModule(code, {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
    reportDiagnostics: true,
  });
  expect(diagnostics).toEqual([]);
  const file = join(folder, `program-${count++}.mjs`);
  writeFileSync(file, outputText);
  const { stdout } = await promisify(execFile)(process.execPath, [file, join(ROOT, LLAVA)], { cwd: ROOT });
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

const documentOf = (view: string, slices: Record<string, Json>): ExplorerDocument => ({
  ...EMPTY,
  view,
  slices,
});

/** Answers of the session as a program prints them. */
async function answers(document: ExplorerDocument): Promise<unknown[]> {
  const rows: unknown[] = [];
  for (const question of questionsOf(document, tasks)) {
    const { top } = await askQuestion(asking, question, model.width);
    rows.push([question.label, ...top.map(({ text, probability }) => [text, probability.toFixed(4)])]);
  }
  return rows;
}

const flag = (input: string) => ({ kind: "task", task: "country-capital", input }) as const;
const capital: Recipe = {
  kind: "examples",
  task: "country-capital",
  asked: "text",
  count: 2,
  seed: 1,
  items: 3,
};
const words: Recipe = { kind: "instruction", text: "The currency of the country:" };

test("vectors on pictures, mixed, and swept by layer", async () => {
  const document = documentOf("vectors", {
    shelf: {
      vectors: [
        { id: "v1", name: "capital", recipe: capital, layer: 1 },
        { id: "v2", name: "by pictures", recipe: { ...capital, asked: "image" }, layer: 0 },
        { id: "v3", name: "words", recipe: words, layer: 2 },
      ],
    },
    vectors: {
      ...VECTORS.initial,
      pictures: [flag("Italy"), flag("Kenya")],
      context: { specify: "text", task: "country-currency", count: 2, seed: 0 },
      drops: [
        { vector: "v1", picture: "task/country-capital/Italy" },
        { vector: "v2", picture: "task/country-capital/Italy" },
        { vector: "v3", picture: "task/country-capital/Kenya" },
      ],
      mix: { first: "v1", second: "v3", amount: 0.35, picture: "task/country-capital/Kenya" },
      sweep: {
        vector: "v1",
        measure: "accuracy",
        task: "country-capital",
        asked: "image",
        items: 4,
        picture: "",
      },
    },
  });
  const expected = await answers(document);
  expect(expected).toHaveLength(6);
  const { vector } = await session.makeVector({
    model: model.model,
    recipe: {
      task: "country-capital",
      specify: { kind: "text", count: 2, seed: 1 },
      items: 3,
    },
  });
  const { layers } = await session.sweep({
    model: model.model,
    vector,
    task: "country-capital",
    asked: "image",
    items: 4,
  });
  const swept = layers.map(({ layer, correct, total }) => ["layer", layer, correct, total]);
  expect(await printed(document)).toEqual([...expected, ...swept]);
});

test("vectors of single places, in a layer, by layer, mixed, and of files", async () => {
  const prompt = {
    kind: "written",
    pieces: [{ text: "Q: Greece\nA: Athens\n\nQ: Peru\nA:" }],
    chat: false,
  } as const;
  const at = (site: string, part: Record<string, number>) =>
    ({ kind: "place", prompt, site, position: 3, ...part }) as Recipe;
  const one = at("resid_post", { layer: 1 });
  const head = at("z", { layer: 1, head: 2 });
  const all = at("attn_out", {});
  // As the page has it from the files that `vector.save` gives.
  const saved = async (recipe: Recipe, name: string): Promise<Recipe> => {
    const { vector } = await vectorOf(asking, recipe);
    const { bytes } = await session.saveVector({ vector });
    writeFileSync(join(ROOT, folderName, name), bytes);
    return takeVectorFile(new File([bytes as Uint8Array<ArrayBuffer>], `${folderName}/${name}`));
  };
  const recipes: Recipe[] = [
    one,
    head,
    all,
    mixOf(one, at("resid_post", { layer: 2 }), 0.25),
    mixOf(capital, words, 0.75),
    await saved(one, "place.safetensors"),
    await saved(head, "head.safetensors"),
    await saved(all, "layers.safetensors"),
  ];
  const ids = recipes.map((_, i) => `v${i + 1}`);
  const italy = "task/country-capital/Italy";
  const document = (sweep: Record<string, Json>): ExplorerDocument =>
    documentOf("vectors", {
      shelf: {
        vectors: recipes.map((recipe, i) => ({ id: ids[i]!, name: `vector ${i}`, recipe, layer: 2 })),
      },
      vectors: {
        ...VECTORS.initial,
        pictures: [flag("Italy")],
        drops: ids.map((vector) => ({ vector, picture: italy })),
        sweep: {
          vector: "v1",
          measure: "picture",
          task: "",
          asked: "image",
          items: 3,
          picture: italy,
          ...sweep,
        },
      },
    });
  const expected = await answers(document({}));
  expect(new Set(expected.map((row) => JSON.stringify((row as unknown[]).slice(1)))).size).toBeGreaterThan(5);

  const question = {
    kind: "task",
    task: "country-capital",
    input: "Italy",
    asked: "image",
    specify: "none",
    count: 5,
    seed: 0,
  } as const;
  for (const [vector, recipe] of [
    ["v2", head],
    ["v5", recipes[4]!],
  ] as const) {
    const { layers } = await askLayers(asking, question, recipe, []);
    const rows = layers.map(({ layer, top }) => [
      "layer",
      layer,
      top[0]!.text,
      top[0]!.probability.toFixed(4),
    ]);
    expect(await printed(document({ vector }))).toEqual([...expected, ...rows]);
  }
}, 120_000);

test("the answers to one picture by layer, with the right one's probability; accuracy of a mix", async () => {
  const mix = mixOf(capital, { ...capital, seed: 2 }, 0.5);
  const document = (sweep: Record<string, Json>): ExplorerDocument =>
    documentOf("vectors", {
      shelf: { vectors: [{ id: "v1", name: "mixed", recipe: mix, layer: 1 }] },
      vectors: {
        ...VECTORS.initial,
        pictures: [flag("Italy")],
        sweep: {
          vector: "v1",
          measure: "picture",
          task: "country-capital",
          asked: "text",
          items: 3,
          picture: "task/country-capital/Italy",
          ...sweep,
        },
      },
    });
  const plain = await answers(document({}));
  const id = (await firstTokenOf(asking, "Rome"))!;
  const question = questionsOf(document({}), tasks)[0]!.prompt;
  const { layers } = await askLayers(asking, question, mix, [id]);
  expect(await printed(document({}))).toEqual([
    ...plain,
    ...layers.map(({ layer, top, tracked }) => [
      "layer",
      layer,
      top[0]!.text,
      top[0]!.probability.toFixed(4),
      tracked[0]!.probability.toFixed(4),
    ]),
  ]);

  const { vector } = await vectorOf(asking, mix);
  const swept = await session.sweep({
    model: model.model,
    vector,
    task: "country-capital",
    asked: "text",
    items: 3,
  });
  expect(await printed(document({ measure: "accuracy" }))).toEqual([
    ...plain,
    ...swept.layers.map(({ layer, correct, total }) => ["layer", layer, correct, total]),
  ]);
});

test("vectors of places and vectors of layers are not mixed", () => {
  const prompt = { kind: "written", pieces: [{ text: "Q" }], chat: false } as const;
  const place: Recipe = { kind: "place", prompt, site: "resid_post", position: 0, layer: 1 };
  for (const recipe of [mixOf(place, capital, 0.5), mixOf(capital, place, 0.5)]) {
    const document = documentOf("vectors", {
      shelf: { vectors: [{ id: "v1", name: "mixed", recipe, layer: 1 }] },
      vectors: {
        ...VECTORS.initial,
        pictures: [flag("Italy")],
        drops: [{ vector: "v1", picture: "task/country-capital/Italy" }],
      },
    });
    expect(() => writeProgram(document, tasks, { ref: "m" })).toThrow(/cannot be mixed/);
  }
});

test("places put from one prompt onto another, with every operation", async () => {
  const at = (position: number, layer: number, more = 1) => ({
    positions: { start: position, end: position + more },
    layers: { start: layer, end: layer + 1 },
  });
  const how = { site: "resid_post", amount: 1, on: true };
  const document = documentOf("lens", {
    lens: {
      source: {
        kind: "written",
        pieces: [{ text: "Q: Greece\nA:" }],
        chat: false,
      },
      target: {
        kind: "written",
        pieces: [{ text: "Q:" }, { picture: flag("Italy") }, { text: "\nA:" }],
        chat: false,
      },
      how: { operation: "set", amount: 1, site: "resid_post" },
      edits: [
        { ...how, id: 1, operation: "set", from: at(1, 0, 2), to: at(2, 0, 2) },
        { ...how, id: 2, operation: "add", amount: 0.5, from: at(2, 1), to: at(3, 1, 3) },
        { ...how, id: 3, operation: "interpolate", amount: 0.25, from: at(2, 1), to: at(4, 2) },
        { ...how, id: 4, operation: "zero", site: "mlp_out", to: at(5, 1) },
        { ...how, id: 5, operation: "projectOut", from: at(1, 1), to: at(6, 1) },
        { ...how, id: 6, operation: "set", site: "z", head: 1, from: at(2, 1), to: at(7, 1) },
        { ...how, id: 7, operation: "zero", on: false, to: at(1, 1) },
      ],
      chosen: 1,
      words: true,
      maxNewTokens: 8,
    },
  });
  const expected = await answers(document);
  expect(expected).toHaveLength(2);
  expect(await printed(document)).toEqual(expected);
});

test("what the view See shows", async () => {
  const see = { ...SEE.initial, layer: 1 };
  const heads = documentOf("see", { see: { ...see, mode: "heads" } });
  const prompt = { task: "country-capital", input: "Canada", asked: "image" } as const;
  const { maps } = await session.attention({ model: model.model, prompt, heads: "each", layers: [1] });
  expect(await printed(heads)).toEqual([
    ...(await answers(heads)),
    ...maps.map(({ layer, head, share, weights }) => [
      "layer",
      layer,
      "head",
      head,
      share.toFixed(4),
      Math.max(...weights).toFixed(4),
    ]),
  ]);

  const lens = documentOf("see", { see: { ...see, tab: "lens" } });
  const encoded = await session.encode({ model: model.model, prompt, views: true });
  const { positions } = encoded.pictures[0]!.patches!;
  const cells = await session.lens({ model: model.model, prompt, at: [...positions], layers: [1], k: 3 });
  const rows = positions.map((position, p) => [
    1,
    position,
    ...[0, 1, 2].map((rank) => [
      cells.texts[cells.ids[p * 3 + rank]!],
      cells.probabilities[p * 3 + rank]!.toFixed(4),
    ]),
  ]);
  expect(await printed(lens)).toEqual([...(await answers(lens)), ...rows]);

  const set = {
    ...SEE.initial.plane,
    tasks: ["country-capital", "food-color"],
    items: 2,
    count: 2,
    layer: 1,
  };
  const plane = documentOf("see", { see: { ...see, tab: "plane", shown: set } });
  const { points } = await askPlane(asking, set, tasks);
  const drawn = (await printed(plane)).slice(1) as [string, string][];
  expect(drawn).toHaveLength(8);
  points.forEach(({ x, y }, i) => {
    expect(Number(drawn[i]![0])).toBeCloseTo(x, 2);
    expect(Number(drawn[i]![1])).toBeCloseTo(y, 2);
  });
});

test("a prompt as a chat message, and one behind an instruction; a view that asks nothing has no program", async () => {
  const prompt = {
    kind: "task",
    task: "country-capital",
    input: "Italy",
    asked: "image",
    specify: "instruction",
    count: 5,
    seed: 0,
  };
  const document = documentOf("prompt", { prompt: { prompt, maxNewTokens: 4, temperature: 0, seed: 0 } });
  expect(await printed(document)).toEqual(await answers(document));
  const pieces = [{ text: 'Say "a\nb".' }];
  const chat = documentOf("prompt", {
    prompt: { prompt: { kind: "written", pieces, chat: true }, maxNewTokens: 4, temperature: 0, seed: 0 },
  });
  expect(writeProgram(chat, tasks, { ref: "m", quantise: "int8" })).toContain(
    'model.chat([{ role: "user", content: [{ type: "text", text: "Say \\"a\\nb\\"." }] }]',
  );
  expect(writeProgram(documentOf("model", {}), tasks, { ref: "m" })).toBeUndefined();
});
