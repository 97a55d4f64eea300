import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { loadImage } from "../../src/images/files/load.ts";
import { preprocess } from "../../src/images/preprocess.ts";
import { imageRowCount } from "../../src/model/checkpoint/config/vision-setup.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import type { PromptImage } from "../../src/model/prompt/prompt-image.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import type { SiteName } from "../../src/model/walk/sites.ts";
import { addVector, type Edit } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import type { Recording } from "../../src/patching/recording.ts";
import { resume, type Variant } from "../../src/patching/resume.ts";
import { batchOf } from "../../src/patching/site-targets.ts";
import { tap } from "../../src/patching/tap.ts";
import { expectSame, largest, randomArray } from "../helpers/compare.ts";
import { makeEdit } from "../helpers/edits.ts";
import { fullRuns } from "../helpers/full-runs.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";

// Families with pictures: resumed runs against full ones, whatever their masks and however many rows a picture has.

const TEXTS: Readonly<Record<string, readonly string[]>> = {
  paligemma: ["<image>caption", "<image><image>describe both", "answer en"],
  smolvlm: ["Q:<image>\nA:", "Q:<image>\nA: red\n\nQ:<image>\nA:", "Q: sky\nA:"],
  internvl: ["Q:<image>\nA:", "Q:<image>\nA: red\n\nQ:<image>\nA:", "Q: sky\nA:"],
  "internvl-qk-norm": ["Q:<image>\nA:", "Q:<image>\nA: red\n\nQ:<image>\nA:", "Q: sky\nA:"],
  gemma3: ["Q:<image>\nA:", "Q:<image>\nA: red\n\nQ:<image>\nA:", "Q: sky\nA:"],
  fuyu: ["<image>caption", "Q:<image>\nA: red\n\nQ:<image>\nA:", "Q: sky\nA:"],
  idefics2: ["Q:<image>\nA:", "Q:<image>\nA: red\n\nQ:<image>\nA:", "Q: sky\nA:"],
  "llava-pixtral": ["Q:<image>\nA:", "Q:<image>\nA: red\n\nQ:<image>\nA:", "Q: sky\nA:"],
  llava_onevision: ["Q:<image>\nA:", "Q:<image>\nA: red\n\nQ:<image>\nA:", "Q: sky\nA:"],
  llava_next: ["Q:<image>\nA:", "Q:<image>\nA: red\n\nQ:<image>\nA:", "Q: sky\nA:"],
};

const KINDS = ["set", "add", "scale", "zero"] as const;
type Kind = (typeof KINDS)[number];

interface Drawn {
  readonly site: number;
  readonly kind: Kind;
  readonly position: number;
  readonly image: number;
  readonly seed: number;
}

const drawnArbitrary = fc.record({
  site: fc.nat(),
  kind: fc.constantFrom(...KINDS),
  position: fc.nat(),
  image: fc.nat(),
  seed: fc.nat(),
});

/** An edit at any site that the prompt has rows for. */
function drawnEdit(model: PatchableModel, prompt: Prompt, drawn: Drawn): Edit {
  const hasImages = prompt.images.length > 0;
  const sites = siteNames(model.sites).filter(
    (site) => hasImages || siteInfo(model.sites, site).sequences === "prompts",
  );
  const site = sites[drawn.site % sites.length]!;
  const { features, order, sequences, rowsOf, keyRowsOf = rowsOf } = siteInfo(model.sites, site);
  if (sequences === "prompts") {
    const position = order === model.config.layers ? prompt.last : drawn.position % prompt.length;
    return makeEdit(drawn.kind, site, position, randomArray(features ?? prompt.length, drawn.seed), {});
  }
  const image = drawn.image % prompt.images.length;
  const layout = batchOf([prompt], model.config.vision).images[0]![image]!;
  const rows = imageRowCount(layout, rowsOf!);
  const value = randomArray(features ?? imageRowCount(layout, keyRowsOf!), drawn.seed);
  return makeEdit(drawn.kind, site, drawn.position % rows, value, { image });
}

describe.each(Object.keys(TEXTS))("%s", (name) => {
  let model: PatchableModel;
  let prompts: Prompt<PromptImage>[];

  beforeAll(async () => {
    model = await fixtureModel(name);
    const pictures = await Promise.all(
      ["tall", "photo"].map((picture) => loadImage(`test/fixtures/images/${picture}.png`)),
    );
    const { processor } = model.config.vision!;
    const { grid } = processor;
    // Where pictures may be cut or not, the second is.
    const splits =
      processor.kind === "idefics2" ? { quarters: true } : grid && { grid: { ...grid, splits: true } };
    const cut = splits && preprocess(pictures[1]!, { ...processor, ...splits });
    const images = [pictures[0]!, cut ?? pictures[1]!];
    prompts = TEXTS[name]!.map((text) =>
      model.prompt(
        text.split("<image>").flatMap((piece, i) => (i === 0 ? [piece] : [{ image: images[i - 1]! }, piece])),
      ),
    );
  });

  async function full({ prompt = 0, edits }: Variant): Promise<Float32Array> {
    return (await readAll({ logits: model.run(prompts[prompt]!, { edits }).logits })).logits;
  }

  async function resumed(recording: Recording, variants: readonly Variant[]): Promise<Float32Array[]> {
    const { logits } = await readAll({ logits: resume(recording, variants).logits });
    const { vocab } = model.config;
    return variants.map((_, i) => logits.slice(i * vocab, (i + 1) * vocab));
  }

  test("resumed runs give what full runs give, for any edits of any variants", async () => {
    using recording = model.record(prompts);
    const variantArbitrary = fc.record({
      prompt: fc.nat({ max: 2 }),
      drawn: fc.array(drawnArbitrary, { minLength: 1, maxLength: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(variantArbitrary, { minLength: 1, maxLength: 3 }), async (drawn) => {
        const variants = drawn.map(({ prompt, drawn }) => ({
          prompt,
          edits: drawn.map((d) => drawnEdit(model, prompts[prompt]!, d)),
        }));
        const found = await resumed(recording, variants);
        const expected = await fullRuns(model, prompts, variants);
        for (const [i, variant] of variants.entries()) {
          const label = variant.edits.map((e) => `${e.operation} ${e.site}, ${e.at}`).join("; ");
          expectSame(found[i]!, expected[i]!, label);
        }
      }),
      { numRuns: 25 },
    );
  }, 120_000);

  test("at every site of every stack; what an edit does there is seen", async () => {
    using recording = model.record(prompts);
    const prompt = 1;
    const plain = await full({ prompt, edits: [] });
    const variants = siteNames(model.sites).map((name, site): Variant => {
      // A patch of the second picture, or the last token.
      const ofImages = siteInfo(model.sites, name).sequences === "images";
      const position = ofImages ? 3 : prompts[prompt]!.last;
      const drawn = { site, kind: "set" as const, position, image: 1, seed: site };
      const edit = drawnEdit(model, prompts[prompt]!, drawn);
      return { prompt, edits: [edit] };
    });
    const found = await resumed(recording, variants);
    const expected = await fullRuns(model, prompts, variants);
    const without: string[] = [];
    for (const [i, variant] of variants.entries()) {
      const { site } = variant.edits[0]!;
      expectSame(found[i]!, expected[i]!, site);
      if (largest(found[i]!.map((x, j) => x - plain[j]!)) < 1e-4 * largest(plain)) without.push(site);
    }
    // Blocks of the tower behind the one that is read.
    const { featureLayer } = model.config.vision!;
    const unread = siteNames(model.sites).filter(
      (site) => Number(/^vision\..*\.(\d+)$/.exec(site)?.[1] ?? -1) >= featureLayer,
    );
    expect(without).toEqual(unread);
  }, 120_000);

  test("what runs at the same time gives what each gives alone", async () => {
    const options = { maxNewTokens: 3, stopIds: [] };
    const alone = [];
    for (const prompt of prompts) alone.push((await model.generate(prompt, options)).ids);
    const together = await Promise.all(prompts.map((prompt) => model.generate(prompt, options)));
    expect(together.map(({ ids }) => ids)).toEqual(alone);
    expect((await model.generate(prompts, options)).map(({ ids }) => ids)).toEqual(alone);
  });
});

describe("how far back an edit reaches", () => {
  /** Positions whose stream behind the last layer is another than without the edit. */
  async function changedBy(model: PatchableModel, prompt: Prompt, edit: Edit): Promise<number[]> {
    const read = async (edits: Edit[]) =>
      (await readAll({ x: model.run(prompt, { edits, taps: { x: tap("resid_post.2") } }).x })).x;
    const [plain, edited] = [await read([]), await read([edit])];
    const { width } = model.config;
    return Array.from({ length: prompt.length }, (_, p) => p).filter((p) =>
      plain.subarray(p * width, (p + 1) * width).some((x, i) => Math.abs(x - edited[p * width + i]!) > 1e-5),
    );
  }
  const cost = (model: PatchableModel, prompt: Prompt, edit: Edit) => {
    using recording = model.record([prompt]);
    const { logits, rowLayers } = resume(recording, [{ edits: [edit] }]);
    logits.dispose();
    return rowLayers;
  };

  test("to all of the prompt in PaliGemma, in the layers above", async () => {
    const model = await fixtureModel("paligemma");
    const prompt = model.prompt("<image>caption", {
      images: [await loadImage("test/fixtures/images/photo.png")],
    });
    const edit = (site: SiteName) => addVector(site, 20, randomArray(48, 1));
    const all = Array.from({ length: prompt.length }, (_, p) => p);
    expect(await changedBy(model, prompt, edit("resid_post.1"))).toEqual(all);
    expect(await changedBy(model, prompt, edit("resid_post.2"))).toEqual([20]);
    expect(cost(model, prompt, edit("resid_post.0"))).toBe(2 * prompt.length);
    expect(cost(model, prompt, edit("resid_post.1"))).toBe(prompt.length);
    expect(cost(model, prompt, addVector("resid_post.2", -1, randomArray(48, 1)))).toBe(0);
  });

  test("to all of the picture in Gemma 3, and back no further", async () => {
    const model = await fixtureModel("gemma3");
    const images = [await loadImage("test/fixtures/images/photo.png")];
    const prompt = model.prompt("Q:<start_of_image>\nA:<start_of_image>", { images: [...images, ...images] });
    const { start, end } = prompt.span("image2");
    const from = (position: number) =>
      Array.from({ length: prompt.length - position }, (_, p) => position + p);
    const edit = (position: number, site: SiteName = "resid_post.0") =>
      addVector(site, position, randomArray(48, 1));
    // Layer 1 has no window: the whole picture sees its last token, and what follows it.
    expect(await changedBy(model, prompt, edit(end - 1))).toEqual(from(start));
    expect(await changedBy(model, prompt, edit(start + 3))).toEqual(from(start));
    expect(await changedBy(model, prompt, edit(start - 1))).toEqual(from(start - 1));
    expect(await changedBy(model, prompt, edit(end))).toEqual(from(end));
    // Layer 2 has one, of 8 tokens.
    const seen = await changedBy(model, prompt, edit(end - 1, "resid_post.1"));
    expect(seen).toEqual(from(start).filter((position) => position < end + 7));
    expect(cost(model, prompt, edit(end - 1, "resid_post.1"))).toBe(prompt.length - start);
    expect(cost(model, prompt, edit(end))).toBe(2 * (prompt.length - end));
  });

  test("not at all in LLaVA-NeXT", async () => {
    const model = await fixtureModel("llava_next");
    const prompt = model.prompt("Q: what color is the sky?\nA:");
    const edit = addVector("resid_post.1", 5, randomArray(48, 1));
    const later = Array.from({ length: prompt.length - 5 }, (_, p) => 5 + p);
    expect(await changedBy(model, prompt, edit)).toEqual(later);
    expect(cost(model, prompt, edit)).toBe(later.length);
  });
});
