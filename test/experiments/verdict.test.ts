import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { constantAnswers } from "../../experiments/framework/constants.ts";
import { aboveControl, aboveShuffled, contrast, difference } from "../../experiments/framework/contrasts.ts";
import { type Contrast, type Contrasts, judged, type Rule } from "../../experiments/framework/rule.ts";
import { EXPERIMENTS } from "../../experiments/index.ts";
import { tableMarkdown } from "../../experiments/report/table.ts";
import { RULES } from "../../experiments/rules.ts";
import { RULES_TABLE } from "../../experiments/rules-table.ts";
import { accuracy, type Hits } from "../../experiments/statistics/accuracy.ts";
import { seededRandom } from "../../experiments/statistics/random.ts";
import { studentFactor } from "../../experiments/statistics/student.ts";
import type { Task } from "../../src/tasks/task.ts";
import { simulatedAnswers } from "../helpers/simulated-answers.ts";

/** An interval of a normal estimate. */
function normal(mean: number, error: number, of?: string): Contrast {
  return contrast((level) => {
    const half = studentFactor(level, Number.POSITIVE_INFINITY) * error;
    return { mean, low: mean - half, high: mean + half, items: 50, seeds: 1 };
  }, of);
}

const PARTS = {
  first: { says: "it works", comparisons: { a: { what: "a − b", test: "above", size: 0.1 } } },
  second: { says: "better", comparisons: { c: { what: "c − d", test: "above", size: 0.1 } } },
} as const;
const ORDERED = { order: "each presupposes those before", parts: PARTS } as const satisfies Rule;
const ALONE = { order: "each by itself", parts: PARTS } as const satisfies Rule;

const HOLDS = normal(0.3, 0.05);
const OUT = normal(0, 0.02);
const OPEN = normal(0.1, 0.1);

describe("verdicts", () => {
  test.each([
    [HOLDS, HOLDS, "replicates", "replicates"],
    [HOLDS, OUT, "replicates in part", "replicates in part"],
    [HOLDS, OPEN, "too few items to tell", "too few items to tell"],
    [OUT, HOLDS, "does not replicate", "replicates in part"],
    [OUT, OUT, "does not replicate", "does not replicate"],
    [OUT, OPEN, "does not replicate", "too few items to tell"],
    [OPEN, HOLDS, "too few items to tell", "too few items to tell"],
    [OPEN, OUT, "too few items to tell", "too few items to tell"],
    [OPEN, OPEN, "too few items to tell", "too few items to tell"],
  ] as const)("case %#: parts in order, and by themselves", (first, second, ordered, alone) => {
    const contrasts = { first: { a: first }, second: { c: second } };
    expect(judged(ORDERED, contrasts).outcome).toBe(ordered);
    expect(judged(ALONE, contrasts).outcome).toBe(alone);
  });

  test("an interval that is wide is no evidence against a claim, whatever its middle", () => {
    const wide = normal(-0.2, 0.3);
    expect(judged(ORDERED, { first: { a: wide }, second: { c: wide } }).outcome).toBe(
      "too few items to tell",
    );
    // Not above 0, but what counts is not excluded.
    const near = normal(0.05, 0.03);
    expect(judged(ORDERED, { first: { a: near }, second: { c: near } }).outcome).toBe(
      "too few items to tell",
    );
  });

  test("the reason names what decides, the least clear first", () => {
    const named = (mean: number, of: string) => normal(mean, 0.05, of);
    const because = (a: readonly Contrast[]) =>
      judged(ORDERED, { first: { a }, second: { c: OPEN } }).because;
    expect(because([named(0.5, "x"), named(0.3, "y")])).toMatch(
      /^it works: holds, least clearly \(a − b \(y\) 0\.30 \[0\.20, 0\.40\] n 50\)\. better: open \(c − d 0\.10/,
    );
    expect(because([named(0.5, "x"), named(0.09, "y"), named(0.05, "z"), named(0.07, "w")])).toMatch(
      /^it works: open \(a − b \(z\) .*; a − b \(w\) .*; 1 more\)\. /,
    );
  });

  test("all of several have to hold, and any can rule out; but then they share the 5 %", () => {
    const of = (list: readonly Contrast[]) => judged(ORDERED, { first: { a: list }, second: { c: HOLDS } });
    // Excludes 0.1 at 95 %, but not at 98.3 %, which is asked for with three comparisons.
    const nearly = normal(0, 0.1 / 2.2);
    expect(judged(ORDERED, { first: { a: nearly }, second: { c: [] } }).outcome).toBe("does not replicate");
    expect(of([HOLDS, HOLDS]).outcome).toBe("replicates");
    expect(of([HOLDS, OUT]).outcome).toBe("does not replicate");
    expect(of([HOLDS, nearly]).outcome).toBe("too few items to tell");
  });

  test("of parts by themselves any may hold by chance: one alone has to do so more clearly", () => {
    // Above 0 at 95 %, not at 97.5 %.
    const barely = normal(0.21, 0.1);
    const strong = { first: { a: barely }, second: { c: barely } };
    expect(judged(ALONE, strong).outcome).toBe("replicates");
    expect(judged(ALONE, { first: { a: barely }, second: { c: OUT } }).outcome).toBe("too few items to tell");
    expect(judged(ORDERED, { first: { a: barely }, second: { c: OUT } }).outcome).toBe("replicates in part");
  });

  test("what has no size cannot rule out; what is not there leaves the claim open", () => {
    const guarded = {
      order: "each presupposes those before",
      parts: { first: { says: "it works", comparisons: { a: { what: "a − constant", test: "above" } } } },
    } as const satisfies Rule;
    expect(judged({ ...guarded, sunkBy: "b" }, { first: { a: OUT } }).sunkBy).toBe("b");
    const { outcome, because, checks } = judged(guarded, { first: { a: OUT } }, "And n 3");
    expect(outcome).toBe("too few items to tell");
    expect(because).toBe("it works: open (a − constant 0.00 [-0.04, 0.04] n 50). And n 3");
    expect(checks).toEqual([
      { part: "it works", what: "a − constant", estimate: OUT.at(0.95), hasToBe: "> 0", status: "open" },
    ]);
    const missing = judged(guarded, { first: { a: [] } });
    expect([missing.outcome, missing.because]).toEqual([
      "too few items to tell",
      "it works: open (a − constant: not there)",
    ]);
  });

  test("what is above 0, but clearly less than the effect that counts, is ruled out", () => {
    const sized = {
      order: "each presupposes those before",
      parts: {
        first: { says: "it works", comparisons: { a: { what: "a − b", test: "above", size: 0.1 } } },
      },
    } as const satisfies Rule;
    const { outcome, because } = judged(sized, { first: { a: [HOLDS, normal(0.04, 0.01)] } });
    expect(outcome).toBe("does not replicate");
    expect(because).toMatch(/^it works: ruled out \(a − b 0\.04 \[0\.02, 0\.06\] n 50\)$/);
    // With an interval that reaches the effect that counts it may be one.
    expect(judged(sized, { first: { a: [HOLDS, normal(0.06, 0.025)] } }).outcome).toBe("replicates");
  });

  test("not below: within the margin, or clearly beyond it", () => {
    const equal = {
      order: "each presupposes those before",
      parts: {
        as: { says: "as well", comparisons: { own: { what: "a − b", test: "not below", size: 0.1 } } },
      },
    } as const satisfies Rule;
    const outcomes = [normal(-0.02, 0.03), normal(-0.02, 0.05), normal(-0.3, 0.05)].map(
      (own) => judged(equal, { as: { own } }).outcome,
    );
    expect(outcomes).toEqual(["replicates", "too few items to tell", "does not replicate"]);
  });
});

describe("the rules", () => {
  test("there is one for each experiment, and the docs have them", () => {
    const [own, beside] = [false, true].map((comma) =>
      Object.keys(RULES).filter((name) => name.includes(",") === comma),
    );
    expect(own!.sort()).toEqual(EXPERIMENTS.map(({ name }) => name).sort());
    for (const name of beside!) expect(own).toContain(name.split(",")[0]);
    const docs = readFileSync(join(import.meta.dirname, "..", "..", "docs", "experiments.md"), "utf8");
    expect(docs).toContain(tableMarkdown(RULES_TABLE));
  });

  test("each experiment's section says which control would sink its claim", () => {
    const docs = readFileSync(join(import.meta.dirname, "..", "..", "docs", "experiments.md"), "utf8");
    const sections = docs.replaceAll(/\s+/g, " ").split(" ## ");
    for (const [name, { sunkBy }] of Object.entries(RULES)) {
      const [experiment, beside] = name.split(", ");
      const section = sections.find((text) => text.startsWith(`${experiment} `));
      const of = beside ? `**What would sink it, ${beside}:**` : "**What would sink it:**";
      expect(section, name).toContain(`${of} ${sunkBy}`);
    }
  });

  test("every accuracy is held against the constant answer and the most frequent one", () => {
    for (const name of [
      "cross-modal",
      "entity",
      "llm-to-vlm",
      "instructions",
      "sweep",
      "task-conflict",
      "arithmetic",
      "overriding",
      "dense-text",
      "long-answers",
      "fine-tuning",
    ] as const) {
      const [first] = Object.values(RULES[name].parts);
      expect(Object.keys(first!.comparisons), name).toEqual(expect.arrayContaining(["frequent", "constant"]));
    }
  });
});

/** Hits of two tasks about the same things. */
function hits(...rows: readonly (readonly string[])[]): Hits {
  return rows.map((seeds) => ({ seeds, inputs: [...seeds[0]!].map((_, i) => `country ${i}`) }));
}

/** The rule of cross-modal, with one control. */
function crossModal(patch: Hits, prompt: Hits, none: Hits, control: Hits) {
  const above = aboveControl(patch, control);
  const contrasts: Contrasts<(typeof RULES)["cross-modal"]> = {
    works: {
      noContext: aboveControl(patch, none),
      nearestTask: above,
      anotherTask: above,
      meanOfTasks: above,
      random: above,
      frequent: above,
      constant: above,
    },
    better: { prompt: difference(patch, prompt) },
    mapping: { permutedAnswers: above },
  };
  return judged(RULES["cross-modal"], contrasts);
}

describe("on answers", () => {
  const row = (length: number) => fc.stringMatching(new RegExp(`^[01]{${length}}$`));

  test("eight items are too few, whatever is answered", () => {
    const eight = fc.tuple(row(4), row(4)).map(([a, b]) => hits([a], [b]));
    fc.assert(
      fc.property(eight, eight, eight, eight, (...sides) => {
        expect(crossModal(...sides).outcome).toBe("too few items to tell");
      }),
      { numRuns: 100 },
    );
    // Nor would a few more do to exclude an effect, by the width of their interval alone.
    const twelve = hits(["0".repeat(12)], ["0".repeat(12)]);
    expect(crossModal(twelve, twelve, twelve, twelve).outcome).toBe("too few items to tell");
    // A hundred that are all wrong exclude that a tenth is right.
    const many = hits(["0".repeat(100)], ["0".repeat(100)]);
    expect(crossModal(many, many, many, many).outcome).toBe("does not replicate");
  });

  test("nothing replicates whose interval holds its strongest control or the constant answer", () => {
    const rows = fc.tuple(row(30), row(30));
    // Hardly ever wrong, and hardly ever right: else nothing would replicate.
    const clear = fc
      .tuple(fc.constantFrom("1", "11110"), fc.constantFrom("0", "00001", "01"))
      .map(([a, b]) => [a, b].map((part) => part.repeat(30).slice(0, 30)));
    const seen = new Set<string>();
    fc.assert(
      fc.property(rows, rows, clear, fc.boolean(), ([a, b], [c, d], [high, low], mixed) => {
        const patch = mixed ? hits([a, high!], [b, high!]) : hits([high!, high!], [high!, high!]);
        const control = mixed ? hits([c], [d]) : hits([low!], [low!]);
        const { outcome } = crossModal(patch, control, control, control);
        seen.add(outcome);
        if (outcome === "replicates") {
          expect(accuracy(patch).low).toBeGreaterThan(accuracy(control).mean);
          expect(difference(patch, control).at(0.95).low).toBeGreaterThan(0);
        }
      }),
      { numRuns: 100 },
    );
    expect(seen).toContain("replicates");
    expect(seen.size).toBeGreaterThan(1);
  });

  test("verdicts on simulated answers are wrong no oftener than they may be", () => {
    const rule = {
      order: "each presupposes those before",
      parts: { first: PARTS.first },
    } as const satisfies Rule;
    const shared = { groups: [2, 2, 1], items: 10, inputs: 16, seeds: 2, gate: 0.5, steady: 0.8 };
    const rates = (first: number, second: number) => {
      const random = seededRandom(first * 100);
      const runs = 400;
      const outcomes = Array.from({ length: runs }, () => {
        const answers = { ...shared, tasksApart: 0.5, seedsApart: 0 };
        const [a, b] = simulatedAnswers(answers, [first, second], random);
        return judged(rule, { first: { a: difference(a, b) } }).outcome;
      });
      return (outcome: string) => outcomes.filter((one) => one === outcome).length / runs;
    };
    // 2.5 % each way, and as much again for the number of runs.
    expect(rates(0.3, 0.3)("replicates")).toBeLessThan(0.05);
    expect(rates(0.4, 0.3)("does not replicate")).toBeLessThan(0.05);
    // What is there is seen.
    expect(rates(0.6, 0.2)("replicates")).toBeGreaterThan(0.95);
    expect(rates(0.1, 0.3)("does not replicate")).toBeGreaterThan(0.9);
  });

  test("a control that is often right in the same items is still left out of the accuracy's own interval", () => {
    const better = hits(["1".repeat(20).padEnd(40, "0")]);
    const control = hits(["1".repeat(13).padEnd(40, "0")]);
    expect(difference(better, control).at(0.95).low).toBeGreaterThan(0);
    const [held] = aboveControl(better, control);
    expect(held!.at(0.95).low).toBeCloseTo(accuracy(better).low - 13 / 40, 12);
    expect(aboveControl(better, undefined)).toEqual([]);
  });

  test("constant answers: the most frequent of all items, and the best on those asked about", () => {
    const item = (input: string, output: string, split: "test" | "train" = "test") => ({
      input,
      outputs: [output],
      split,
    });
    const asked = [item("a", "red"), item("b", "green apple"), item("c", "green"), item("d", "rose")];
    const others = ["e", "f", "g"].map((input) => item(input, "red", "train"));
    const task: Task = { name: "colour", items: [...asked, ...others] };
    const { frequent, constant } = constantAnswers([{ task, items: asked }], {});
    expect(frequent).toEqual([{ inputs: ["a", "b", "c", "d"], seeds: ["1000"] }]);
    expect(constant[0]!.seeds).toEqual(["0110"]);
    // "r" stands for all that begins with it, and comes only from the model.
    const given = constantAnswers([{ task, items: [...asked, item("h", "ruby")], answers: ["r"] }], {});
    expect(given.constant[0]!.seeds).toEqual(["10011"]);
  });

  test("constant answers are right where case fits, if case counts", () => {
    const outputs = ["RED", "red", "Red", "green", "green"];
    const items = outputs.map((output, i) => ({
      input: `${i}`,
      outputs: [output],
      split: "test" as const,
    }));
    const task: Task = { name: "colour", items };
    const hitsOf = (caseSensitive: boolean) => {
      const { frequent, constant } = constantAnswers([{ task, items, answers: ["R"] }], { caseSensitive });
      return [frequent, constant].map(([hits]) => hits!.seeds[0]);
    };
    expect(hitsOf(false)).toEqual(["11100", "11100"]);
    expect(hitsOf(true)).toEqual(["00011", "00011"]);
  });

  test("similarities are above shuffled pairs only if few of these reach as much", () => {
    const found = { value: 0.5, low: -0.2, high: 0.2, items: 20 };
    // Of what shuffled pairs leave to 1.
    const near = aboveShuffled({ value: 0.9, low: 0.7, high: 0.9, p: 0.01, items: 20 }).at(0.95);
    expect(near.mean).toBeCloseTo(0.5, 12);
    expect(near.high).toBeCloseTo(1, 6);
    const full = { value: 1, low: 1, high: 1, p: 1, items: 20 };
    expect(aboveShuffled(full).at(0.95)).toMatchObject({ mean: 0, low: -1, high: 1 });
    expect(aboveShuffled({ ...found, p: 0.002 }).at(0.95)).toMatchObject({ mean: 0.5, items: 20 });
    expect(aboveShuffled({ ...found, p: 0.002 }).at(0.95).low).toBeCloseTo(0.3, 6);
    expect(aboveShuffled({ ...found, p: 0.03 }).at(0.95).low).toBe(0);
  });
});
