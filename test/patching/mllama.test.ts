import { beforeAll, describe, expect, test } from "vitest";
import { attentionMaps, rolloutMaps } from "../../src/analysis/heads/attention-map.ts";
import { type HeadRanking, rankHeads } from "../../src/analysis/heads/rank-heads.ts";
import { PromptError, SiteError } from "../../src/errors.ts";
import { bestCanvas, canvasTiles } from "../../src/images/canvas-tiles.ts";
import { crop } from "../../src/images/crop.ts";
import { loadImage } from "../../src/images/files/load.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import { preprocess } from "../../src/images/preprocess.ts";
import { memoryFolder } from "../../src/model/checkpoint/source/folder.ts";
import { mllama } from "../../src/model/families/pictures/mllama.ts";
import { mllamaImageRules } from "../../src/model/families/pictures/parts/mllama-images.ts";
import { chatPrompt } from "../../src/model/prompt/chat-template.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { cacheAll, cacheBytes } from "../../src/patching/cache-all.ts";
import { loadDualEncoder } from "../../src/patching/dual-encoder.ts";
import { addVector, type Edit, scale, set, zero } from "../../src/patching/edit.ts";
import { logitDifference } from "../../src/patching/metric.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { resume, type Variant } from "../../src/patching/resume.ts";
import { tap } from "../../src/patching/tap.ts";
import { fixtureFiles, tensorsOf, withTensors } from "../helpers/checkpoints.ts";
import { expectClose, expectSame, largest, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";
import { changeJson } from "../helpers/nano.ts";

// Llama 3.2 Vision: canvases of tiles, two encoders, and layers of cross-attention in place of self-attention.

const [TOWER, WIDTH, LAYERS, TILE, PADDED, TILES] = [32, 48, 5, 5, 8, 4];
const LATENTS = TILES * TILE;

let model: PatchableModel;
let photo: RgbImage;
let tall: RgbImage;
let rgba: RgbImage;
/** Of one tile, and of two. */
let small: RgbImage;
let wide: RgbImage;
/** One picture, two with text between them, two side by side, none. */
let prompts: Prompt<PromptImage>[];
beforeAll(async () => {
  const load = (name: string) => loadImage(`test/fixtures/images/${name}.png`);
  [photo, tall, rgba] = await Promise.all([load("photo"), load("tall"), load("rgba")]);
  small = crop(photo, { left: 2, top: 3, width: 25, height: 22 });
  wide = crop(photo, { left: 0, top: 0, width: 50, height: 24 });
  model = await fixtureModel("mllama");
  prompts = [
    model.prompt([wide, "What is shown?"]),
    model.prompt(["Q:", small, "\nA: red\n\nQ:", wide, "\nA:"]),
    model.prompt([wide, tall, "Which? A:"]),
    model.prompt("The capital of France is"),
  ];
});

const logitsOf = async (prompt: Prompt, edits: readonly Edit[] = [], of = model) =>
  (await readAll({ logits: of.run(prompt, { edits }).logits })).logits;
const read = async (prompt: Prompt, site: SiteName, image?: number, edits: readonly Edit[] = []) =>
  (await model.run(prompt, { taps: { x: tap(site, "all", { image }) }, edits }).x.read()) as Float32Array;
const distance = (a: Float32Array, b: Float32Array) => largest(a.map((x, i) => x - b[i]!));

describe("canvases", () => {
  const of = (width: number, height: number) => bestCanvas({ width, height }, { side: 560, most: 4 });

  test("enlarge a picture least, else reduce it least, and are as small as they can be", () => {
    expect(of(560, 560)).toEqual({ rows: 1, columns: 1 });
    expect(of(561, 560)).toEqual({ rows: 1, columns: 2 });
    expect(of(300, 1000)).toEqual({ rows: 2, columns: 1 });
    expect(of(2000, 400)).toEqual({ rows: 1, columns: 4 });
    expect(of(4000, 3000)).toEqual({ rows: 2, columns: 2 });
    expect(of(10, 9000)).toEqual({ rows: 4, columns: 1 });
  });

  test("have the picture in their upper left corner, and black around it", () => {
    const white = { width: 30, height: 10, data: new Uint8Array(900).fill(255) };
    const tiles = canvasTiles(white, { side: 28, most: 4 }, "bilinear");
    expect(tiles.length).toBe(2);
    const pixel = (tile: number, x: number, y: number) => tiles[tile]!.data[3 * (y * 28 + x)];
    expect([pixel(0, 27, 0), pixel(1, 1, 0), pixel(1, 27, 0), pixel(0, 0, 27)]).toEqual([255, 255, 0, 0]);
    const values = preprocess(photo, model.config.vision!.processor);
    expect(values.tiling).toEqual({ count: 4, width: photo.width, height: photo.height });
    expect(values.shape).toEqual([3, 28, 28]);
  });
});

describe("prompts", () => {
  const idsOf = (parts: Parameters<PatchableModel["prompt"]>[0], options = {}) =>
    model.prompt(parts, options).ids;
  const [BOS, IMAGE] = [317, 320];

  test("have BOS behind the pictures in front of the text as well, unless it is written or unwanted", () => {
    expect(idsOf([photo, tall, "A"]).slice(0, 4)).toEqual([BOS, IMAGE, IMAGE, BOS]);
    expect(idsOf(["A", photo]).slice(0, 2)).toEqual([BOS, BOS]);
    expect(idsOf([photo])).toEqual([BOS, IMAGE, BOS]);
    expect(idsOf(["<|begin_of_text|>", photo, "A"]).filter((id) => id === BOS).length).toBe(2);
    expect(idsOf([photo, "A"], { bos: false }).slice(0, 1)).toEqual([IMAGE]);
    expect(idsOf("A").filter((id) => id === BOS).length).toBe(1);
    const named = model.prompt([photo, { text: "word", name: "x" }, " more"]);
    expect(named.span("x").start).toBe(3);
    expect(named.span("image")).toEqual({ start: 1, end: 2 });
  });

  test("take the image token beyond the logits, and nothing beyond the embedding", () => {
    expect(model.run(prompts[0]!).logits!.shape).toEqual([320]);
    expect(() => model.promptFromIds([20, 328])).toThrow(/below 328/);
    expect(() => model.promptFromIds([20, IMAGE, 21])).toThrow(PromptError);
  });

  test("by the published chat template have what it writes", () => {
    const template =
      "{{- bos_token }}{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}" +
      "{%- if message['content'] is string %}{{- message['content'] }}{%- else %}{%- for content in message['content'] %}" +
      "{%- if content['type'] == 'image' %}{{- '<|image|>' }}{%- elif content['type'] == 'text' %}{{- content['text'] }}" +
      "{%- endif %}{%- endfor %}{%- endif %}{{- '<|eot_id|>' }}{%- endfor %}" +
      "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}";
    const content = [
      { type: "image" as const, image: photo as PromptImage },
      { type: "text" as const, text: "What?" },
    ];
    const rules = { imageRules: mllamaImageRules("<|image|>") };
    const chat = chatPrompt({ default: template }, model.tokenizer, [{ role: "user", content }], rules);
    expect(chat.ids.filter((id) => id === BOS).length).toBe(1);
    expect(chat.ids[0]).toBe(BOS);
    expect(chat.ids.filter((id) => id === IMAGE).length).toBe(1);
    expect(chat.images).toEqual([photo]);
  });
});

test("by default it reads what enters the layers that the config names, as transformers 4 does", async () => {
  // Logits of transformers 4.46.3, with this very checkpoint; 5.24 differs by 3.2.
  const expected = [
    [-2.1161401, -1.3168523, 1.1529919, 1.0713784, -0.9940114, -0.1336902, -0.5309238, -4.0082645],
    [-2.9276357, 0.664019, 1.5006303, 0.7801079, -0.3646981, -0.6227886, -0.1622903, -3.9263361],
  ];
  const files = ["<|image|>What is shown in the image?", "Q:<|image|>\nA: red\n\nQ:<|image|>\nA:"];
  const images = [[photo], [tall, rgba]];
  const device = await testDevice();
  using outputs = await loadModel("test/fixtures/mllama/model", { device, intermediateLayers: "outputs" });
  for (const [i, text] of files.entries()) {
    const prompt = model.prompt(text, { images: images[i]! });
    const logits = await logitsOf(prompt);
    expectClose(logits.subarray(0, 8), expected[i]!, { atol: 1e-4 });
    expect(distance(await logitsOf(prompt, [], outputs), logits)).toBeGreaterThan(1);
  }
  const other = { device, intermediateLayers: "outputs" as const };
  await expect(loadModel("test/fixtures/llama/model", other)).rejects.toThrow(
    /intermediateLayers is for .* mllama/,
  );
  await expect(loadDualEncoder("test/fixtures/clip/model", other)).rejects.toThrow(/intermediateLayers/);
});

describe("sites", () => {
  test("come by in the order in which they are listed, in the shapes that are said", () => {
    const prompt = prompts[1]!;
    const seen: string[] = [];
    for (const event of model.walk(prompt)) if (seen.at(-1) !== event.site) seen.push(event.site);
    expect([...new Set(seen)]).toEqual(siteNames(model.sites));
    const shapes: Partial<Record<SiteName, number[]>> = {
      "vision.embed": [TILES * PADDED, TOWER],
      "vision.post_norm": [TILES * PADDED, TOWER],
      "vision.global.resid_post.1": [TILES * PADDED, TOWER],
      "vision.features": [LATENTS, 3 * TOWER],
      projector: [LATENTS, WIDTH],
      "xattn_k_norm.1": [LATENTS, 24],
      "xattn_pattern.3": [4, prompt.length, 2 * LATENTS],
      "xattn_gate.1": [prompt.length, 1],
      "xmlp_gate.1": [prompt.length, 1],
    };
    for (const [site, shape] of Object.entries(shapes) as [SiteName, number[]][]) {
      const image = siteInfo(model.sites, site).sequences === "images" ? { image: 1 } : {};
      expect(model.run(prompt, { taps: { x: tap(site, "all", image) } }).x.shape, site).toEqual(shape);
    }
  });

  test("the stream adds up, and the pattern mixes the values of all pictures", async () => {
    const prompt = prompts[1]!;
    for (const layer of [1, 3]) {
      const [pre, out, mid, mlp, post] = await Promise.all(
        (["resid_pre", "xattn_out", "resid_mid", "mlp_out", "resid_post"] as const).map((site) =>
          read(prompt, `${site}.${layer}`),
        ),
      );
      expectClose(
        pre!.map((x, i) => x + out![i]!),
        mid!,
      );
      expectClose(
        mid!.map((x, i) => x + mlp![i]!),
        post!,
      );
      const pattern = await read(prompt, `xattn_pattern.${layer}`);
      const z = await read(prompt, `xattn_z.${layer}`);
      const values = await Promise.all([0, 1].map((image) => read(prompt, `xattn_v.${layer}`, image)));
      // Keys are the rows of the tiles that the pictures have, one picture after the other, then those of the tiles they have not.
      const own = [small, wide].map((picture) => model.config.vision!.layout(picture).ownLatents!);
      const order = [0, 1].flatMap((image) => Array.from({ length: own[image]! }, (_, row) => [image, row]));
      for (const image of [0, 1]) for (let row = own[image]!; row < LATENTS; row++) order.push([image, row]);
      const [position, head] = [prompt.length - 1, 2];
      for (const at of [0, 7]) {
        const sum = order.reduce(
          (all, [image, row], key) =>
            all +
            pattern[(head * prompt.length + position) * 2 * LATENTS + key]! *
              values[image!]![row! * 24 + Math.floor(head / 2) * 12 + at]!,
          0,
        );
        expectClose([z[position * WIDTH + head * 12 + at]!], [sum], { atol: 1e-5 });
      }
    }
  });

  test("a token sees its own picture and those side by side with it; one that sees none reads all, but its MLP adds nothing", async () => {
    const [, apart, beside] = prompts;
    const rowsRead = async (prompt: Prompt, position: number) => {
      const pattern = await read(prompt, "xattn_pattern.1");
      const row = pattern.subarray(position * 2 * LATENTS, (position + 1) * 2 * LATENTS);
      return [...row.keys()].filter((key) => row[key]! > 0);
    };
    const count = (picture: RgbImage) => model.config.vision!.layout(picture).ownLatents!;
    const range = (start: number, length: number) => Array.from({ length }, (_, i) => start + i);
    const [first, second] = apart!.ids.flatMap((id, position) => (id === 320 ? [position] : []));
    expect(await rowsRead(apart!, 0)).toEqual(range(0, 2 * LATENTS));
    expect([small, wide].map(count)).toEqual([TILE, 2 * TILE]);
    expect(await rowsRead(apart!, second! - 1)).toEqual(range(0, TILE));
    expect(await rowsRead(apart!, second!)).toEqual(range(TILE, 2 * TILE));
    expect(await rowsRead(beside!, beside!.last)).toEqual(range(0, 2 * TILE + count(tall)));
    expect(await rowsRead(beside!, 1)).toEqual(range(0, 2 * TILE));
    const gate = await read(apart!, "xmlp_gate.1");
    expect([...gate].map((x) => x !== 0)).toEqual(apart!.ids.map((_, position) => position >= first!));
    expect((await read(apart!, "xattn_gate.1")).every((x) => x !== 0)).toBe(true);
  });

  test("rows of tiles that a picture has attend to all, padding to those", async () => {
    const prompt = model.prompt([wide, "A"]);
    const own = 2 * TILE;
    for (const site of ["vision.pattern.1", "vision.global.pattern.0"] as const) {
      const pattern = await read(prompt, site);
      const rows = TILES * PADDED;
      for (const row of [0, own - 1, own, rows - 1]) {
        const seen = pattern.subarray(row * rows, (row + 1) * rows).filter((x) => x > 0).length;
        expect(seen, `${site}, row ${row}`).toBe(row < own ? rows : own);
      }
    }
  });

  test("attention maps are of cross-attention, and lie over the canvas of the picture that is named", async () => {
    const pictures = [small, wide, tall];
    const prompt = model.prompt([small, "A", wide, "B", tall, "C"]);
    const side = Math.sqrt(TILE - 1);
    const { vision } = model.config;
    const canvases = pictures.map((picture) => bestCanvas(picture, vision!.processor.canvas!));
    expect(canvases.slice(0, 2)).toEqual([
      { rows: 1, columns: 1 },
      { rows: 1, columns: 2 },
    ]);
    let start = 0;
    for (const [i, { rows, columns }] of canvases.entries()) {
      // A token reads the latest picture alone.
      const at = i === 2 ? prompt.last : prompt.span(`image${i + 2}`).start - 1;
      const span = i === 0 ? "image" : `image${i + 1}`;
      const maps = await attentionMaps(model, prompt, { span, at, head: 1 });
      expect(maps.map(({ layer }) => layer)).toEqual([1, 3]);
      const { x } = await readAll(
        model.run(prompt, { taps: { x: tap("xattn_pattern.3", at, { head: 1 }) } }),
      );
      expect(maps[1]!.grid).toEqual({ rows: rows * side, columns: columns * side });
      // Tile by tile, behind its class token.
      const map = maps[1]!.weights;
      for (let tile = 0; tile < rows * columns; tile++) {
        const own = x.subarray(start + tile * TILE + 1, start + (tile + 1) * TILE);
        const [top, left] = [Math.floor(tile / columns) * side, (tile % columns) * side];
        const shown = own.map((_, n) => {
          const [row, column] = [top + Math.floor(n / side), left + (n % side)];
          return map[row * columns * side + column]!;
        });
        expectClose(shown, own, { atol: 1e-6 });
        expect(largest(own)).toBeGreaterThan(0);
      }
      start += rows * columns * TILE;
      expect(maps[1]!.share).toBeLessThan(1);
    }
    await expect(attentionMaps(model, prompt, { layers: [2] })).rejects.toThrow(/in layer 2; it is in 1, 3/);
    await expect(rolloutMaps(model, prompt)).rejects.toThrow(/reads pictures by cross-attention/);
  });

  test("of layers of cross-attention are not those of self-attention; prompts without pictures pass through them", async () => {
    expect(() => model.run(prompts[0]!, { taps: { x: tap("z.1") } })).toThrow(/in place of self-attention/);
    expect(() => model.run(prompts[0]!, { taps: { x: tap("xattn_z.2") } })).toThrow(
      /in layer 2; it is in 1, 3/,
    );
    const text = prompts[3]!;
    expect(await read(text, "resid_post.1")).toEqual(await read(text, "resid_post.0"));
    expect(largest(await read(text, "xattn_out.3"))).toBe(0);
    expect(() => model.run(text, { taps: { x: tap("xattn_pattern.1") } })).toThrow(SiteError);
  });
});

/** An edit at a site of a prompt, in the middle of what there is. */
function editAt(prompt: Prompt, site: SiteName, seed: number, image: number): Edit | undefined {
  const { features, sequences, imageRows, order, imageKeys } = siteInfo(model.sites, site);
  const ofImages = sequences === "images";
  if (ofImages && prompt.images.length === 0) return undefined;
  if (imageKeys !== undefined && prompt.images.length === 0) return undefined;
  const keys = ofImages
    ? imageRows!
    : imageKeys === undefined
      ? prompt.length
      : prompt.images.length * LATENTS;
  const rows = ofImages ? imageRows! : prompt.length;
  const position = order === LAYERS ? prompt.last : (seed * 7) % rows;
  const value = randomArray(features ?? keys, seed, 3);
  return addVector(site, position, value, ofImages ? { image: image % prompt.images.length } : {});
}

describe("resumed runs", () => {
  test("equal full ones, for edits at every site of every stack", async () => {
    const inputs = prompts;
    using recording = model.record(inputs);
    const variants: Variant[] = [];
    for (const [i, site] of siteNames(model.sites).entries()) {
      for (const prompt of [i % 3, 1]) {
        const edit = editAt(inputs[prompt]!, site, i + 1, i);
        if (edit) variants.push({ prompt, edits: [edit] });
      }
    }
    const unpatched = await Promise.all(inputs.map((prompt) => logitsOf(prompt)));
    let changed = 0;
    for (let start = 0; start < variants.length; start += 24) {
      const some = variants.slice(start, start + 24);
      const found = (await resume(recording, some).logits.read()) as Float32Array;
      const vocab = found.length / some.length;
      for (const [i, { prompt = 0, edits }] of some.entries()) {
        const full = await logitsOf(inputs[prompt]!, edits);
        const label = `${edits[0]!.site} of prompt ${prompt}`;
        expectSame(found.subarray(i * vocab, (i + 1) * vocab), full, label, unpatched[prompt]);
        if (distance(full, unpatched[prompt]!) > 1e-4) changed++;
      }
    }
    expect(changed).toBeGreaterThan(0.9 * variants.length);
  }, 240_000);

  test("equal full ones behind a recording with edits of its own, and in a batch with other prompts", async () => {
    const own: Edit[] = [
      addVector("vision.global.resid_post.0", 3, randomArray(TOWER, 60, 2), { image: 0, prompt: 1 }),
      scale("xattn_z.1", -1, -2, { prompt: 1 }),
      addVector("resid_post.2", 2, randomArray(WIDTH, 61), { prompt: 0 }),
      addVector("xattn_v.1", 4, randomArray(24, 67, 2), { image: 0, prompt: 0 }),
      addVector("xattn_k.3", 3, randomArray(24, 68, 2), { image: 1, prompt: 1 }),
      addVector("embed", 2, randomArray(WIDTH, 69), { prompt: 1 }),
    ];
    using recording = model.record(prompts, { edits: own });
    const variants: Variant[] = [
      { prompt: 1, edits: [zero("vision.resid_post.1", 4, { image: 1 })] },
      { prompt: 1, edits: [addVector("xattn_k_norm.3", 6, randomArray(24, 62, 3), { image: 0 })] },
      { prompt: 0, edits: [set("projector", 2, randomArray(WIDTH, 63))] },
      { prompt: 2, edits: [addVector("vision.features", 17, randomArray(3 * TOWER, 64, 3), { image: 0 })] },
      { prompt: 1, edits: [addVector("resid_post.3", -1, randomArray(WIDTH, 65))] },
      { prompt: 0, edits: [addVector("embed", 1, randomArray(WIDTH, 71))] },
      { prompt: 1, edits: [addVector("embed", 3, randomArray(WIDTH, 72))] },
      { prompt: 3, edits: [addVector("resid_post.0", 3, randomArray(WIDTH, 66))] },
    ];
    const found = (await resume(recording, variants).logits.read()) as Float32Array;
    const vocab = found.length / variants.length;
    for (const [i, { prompt = 0, edits }] of variants.entries()) {
      const before = own.filter((edit) => edit.prompt === prompt).map((edit) => ({ ...edit, prompt: 0 }));
      const full = await logitsOf(prompts[prompt]!, [...before, ...edits]);
      expectSame(found.subarray(i * vocab, (i + 1) * vocab), full, `variant ${i}`);
      expect(distance(full, await logitsOf(prompts[prompt]!, before)), `variant ${i}`).toBeGreaterThan(1e-4);
    }
  });

  test("compute only what an edit can change: a changed key reaches those that read its picture, from its layer on", () => {
    using recording = model.record([prompts[2]!, prompts[1]!]);
    const rowLayers = (prompt: number, edit: Edit) =>
      resume(recording, [{ prompt, edits: [edit] }]).rowLayers;
    const { length } = prompts[1]!;
    // The first token sees no picture, so it reads them all.
    expect(rowLayers(1, zero("xattn_v.3", 0, { image: 1 }))).toBe(2 * length);
    expect(rowLayers(1, zero("projector", 0, { image: 1 }))).toBe(4 * length);
    expect(rowLayers(1, zero("resid_post.1", -1))).toBe(3);
  });
});

test("a batch with and without pictures gives what its prompts give alone, and so does generation, which is recomputation", async () => {
  const { logits } = model.run(prompts);
  const together = (await (logits as unknown as { read(): Promise<Float32Array> }).read()) as Float32Array;
  const vocab = together.length / prompts.length;
  for (const [i, prompt] of prompts.entries()) {
    expectClose(together.subarray(i * vocab, (i + 1) * vocab), await logitsOf(prompt), { atol: 1e-5 });
  }
  const edits = [addVector("xattn_out.3", -1, randomArray(WIDTH, 70))];
  const answers = await model.generate(prompts, { maxNewTokens: 3, stopIds: [], edits });
  for (const [i, prompt] of prompts.entries()) {
    const ids = [...answers[i]!.ids];
    for (let step = 0; step < 3; step++) {
      const longer = model.promptFromIds([...prompt.ids, ...ids.slice(0, step)], prompt.images);
      const at = prompt.length - 1;
      const row = await logitsOf(longer, [addVector("xattn_out.3", at, randomArray(WIDTH, 70))]);
      expect(row.indexOf(Math.max(...row))).toBe(ids[step]);
    }
  }
  const options = { maxNewTokens: 3, stopIds: [] };
  const alone = [];
  for (const prompt of prompts) alone.push((await model.generate(prompt, options)).ids);
  const shared = await Promise.all(prompts.map((prompt) => model.generate(prompt, options)));
  expect(shared.map(({ ids }) => ids)).toEqual(alone);
});

test("gradients are slopes: in both encoders, the projector, cross-attention and the stream; weights and pixel values", async () => {
  const prompt = model.prompt(["Q:", wide, "\nA:"]);
  const [a, b] = [238, 165];
  const value = (logits: Float32Array) => logits[a]! - logits[b]!;
  const sites = [
    ...["vision.embed", "vision.resid_post.1", "vision.global.resid_post.0", "vision.features", "projector"],
    ...["xattn_v.1", "xattn_out.3", "resid_post.1", "resid_post.2"],
  ] as SiteName[];
  const weights = [
    "vision_model.gated_positional_embedding.gate",
    "language_model.model.layers.1.cross_attn_attn_gate",
    "multi_modal_projector.bias",
  ];
  const found = model.gradients(prompt, logitDifference(a, b), { of: sites, weights, pixels: true });
  for (const [i, site] of sites.entries()) {
    const gradients = found.gradients as unknown as Record<
      string,
      { read(): Promise<Float32Array> } | readonly { read(): Promise<Float32Array> }[]
    >;
    const each = [gradients[site]!].flat();
    const own = Float32Array.from((await Promise.all(each.map((one) => one.read()))).flatMap((x) => [...x]));
    const width = siteInfo(model.sites, site).features!;
    const direction = randomArray(width, 80 + i);
    // Padding enters as zeros; the norm in front of them is so steep there that no step is small enough.
    const at = site === "vision.embed" ? { start: 0, end: 2 * TILE } : ("all" as const);
    const counted = at === "all" ? own : own.subarray(0, at.end * width);
    const slope = counted.reduce((sum, x, j) => sum + x * direction[j % width]!, 0);
    const step = 1e-2;
    const moved = (h: number) =>
      addVector(
        site,
        at,
        direction.map((x) => x * h),
      );
    const [up, down] = await Promise.all(
      [step, -step].map(async (h) => value(await logitsOf(prompt, [moved(h)]))),
    );
    expect(Math.abs((up! - down!) / (2 * step) - slope), site).toBeLessThan(3e-2 * Math.abs(slope) + 5e-3);
    expect(Math.abs(slope), site).toBeGreaterThan(1e-3);
  }
  // The bias of the projector is added to every row that is read.
  const bias = (await found.weights["multi_modal_projector.bias"]!.read()) as Float32Array;
  const rows = found.gradients as unknown as Record<string, readonly { read(): Promise<Float32Array> }[]>;
  const added = await Promise.all([rows["projector"]!].flat().map((one) => one.read()));
  const sums = bias.map((_, j) =>
    added.reduce((all, each) => each.reduce((sum, x, i) => (i % WIDTH === j ? sum + x : sum), all), 0),
  );
  expectClose(bias, sums, { atol: 1e-4, rtol: 1e-3 });
  for (const name of weights)
    expect(largest((await found.weights[name]!.read()) as Float32Array)).toBeGreaterThan(0);
  expect(found.pixels.map(({ shape }) => shape)).toEqual([[2, 3, 28, 28]]);
  expect(largest(await found.pixels[0]!.read())).toBeGreaterThan(0);
});

test("the names of all versions, and both spellings of the config, are one model", async () => {
  const files = fixtureFiles("mllama");
  const config = JSON.parse(new TextDecoder().decode(files.get("config.json")));
  const { rope_theta, rope_scaling, ...text } = config.text_config;
  const { image_token_index, ...outer } = config;
  const newer = {
    ...outer,
    image_token_id: image_token_index,
    text_config: { ...text, rope_parameters: { ...rope_scaling, rope_theta } },
  };
  const tensors = [...(await tensorsOf(files)).values()].map((tensor) => ({
    ...tensor,
    name: tensor.name
      .replace(/^language_model\.lm_head/, "lm_head")
      .replace(/^language_model\.model/, "model.language_model")
      .replace(/^(vision_model|multi_modal_projector)/, "model.$1"),
    data: async function* () {
      yield tensor.data;
    },
  }));
  const expected = await logitsOf(prompts[1]!);
  const device = await testDevice();
  for (const changed of [await withTensors(files, tensors), await withTensors(files, tensors, newer)]) {
    using other = await loadModel(memoryFolder(changed), { device });
    expect(await logitsOf(prompts[1]!, [], other)).toEqual(expected);
  }
});

test("a config as published is read; what is not supported is refused by name", async () => {
  const published = {
    image_token_index: 128256,
    model_type: "mllama",
    text_config: {
      ...{
        cross_attention_layers: [3, 8, 13, 18, 23, 28, 33, 38],
        hidden_size: 4096,
        intermediate_size: 14336,
      },
      ...{ num_attention_heads: 32, num_hidden_layers: 40, num_key_value_heads: 8, rms_norm_eps: 1e-5 },
      rope_scaling: {
        ...{ factor: 8, high_freq_factor: 4, low_freq_factor: 1, original_max_position_embeddings: 8192 },
        rope_type: "llama3",
      },
      ...{
        rope_theta: 500000,
        vocab_size: 128256,
        max_position_embeddings: 131072,
        tie_word_embeddings: false,
      },
    },
    vision_config: {
      ...{
        attention_heads: 16,
        hidden_size: 1280,
        image_size: 560,
        intermediate_size: 5120,
        max_num_tiles: 4,
      },
      ...{ intermediate_layers_indices: [3, 7, 15, 23, 30], num_global_layers: 8, num_hidden_layers: 32 },
      ...{ norm_eps: 1e-5, patch_size: 14, vision_output_dim: 7680, model_type: "mllama_vision_model" },
      supported_aspect_ratios: [
        [1, 1],
        [1, 2],
        [1, 3],
        [1, 4],
        [2, 1],
        [2, 2],
        [3, 1],
        [4, 1],
      ],
    },
  };
  const preprocessor = {
    ...{ image_processor_type: "MllamaImageProcessor", max_image_tiles: 4, resample: 2, do_pad: true },
    size: { height: 560, width: 560 },
  };
  const files = { preprocessor, tokenOf: (id: number) => `<${id}>`, idOf: () => undefined, eosId: undefined };
  const config = mllama.readConfig(published, "config.json", files);
  expect(config).toMatchObject({ layers: 40, kvHeads: 8, vocab: 128256, inputIds: 128264 });
  expect(config.cross!.layers).toEqual([3, 8, 13, 18, 23, 28, 33, 38]);
  const picture = { width: 1000, height: 400, data: new Uint8Array(3 * 400000) };
  expect(config.vision!.layout(picture)).toMatchObject({
    towerRows: 6432,
    latents: 6404,
    ownLatents: 3202,
    tokens: 1,
  });

  for (const [section, change, message] of [
    ["vision_config", { image_size: 364 }, /image_size, 364|takes for padding altogether|max_image_tiles/],
    ["vision_config", { intermediate_layers_indices: [3, 32] }, /numbers of the 32 layers/],
    ["vision_config", { vision_output_dim: 6400 }, /vision_output_dim to be 7680, .* found 6400/],
    [
      "vision_config",
      { supported_aspect_ratios: [[1, 1]] },
      /supported_aspect_ratios to be all of up to 4 tiles/,
    ],
    ["vision_config", { max_num_tiles: 2 }, /supported_aspect_ratios/],
    ["vision_config", { image_size: 448 }, /size is the tower's image_size, 448/],
    ["vision_config", { model_type: "clip_vision_model" }, /supported is mllama_vision_model/],
    ["text_config", { cross_attention_layers: [3, 40] }, /numbers of the 40 layers/],
    ["text_config", { rope_scaling: { rope_type: "yarn" } }, /"yarn" is not supported/],
  ] as const) {
    const changed = { ...published, [section]: { ...published[section], ...change } };
    expect(() => mllama.readConfig(changed, "config.json", files)).toThrow(message);
  }
  for (const [change, message] of [
    [{ do_pad: false }, /do_pad to be true/],
    [{ do_resize: false }, /do_resize to be true/],
    [{ size: { height: 28, width: 30 } }, /height and width, the same/],
    [{ image_processor_type: "CLIPImageProcessor" }, /one of MllamaImageProcessor/],
  ] as const) {
    const other = fixtureFiles("mllama");
    changeJson(other, "preprocessor_config.json", change);
    await expect(loadModel(memoryFolder(other), { device: await testDevice() })).rejects.toThrow(message);
  }
});

test("what a cache of all sites takes is what was said beforehand", () => {
  const prompt = model.prompt(["Q:", wide, "A"]);
  const cache = cacheAll(model, prompt);
  const bytes = Object.values(cache).reduce((sum, tensor) => sum + 4 * tensor.size, 0);
  expect(cacheBytes(model, prompt)).toBe(bytes);
  for (const tensor of Object.values(cache)) tensor.dispose();
});

test("heads of layers of self-attention are ranked, and those of cross-attention by their own site", async () => {
  const ids = [...prompts[0]!.ids];
  ids[4] = 40;
  const corrupted = model.promptFromIds(ids, prompts[0]!.images);
  const metric = logitDifference(238, 165);
  const layersOf = (ranking: HeadRanking) => new Set(ranking.heads.map(({ layer }) => layer));
  const own = await rankHeads(model, prompts[0]!, corrupted, { metric });
  expect(layersOf(own)).toEqual(new Set([0, 2, 4]));
  const across = await rankHeads(model, prompts[0]!, corrupted, { metric, sites: "xattn_z.*" });
  expect(layersOf(across)).toEqual(new Set([1, 3]));
  expect(() => model.weight("W_Q.1")).toThrow(/layer 1 is no plain block/);
});
