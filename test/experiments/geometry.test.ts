import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { alignment, PLACES } from "../../experiments/cells/alignment.ts";
import { clusters, STATES } from "../../experiments/cells/clusters.ts";
import { decodedVectors } from "../../experiments/cells/decoded-vectors.ts";
import { commonLayer } from "../../experiments/cells/layer-sweep.ts";
import { lensPhases } from "../../experiments/cells/lens-phases.ts";
import { TARGETS, tokenSets } from "../../experiments/cells/token-sets.ts";
import { clustering } from "../../experiments/clustering.ts";
import type { Lab } from "../../experiments/framework/lab.ts";
import { specifiedQueries } from "../../experiments/framework/prompts.ts";
import { type Finished, runExperiments } from "../../experiments/framework/runner.ts";
import { grounding } from "../../experiments/grounding.ts";
import { lens } from "../../experiments/lens.ts";
import { accuracy } from "../../experiments/statistics/accuracy.ts";
import { kernelAlignment } from "../../experiments/statistics/cka.ts";
import { permuted } from "../../experiments/statistics/permutation.ts";
import { centred, cosineDistances, randomPointsLike } from "../../experiments/statistics/points.ts";
import { crossValidated, probe } from "../../experiments/statistics/probe.ts";
import { neighbourPurity } from "../../experiments/statistics/purity.ts";
import { normal, seededRandom } from "../../experiments/statistics/random.ts";
import { correlation, ranks } from "../../experiments/statistics/rank-correlation.ts";
import { chanceReciprocalRank, retrievalRanks } from "../../experiments/statistics/retrieval.ts";
import { representationalSimilarity } from "../../experiments/statistics/rsa.ts";
import { silhouettes } from "../../experiments/statistics/silhouette.ts";
import { cosine } from "../../experiments/statistics/vectors.ts";
import { SHIPPED, trainedFor } from "../../experiments/trained-for.ts";
import { logitLens } from "../../src/analysis/lens/logit-lens.ts";
import { neighbourPlane, principalPlane } from "../../src/analysis/vectors/plane.ts";
import type { PatchableModel } from "../../src/patching/model.ts";
import { tap } from "../../src/patching/tap.ts";
import { atLastExample, byText, drawItems, exampleOf, fewShotPrompt } from "../../src/tasks/few-shot.ts";
import { loadPictures } from "../../src/tasks/pictures.ts";
import { picturedItemsOf, type Task } from "../../src/tasks/task.ts";
import { OPTIONS, openLab, randomTask } from "../helpers/lab.ts";
import { fixtureModel } from "../helpers/model.ts";

const mean = (values: readonly number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;

/** The mean of a value an item, each of an input of its own. */
function overItems(values: readonly number[]) {
  return accuracy([{ inputs: values.map((_, i) => `${i}`), seeds: [values] }]);
}

function cloud(count: number, width: number, seed: number): number[][] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, () => Array.from({ length: width }, () => normal(random)));
}

/** Two tight groups, far apart. */
const LINE = [0, 1, 10, 11];
const LINE_DISTANCES = LINE.map((a) => LINE.map((b) => Math.abs(a - b)));
const GROUPS = ["a", "a", "b", "b"];

describe("clusters", () => {
  test("silhouettes by hand, and of wrong and of lonely labels", () => {
    const [first, second] = silhouettes(LINE_DISTANCES, GROUPS);
    expect(first).toBeCloseTo((10.5 - 1) / 10.5, 12);
    expect(second).toBeCloseTo((9.5 - 1) / 9.5, 12);
    expect(mean(silhouettes(LINE_DISTANCES, ["a", "b", "a", "b"]))).toBeLessThan(0);
    expect(silhouettes(LINE_DISTANCES, ["a", "b", "b", "b"])[0]).toBe(0);
    expect(() => silhouettes(LINE_DISTANCES, ["a", "a", "a", "a"])).toThrow(/two clusters/);
  });

  test("purity by hand, its chance, and among allowed neighbours only", () => {
    expect(neighbourPurity(LINE_DISTANCES, GROUPS, 1)).toEqual({ values: [1, 1, 1, 1], chance: 1 / 3 });
    expect(neighbourPurity(LINE_DISTANCES, GROUPS, 2).values).toEqual([0.5, 0.5, 0.5, 0.5]);
    expect(neighbourPurity(LINE_DISTANCES, ["a", "b", "a", "b"], 1).values).toEqual([0, 0, 0, 0]);
    const apart = neighbourPurity(LINE_DISTANCES, GROUPS, 1, (i, j) => i % 2 !== j % 2);
    expect(apart).toEqual({ values: [1, 1, 1, 1], chance: 0.5 });
    expect(() => neighbourPurity(LINE_DISTANCES, GROUPS, 1, () => false)).toThrow(/neighbour/);
  });

  test("a probe finds a direction among many, and nothing where there is none", () => {
    const labels = Array.from({ length: 60 }, (_, i) => ["x", "y", "z"][i % 3]!);
    const folds = labels.map((_, i) => Math.floor(i / 12));
    const noise = cloud(60, 100, 1);
    const told = noise.map((point, i) => point.map((x, d) => (d === i % 3 ? x + 12 : x)));
    expect(mean(crossValidated({ points: told, labels }, folds))).toBe(1);
    const guessed = overItems(crossValidated({ points: noise, labels }, folds));
    expect(guessed.low).toBeLessThan(1 / 3);
    expect(guessed.high).toBeGreaterThan(1 / 3 - 0.1);
    expect(guessed.high).toBeLessThan(0.6);
    // Seen points are labelled rightly even by noise: why folds are needed.
    expect(probe({ points: noise, labels }, noise)).toEqual(labels);
    expect(() =>
      crossValidated(
        { points: noise, labels },
        labels.map(() => 0),
      ),
    ).toThrow(/two folds/);
  });

  test("planes keep groups apart, the same every time", () => {
    const points = cloud(24, 20, 3).map((point, i) => point.map((x, d) => (d === 0 ? x + (i % 2) * 40 : x)));
    const labels = points.map((_, i) => `${i % 2}`);
    const flat = (plane: readonly (readonly [number, number])[]) =>
      plane.map(([ax, ay]) => plane.map(([bx, by]) => Math.hypot(ax - bx, ay - by)));
    const distances = points.map((a) =>
      points.map((b) => a.reduce((sum, x, d) => sum + (x - b[d]!) ** 2, 0)),
    );
    const planes = () => [principalPlane(points).plane, neighbourPlane(distances)];
    for (const plane of planes()) {
      expect(neighbourPurity(flat(plane), labels, 3).values.every((value) => value === 1)).toBe(true);
    }
    expect(planes()).toEqual(planes());
  });
});

describe("correspondence of items", () => {
  const items = cloud(20, 30, 5);
  /** Turned and stretched: another space with the same arrangement. */
  const turned = items.map((point) => point.map((_, d) => 3 * point[(d + 7) % 30]!));
  const strangers = cloud(20, 30, 6);

  test("ranks share ties; Spearman is 1 for anything monotone", () => {
    expect(ranks([5, 1, 5, 9])).toEqual([1.5, 0, 1.5, 3]);
    const values = [3, -1, 4, 1, 5];
    expect(correlation(ranks(values), ranks(values.map((x) => x ** 3)))).toBeCloseTo(1, 12);
    expect(correlation(ranks(values), ranks(values.map((x) => -x)))).toBeCloseTo(-1, 12);
    expect(correlation([1, 1], [1, 2])).toBe(0);
  });

  test("RSA and CKA are 1 for a rotation, and shuffled pairs for others", () => {
    for (const measure of [representationalSimilarity, kernelAlignment]) {
      const same = measure(items, turned);
      expect(same.value).toBeCloseTo(1, 6);
      expect(same.p).toBeCloseTo(1 / 501, 12);
      expect(same.high).toBeLessThan(0.8);
      const other = measure(items, strangers);
      expect(other.p).toBeGreaterThan(0.05);
      expect(other.value).toBeLessThan(other.high);
      expect(() => measure(items, strangers.slice(1))).toThrow(/two sides/);
    }
    // Without a comparison CKA would look like a finding.
    expect(kernelAlignment(items, strangers).value).toBeGreaterThan(0.3);
  });

  test("CKA by hand", () => {
    expect(
      kernelAlignment(
        [[1], [-1]],
        [
          [5, 0],
          [3, 0],
        ],
      ).value,
    ).toBeCloseTo(1, 12);
    expect(kernelAlignment([[1], [1], [-1], [-1]], [[1], [-1], [1], [-1]]).value).toBeCloseTo(0, 12);
  });

  test("p values of nothing are even", () => {
    const small = Array.from({ length: 40 }, (_, i) => {
      const [a, b] = [cloud(8, 5, 100 + i), cloud(8, 5, 900 + i)];
      return representationalSimilarity(a, b).p;
    });
    expect(small.filter((p) => p < 0.5).length).toBeGreaterThan(8);
    expect(small.filter((p) => p < 0.5).length).toBeLessThan(32);
    expect(small.filter((p) => p < 0.05).length).toBeLessThan(8);
    expect(permuted(5, () => 1)).toEqual({ value: 1, low: 1, high: 1, p: 1, items: 5 });
  });

  test("retrieval: found, missed, tied; a common direction hides it and is removed", () => {
    const axes = [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
    ];
    expect(retrievalRanks(axes, axes)).toEqual([1, 1, 1]);
    expect(retrievalRanks(axes, [axes[1]!, axes[2]!, axes[0]!])).toEqual([3, 3, 3]);
    expect(
      retrievalRanks(axes, [
        [1, 1, 1],
        [1, 1, 1],
        [1, 1, 1],
      ]),
    ).toEqual([3, 3, 3]);
    expect(chanceReciprocalRank(3)).toBeCloseTo((1 + 1 / 2 + 1 / 3) / 3, 12);
    expect(() => retrievalRanks(axes, [])).toThrow(/as many candidates/);

    // The names' common part makes the one of the widest angle everybody's nearest.
    const pictures = [
      [1, 0.1],
      [1, -0.1],
    ];
    const names = [
      [1, 5.1],
      [1, 4.9],
    ];
    expect(retrievalRanks(pictures, names)).toEqual([2, 1]);
    expect(retrievalRanks(centred(pictures), centred(names))).toEqual([1, 1]);
    const found = retrievalRanks(items, randomPointsLike(items, 2)).map((rank) => 1 / rank);
    const { low, high } = overItems(found);
    expect(low).toBeLessThan(chanceReciprocalRank(20));
    expect(high).toBeLessThan(0.5);
  });

  test("lists that are in the same order by themselves are paired at random", () => {
    // Two kinds of items, each on a line of its own in the order of its list: as they stand they correspond.
    const line = (width: number, along: number) =>
      Array.from({ length: 20 }, (_, i) =>
        Array.from({ length: width }, (_, d) => (d === along ? Math.sin(i / 15) : Math.cos(i / 15))),
      );
    const [own, others] = [line(2, 0), line(3, 1)];
    expect(representationalSimilarity(own, others).value).toBeGreaterThan(0.95);
    for (const actual of [0.5, 0.95]) {
      const { value, low, high, p } = representationalSimilarity(own, others, actual);
      expect(value).toBe(actual);
      expect(Math.abs(low + high) / 2).toBeLessThan(0.2);
      expect(p > 0.002).toBe(high > actual);
      expect(kernelAlignment(own, others, actual).value).toBe(actual);
    }
  });

  test("random vectors keep norms and nothing else; distances are of angles", () => {
    randomPointsLike(items, 1).forEach((vector, i) => {
      expect(Math.hypot(...vector)).toBeCloseTo(Math.hypot(...items[i]!), 9);
    });
    expect(
      cosineDistances([
        [2, 0],
        [0, 3],
        [-1, 0],
      ]),
    ).toEqual([
      [0, 1, 2],
      [1, 0, 1],
      [2, 1, 0],
    ]);
  });
});

/** Of many answers some begin like any name. */
function withFewAnswers(task: Task): Task {
  return { ...task, items: task.items.map((item) => ({ ...item, outputs: item.outputs.slice(-4) })) };
}

describe("on a model", () => {
  const root = mkdtempSync(join(tmpdir(), "xpatch-geometry-"));
  afterAll(() => rmSync(root, { recursive: true }));

  let model: PatchableModel;
  let tasks: Task[];
  let lab: Lab;
  let finished: Finished[];
  beforeAll(async () => {
    model = await fixtureModel("llava");
    tasks = ["alpha", "gamma ray"].map((name) => withFewAnswers(randomTask(model, name)));
    lab = await openLab(join(root, "run"), model, tasks);
    finished = await runExperiments(lab, [lens, clustering, grounding]);
  });

  test("a random model supports none of the claims", () => {
    expect(finished.map(({ experiment }) => experiment.name)).toEqual(["lens", "clustering", "grounding"]);
    for (const { findings } of finished) {
      expect(findings.verdict.outcome).not.toBe("replicates");
      expect(findings.controls.length).toBeGreaterThan(0);
      expect(JSON.stringify(findings)).not.toContain("null");
    }
  });

  test("another run gives the same, to the last digit", async () => {
    const again = await openLab(join(root, "again"), model, tasks);
    for (const cell of [grounding, clustering, lens].flatMap((one) => one.cells(again)))
      await again.run(cell);
    expect(again.store.records.length).toBe(lab.store.records.length);
    for (const { key, result, cost } of again.store.records) {
      expect(lab.store.get(key)).toMatchObject({ result, cost });
    }
  });

  test("sets of tokens share none, and an answer that begins like its question is left out", () => {
    const task: Task = { name: "country-capital", items: [] };
    const item = { input: "b c", outputs: ["d e"], split: "test" as const };
    const other = { input: "f", outputs: ["g"], split: "test" as const };
    const [delimiter] = model.tokenizer.encode(":", { specials: false });
    const sets = tokenSets(model.tokenizer, task, [item, other], item, delimiter)!;
    const all = TARGETS.flatMap((target) => sets[target]);
    expect(new Set(all).size).toBe(all.length);
    for (const target of TARGETS) expect(sets[target].length).toBeGreaterThan(0);
    expect(tokenSets(model.tokenizer, task, [item], { ...item, outputs: ["b"] })).toBeUndefined();
    // A delimiter that reads as an answer would be counted twice.
    expect(tokenSets(model.tokenizer, task, [item], item, sets.answer[0])!.delimiter).toEqual([]);
  });

  test("the lens's probabilities and ranks are those of the logit lens itself", async () => {
    const [task] = tasks;
    const traced = lab.result(
      lensPhases({ task: task!.name, specification: "image", query: "image", split: "test" }),
    );
    const items = lab.items(task!, "test");
    const asked = { split: "test", specification: "image", query: "image", seed: 0 } as const;
    const prompts = await specifiedQueries(lab, task!, asked);
    const kept = items.flatMap((item, i) => {
      const sets = tokenSets(model.tokenizer, task!, items, item);
      return sets ? [{ sets, prompt: prompts[i]! }] : [];
    });
    expect(traced.prompts).toEqual(kept.map(({ prompt }) => prompt.text));
    expect(kept.length + traced.ambiguous).toBe(items.length);
    expect(kept.length).toBeGreaterThan(0);
    for (const [i, { prompt, sets }] of kept.entries()) {
      const cells = await logitLens(model, prompt, { k: 256 });
      for (const { layer, tokens } of cells) {
        for (const target of ["input", "answer"] as const) {
          const rank = 1 + tokens.findIndex(({ id }) => sets[target].includes(id));
          const { mass, reciprocalRank } = traced.own[target];
          if (rank > 0) expect(reciprocalRank[i]![layer]).toBeCloseTo(1 / rank, 9);
          else expect(reciprocalRank[i]![layer]).toBeLessThan(1 / 256);
          const among = tokens.filter(({ id }) => sets[target].includes(id));
          const least = among.reduce((sum, { probability }) => sum + probability, 0);
          expect(mass[i]![layer]).toBeGreaterThan(least - 1e-6);
          expect(mass[i]![layer]).toBeLessThan(1);
        }
      }
    }
  });

  test("task vectors are decoded in every layer, the most probable tokens first", () => {
    const { tokens, probabilities } = lab.result(decodedVectors({ task: "alpha", specification: "image" }));
    expect(tokens).toHaveLength(model.config.layers);
    for (const row of probabilities) expect(row).toEqual([...row].sort((a, b) => b - a));
  });

  test("points: a prompt of each task, modality and item; contexts of pictures are pictures", () => {
    const { points, instructions, layer, states } = lab.result(clusters({}));
    expect(points).toHaveLength(2 * 2 * 4);
    expect(instructions.map(({ task }) => task)).toEqual(["alpha", "gamma ray"]);
    expect(layer).toBe(commonLayer(lab, { specification: "text", query: "image" }));
    for (const state of STATES) {
      expect(states[state].principal).toHaveLength(points.length + instructions.length);
      expect(states[state].neighbours.flat().every(Number.isFinite)).toBe(true);
    }
    // Text and picture embeddings of a random model have nothing in common.
    expect(mean(states.context.byModality.silhouette)).toBeGreaterThan(0.2);
    expect(mean(states.context.byModality.probe)).toBe(1);
  });

  test("silhouettes and nearest instructions are those of full runs: names against pictures, and the answer cue", async () => {
    const { points, layer, states } = lab.result(clusters({}));
    const context: number[][] = [];
    const vector: number[][] = [];
    for (const task of tasks) {
      const items = picturedItemsOf(task, "test");
      const pictures = await loadPictures(model, items);
      for (const [seed, asked] of [byText, pictures].entries()) {
        for (const item of items) {
          const drawn = drawItems(items, item, { count: OPTIONS.shots, seed });
          const prompt = fewShotPrompt(
            model,
            drawn.map((one) => exampleOf(one, asked)),
            item.input,
          );
          const at =
            asked === byText
              ? tokensOf(
                  prompt.ids,
                  drawn.map(({ input }) => input),
                )
              : [...prompt.ids.keys()].filter((i) => prompt.ids[i] === model.tokenizer.idOf("<image>"));
          const taps = {
            embedded: tap("embed", at),
            stream: tap(`resid_post.${layer}`, atLastExample(prompt)),
          };
          const { embedded, stream } = model.run(prompt, { taps });
          const flat = Array.from(await embedded.read());
          const { width } = model.config;
          context.push(Array.from({ length: width }, (_, d) => mean(at.map((_, i) => flat[i * width + d]!))));
          vector.push(Array.from(await stream.read()));
        }
      }
    }
    const names = points.map(({ task }) => task);
    for (const [state, found] of [
      ["context", context],
      ["vector", vector],
    ] as const) {
      const expected = silhouettes(cosineDistances(found), names);
      expected.forEach((value, i) => {
        expect(states[state].byTask.silhouette[i]).toBeCloseTo(value, 4);
      });
    }
    const told = await Promise.all(
      tasks.map(async ({ instruction }) => {
        const taps = { stream: tap(`resid_post.${layer}`, -1) };
        return Array.from(await model.run(model.prompt(instruction!), { taps }).stream.read());
      }),
    );
    const right = vector.map((one, i) => {
      const [a, b] = told.map((other) => cosine(one, other));
      return tasks[a! >= b! ? 0 : 1]!.name === names[i] ? 1 : 0;
    });
    expect(states.vector.toInstruction).toEqual(right);
  });

  /** Where the names stand in a prompt of text, by the lengths of what its tokens decode to. */
  function tokensOf(ids: readonly number[], names: readonly string[]): number[] {
    const length = (count: number) => model.tokenizer.decode(ids.slice(0, count)).length;
    const text = model.tokenizer.decode([...ids]);
    let from = 0;
    return names.flatMap((name) => {
      const start = text.indexOf(`Q: ${name}\n`, from) + 3;
      from = start + name.length;
      return [...ids.keys()].filter((i) => length(i + 1) > start && length(i) < from);
    });
  }

  test("the delimiter's token is what most validation prompts read as in layer 0; the token before is its control", async () => {
    const [task] = tasks;
    let compared = 0;
    for (const specification of ["image", "instruction"] as const) {
      const setup = { specification, query: "image" } as const;
      const { delimiter, own, other, inputs } = lab.result(
        lensPhases({ task: task!.name, ...setup, split: "validation" }),
      );
      const asked = await specifiedQueries(lab, task!, { split: "validation", ...setup, seed: 0 });
      const items = lab.items(task!, "validation");
      const shown = asked.filter((_, i) => inputs.includes(items[i]!.input));
      expect(shown.length).toBeGreaterThan(0);
      const counts = new Map<number, number>();
      for (const [i, prompt] of shown.entries()) {
        const cells = await logitLens(model, prompt, { k: 256 });
        const at = cells.find(({ layer }) => layer === 0)!;
        const first = at.tokens[0]!.id;
        counts.set(first, (counts.get(first) ?? 0) + 1);
        for (const [{ delimiter: traced }, id] of [
          [own, delimiter!],
          [other, prompt.ids[prompt.last - 1]!],
        ] as const) {
          const rank = 1 + at.tokens.findIndex((token) => token.id === id);
          const read = traced.reciprocalRank[i]![0]!;
          // 0 where the token is in another set.
          if (rank > 0 && read > 0) {
            compared++;
            expect(read).toBeCloseTo(1 / rank, 9);
          } else expect(read).toBeLessThan(1 / 256);
        }
      }
      expect(counts.get(delimiter!)).toBe(Math.max(...counts.values()));
      const tested = lab.result(lensPhases({ task: task!.name, ...setup, split: "test" }));
      expect(tested.delimiter).toBe(delimiter);
    }
    expect(compared).toBeGreaterThan(0);
  });

  test("grounding looks where patches work, and says so of layer 0 and of what training built in", () => {
    const { findings } = finished.find(({ experiment }) => experiment === grounding)!;
    const layer = commonLayer(lab, { specification: "text", query: "image" });
    const [retrieval, everyLayer] = findings.tables;
    const shown = retrieval!.rows.map(([place, chosen, of]) => [place, chosen, of]);
    for (const place of PLACES.map((_, i) => retrieval!.rows[3 * i]![0])) {
      expect(shown).toContainEqual([place, "layer of the patch", layer]);
      expect(shown).toContainEqual([place, "layer 0", 0]);
    }
    expect(everyLayer!.title).toMatch(/at 99\.44 % each, so that 3 layers in 3 places make 95 %/);
    expect(findings.preface).toMatch(/^What this model's training asked for .* is not known here/);
    expect(trainedFor(SHIPPED.hash)).toBe(SHIPPED.says);
    const report = readFileSync(join(root, "run", "report.html"), "utf8");
    expect(report).toMatch(/Is the alignment semantic\?<\/h2>\s*<p>What this model/);
  });

  test("pictures and names are compared in every layer, with all controls", () => {
    const [task, other] = tasks.map(({ name }) => name);
    const { items, places } = lab.result(alignment({ task: task!, other: other!, split: "test" }));
    expect(items).toBe(4);
    for (const place of PLACES) {
      expect(places[place]).toHaveLength(model.config.layers);
      for (const { centred: found, foreign, rsa } of places[place]) {
        for (const rank of [...found.names, ...found.pictures]) expect([1, 2, 3, 4]).toContain(rank);
        expect(foreign!.rsa.items).toBe(4);
        // What is held against random pairs with other names is what these pictures and names have.
        expect(foreign!.rsa.value).toBe(rsa.value);
        expect(rsa.p).toBeGreaterThan(0);
      }
    }
    // Another template moves the cue of the names only.
    expect(places["other cue"][0]!.rightCosine).not.toBe(places.cue[0]!.rightCosine);
  });

  test("what takes pictures is not testable on a model without", async () => {
    const text = await fixtureModel("llama");
    const words = await openLab(join(root, "text"), text, [
      randomTask(text, "alpha"),
      randomTask(text, "beta"),
    ]);
    expect(clustering.untestable!(words)).toMatch(/pictures/);
    expect(grounding.untestable!(words)).toMatch(/pictures/);
    const echoing = tasks.map((task) => ({
      ...task,
      items: task.items.map((item) => ({ ...item, outputs: [item.input] })),
    }));
    const echo = await openLab(join(root, "echo"), model, echoing);
    expect(lens.untestable!(echo)).toMatch(/begin alike/);
    expect(lens.untestable!(lab)).toBeUndefined();
    expect(lens.cells(words).some(({ key }) => key.includes("modality=image"))).toBe(false);
  });
});
