import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { PromptError, SiteError } from "../../src/errors.ts";
import { loadImage } from "../../src/images/files/load.ts";
import type { RgbImage } from "../../src/images/files/rgb.ts";
import { llavaImageRules } from "../../src/model/families/pictures/llava.ts";
import { prompt as buildPrompt } from "../../src/model/prompt/build-prompt.ts";
import { chatPrompt } from "../../src/model/prompt/chat-template.ts";
import { type Prompt, patchRow } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { LAYER_SITES, type SiteName } from "../../src/model/walk/sites.ts";
import { addVector, type Edit, scale, set, zero } from "../../src/patching/edit.ts";
import { loadModel, type PatchableModel } from "../../src/patching/model.ts";
import { record } from "../../src/patching/recording.ts";
import { resume } from "../../src/patching/resume.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Device } from "../../src/tensor/device.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, randomArray } from "../helpers/compare.ts";
import { testDevice } from "../helpers/device.ts";

/** 3 layers, 4 heads, 32 wide; 16 patches behind a class token. The language model: 3 layers, 4 heads, 48 wide. */
const TOWER = { layers: 3, heads: 4, width: 32, rows: 17 };
const TEXT = { layers: 3, heads: 4, width: 48 };
const PATCHES = 16;
const TOLERANCE = { atol: 1e-4, rtol: 1e-4 };

let device: Device;
let model: PatchableModel;
let photo: RgbImage;
let tall: RgbImage;
let one: Prompt<PromptImage>;
let two: Prompt<PromptImage>;

beforeAll(async () => {
  device = await testDevice();
  model = await loadModel("test/fixtures/llava/model", { device });
  photo = await loadImage("test/fixtures/images/photo.png");
  tall = await loadImage("test/fixtures/images/tall.png");
  one = model.prompt("USER: <image>\nWhat is shown in the image? ASSISTANT:", { images: [photo] });
  two = model.prompt(["Q:", tall, "\nA: red\n\nQ:", photo, "\nA:"]);
});

const range = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i);
const logitsOf = async (prompt: Prompt, edits: readonly Edit[] = []) =>
  (await model.run(prompt, { edits }).logits!.read()) as Float32Array;
const distance = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Math.max(...Array.from(a, (x, i) => Math.abs(x - b[i]!)));

/** A tap's value for a prompt, alone or under edits. */
async function read(prompt: Prompt, site: SiteName, options: { image?: number; edits?: Edit[] } = {}) {
  const { image, edits = [] } = options;
  const { value } = model.run(prompt, { taps: { value: tap(site, "all", { image }) }, edits });
  return (await value.read()) as Float32Array;
}

describe("taps", () => {
  test("every vision site has a row for the class token and each patch, attention sites a head each", () => {
    const features: Partial<Record<(typeof LAYER_SITES)[number], number>> = { mlp_pre: 64, mlp_act: 64 };
    for (const layer of range(TOWER.layers)) {
      for (const site of LAYER_SITES) {
        const { value } = model.run(one, { taps: { value: tap(`vision.${site}.${layer}`) } });
        const attention = site === "scores" || site === "pattern";
        expect([site, ...value.shape]).toEqual(
          attention
            ? [site, TOWER.heads, TOWER.rows, TOWER.rows]
            : [site, TOWER.rows, features[site] ?? TOWER.width],
        );
      }
    }
  });

  test("a head, a feature range and a position are those columns and that row of the whole", async () => {
    const whole = await read(one, "vision.z.1");
    const taps = {
      head: tap("vision.z.1", "all", { head: 2 }),
      row: tap("vision.z.1", 5),
      columns: tap("vision.z.1", -1, { features: { start: 3, end: 6 } }),
    };
    const { head, row, columns } = model.run(one, { taps });
    const size = TOWER.width / TOWER.heads;
    const expected = range(TOWER.rows).flatMap((r) => [
      ...whole.subarray(r * TOWER.width + 2 * size, r * TOWER.width + 3 * size),
    ]);
    expect([...(await head.read())]).toEqual(expected);
    expect([...(await row.read())]).toEqual([...whole.subarray(5 * TOWER.width, 6 * TOWER.width)]);
    const last = 16 * TOWER.width;
    expect([...(await columns.read())]).toEqual([...whole.subarray(last + 3, last + 6)]);
  });

  test("attention in the tower is not causal, and each row of a pattern sums to 1", async () => {
    const pattern = await read(one, "vision.pattern.0");
    for (let row = 0; row < TOWER.heads * TOWER.rows; row++) {
      const weights = pattern.subarray(row * TOWER.rows, (row + 1) * TOWER.rows);
      expect(weights.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
      expect(Math.min(...weights)).toBeGreaterThan(0);
    }
  });

  test("the projector's rows are the embedding's rows of the image span", async () => {
    const { start, end, grid } = one.span("image");
    expect({ count: end - start, grid }).toEqual({ count: PATCHES, grid: { rows: 4, columns: 4 } });
    const taps = { features: tap("projector"), rows: tap("embed", { span: "image" }) };
    const { features, rows } = model.run(one, { taps });
    expect(features.shape).toEqual([PATCHES, TEXT.width]);
    expect([...(await rows.read())]).toEqual([...(await features.read())]);
  });

  test("each of two images is the one that it is alone", async () => {
    const alone = await read(model.prompt(["Q:", photo, "\nA:"]), "vision.resid_post.1");
    expectClose(await read(two, "vision.resid_post.1", { image: 1 }), alone, TOLERANCE);
    expect(distance(await read(two, "vision.resid_post.1", { image: 0 }), alone)).toBeGreaterThan(0.1);
  });
});

describe("edits", () => {
  test("a row of patches set to zero in the decoder leaves what comes before it, and changes what comes after", async () => {
    const row = patchRow(one.span("image"), 1);
    const edits = [zero("resid_post.0", row)];
    const plain = await read(one, "resid_post.2");
    const ablated = await read(one, "resid_post.2", { edits });
    const until = row.start * TEXT.width;
    expect([...ablated.subarray(0, until)]).toEqual([...plain.subarray(0, until)]);
    for (let position = row.start; position < one.length; position++) {
      const at = [position * TEXT.width, (position + 1) * TEXT.width] as const;
      expect(distance(ablated.subarray(...at), plain.subarray(...at))).toBeGreaterThan(1e-4);
    }
    const rows = model.run(one, { edits, taps: { rows: tap("resid_post.0", row) } }).rows;
    expect([...(await rows.read())]).toEqual(new Array(4 * TEXT.width).fill(0));
  });

  test("a patch zeroed at the projector is the same patch zeroed in the embedding", async () => {
    const { start } = one.span("image");
    const at = 6;
    expectClose(
      await logitsOf(one, [zero("projector", at)]),
      await logitsOf(one, [zero("embed", start + at)]),
      TOLERANCE,
    );
    expect(distance(await logitsOf(one, [zero("projector", at)]), await logitsOf(one))).toBeGreaterThan(1e-3);
  });

  test("swapping two images' features gives the prompt with the images swapped", async () => {
    const swapped = model.prompt(["Q:", photo, "\nA: red\n\nQ:", tall, "\nA:"]);
    const taps = {
      first: tap("projector", "all", { image: 0 }),
      second: tap("projector", "all", { image: 1 }),
    };
    const { first, second } = model.run(two, { taps });
    const edits = [
      set("projector", "all", second, { image: 0 }),
      set("projector", "all", first, { image: 1 }),
    ];
    expectClose(await logitsOf(two, edits), await logitsOf(swapped), TOLERANCE);
    expect(distance(await logitsOf(two), await logitsOf(swapped))).toBeGreaterThan(1e-3);
  });

  test("without an image's number an edit means every image", async () => {
    const each = [zero("vision.resid_post.0", 3, { image: 0 }), zero("vision.resid_post.0", 3, { image: 1 })];
    const all = await logitsOf(two, [zero("vision.resid_post.0", 3)]);
    expectClose(all, await logitsOf(two, each), TOLERANCE);
    expect(distance(all, await logitsOf(two, each.slice(0, 1)))).toBeGreaterThan(1e-4);
  });

  test("a text row goes into an image row, and nowhere else", async () => {
    const { start } = one.span("image");
    const { v } = model.run(model.prompt("Q: red\nA:"), { taps: { v: tap("resid_post.0", -1) } });
    const edits = [set("resid_post.0", start + 2, v)];
    const plain = await read(one, "resid_post.0");
    const patched = await read(one, "resid_post.0", { edits });
    const expected = Float32Array.from(plain);
    expected.set((await v.read()) as Float32Array, (start + 2) * TEXT.width);
    expect([...patched]).toEqual([...expected]);
    expect(distance(await logitsOf(one, edits), await logitsOf(one))).toBeGreaterThan(1e-4);
  });

  test("one head of the tower is knocked out, the others stay", async () => {
    const size = TOWER.width / TOWER.heads;
    const plain = await read(one, "vision.z.1");
    const edited = await read(one, "vision.z.1", { edits: [zero("vision.z.1", "all", { head: 3 })] });
    for (const [i, value] of plain.entries()) {
      const head = Math.floor((i % TOWER.width) / size);
      expect(edited[i]).toBe(head === 3 ? 0 : value);
    }
  });

  test("the class token reaches the patches through the blocks that follow", async () => {
    const edits = [zero("vision.resid_post.0", 0)];
    const plain = await read(one, "projector");
    expect(distance(await read(one, "projector", { edits }), plain)).toBeGreaterThan(1e-3);
    // After the last block in use, its own row is dropped and nothing is left of it.
    const late = await read(one, "projector", { edits: [zero("vision.resid_post.1", 0)] });
    expect([...late]).toEqual([...plain]);
  });

  test("an edit with the tapped value changes nothing", async () => {
    for (const site of ["vision.embed", "vision.resid_mid.1", "vision.mlp_out.0", "projector"] as const) {
      const { value } = model.run(one, { taps: { value: tap(site) } });
      expectClose(await logitsOf(one, [set(site, "all", value)]), await logitsOf(one), TOLERANCE);
    }
  });
});

describe("resumed runs", () => {
  test("equal full runs with the same edits, wherever in the vision side they are", async () => {
    using recording = record(model, [one, two]);
    const vector = (width: number) => randomArray(width, 5);
    const { start } = one.span("image");
    const variants = [
      { prompt: 0, edits: [zero("vision.embed", 4)] },
      { prompt: 0, edits: [addVector("vision.resid_post.1", { start: 3, end: 7 }, vector(TOWER.width))] },
      { prompt: 0, edits: [scale("vision.z.0", "all", 0, { head: 1 })] },
      { prompt: 0, edits: [set("projector", 9, vector(TEXT.width))] },
      { prompt: 1, edits: [zero("projector", "all", { image: 1 })] },
      { prompt: 1, edits: [zero("vision.resid_post.0", 0, { image: 0 })] },
      { prompt: 0, edits: [zero("vision.mlp_out.1", 2), addVector("resid_post.1", -1, vector(TEXT.width))] },
      { prompt: 0, edits: [zero("resid_post.1", start + 5)] },
    ];
    const { logits, rowLayers } = resume(recording, variants);
    const found = (await logits.read()) as Float32Array;
    const vocab = logits.dim(1);
    for (const [i, { prompt, edits }] of variants.entries()) {
      const input = [one, two][prompt]!;
      const full = await logitsOf(input, edits);
      expectClose(found.subarray(i * vocab, (i + 1) * vocab), full, { ...TOLERANCE, label: `variant ${i}` });
      expect(distance(full, await logitsOf(input)), `variant ${i}`).toBeGreaterThan(1e-4);
    }
    // What lies before the image, and below a later edit, was not computed again.
    const second = two.span("image2").start;
    const after = (prompt: Prompt, position: number, layers = TEXT.layers) =>
      (prompt.length - position) * layers;
    const inTower = 5 * after(one, start) + after(two, second) + after(two, two.span("image").start);
    expect(rowLayers).toBe(inTower + after(one, start + 5, 1));
  });

  test("taps of a resumed run see the edit in the tower", async () => {
    using recording = record(model, [one]);
    const edits = [zero("vision.resid_post.1", 8)];
    const site = "resid_post.1";
    const { last } = resume(recording, [{ edits }], { taps: { last: tap(site, -1) } });
    const [row] = [last].flat() as Tensor[];
    const full = await read(one, site, { edits });
    expectClose(await row!.read(), full.subarray(one.last * TEXT.width), TOLERANCE);
  });
});

describe("what does not exist", () => {
  const run = (prompt: Prompt, site: SiteName, at?: number, part = {}) =>
    model.run(prompt, { taps: { x: at === undefined ? tap(site) : tap(site, at, part) } });

  test("a tap has to name one of several images", () => {
    expect(() => run(two, "vision.resid_post.0")).toThrow(SiteError);
    expect(() => run(two, "projector")).toThrow(/prompt 0 has 2 images; name one, as in \{ image: 0 \}/);
  });

  test("images and heads out of range, and images at text sites", () => {
    expect(() => run(two, "projector", 0, { image: 2 })).toThrow(/has 2 image\(s\), there is no image 2/);
    expect(() => run(one, "vision.z.0", 0, { head: 4 })).toThrow(/a head from 0 to 3, found head 4/);
    expect(() => run(one, "vision.mlp_out.0", 0, { head: 0 })).toThrow(
      /this site has no heads, found head 0/,
    );
    expect(() => run(one, "resid_post.0", 0, { image: 0 })).toThrow(
      /only sites of the vision side take an image/,
    );
    expect(() => run(one, "vision.resid_post.3", 0)).toThrow(/there are 3 layers, 0 to 2/);
    expect(() => run(one, "vision.post_norm", 0)).toThrow(/this model has no such site/);
  });

  test("rows beyond the image, and positions of the prompt", () => {
    expect(() => run(one, "vision.resid_post.0", 17)).toThrow(/from -17 to 16 \(17 tokens\), found 17/);
    expect(() => run(one, "projector", 16)).toThrow(PromptError);
    expect(() => model.run(one, { edits: [zero("projector", { span: "image" })] })).toThrow(
      /positions within the image/,
    );
  });

  test("a prompt without an image has no vision side to tap or edit", () => {
    const text = model.prompt("Q: red\nA:");
    expect(() => run(text, "vision.embed")).toThrow(/prompt 0 has no image/);
    expect(() => model.run([one, text], { edits: [zero("projector", 0)] })).toThrow(/prompt 1 has no image/);
    // An edit of the first prompt alone is fine.
    model.run([one, text], { edits: [zero("projector", 0, { prompt: 0 })] });
    expect(() => text.span("image")).toThrow(/no span "image"/);
  });

  test("placeholders and images that differ in number", () => {
    const text = "USER: <image>\n<image>\nWhich?";
    expect(() => model.prompt(text, { images: [photo] })).toThrow(/2 placeholder\(s\) and 1 image\(s\)/);
    expect(() => model.prompt("USER: what?", { images: [photo, tall] })).toThrow(
      /0 placeholder\(s\) and 2 image\(s\)/,
    );
    const ids = one.ids.filter((_, position) => position !== one.span("image").start);
    expect(() => model.run(model.promptFromIds(ids, [photo]))).toThrow(
      /Expected 16 <image> tokens for 1 image\(s\), found 15/,
    );
  });

  test("a text model takes no pictures and has no tower", async () => {
    using text = await loadModel("test/fixtures/llama/model", { device });
    expect(() => text.prompt(["Q:", photo, "\nA:"])).toThrow(/takes no images, found 1/);
    const prompt = text.prompt("Q:");
    expect(() => text.run(prompt, { taps: { x: tap("vision.embed") } })).toThrow(
      /this model has no vision tower/,
    );
    expect(() => text.run(prompt, { edits: [zero("projector", 0)] })).toThrow(SiteError);
  });
});

describe("chat", () => {
  /** As llava-hf/llava-1.5-7b-hf has it: images first, then the text. */
  const template =
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}" +
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}" +
    "{% if message['role'] != 'assistant' %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}" +
    "{{ content['text'] + ' '}}{% endfor %}{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}" +
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}" +
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";
  const rules = () => ({ imageRules: llavaImageRules(model.config.vision!) });
  const text = (words: string) => ({ type: "text" as const, text: words });
  const image = (picture: RgbImage) => ({ type: "image" as const, image: picture as PromptImage });

  test("a question about a picture is the published prompt", async () => {
    const [first] = JSON.parse(readFileSync("test/fixtures/llava/case.json", "utf8")).cases;
    const question = [image(photo), text("What is shown in the image?")];
    const prompt = chatPrompt(
      { default: template },
      model.tokenizer,
      [{ role: "user", content: question }],
      rules(),
    );
    expect(prompt.text).toBe(first.text);
    expect(prompt.ids).toEqual(first.input_ids);
    expect([...(await logitsOf(prompt))]).toEqual([...(await logitsOf(one))]);
  });

  test("several turns hold their pictures in order", () => {
    const messages = [
      { role: "user", content: [image(photo), text("What is it?")] },
      { role: "assistant", content: [text("red")] },
      { role: "user", content: [text("And this?"), image(tall)] },
    ];
    const prompt = chatPrompt({ default: template }, model.tokenizer, messages, rules());
    expect(prompt.text).toBe("USER: <image>\nWhat is it? ASSISTANT: red USER: <image>\nAnd this? ASSISTANT:");
    expect(prompt.images).toEqual([photo, tall]);
    expect(Object.keys(prompt.spans)).toEqual(["image", "image2"]);
    expect(prompt.span("image2").start).toBeGreaterThan(prompt.span("image").end);
  });

  test("the same rules by hand: an image part is a placeholder", () => {
    const parts = ["USER: ", { image: photo as PromptImage }, "\nWhat is shown in the image? ASSISTANT:"];
    expect(buildPrompt(model.tokenizer, parts, rules()).ids).toEqual(one.ids);
  });

  test("the fixture has no template of its own, and says so", () => {
    expect(() => model.chat([{ role: "user", content: "Hi" }])).toThrow(/no chat template/);
  });
});
