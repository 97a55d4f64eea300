import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { principalPlane } from "../../src/analysis/vectors/plane.ts";
import {
  addVector,
  attentionMaps,
  CheckpointError,
  decodeTaskVectors,
  extractTaskVectors,
  fewShotPrompt,
  ImageError,
  itemsOf,
  loadImage,
  loadModel,
  loadPictures,
  logitLens,
  modelView,
  type PatchableModel,
  parseTask,
  picturedItemsOf,
  promptInContext,
  reach,
  record,
  resume,
  rolloutMaps,
  SHIPPED_TASKS,
  SiteError,
  scoreTokens,
  set,
  specify,
  sweepLayers,
  tap,
  taskSource,
} from "../../src/index.ts";
import { encodeSafetensors } from "../../src/model/checkpoint/safetensors/safetensors-writer.ts";
import type { SessionClient } from "../../src/session/client.ts";
import type { ModelHandle, PromptSpec, VectorHandle } from "../../src/session/messages/values.ts";
import { expectClose } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { connect, LLAMA, LLAVA, testHost } from "./sessions.ts";

// What each request is answered with is what the library gives.

const host = testHost();
let session: SessionClient;
let llama: ModelHandle;
let llava: ModelHandle;
let text: PatchableModel;
let vlm: PatchableModel;

beforeAll(async () => {
  const device = await testDevice();
  session = await connect(host);
  ({ model: llama } = await session.load({ ref: LLAMA }));
  ({ model: llava } = await session.load({ ref: LLAVA }));
  text = await loadModel(LLAMA, { device });
  vlm = await loadModel(LLAVA, { device });
});
afterAll(async () => {
  session.close();
  await host.close();
  text.dispose();
  vlm.dispose();
});

const WORDS = "Q: Greece\nA: Athens\n\nQ: Italy\nA:";
const PROMPT: PromptSpec = { parts: WORDS };
const PHOTO = "test/fixtures/images/photo.png";
const photo = () => Uint8Array.from(readFileSync(PHOTO));
const capital = () =>
  parseTask(readFileSync("tasks/country-capital.json", "utf8"), "tasks/country-capital.json");

const topIds = (logits: Float32Array, count: number) =>
  [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, count);

describe("recorded runs", () => {
  test("record, resume and layers", async () => {
    const prompt = text.prompt(WORDS);
    const value = new Float32Array(text.config.width).map((_, i) => Math.cos(i));
    const recorded = await session.record({ model: llama, prompt: PROMPT, top: 3 });
    using recording = record(text, [prompt]);
    expect(recorded.top.map(({ id }) => id)).toEqual(
      topIds((await recording.logits.read()) as Float32Array, 3),
    );
    expect(recorded.rowLayers).toBe(recording.rowLayers);

    const edit = { operation: "add", site: "resid_post.0", at: -2, value, amount: 2 } as const;
    const { variants, rowLayers } = await session.resume({
      recording: recorded.recording,
      variants: [[edit], [{ operation: "zero", site: "z.1", at: -1, head: 1 }]],
      track: [5, 7],
    });
    const edits = [addVector("resid_post.0", -2, value, { scale: 2 })];
    const expected = resume(recording, [
      { edits },
      { edits: [{ kind: "edit", operation: "zero", site: "z.1", at: -1, head: 1 }] },
    ]);
    const logits = await expected.logits.read();
    const { vocab } = text.config;
    const unpatched = (await recording.logits.read()) as Float32Array;
    const unpatchedTotal = Math.log(unpatched.reduce((sum, x) => sum + Math.exp(x), 0));
    for (const [i, variant] of variants.entries()) {
      expect(variant.before.map(({ id }) => id)).toEqual(variant.top.map(({ id }) => id));
      for (const { id, logprob } of variant.before) {
        expect(logprob).toBeCloseTo(unpatched[id]! - unpatchedTotal, 4);
      }
      const own = logits.subarray(i * vocab, (i + 1) * vocab);
      expect(variant.top.map(({ id }) => id)).toEqual(topIds(own, 10));
      const total = Math.log(own.reduce((sum, x) => sum + Math.exp(x), 0));
      const [five] = variant.tracked;
      expect(five!.id).toBe(5);
      expect(five!.logprob).toBeCloseTo(own[5]! - total, 4);
      expect(five!.probability).toBeCloseTo(Math.exp(five!.logprob), 12);
    }
    expect(rowLayers).toBe(expected.rowLayers);
    expect(variants[0]!.reach).toEqual(reach(text, prompt, edits));
    expect(await session.reach({ model: llama, prompt: PROMPT, edits: [edit] })).toEqual(variants[0]!.reach);

    const layered = await session.layers({
      recording: recorded.recording,
      edit: { operation: "set", site: "resid_post", at: -1, value },
      top: 2,
    });
    const all = resume(
      recording,
      Array.from({ length: text.config.layers }, (_, layer) => ({
        edits: [set(`resid_post.${layer}`, -1, value)],
      })),
    );
    const rows = await all.logits.read();
    expect(layered.layers.map(({ layer }) => layer)).toEqual([...Array(text.config.layers).keys()]);
    expect(layered.layers.map(({ top }) => top.map(({ id }) => id))).toEqual(
      layered.layers.map((_, i) => topIds(rows.subarray(i * vocab, (i + 1) * vocab), 2)),
    );
    await session.free([recorded.recording]);
    await expect(session.resume({ recording: recorded.recording, variants: [[edit]] })).rejects.toMatchObject(
      {
        name: "SessionError",
        code: "handle",
      },
    );
  });
});

describe("views", () => {
  test("the lens, under edits too", async () => {
    const prompt = text.prompt(WORDS);
    const edit = { operation: "scale", site: "resid_post.0", at: 2, amount: 3 } as const;
    for (const edits of [[], [edit]]) {
      const answer = await session.lens({ model: llama, prompt: PROMPT, k: 2, edits });
      const cells = await logitLens(text, prompt, {
        at: "all",
        k: 2,
        edits: edits.map((each) => ({ kind: "edit" as const, ...each })),
      });
      expect([...answer.ids]).toEqual([...cells].flatMap(({ tokens }) => tokens.map(({ id }) => id)));
      expect([...answer.probabilities]).toEqual(
        [...cells].flatMap(({ tokens }) => tokens.map(({ probability }) => probability)),
      );
      expect(answer.positions).toEqual([...prompt.ids.keys()]);
      expect(answer.texts[answer.ids[0]!]).toBe(text.tokenizer.decode([answer.ids[0]!]));
    }
  });

  test("attention over a picture: the mean, each head, one, and rollout", async () => {
    const image = await loadImage(PHOTO);
    const prompt = vlm.prompt(["Q:", { image }, "\nA:"]);
    const spec: PromptSpec = { parts: ["Q:", { image: photo() }, "\nA:"] };
    const mean = await session.attention({ model: llava, prompt: spec });
    const plain = ({ layer, head, weights, share, grid }: (typeof mean.maps)[number]) => ({
      layer,
      head,
      weights,
      share,
      grid,
    });
    expect(mean.maps.map(plain)).toEqual((await attentionMaps(vlm, prompt)).map(plain));
    expect(mean.position).toBe(prompt.last);
    const each = await session.attention({ model: llava, prompt: spec, heads: "each", layers: [1], at: -2 });
    for (const [head, map] of each.maps.entries()) {
      const [expected] = await attentionMaps(vlm, prompt, { head, layers: [1], at: -2 });
      expect(plain(map)).toEqual(plain(expected!));
    }
    expect(each.maps).toHaveLength(vlm.config.heads);
    const told: unknown[] = [];
    const rolled = await session.attention(
      { model: llava, prompt: spec, heads: "rollout" },
      { onProgress: (progress) => told.push(progress) },
    );
    expect(told).toEqual([1, 2, 3].map((done) => ({ phase: "layers", done, total: 3 })));
    expect(rolled.maps.map(plain)).toEqual((await rolloutMaps(vlm, prompt)).map(plain));
  });

  test("projections of vectors and of activations", async () => {
    const prompts = ["Greece", "Italy", "France", "Spain"].map(
      (name): PromptSpec => ({ parts: `Q: ${name}\nA:` }),
    );
    const { shape, data } = await session.activations({ model: llama, prompts, site: "resid_post.1" });
    const expected = text.run(
      ["Greece", "Italy", "France", "Spain"].map((name) => text.prompt(`Q: ${name}\nA:`)),
      { taps: { v: tap("resid_post.1", -1) } },
    );
    expect(data).toEqual(await expected.v.read());
    const { points, explained } = await session.project({ points: { shape, data }, method: "pca" });
    const rows = Array.from({ length: 4 }, (_, i) => data.subarray(i * shape[1]!, (i + 1) * shape[1]!));
    const pca = principalPlane(rows);
    expect(points).toEqual(Float32Array.from(pca.plane.flat()));
    expect(explained).toEqual(pca.explained);
    const near = await session.project({ points: { shape, data }, method: "tsne" });
    expect(near.points).toHaveLength(8);
    expect((await session.project({ points: { shape, data }, method: "tsne" })).points).toEqual(near.points);
    expect((await session.project({ points: { shape, data }, method: "tsne", seed: 1 })).points).not.toEqual(
      near.points,
    );
  });
});

describe("prompts and pictures", () => {
  test("a picture is encoded with what the model sees of it", async () => {
    const { picture, width, height } = await session.picture({ image: photo() });
    const image = await loadImage(PHOTO);
    expect({ width, height }).toEqual({ width: image.width, height: image.height });
    const encoded = await session.encode({
      model: llava,
      prompt: { parts: ["Q:", { image: picture }] },
      views: true,
    });
    const prompt = vlm.prompt(["Q:", { image }]);
    expect(encoded.ids).toEqual([...prompt.ids]);
    expect(encoded.spans).toEqual(JSON.parse(JSON.stringify(prompt.spans)));
    const [seen] = encoded.pictures;
    const view = modelView(image, vlm.config.vision!.processor);
    expect((await loadImage(seen!.view!.png)).data).toEqual(view.data);
    expect(seen!.patches!.positions).toEqual(
      Array.from(
        { length: seen!.patches!.rows * seen!.patches!.columns },
        (_, i) => prompt.span("image").start + i,
      ),
    );
    const pixels = await session.encode({
      model: llava,
      prompt: { parts: ["Q:", { image: { width: image.width, height: image.height, data: image.data } }] },
    });
    const ran = [encoded.prompt, pixels.prompt].map((ref) =>
      session.run({ model: llava, prompt: ref, top: 1 }),
    );
    const [a, b] = await Promise.all(ran);
    expect(a!.top).toEqual(b!.top);
  });

  test("chats, ids, questions and items of tasks", async () => {
    const chat = [{ role: "user", content: [{ type: "text", text: "Hello" }] }] as const;
    const encode = async (prompt: PromptSpec, model = llama) => (await session.encode({ model, prompt })).ids;
    expect(await encode({ ids: [5, 6, 7] })).toEqual([5, 6, 7]);
    const examples = [{ question: "Greece", answer: "Athens" }];
    expect(await encode({ question: "Italy", examples })).toEqual([
      ...fewShotPrompt(text, examples, "Italy").ids,
    ]);
    const task = capital();
    const item = task.items.find(({ input }) => input === "Albania")!;
    const specification = await specify(text, task, itemsOf(task, item.split), { kind: "text", count: 3 });
    const expected = promptInContext(text, specification, itemsOf(task, item.split), item, item.input);
    expect(
      await encode({ task: "country-capital", input: "Albania", specify: { kind: "text", count: 3 } }),
    ).toEqual([...expected.ids]);
    const asked = await encode({ task: "country-capital", input: "Albania", asked: "image" }, llava);
    const picture = await loadImage(item.image!);
    expect(asked).toEqual([...fewShotPrompt(vlm, [], picture).ids]);
    await expect(encode({ chat })).rejects.toMatchObject({ name: "PromptError" });
  });

  test("the tasks that come with xpatch, and their pictures", async () => {
    const { tasks } = await session.tasks();
    expect(tasks.map(({ name }) => name)).toEqual([...SHIPPED_TASKS]);
    const files = readdirSync("tasks").filter((name) => name.endsWith(".json"));
    expect(files.sort()).toEqual(SHIPPED_TASKS.map((name) => `${name}.json`));
    const item = capital().items.find(({ image }) => image)!;
    const { bytes } = await session.taskPicture({ task: "country-capital", input: item.input });
    expect(Buffer.from(bytes)).toEqual(readFileSync(item.image!));
    await expect(session.taskPicture({ task: "../../package", input: "x" })).rejects.toMatchObject({
      name: "ArgumentError",
    });
  });
});

describe("vectors", () => {
  const TASK = {
    name: "own",
    instruction: "The capital:",
    items: ["Greece Athens", "Italy Rome", "France Paris", "Spain Madrid", "Peru Lima"].map((pair) => {
      const [input, output] = pair.split(" ") as [string, string];
      return { input, outputs: [output], split: "train" as const };
    }),
  };

  test("of a task, by examples and by its instruction", async () => {
    const task = parseTask(
      JSON.stringify({
        ...TASK,
        items: TASK.items.map(({ outputs, ...item }) => ({ ...item, output: outputs })),
      }),
      "own",
    );
    for (const kind of ["text", "instruction"] as const) {
      const made = await session.makeVector({
        model: llama,
        recipe: { task: TASK, specify: { kind, count: 2 }, items: 3 },
      });
      const { prompts, at } = await taskSource(text, task, "train", { kind, count: 2, items: 3 });
      using vectors = extractTaskVectors(text, prompts, { at });
      const { shape, data } = await session.readVector({ vector: made.vector });
      expect({ shape, data }).toEqual({
        shape: [...vectors.vectors.shape],
        data: await vectors.vectors.read(),
      });
      expect(made).toMatchObject({ site: "resid_post", layers: [...Array(text.config.layers).keys()] });
      const norm = Math.hypot(...data.subarray(0, text.config.width));
      expect(made.norms[0]).toBeCloseTo(norm, 3);

      const { bytes } = await session.saveVector({ vector: made.vector });
      const decoded = await decodeTaskVectors(Uint8Array.from(bytes), await testDevice());
      expect(decoded.origin).toEqual(vectors.origin);
      decoded.dispose();
      const again = await session.loadVector({ model: llama, bytes, name: "v" });
      expect((await session.readVector({ vector: again.vector })).data).toEqual(data);
      await session.freeVector({ vector: made.vector });
      await expect(session.readVector({ vector: made.vector })).rejects.toMatchObject({ code: "handle" });
    }
  });

  test("of a place: read, dropped on another prompt, saved and loaded", async () => {
    const recipe = { prompt: PROMPT, site: "resid_post.1", at: -1 };
    const { vector } = await session.makeVector({ model: llama, recipe });
    const { v } = text.run(text.prompt(WORDS), { taps: { v: tap("resid_post.1", -1) } });
    const value = await v.read();
    const patched = await session.run({
      model: llama,
      prompt: { parts: "Q: x\nA:" },
      edits: [{ operation: "set", site: "resid_post.0", at: -1, value: { vector } }],
      top: 4,
    });
    const { logits } = text.run(text.prompt("Q: x\nA:"), { edits: [set("resid_post.0", -1, value)] });
    expect(patched.top.map(({ id }) => id)).toEqual(topIds(await logits!.read(), 4));
    const rows = await session.makeVector({ model: llama, recipe: { ...recipe, at: { start: 1, end: 4 } } });
    expect(rows).toMatchObject({ positions: 3, features: text.config.width, layers: [] });
    const { bytes } = await session.saveVector({ vector: rows.vector });
    const again = await session.loadVector({ model: llama, bytes });
    expect(again).toMatchObject({ positions: 3, site: "resid_post.1" });
    expect(await session.readVector({ vector: again.vector })).toEqual(
      await session.readVector({ vector: rows.vector }),
    );
    await expect(session.loadVector({ model: llama, bytes: photo() })).rejects.toThrow(CheckpointError);
    await expect(
      session.makeVector({ model: llama, recipe: { ...recipe, site: "pattern.0" } }),
    ).rejects.toThrow(SiteError);
  });

  test("of a head; files of places are refused where the model has no such site, head or width", async () => {
    const recipe = { prompt: PROMPT, site: "z.1", at: -1, head: 1 };
    const { vector, ...made } = await session.makeVector({ model: llama, recipe });
    expect(made).toMatchObject({ site: "z.1", head: 1, layers: [] });
    const { bytes } = await session.saveVector({ vector });
    expect(await session.loadVector({ model: llama, bytes })).toMatchObject({ site: "z.1", head: 1 });
    const other = (change: Record<string, string>, features: number) =>
      encodeSafetensors(
        [{ name: "values", stored: "F32", shape: [1, features], data: new Uint8Array(4 * features) }],
        {
          format: "xpatch.activation.1",
          onePosition: "true",
          model: "m",
          site: "resid_post.1",
          position: "-1",
          promptHash: "h",
          weights: "F32",
          ...change,
        },
      );
    const load = (file: Uint8Array) => session.loadVector({ model: llama, bytes: file, name: "v" });
    const { width, heads } = text.config;
    await expect(load(await other({}, width + 1))).rejects.toThrow(
      new SiteError(`v: expected a vector of ${width} features, found ${width + 1}`),
    );
    await expect(load(await other({ site: "resid_post.99" }, width))).rejects.toThrow(SiteError);
    await expect(load(await other({ site: `z.1, head ${heads}` }, width / heads))).rejects.toThrow(
      /has no head/,
    );
    await expect(load(await other({ site: "resid_post.1, head 0" }, width))).rejects.toThrow(/has no head/);
    expect((await load(await other({}, width))).features).toBe(width);
  });

  test("of one site are mixed with none of another", async () => {
    const make = (site: string) =>
      session.makeVector({ model: llama, recipe: { prompts: [PROMPT], at: -1, site } });
    const [a, b] = [(await make("resid_post")).vector, (await make("attn_out")).vector];
    const mix = (...vectors: VectorHandle[]) =>
      session.mixVectors({ vectors: vectors.map((vector) => ({ vector, weight: 0.5 })) });
    await expect(mix(a, b)).rejects.toThrow(/expected vectors of resid_post, found one of attn_out/);
    const place = async (site: string) =>
      (await session.makeVector({ model: llama, recipe: { prompt: PROMPT, site, at: -1 } })).vector;
    await expect(mix(await place("resid_post.1"), await place("attn_out.1"))).rejects.toThrow(SiteError);
    const layers = await mix(await place("resid_post.0"), await place("resid_post.1"));
    expect(layers.site).toBe("resid_post.0");
  });

  test("mixed, and swept over the items of a task", async () => {
    const make = (kind: "text" | "instruction") =>
      session.makeVector({ model: llama, recipe: { task: TASK, specify: { kind, count: 2 }, items: 3 } });
    const [a, b] = [await make("text"), await make("instruction")];
    const mixed = await session.mixVectors({
      vectors: [
        { vector: a.vector, weight: 0.25 },
        { vector: b.vector, weight: 0.75 },
      ],
    });
    const read = async ({ vector }: typeof a) => (await session.readVector({ vector })).data;
    const [x, y, z] = [await read(a), await read(b), await read(mixed)];
    expectClose(
      z,
      x.map((value, i) => 0.25 * value + 0.75 * y[i]!),
      { atol: 1e-6 },
    );

    const told: number[] = [];
    const swept = await session.sweep(
      { model: llama, vector: a.vector, task: TASK, split: "train" },
      { onProgress: ({ phase, done }) => phase === "items" && told.push(done) },
    );
    const task = parseTask(
      JSON.stringify({
        ...TASK,
        items: TASK.items.map(({ outputs, ...item }) => ({ ...item, output: outputs })),
      }),
      "own",
    );
    const { prompts, at } = await taskSource(text, task, "train", { kind: "text", count: 2, items: 3 });
    using vectors = extractTaskVectors(text, prompts, { at });
    const items = itemsOf(task, "train");
    const expected = await sweepLayers(
      text,
      items.map(({ input }) => fewShotPrompt(text, [], input)),
      vectors,
    );
    for (const [l, layer] of swept.layers.entries()) {
      expect(layer).toMatchObject(plainScore(scoreTokens(text.tokenizer, items, expected.patched[l]!)));
    }
    expect(swept.unpatched).toMatchObject(plainScore(scoreTokens(text.tokenizer, items, expected.unpatched)));
    expect(swept.plainRowLayers).toBe(expected.plainRowLayers);
    expect(told.at(-1)).toBe(items.length);
  });

  const plainScore = ({ correct, total, accuracy, answers }: ReturnType<typeof scoreTokens>) => ({
    correct,
    total,
    accuracy,
    answers,
  });
});

describe("errors are those of the library", () => {
  test("of sites, positions, pictures and arguments", async () => {
    const prompt = text.prompt(WORDS);
    const run = (edits: unknown) => session.run({ model: llama, prompt: PROMPT, edits: edits as never });
    const error = await run([{ operation: "zero", site: "resid_pots.1", at: 0 }]).catch((e) => e);
    let expected: unknown;
    try {
      text.run(prompt, {
        edits: [{ kind: "edit", operation: "zero", site: "resid_pots.1" as never, at: 0 }],
      });
    } catch (thrown) {
      expected = thrown;
    }
    expect(error).toBeInstanceOf(SiteError);
    expect(error.message).toBe((expected as Error).message);
    await expect(run([{ operation: "zero", site: "resid_post.1", at: 99 }])).rejects.toMatchObject({
      name: "PromptError",
    });
    await expect(run([{ operation: "rub", site: "resid_post.1", at: 0 }])).rejects.toMatchObject({
      name: "ArgumentError",
    });
    await expect(run("all")).rejects.toMatchObject({ name: "ArgumentError" });
    await expect(session.run({ model: llama, prompt: PROMPT, tops: 3 } as never)).rejects.toThrow(
      /params has no "tops"/,
    );
    await expect(session.run({ model: "model:99", prompt: PROMPT })).rejects.toMatchObject({
      code: "handle",
    });
    await expect(session.picture({ image: new Uint8Array(40) })).rejects.toThrow(ImageError);
    await expect(session.picture({ image: "tasks/country-capital.json" as never })).rejects.toMatchObject({
      code: "handle",
    });
    await expect(
      session.encode({ model: llama, prompt: { parts: ["a", { image: photo() }] } }),
    ).rejects.toMatchObject({
      name: "PromptError",
    });
    await expect(session.load({ ref: "test/fixtures/none" })).rejects.toThrow(CheckpointError);
    await expect(session.generate({ model: llama, prompt: PROMPT, maxNewTokens: -1 })).rejects.toThrow();
  });

  test("pictured items need a model that takes pictures", async () => {
    expect(picturedItemsOf(capital(), "train").length).toBeGreaterThan(10);
    await expect(loadPictures(text, [])).rejects.toMatchObject({ name: "PromptError" });
  });
});
