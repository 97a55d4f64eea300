import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { SiteError } from "../../src/errors.ts";
import { loadImage } from "../../src/images/files/load.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { generateTokens } from "../../src/model/walk/generate-tokens.ts";
import type { Visitor } from "../../src/model/walk/site-events.ts";
import { siteInfo, siteNames } from "../../src/model/walk/site-info.ts";
import { CROSS_SITES, type SiteName } from "../../src/model/walk/sites.ts";
import { addVector, type Edit, scale, set, zero } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { resume, type Variant } from "../../src/patching/resume.ts";
import { tap } from "../../src/patching/tap.ts";
import type { Tensor } from "../../src/tensor/tensor.ts";
import { expectClose, expectSame, largest, randomArray } from "../helpers/compare.ts";
import { fullRuns } from "../helpers/full-runs.ts";
import { fixtureModel, readAll } from "../helpers/model.ts";

// A language model that reads another stack by cross-attention: what a patch in any of the stacks changes, and what resumed
// runs and generation make of it.

const CLOSE = { atol: 1e-5, rtol: 1e-5 };

const distance = (a: ArrayLike<number>, b: ArrayLike<number>) => largest(Array.from(a, (x, i) => x - b[i]!));

/** Two pictures, one, none, and two of which the end token hides the first. */
async function promptsFor(model: PatchableModel): Promise<Prompt[]> {
  const [photo, tall, rgba] = await Promise.all(
    ["photo", "tall", "rgba"].map((name) => loadImage(`test/fixtures/images/${name}.png`)),
  );
  return [
    model.prompt(["Q:", tall!, "A: red\n\nQ:", rgba!, "A:"]),
    model.prompt(["USER: ", photo!, " What?"]),
    model.prompt("Q: what color is the sky?"),
    model.prompt(["Q:", photo!, "A</s>Q:", rgba!, "A:"]),
  ];
}

async function logitsOf(model: PatchableModel, prompt: Prompt, edits: readonly Edit[] = []) {
  return (await readAll({ logits: model.run(prompt, { edits }).logits })).logits;
}

const FEW = ["add", "set", "scale"] as const;

/** An edit at a site of a prompt, in the middle of what there is. */
function editAt(
  model: PatchableModel,
  prompt: Prompt,
  site: SiteName,
  {
    kind = "add",
    at,
    image,
    seed = 1,
  }: { kind?: (typeof FEW)[number]; at: number; image?: number; seed?: number },
): Edit {
  const { features, sequences, imageRows, keyRowsOf, order } = siteInfo(model.sites, site);
  const { latents } = model.config.vision!.resampler!;
  const keys = () => {
    if (sequences === "images") return imageRows! + (keyRowsOf === "tower and latents" ? 17 : 0);
    return keyRowsOf ? prompt.images.length * latents : prompt.length;
  };
  const rows = sequences === "images" ? imageRows! : prompt.length;
  const position = order === model.config.layers ? prompt.last : at % rows;
  const value = randomArray(features ?? keys(), seed);
  const part = sequences === "images" && image !== undefined ? { image } : {};
  if (kind === "scale") return scale(site, position, -1.5, part);
  return kind === "add" ? addVector(site, position, value, part) : set(site, position, value, part);
}

/** The sites that a prompt without pictures has not. */
const needsImages = (model: PatchableModel, site: SiteName) => {
  const { sequences, keyRowsOf } = siteInfo(model.sites, site);
  return sequences === "images" || keyRowsOf !== undefined;
};

describe.each(["idefics", "idefics-vector-gates"])("%s", (name) => {
  let model: PatchableModel;
  let prompts: Prompt[];
  let sites: SiteName[];
  beforeAll(async () => {
    model = await fixtureModel(name);
    prompts = await promptsFor(model);
    sites = siteNames(model.sites);
  });

  test("every site of every stack: a resumed run gives what a full one gives, and the edit has an effect", async () => {
    const [prompt] = prompts as [Prompt];
    using recording = model.record(prompts);
    const { vocab } = model.config;
    const plain = await logitsOf(model, prompt);
    const without: string[] = [];
    const bySite = sites.map((site) => ({
      site,
      // In the last layer only what happens at the last token reaches the logits.
      variants: [4, prompt.last].map(
        (at, k): Variant => ({
          prompt: 0,
          edits: [editAt(model, prompt, site, { kind: FEW[k]!, at, image: 1, seed: k })],
        }),
      ),
    }));
    const full = await fullRuns(
      model,
      prompts,
      bySite.flatMap(({ variants }) => variants),
    );
    for (const { site, variants } of bySite) {
      const found = (await readAll({ logits: resume(recording, variants).logits })).logits;
      const expected = full.splice(0, variants.length);
      let effect = 0;
      for (const [i, { edits }] of variants.entries()) {
        const own = found.slice(i * vocab, (i + 1) * vocab);
        expectSame(own, expected[i]!, `${edits[0]!.operation} at ${site}`);
        effect = Math.max(effect, distance(own, plain));
      }
      if (effect < 1e-4 * largest(plain)) without.push(site);
    }
    expect(without).toEqual([]);
  }, 240_000);

  test("any edits of any variants of any prompts, in all stacks at once", async () => {
    using recording = model.record(prompts);
    const { vocab } = model.config;
    const editArbitrary = fc.record({
      site: fc.nat(),
      kind: fc.constantFrom(...FEW),
      at: fc.nat(),
      image: fc.option(fc.nat(), { nil: undefined }),
      seed: fc.nat(),
    });
    const variantArbitrary = fc.record({
      prompt: fc.nat({ max: 3 }),
      drawn: fc.array(editArbitrary, { minLength: 1, maxLength: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(variantArbitrary, { minLength: 1, maxLength: 4 }), async (drawn) => {
        const variants = drawn.map(({ prompt, drawn }): Variant => {
          const own = prompts[prompt]!;
          const images = own.images.length;
          const there = images > 0 ? sites : sites.filter((site) => !needsImages(model, site));
          return {
            prompt,
            edits: drawn.map((edit) => {
              const image = edit.image === undefined ? undefined : edit.image % Math.max(1, images);
              const site = there[edit.site % there.length]!;
              return editAt(model, own, site, {
                kind: edit.kind,
                at: edit.at,
                seed: edit.seed,
                ...(image !== undefined && { image }),
              });
            }),
          };
        });
        const { logits, rowLayers } = resume(recording, variants);
        const found = (await readAll({ logits })).logits;
        const expected = await fullRuns(model, prompts, variants);
        for (const [i, { prompt, edits }] of variants.entries()) {
          const label = `variant ${i} of ${prompt}: ${edits.map((e) => `${e.operation} ${e.site}`).join(", ")}`;
          const own = found.slice(i * vocab, (i + 1) * vocab);
          expectSame(own, expected[i]!, label);
        }
        const rows = variants.reduce((sum, { prompt }) => sum + prompts[prompt!]!.length, 0);
        expect(rowLayers).toBeLessThanOrEqual(rows * model.config.layers);
      }),
      { numRuns: 25 },
    );
  }, 240_000);

  test("a batch gives what its prompts give alone, through patterns and without", async () => {
    const taps = { out: tap("xattn_out.0"), post: tap("resid_post.1"), gate: tap("xattn_gate.0") };
    for (const edits of [[], [scale("xattn_pattern.0", -1, 0.5, {})]]) {
      const own = edits.length === 0 ? prompts : prompts.filter(({ images }) => images.length > 0);
      const together = model.run(own, { taps, edits });
      for (const [i, prompt] of own.entries()) {
        const alone = await readAll(model.run(prompt, { taps, edits }));
        const batch = await readAll({
          out: (together.out as Tensor[])[i],
          post: (together.post as Tensor[])[i],
          gate: (together.gate as Tensor[])[i],
        });
        for (const key of ["out", "post", "gate"] as const) expectClose(batch[key], alone[key], CLOSE);
      }
      (together.logits as Tensor).dispose();
    }
  });

  test("a changed image changes the rows that see it, from the first cross-attention on, and no earlier ones", async () => {
    const [prompt] = prompts as [Prompt];
    const second = prompt.span("image2").start;
    const width = model.config.width;
    const read = async (edits: Edit[]) =>
      readAll(
        model.run(prompt, {
          taps: { embed: tap("embed"), mid: tap("xresid_mid.0"), post: tap("resid_post.1") },
          edits,
        }),
      );
    const plain = await read([]);
    for (const [site, image, from, until] of [
      ["vision.resid_post.0", 1, second, prompt.length],
      ["resampler.out", 1, second, prompt.length],
      ["xattn_v.0", 1, second, prompt.length],
      ["resampler.out", 0, prompt.span("image").start, second],
    ] as const) {
      const edited = await read([scale(site, "all", 3, { image })]);
      const changed = (key: "embed" | "mid" | "post") =>
        Array.from({ length: prompt.length }, (_, row) => row).filter(
          (row) =>
            distance(
              edited[key].subarray(row * width, (row + 1) * width),
              plain[key].subarray(row * width, (row + 1) * width),
            ) > 1e-5,
        );
      const rows = (start: number, end: number) => Array.from({ length: end - start }, (_, i) => start + i);
      expect(changed("embed")).toEqual([]);
      // What attention adds reaches only those that see the image; self-attention hands it on to all behind.
      expect(changed("mid")).toEqual(rows(from, until));
      expect(changed("post")).toEqual(rows(from, prompt.length));
    }
  });

  test("a resumed run computes only the rows that see a changed image, from where it is read", async () => {
    const [prompt] = prompts as [Prompt];
    const { layers } = model.config;
    const last = model.sites.text.cross!.layers.at(-1)!;
    using recording = model.record(prompts);
    const cost = (edit: Edit) => {
      const { logits, rowLayers } = resume(recording, [{ edits: [edit] }]);
      logits.dispose();
      return rowLayers;
    };
    const behind = prompt.length - prompt.span("image2").start;
    expect(cost(zero("vision.resid_post.1", 4, { image: 1 }))).toBe(behind * layers);
    expect(cost(zero("resampler.resid_pre.0", 0, { image: 1 }))).toBe(behind * layers);
    expect(cost(zero(`xattn_k.${last}`, 0, { image: 1 }))).toBe(behind * (layers - last));
    expect(cost(zero(`xattn_k.${last}`, 0, { image: 0 }))).toBe(
      (prompt.length - prompt.span("image").start) * (layers - last),
    );
    expect(cost(zero(`xattn_z.${last}`, -1))).toBe(layers - last);
  });

  test("taps of a resumed run hold what full runs hold, of images as well", async () => {
    using recording = model.record(prompts);
    const taps = {
      out: tap("resampler.out", "all", { image: 0 }),
      keys: tap("xattn_k.0", [0, 4], { image: 0 }),
      pattern: tap("xattn_pattern.0", -1),
    };
    const variants = [1, 0].map(
      (prompt): Variant => ({
        prompt,
        edits: [
          scale("vision.mlp_out.1", 3, -2, { image: 0 }),
          scale("resampler.v.0", "all", 2, { image: 0 }),
        ],
      }),
    );
    const found = resume(recording, variants, { taps });
    for (const [i, { prompt, edits }] of variants.entries()) {
      const expected = await readAll(model.run(prompts[prompt!]!, { taps, edits }));
      for (const key of ["out", "keys", "pattern"] as const) {
        const own = await readAll({ own: (found[key] as Tensor[])[i] });
        expectClose(own.own, expected[key], CLOSE);
      }
    }
  });

  test("generation reads what the prompt read: as recomputation does, alone and in a batch, under edits in every stack", async () => {
    const sitesEdited: SiteName[] = [
      "vision.resid_post.1",
      "resampler.z.1",
      "resampler.out",
      "xattn_k.0",
      "xattn_v.0",
    ];
    const kinds: Edit[][] = [[], ...sitesEdited.map((site) => [scale(site, "all", -3)])];
    const seen = new Set<string>();
    for (const edits of kinds) {
      const own = edits.length === 0 ? prompts : prompts.filter(({ images }) => images.length > 0);
      const together = await model.generate(own, { maxNewTokens: 4, stopIds: [], edits });
      for (const [i, prompt] of own.entries()) {
        const { ids } = await model.generate(prompt, { maxNewTokens: 4, stopIds: [], edits });
        expect(together[i]!.ids).toEqual(ids);
        let grown = prompt;
        const expected: number[] = [];
        for (let step = 0; step < 4; step++) {
          const logits = await logitsOf(model, grown, edits);
          expected.push(logits.indexOf(Math.max(...logits)));
          // What a token put behind the prompt sees is what a new one sees, as long as it is neither an image nor an end token.
          expect([...prompt.ids.filter((id) => id > 430), 2]).not.toContain(expected.at(-1));
          grown = model.promptFromIds([...prompt.ids, ...expected], prompt.images as never);
        }
        expect(ids).toEqual(expected);
      }
      seen.add(JSON.stringify(together.map((each) => each.ids).slice(0, 1)));
    }
    expect(seen.size).toBeGreaterThan(2); // the edits do change answers
  }, 240_000);

  test("a walk passes every site in the order in which they are listed, at all of its rows", () => {
    const names: string[] = [];
    for (const { site, value, rows } of model.walk(prompts[1]!)) {
      names.push(site);
      const { features, imageRows } = siteInfo(model.sites, site);
      if (features !== undefined) expect([site, ...value.shape]).toEqual([site, rows.length, features]);
      if (imageRows !== undefined) expect([site, rows.length]).toEqual([site, imageRows]);
    }
    expect(names).toEqual(sites);
  });

  test("generation computes what cross-attention reads once, with the prompts", async () => {
    const counts = new Map<string, number>();
    const visitor: Visitor = {
      uses: (site) => /^(vision\.|resampler\.|xattn_k|xattn_q\.)/.test(site),
      visit: ({ site }) => void counts.set(site, (counts.get(site) ?? 0) + 1),
    };
    const { network } = model;
    let steps = 0;
    for await (const { ids } of generateTokens(network, prompts.slice(0, 2), { maxNewTokens: 3, visitor })) {
      steps += ids.length;
    }
    expect(steps).toBe(2 * 3);
    for (const site of ["vision.resid_post.1", "resampler.out", "xattn_k.0"])
      expect([site, counts.get(site)]).toEqual([site, 1]);
    expect(counts.get("xattn_q.0")).toBe(3);
  });

  test("generations at the same time, with and without pictures, give what each gives alone", async () => {
    const options = { maxNewTokens: 4, stopIds: [] };
    const alone = [];
    for (const prompt of prompts) alone.push((await model.generate(prompt, options)).ids);
    const together = await Promise.all(prompts.map((prompt) => model.generate(prompt, options)));
    expect(together.map((each) => each.ids)).toEqual(alone);
  });

  test("edits of new tokens in the cross-attention fire", async () => {
    const [prompt] = prompts as [Prompt];
    const options = { maxNewTokens: 4, stopIds: [] };
    const plain = await model.generate(prompt, options);
    const at = prompt.length + 1;
    const edited = await model.generate(prompt, { ...options, edits: [scale("xattn_gate.0", at, -40)] });
    expect(edited.ids.slice(0, 2)).toEqual(plain.ids.slice(0, 2));
    expect(edited.ids).not.toEqual(plain.ids);
    const short = set("xattn_pattern.0", at, randomArray(3, 1));
    const attempt = model.generate(prompt, { ...options, edits: [short] });
    await expect(attempt).rejects.toThrow(/expected values for 10 keys at position/);
  });

  test("where the gate is 0 the image does not reach the token; without pictures attention adds nothing", async () => {
    const [prompt, , text] = prompts as [Prompt, Prompt, Prompt];
    const layers = model.sites.text.cross!.layers;
    const closed = layers.map((layer): Edit => zero(`xattn_gate.${layer}`, "all"));
    const change = scale("resampler.out", "all", 5, { image: 1 });
    expectClose(
      await logitsOf(model, prompt, [...closed, change]),
      await logitsOf(model, prompt, closed),
      CLOSE,
    );
    expect(distance(await logitsOf(model, prompt, [change]), await logitsOf(model, prompt))).toBeGreaterThan(
      1e-3,
    );
    const taps = { out: tap("xattn_out.0"), gate: tap("xattn_gate.0"), mlp: tap("xmlp_out.0") };
    const { out, gate, mlp } = await readAll(model.run(text, { taps }));
    expect([largest(out), largest(gate)]).toEqual([0, 0]);
    expect(largest(mlp)).toBeGreaterThan(0.1);
  });

  test("identities: the stream adds up, and the pattern mixes the values", async () => {
    const [prompt] = prompts as [Prompt];
    const layer = model.sites.text.cross!.layers[1]!;
    const at = (site: string) => tap(`${site}.${layer}` as SiteName);
    const before = tap(`resid_post.${layer - 1}`);
    const taps = {
      ...{ before, out: at("xattn_out"), mid: at("xresid_mid"), mlp: at("xmlp_out"), pre: at("resid_pre") },
      ...{ pattern: at("xattn_pattern"), z: at("xattn_z") },
      ...{
        v0: tap(`xattn_v.${layer}`, "all", { image: 0 }),
        v1: tap(`xattn_v.${layer}`, "all", { image: 1 }),
      },
    };
    const x = await readAll(model.run(prompt, { taps }));
    const sum = (a: Float32Array, b: Float32Array) => a.map((value, i) => value + b[i]!);
    expectClose(sum(x.before, x.out), x.mid, CLOSE);
    expectClose(sum(x.mid, x.mlp), x.pre, CLOSE);
    expect(() => expectClose(x.mid, x.pre, CLOSE)).toThrow();
    const { heads, headDim } = model.config;
    const v = [...x.v0, ...x.v1];
    const keys = v.length / heads / headDim;
    const mixed = Float32Array.from({ length: x.z.length }, (_, i) => {
      const [row, head, d] = [
        Math.floor(i / (heads * headDim)),
        Math.floor(i / headDim) % heads,
        i % headDim,
      ];
      let total = 0;
      for (let key = 0; key < keys; key++) {
        total +=
          x.pattern[(head * prompt.length + row) * keys + key]! * v[(key * heads + head) * headDim + d]!;
      }
      return total;
    });
    expectClose(x.z, mixed, CLOSE);
    // A token sees one image at a time, and none before the first.
    const second = prompt.span("image2").start;
    const weightOf = (row: number, image: number) =>
      x.pattern
        .subarray(row * keys + (image * keys) / 2, row * keys + ((image + 1) * keys) / 2)
        .reduce((a, b) => a + b, 0);
    expect(weightOf(prompt.span("image").start - 1, 0)).toBe(0);
    expect(weightOf(second - 1, 0)).toBeCloseTo(1, 5);
    expect([weightOf(second, 0), weightOf(prompt.last, 0)]).toEqual([0, 0]);
    expect(weightOf(prompt.last, 1)).toBeCloseTo(1, 5);
  });

  test("an end token hides the image from what follows, up to the next", async () => {
    const prompt = prompts[3]!;
    const end = prompt.ids.indexOf(2);
    const { gate } = model.run(prompt, {
      taps: { gate: tap("xattn_gate.0", "all", { features: { start: 0, end: 1 } }) },
    });
    const open = Array.from((await readAll({ gate })).gate, (x) => x !== 0);
    const [first, second] = [prompt.span("image").start, prompt.span("image2").start];
    expect(open).toEqual(prompt.ids.map((_, i) => (i >= first && i <= end) || i >= second));
  });

  test("what is not there is refused before anything is computed", async () => {
    const [prompt, , text] = prompts as [Prompt, Prompt, Prompt];
    const run = (at: Prompt, site: SiteName) => () => model.run(at, { taps: { x: tap(site, "all") } });
    expect(run(text, "xattn_pattern.0")).toThrow("prompt 0 has no image");
    expect(run(text, "xattn_k.0")).toThrow("prompt 0 has no image");
    expect(run(prompt, "xattn_v.0")).toThrow("prompt 0 has 2 images; name one");
    expect(run(prompt, "projector")).toThrow(SiteError);
    expect(run(prompt, "resampler.resid_post.2")).toThrow("there are 2 layers, 0 to 1");
    if (name === "idefics") {
      expect(run(prompt, "xattn_out.1")).toThrow(
        "there is no cross-attention in front of layer 1; it is in 0, 2",
      );
    }
    const llava = await fixtureModel("llava");
    const plain = llava.prompt("Hello");
    for (const site of CROSS_SITES) {
      expect(() => llava.run(plain, { taps: { x: tap(`${site}.0`) } })).toThrow(
        /blocks of this model have no x/,
      );
    }
    expect(() => llava.run(plain, { taps: { x: tap("resampler.out") } })).toThrow(
      "this model has no resampler",
    );
  });
});
