import { beforeAll, describe, expect, test } from "vitest";
import { HEAD_OF, HEADS, knownCircuit, LAYER_OF, LAYERS } from "../../scripts/known-circuit/circuit.ts";
import { FACTS, ITEMS, TASK_WORDS } from "../../scripts/known-circuit/facts.ts";
import { rankHeads } from "../../src/analysis/heads/rank-heads.ts";
import { logitAttribution } from "../../src/analysis/lens/logit-attribution.ts";
import { logitLens } from "../../src/analysis/lens/logit-lens.ts";
import { patchMap } from "../../src/analysis/maps/patch-map.ts";
import { cosineSimilarity } from "../../src/analysis/vectors/similarity.ts";
import { patchEach, patchOf, sweepLayers } from "../../src/analysis/vectors/sweep-layers.ts";
import { extractActivations, type TaskVectors } from "../../src/analysis/vectors/task-vectors.ts";
import type { Prompt } from "../../src/model/prompt/prompt.ts";
import { addVector, type Edit, interpolate, projectOut, set, zero } from "../../src/patching/edit.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { resume } from "../../src/patching/resume.ts";
import { tap } from "../../src/patching/tap.ts";
import { atLastExample } from "../../src/tasks/few-shot.ts";
import {
  ASKED,
  answerOf,
  examplesOf,
  extract,
  loadVariant,
  prompt,
  says,
  wordOf,
} from "../helpers/known-circuit.ts";

/** The layers behind which the delimiter holds the task and no answer. */
const WINDOW = range(LAYER_OF.gather, LAYER_OF.apply);
const ALL_TASKS = [...TASK_WORDS.keys()];
const [CAPITAL, LANGUAGE] = [0, 1];

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i);
}

let model: PatchableModel;
let twin: PatchableModel;
let rotated: PatchableModel;
let otherReplies: PatchableModel;
/** By task. */
let own: TaskVectors[];
let ofTwin: TaskVectors[];

beforeAll(async () => {
  model = await loadVariant("model");
  twin = await loadVariant("twin");
  rotated = await loadVariant("rotated");
  otherReplies = await loadVariant("other-replies");
  own = await Promise.all(ALL_TASKS.map((t) => extract(model, t)));
  ofTwin = await Promise.all(ALL_TASKS.map((t) => extract(twin, t)));
});

const bare = (of: PatchableModel) => ASKED.map((item) => prompt(of, item));
const behindExamples = (of: PatchableModel, t: number) =>
  ASKED.map((item) => prompt(of, item, examplesOf(t, item)));
const answersTo = (t: number) => ASKED.map((item) => answerOf(t, item));
const all = (word: string) => ASKED.map(() => word);

/** `[layer][query]`, as tokens. */
async function sweepWords(of: PatchableModel, queries: Prompt[], vectors: TaskVectors) {
  const { patched } = await sweepLayers(of, queries, vectors);
  return patched.map((answers) => answers.map((id) => of.tokenizer.tokenOf(id)));
}

describe("the checkpoint", () => {
  test("is the same bytes each time", async () => {
    const [once, again] = [await knownCircuit(), await knownCircuit()];
    expect([...once.keys()]).toEqual([
      "config.json",
      "tokenizer.json",
      "tokenizer_config.json",
      "model.safetensors",
    ]);
    for (const [name, bytes] of once) expect(Buffer.compare(bytes, again.get(name)!)).toBe(0);
  });

  test("has answers that cannot be right by chance: no word begins with another", () => {
    const words = [...new Set([...ITEMS, ...FACTS.flat(), ...TASK_WORDS])].map((word) => word.toLowerCase());
    const clashes = words.filter((a) => words.some((b) => a !== b && a.startsWith(b)));
    expect(clashes).toEqual([]);
    expect(words).toHaveLength(ITEMS.length + new Set(FACTS.flat()).size + TASK_WORDS.length);
  });

  test.each(["model", "twin", "rotated"])(
    "%s answers questions in context, and names the item without",
    async (name) => {
      const of = { model, twin, rotated }[name]!;
      const items = name === "model" ? ITEMS.filter((_, i) => i % 3 === 0) : ASKED;
      for (const t of ALL_TASKS) {
        const right = items.map((item) => answerOf(t, item));
        const shown = items.map((item) => prompt(of, item, examplesOf(t, item)));
        expect(await says(of, shown)).toEqual(right);
        const told = items.map((item) => of.prompt(`The ${wordOf(t)} of the country:\nQ:${item}\nA:`));
        expect(await says(of, told)).toEqual(right);
      }
      const questions = items.map((item) => prompt(of, item));
      expect(await says(of, questions)).toEqual(items);
      const { text } = await of.generate(prompt(of, "Boravia", examplesOf(CAPITAL, "Boravia")), {
        maxNewTokens: 4,
      });
      expect(text).toBe(answerOf(CAPITAL, "Boravia"));
    },
  );

  test("knows a task by its pairs: shuffled answers tell it none, and of two tasks the more frequent is done", async () => {
    const shuffled = ASKED.map((item) => {
      const shown = examplesOf(CAPITAL, item);
      return prompt(
        model,
        item,
        shown.map(([one], e) => [one, shown[(e + 1) % shown.length]![1]]),
      );
    });
    expect(await says(model, shuffled)).toEqual(ASKED);
    const mixed = (most: number, least: number) =>
      ASKED.map((item) => {
        const [few, many] = [examplesOf(least, item, 2), examplesOf(most, item).slice(2)];
        return prompt(model, item, [...many, ...few]);
      });
    expect(await says(model, mixed(CAPITAL, LANGUAGE))).toEqual(answersTo(CAPITAL));
    expect(await says(model, mixed(LANGUAGE, CAPITAL))).toEqual(answersTo(LANGUAGE));
  });
});

describe("layer sweep", () => {
  /** What is said under a vector of each layer. */
  const expected = (t: number): string[][] =>
    range(0, LAYERS).map((layer) => {
      if (layer < LAYER_OF.echo) return ASKED; // all delimiters are still alike
      if (layer < LAYER_OF.gather) return all(":"); // a blur of other items, and no task
      return layer < LAYER_OF.apply ? answersTo(t) : all(wordOf(t)); // too late: a blur of other answers
    });

  test.each(["model", "rotated"])(
    "of %s finds the task in the layers from gather to apply, and only there",
    async (name) => {
      const of = { model, rotated }[name]!;
      for (const t of ALL_TASKS) {
        for (const kind of ["text", "instruction"] as const) {
          const extracted = await extract(of, t, kind);
          expect(await sweepWords(of, bare(of), extracted)).toEqual(expected(t));
        }
      }
    },
  );

  test("of the twin finds it in no layer: from apply on, one answer for all", async () => {
    for (const t of ALL_TASKS) {
      const found = await sweepWords(twin, bare(twin), ofTwin[t]!);
      expect(found.slice(0, LAYER_OF.echo)).toEqual([ASKED]);
      for (const layer of range(LAYER_OF.echo, LAYER_OF.apply)) expect(found[layer]).toEqual(all(":"));
      for (const layer of range(LAYER_OF.apply, LAYERS)) {
        const [answer] = found[layer]!;
        expect(found[layer]).toEqual(all(answer!));
        expect([":", ...FACTS[t]!]).toContain(answer);
      }
    }
  });

  test("computes the queries once, and one row a layer above each patch", async () => {
    const queries = bare(model);
    const { rowLayers, plainRowLayers } = await sweepLayers(model, queries, own[CAPITAL]!);
    const whole = queries.reduce((rows, { length }) => rows + length, 0) * LAYERS;
    const above = range(0, LAYERS).reduce((sum, layer) => sum + LAYERS - 1 - layer, 0);
    expect(rowLayers).toBe(whole + queries.length * above);
    expect(plainRowLayers).toBe(whole * (LAYERS + 1));
  });
});

describe("token sweep", () => {
  const item = ASKED[0]!;

  /** Positions of a few-shot prompt whose activation makes a bare query do the task, by layer of the window. */
  async function carriers(of: PatchableModel): Promise<number[][]> {
    const shown = prompt(of, item, examplesOf(CAPITAL, item));
    const queries = bare(of);
    const right = answersTo(CAPITAL);
    const perLayer: number[][] = [];
    for (const layer of WINDOW) {
      using streams = of.run(shown, { taps: { x: tap(`resid_post.${layer}`) } }).x;
      const rows = await streams.read();
      const width = of.config.width;
      const edits = range(0, shown.length).map((p) => [
        set(`resid_post.${layer}`, -1, rows.slice(p * width, (p + 1) * width)),
      ]);
      const { patched } = await patchEach(of, queries, edits);
      const works = (ids: readonly number[]) => ids.every((id, q) => of.tokenizer.tokenOf(id) === right[q]);
      perLayer.push([...patched.keys()].filter((p) => works(patched[p]!)));
    }
    return perLayer;
  }

  test("finds the task at delimiters that have an answer before them, and at no other token", async () => {
    const shown = prompt(model, item, examplesOf(CAPITAL, item));
    const delimiters = [...shown.tokens.keys()].filter(
      (p) => shown.tokens[p] === ":" && shown.tokens[p - 1] === "A",
    );
    expect(delimiters).toHaveLength(6);
    expect(delimiters.slice(-2)).toEqual([atLastExample(shown), shown.last]);
    expect(await carriers(model)).toEqual(WINDOW.map(() => delimiters.slice(1)));
  });

  test("finds it at no token of the twin", async () => {
    expect(await carriers(twin)).toEqual(WINDOW.map(() => []));
  });

  test("shows that the vector works in the delimiter of the query alone", async () => {
    const queries = bare(model);
    const vector = own[CAPITAL]!;
    for (const layer of WINDOW) {
      const edits = range(-queries[0]!.length, 0).map((at) => [patchOf(vector, layer, at)]);
      const { patched } = await patchEach(model, queries, edits);
      const found = patched.map((ids) => ids.map((id) => model.tokenizer.tokenOf(id)));
      expect(found.pop()).toEqual(answersTo(CAPITAL));
      for (const answers of found) expect(answers).toEqual(ASKED);
    }
  });

  test("finds the task of the twin where it is, at the item asked about", async () => {
    const at = (one: Prompt) => atLastExample(one) - 3;
    const rows = await Promise.all(
      [CAPITAL, LANGUAGE].map((t) => {
        const shown = ASKED.map((one) => prompt(twin, one, examplesOf(t, one)));
        using streams = extractActivations(twin, shown.slice(0, 1), { at, layers: [LAYER_OF.gather] });
        return streams.read() as Promise<Float32Array>;
      }),
    );
    const direction = rows[1]!.map((value, i) => value - rows[0]![i]!);
    const shown = behindExamples(twin, CAPITAL);
    const atItem = [addVector(`resid_post.${LAYER_OF.gather}`, -4, direction)];
    const atDelimiter = [addVector(`resid_post.${LAYER_OF.gather}`, -1, direction)];
    expect(await says(twin, shown, atItem)).toEqual(answersTo(LANGUAGE));
    expect(await says(twin, shown, atDelimiter)).toEqual(answersTo(CAPITAL));
  });
});

describe("logit lens", () => {
  async function lensWords(of: PatchableModel, one: Prompt, options: object = {}) {
    const cells = await logitLens(of, one, { k: 1, ...options });
    return cells.map(({ tokens }) => of.tokenizer.tokenOf(tokens[0]!.id));
  }

  const phases = (t: number, item: string, hasTask: boolean) =>
    range(0, LAYERS).map((layer) => {
      if (layer < LAYER_OF.echo) return ":";
      if (layer >= LAYER_OF.apply) return answerOf(t, item);
      return hasTask && layer >= LAYER_OF.gather ? wordOf(t) : item;
    });

  test.each(["model", "rotated", "twin"])("of %s goes through the phases that were built", async (name) => {
    const of = { model, rotated, twin }[name]!;
    for (const t of ALL_TASKS) {
      for (const item of ASKED.slice(0, 3)) {
        const one = prompt(of, item, examplesOf(t, item));
        expect(await lensWords(of, one)).toEqual(phases(t, item, name !== "twin"));
      }
    }
  });

  test("has no phase but the item without context, and none at the colon of Q:", async () => {
    const one = prompt(model, "Boravia");
    expect(await lensWords(model, one)).toEqual([":", ...range(1, LAYERS).map(() => "Boravia")]);
    const colon = prompt(model, "Boravia", examplesOf(CAPITAL, "Boravia"));
    expect(await lensWords(model, colon, { at: -5 })).toEqual(range(0, LAYERS).map(() => ":"));
  });

  test("names what each part writes: the task by attention, the answer by the MLP", async () => {
    const one = prompt(model, "Boravia", examplesOf(CAPITAL, "Boravia"));
    const at = (site: string, layer: number) => lensWords(model, one, { site, layers: [layer] });
    expect(await at("attn_out", LAYER_OF.gather)).toEqual(["capital"]);
    expect(await at("resid_mid", LAYER_OF.apply)).toEqual(["capital"]);
    expect(await at("mlp_out", LAYER_OF.apply)).toEqual([answerOf(CAPITAL, "Boravia")]);
  });

  test("gives the probabilities of the logits that were built", async () => {
    const [first] = await logitLens(model, prompt(model, "Boravia"), { k: 1, layers: [0] });
    const others = model.config.vocab - 1;
    // The colon's logit is 5, all others 0, but for the norm, which takes less than a thousandth.
    expect(first!.tokens[0]!.probability).toBeCloseTo(Math.exp(5) / (Math.exp(5) + others), 3);
  });
});

describe("attention patterns", () => {
  async function pattern(
    of: PatchableModel,
    one: Prompt,
    [layer, head]: readonly [number, number],
    at: number,
  ) {
    using row = of.run(one, { taps: { p: tap(`pattern.${layer}`, at, { head }) } }).p;
    return [...(await row.read())];
  }

  const one = (of: PatchableModel) => prompt(of, "Boravia", examplesOf(CAPITAL, "Boravia"));
  const answersIn = ({ tokens }: Prompt) =>
    [...tokens.keys()].filter((p) => tokens[p - 1] === ":" && tokens[p - 2] === "A");

  function expectShares(found: readonly number[], at: readonly number[]): void {
    found.forEach((share, p) => {
      expect(share).toBeCloseTo(at.includes(p) ? 1 / at.length : 0, 5);
    });
  }

  test("of the gathering head lie evenly on the answers before the delimiter", async () => {
    const shown = one(model);
    const answers = answersIn(shown);
    expect(answers).toHaveLength(5);
    expectShares(await pattern(model, shown, HEAD_OF.gather, -1), answers);
    const last = atLastExample(shown);
    expectShares((await pattern(model, shown, HEAD_OF.gather, last)).slice(0, last), answers.slice(0, 4));
    expectShares(await pattern(model, prompt(model, "Boravia"), HEAD_OF.gather, -1), [0]);
  });

  test("of the twin's do so from the item, and from the delimiter on nothing", async () => {
    const shown = one(twin);
    expectShares(await pattern(twin, shown, HEAD_OF.gather, -4), answersIn(shown));
    expectShares(await pattern(twin, shown, HEAD_OF.gather, -1), [0]);
  });

  test("of the fetching heads lie on the item asked about", async () => {
    const shown = one(model);
    for (const head of [HEAD_OF.echo, HEAD_OF.fetch]) {
      expectShares(await pattern(model, shown, head, -1), [shown.length - 4]);
    }
    const [firstAnswer] = answersIn(shown);
    expectShares(await pattern(model, shown, HEAD_OF.asked, firstAnswer!), [firstAnswer! - 4]);
  });
});

describe("knock-outs", () => {
  const items = ASKED.slice(0, 4);
  const right = items.map((item) => answerOf(CAPITAL, item));
  const onlyTask = items.map(() => "capital");
  const inContext = () => items.map((item) => prompt(model, item, examplesOf(CAPITAL, item)));
  const heads = range(0, LAYERS).flatMap((layer) => range(0, HEADS).map((head) => [layer, head] as const));
  const isAny = (of: readonly (readonly [number, number])[], [layer, head]: readonly [number, number]) =>
    of.some(([l, h]) => l === layer && h === head);

  test.each(["z", "pattern"] as const)(
    "of each head's %s lose the task where it was built, and nothing elsewhere",
    async (site) => {
      const shown = inContext();
      for (const [layer, head] of heads) {
        const found = await says(model, shown, [zero(`${site}.${layer}`, "all", { head })]);
        if (isAny([HEAD_OF.asked, HEAD_OF.gather], [layer, head])) expect(found).toEqual(items);
        else if (isAny([HEAD_OF.fetch], [layer, head])) expect(found).toEqual(onlyTask);
        else expect(found).toEqual(right);
      }
    },
  );

  test("of each MLP", async () => {
    const shown = inContext();
    for (const layer of range(0, LAYERS)) {
      const found = await says(model, shown, [zero(`mlp_out.${layer}`, "all")]);
      if (layer === LAYER_OF.bind) expect(found).toEqual(items);
      else if (layer === LAYER_OF.apply) expect(found).toEqual(onlyTask);
      else expect(found).toEqual(right);
    }
  });

  test("of the gathering head matter at the query's delimiter alone", async () => {
    const shown = inContext();
    const [layer, head] = HEAD_OF.gather;
    const out = (at: Parameters<typeof zero>[1]): Edit[] => [zero(`z.${layer}`, at, { head })];
    expect(await says(model, shown, out(-1))).toEqual(items);
    expect(await says(model, shown, out(range(0, shown[0]!.length - 1)))).toEqual(right);
  });

  test("spare a patched query, but for the head that fetches the item", async () => {
    const bareItems = items.map((item) => prompt(model, item));
    const patch = patchOf(own[CAPITAL]!, LAYER_OF.gather);
    for (const [layer, head] of heads) {
      const found = await says(model, bareItems, [zero(`z.${layer}`, "all", { head }), patch]);
      expect(found).toEqual(isAny([HEAD_OF.fetch], [layer, head]) ? onlyTask : right);
    }
  });

  test("of the heads that nothing reads change the stream, and no answer", async () => {
    const shown = prompt(model, "Boravia", examplesOf(CAPITAL, "Boravia"));
    const taps = { x: tap("resid_post.4", -1) };
    using plain = model.run(shown, { taps }).x;
    using without = model.run(shown, { taps, edits: [zero("z.4", "all", { head: HEADS - 1 })] }).x;
    const [a, b] = [await plain.read(), await without.read()];
    // Twelve of 47 tokens are colons.
    expect(Math.max(...a.map((value, i) => Math.abs(value - b[i]!)))).toBeCloseTo(12 / 47, 3);
  });
});

describe("transfer", () => {
  /** What is said in each layer of the window. */
  async function inWindow(of: PatchableModel, vectors: TaskVectors): Promise<string[][]> {
    const edits = WINDOW.map((layer) => [patchOf(vectors, layer)]);
    const { patched } = await patchEach(of, bare(of), edits);
    return patched.map((ids) => ids.map((id) => of.tokenizer.tokenOf(id)));
  }
  const everywhere = (answers: readonly string[]) => WINDOW.map(() => answers);

  test("to a copy with other replies brings the task, and the copy's own replies", async () => {
    for (const t of ALL_TASKS) {
      const replies = ASKED.map((item) => FACTS[t]!.at(-1 - ITEMS.indexOf(item))!);
      expect(replies).not.toEqual(answersTo(t));
      expect(await inWindow(otherReplies, own[t]!)).toEqual(everywhere(replies));
      expect(await inWindow(model, await extract(otherReplies, t))).toEqual(everywhere(answersTo(t)));
    }
  });

  test("from a copy in another basis brings nothing, although both do the same", async () => {
    for (const t of ALL_TASKS) {
      const right = answersTo(t);
      for (const answers of await inWindow(model, await extract(rotated, t))) {
        expect(new Set(answers).size).toBeLessThanOrEqual(2);
        expect(answers.filter((answer, i) => answer === right[i]).length).toBeLessThan(ASKED.length / 2);
      }
    }
  });

  test("between model and twin brings the task's word to the one, and nothing to the other", async () => {
    for (const t of ALL_TASKS) {
      expect(await inWindow(twin, own[t]!)).toEqual(everywhere(all(wordOf(t)))); // gathered, never applied there
      expect(await inWindow(model, ofTwin[t]!)).toEqual(everywhere(all(":")));
    }
  });
});

describe("prompt against patch", () => {
  test("in the window the patch wins, before it the prompt", async () => {
    const shown = behindExamples(model, CAPITAL);
    const found = await sweepWords(model, shown, own[LANGUAGE]!);
    for (const layer of range(0, LAYER_OF.gather)) expect(found[layer]).toEqual(answersTo(CAPITAL));
    for (const layer of WINDOW) expect(found[layer]).toEqual(answersTo(LANGUAGE));
    for (const layer of range(LAYER_OF.apply, LAYERS)) expect(found[layer]).toEqual(all("language"));
  });

  test("in the twin it never does", async () => {
    const found = await sweepWords(twin, behindExamples(twin, CAPITAL), ofTwin[LANGUAGE]!);
    for (const layer of range(0, LAYER_OF.apply)) expect(found[layer]).toEqual(answersTo(CAPITAL));
    const right = answersTo(LANGUAGE);
    for (const layer of range(LAYER_OF.apply, LAYERS)) {
      expect(new Set(found[layer]).size).toBe(1);
      expect(found[layer]).not.toEqual(right);
    }
  });
});

describe("arithmetic", () => {
  const site = `resid_post.${LAYER_OF.gather + 1}` as const;
  const at = (layer: number) =>
    Promise.all(own.map((vectors) => vectors.at(layer).read())) as Promise<Float32Array[]>;
  const combine = (...terms: [number, Float32Array][]) =>
    terms[0]![1].map((_, i) => terms.reduce((sum, [factor, vector]) => sum + factor * vector[i]!, 0));

  test("a mixture does the task of which it has more", async () => {
    const [a, b] = await at(LAYER_OF.gather + 1);
    const mixed = (share: number) => [set(site, -1, combine([1 - share, a!], [share, b!]))];
    expect(await says(model, bare(model), mixed(0.25))).toEqual(answersTo(CAPITAL));
    expect(await says(model, bare(model), mixed(0.75))).toEqual(answersTo(LANGUAGE));
  });

  test("half of a vector is enough, a quarter is not", async () => {
    const [a] = await at(LAYER_OF.gather + 1);
    expect(await says(model, bare(model), [interpolate(site, -1, a!, 0.25)])).toEqual(ASKED);
    expect(await says(model, bare(model), [interpolate(site, -1, a!, 0.5)])).toEqual(answersTo(CAPITAL));
  });

  test("a difference of tasks steers between gather and apply", async () => {
    const shown = behindExamples(model, CAPITAL);
    for (const layer of range(0, LAYERS)) {
      const [a, b] = await at(layer);
      const found = await says(model, shown, [
        addVector(`resid_post.${layer}`, -1, combine([1, b!], [-1, a!])),
      ]);
      expect(found).toEqual(answersTo(WINDOW.includes(layer) ? LANGUAGE : CAPITAL));
    }
  });

  test("without the task's direction the task is lost", async () => {
    const [a, b, c] = await at(LAYER_OF.gather + 1);
    const direction = combine([2 / 3, a!], [-1 / 3, b!], [-1 / 3, c!]);
    expect(await says(model, behindExamples(model, CAPITAL), [projectOut(site, -1, direction)])).toEqual(
      ASKED,
    );
  });

  test("the tasks are orthogonal and equally long in the window, and do not differ before it", async () => {
    const device = model.device;
    for (const layer of range(0, LAYER_OF.apply)) {
      const [a, b, c] = await at(layer);
      const differences = [combine([1, a!], [-1, c!]), combine([1, b!], [-1, c!])];
      if (layer < LAYER_OF.gather) {
        for (const difference of differences) expect(Math.hypot(...difference)).toBeLessThan(1e-4);
        continue;
      }
      // e1 − e3 and e2 − e3 meet at 60 degrees. The norms and gates take a thousandth off their length.
      const [x, y] = differences.map((difference) => device.tensor(difference));
      using cosine = cosineSimilarity(x!, y!);
      expect(await cosine.item()).toBeCloseTo(0.5, 4);
      for (const difference of differences) expect(Math.hypot(...difference)).toBeCloseTo(Math.SQRT2, 2);
      x!.dispose();
      y!.dispose();
    }
  });
});

test("resumed runs give the answers that were built, for the rows that a patch reaches", async () => {
  using recording = model.record(behindExamples(model, CAPITAL).slice(0, 1));
  const vectors = own[LANGUAGE]!;
  const variants = [
    ...range(0, LAYERS).map((layer) => ({ edits: [patchOf(vectors, layer)] })),
    { edits: [zero(`z.${HEAD_OF.gather[0]}`, -1, { head: HEAD_OF.gather[1] })] },
  ];
  const { logits, rowLayers } = resume(recording, variants);
  const values = await logits.read();
  const vocab = model.config.vocab;
  const found = variants.map((_, v) => {
    const row = values.subarray(v * vocab, (v + 1) * vocab);
    return model.tokenizer.tokenOf(row.indexOf(Math.max(...row)));
  });
  const item = ASKED[0]!;
  const [before, inside, after] = [answerOf(CAPITAL, item), answerOf(LANGUAGE, item), "language"];
  expect(found).toEqual([before, before, before, inside, inside, inside, after, after, item]);
  // A patch of resid_post.N runs the layers above N for one row; the knock-out its own layer as well.
  expect(rowLayers).toBe(7 + 6 + 5 + 4 + 3 + 2 + 1 + 0 + (LAYERS - HEAD_OF.gather[0]));
  logits.dispose();
});

describe("maps, rankings and attributions", () => {
  const ITEM = "Boravia";
  const shows = (of: PatchableModel, t: number, item = ITEM) => prompt(of, item, examplesOf(t, ITEM));
  const rounded = (effects: readonly number[]) => effects.map((effect) => Math.round(10 * effect) / 10 || 0);

  test.each(["model", "twin"])("of %s show when the delimiter has the task, or the answer", async (name) => {
    const of = { model, twin }[name]!;
    // Under the same countries and another task.
    const map = await patchMap(of, shows(of, CAPITAL), shows(of, LANGUAGE));
    const delimiter = map.effects.map((row) => row.at(-1)!);
    const from = name === "model" ? LAYER_OF.gather : LAYER_OF.apply;
    expect(rounded(delimiter)).toEqual(range(0, LAYERS).map((layer) => (layer > from ? 1 : 0)));
  });

  test("rank the head that gathers first, and no other, where the task differs", async () => {
    const ranking = await rankHeads(model, shows(model, CAPITAL), shows(model, LANGUAGE));
    const [first, ...others] = ranking;
    expect([first!.layer, first!.head]).toEqual(HEAD_OF.gather);
    expect(rounded([first!.effect])).toEqual([1]);
    expect(others.filter(({ effect }) => Math.abs(effect) > 0.05)).toEqual([]);
  });

  test("rank the head that fetches first where the country differs", async () => {
    const ranking = await rankHeads(model, shows(model, CAPITAL), shows(model, CAPITAL, "Calland"));
    const [first] = ranking;
    expect([first!.layer, first!.head]).toEqual(HEAD_OF.fetch);
    expect(rounded([first!.effect])).toEqual([1]);
  });

  test("say that the MLP which looks up writes the answer", async () => {
    const [answer, against] = [CAPITAL, LANGUAGE].map((t) => model.tokenizer.idOf(answerOf(t, ITEM))!);
    const parts = await logitAttribution(model, shows(model, CAPITAL), {
      answer: answer!,
      against: against!,
    });
    const [first, ...others] = parts.top();
    expect(first!.name).toBe(`mlp_out.${LAYER_OF.apply}`);
    expect(first!.value / parts.total).toBeCloseTo(1, 1);
    expect(others.filter(({ value }) => Math.abs(value) > 0.05 * parts.total)).toEqual([]);
  });
});
