import { showEstimate } from "../report/table.ts";
import { type Estimate, LEVEL } from "../statistics/estimate.ts";
import type { Check, Status, Verdict } from "./experiment.ts";

/** What a claim says of a quantity: a difference, or how far something is above its chance. */
export interface Comparison {
  /** What is compared: `patch − no context`. */
  readonly what: string;
  /** `above`: more than 0. `not below`: not less than 0 by `size` or more. */
  readonly test: "above" | "not below";
  /**
   * The effect that counts, in the quantity's units: an interval that ends below it rules the comparison out. Without one
   * the comparison has to hold, but cannot be ruled out.
   */
  readonly size?: number;
}

/** A part of a claim, which holds where all its comparisons do. */
export interface ClaimPart {
  /** What it says, in a few words. */
  readonly says: string;
  readonly comparisons: Readonly<Record<string, Comparison>>;
}

/** How an experiment comes to its verdict, fixed before it is run. */
export interface Rule {
  /** Which control would sink the claim by doing as well, and what would then be true in its place. */
  readonly sunkBy?: string;
  /** Whether a part means nothing unless those before it hold. */
  readonly order: "each presupposes those before" | "each by itself";
  readonly parts: Readonly<Record<string, ClaimPart>>;
}

/** An interval at any level; `of` tells it from others of the same comparison. */
export interface Contrast {
  readonly of?: string;
  readonly at: (level: number) => Estimate;
}

/** For each comparison of a rule what was found: one contrast, or several that all have to hold; none leaves it open. */
export type Contrasts<R extends Rule> = {
  readonly [P in keyof R["parts"]]: {
    readonly [C in keyof R["parts"][P]["comparisons"]]: Contrast | readonly Contrast[];
  };
};

/**
 * Applies a rule.
 *
 * All contrasts clearly on the right side at 95 %: *replicates* (as all have to be, none needs a correction). Else parts
 * are counted. Of parts that stand by themselves one alone may hold, so that each is asked at 1 − 5 % / parts; where each
 * presupposes those before, at 95 %. A part is ruled out by any of its contrasts, so that all of the rule share 5 %
 * (Bonferroni).
 *
 * What is above 0 but clearly less than the effect that counts is ruled out.
 *
 * *Replicates in part*: a part (in an order, the first) holds, another is ruled out. *Does not replicate*: all parts (in an
 * order, the first) are ruled out. Everything else: *too few items to tell*. An interval over fewer than ten inputs
 * decides nothing.
 *
 * @param numbers - What else the reader should see, at the end of the reason.
 */
export function judged<R extends Rule>(rule: R, contrasts: Contrasts<R>, numbers = ""): Verdict {
  const given: Readonly<Record<string, Readonly<Record<string, Contrast | readonly Contrast[]>>>> = contrasts;
  const parts = Object.entries(rule.parts).map(([name, part]) => ({
    part,
    found: Object.entries(part.comparisons).flatMap(([key, comparison]): Found[] => {
      const list = [given[name]![key]!].flat();
      return list.length > 0 ? list.map((contrast) => ({ comparison, contrast })) : [{ comparison }];
    }),
  }));
  const refutable = parts.flatMap(({ found }) =>
    found.filter(({ comparison, contrast }) => contrast && comparison.size !== undefined),
  );
  const alone = rule.order === "each by itself";
  const levels: Levels = {
    hold: alone ? 1 - (1 - LEVEL) / parts.length : LEVEL,
    ruleOut: 1 - (1 - LEVEL) / Math.max(1, refutable.length),
  };
  const all = parts.every(({ found }) =>
    found.every((one) => statusOf(one, { ...levels, hold: LEVEL }) === "holds"),
  );
  const used = all ? { ...levels, hold: LEVEL } : levels;
  const judgedParts = parts.map(({ part, found }): JudgedPart => {
    const checks = found.map((one) => checkOf(part.says, one, used));
    return { says: part.says, status: statusOfPart(checks), checks };
  });
  const because = judgedParts.map(sentenceOf).join(". ");
  return {
    outcome: outcomeOf(
      judgedParts.map(({ status }) => status),
      alone,
    ),
    because: numbers === "" ? because : `${because}. ${numbers}`,
    checks: judgedParts.flatMap(({ checks }) => checks),
    ...(rule.sunkBy !== undefined && { sunkBy: rule.sunkBy }),
  };
}

/** The variance between fewer inputs is too uncertain to decide anything by. */
const FEWEST_INPUTS = 10;

/** Comparisons that a reason names of a part. */
const MOST_SHOWN = 2;

interface JudgedPart {
  readonly says: string;
  readonly status: Status;
  readonly checks: readonly Check[];
}

interface Levels {
  readonly hold: number;
  readonly ruleOut: number;
}

interface Found {
  readonly comparison: Comparison;
  readonly contrast?: Contrast;
}

function statusOf({ comparison: { test, size }, contrast }: Found, { hold, ruleOut }: Levels): Status {
  if (!contrast || contrast.at(LEVEL).items < FEWEST_INPUTS) return "open";
  // First: what is above 0 but clearly less than the effect that counts does not hold.
  if (size !== undefined && contrast.at(ruleOut).high < (test === "above" ? size : -size)) return "ruled out";
  const margin = test === "above" ? 0 : -(size ?? 0);
  return contrast.at(hold).low > margin ? "holds" : "open";
}

function checkOf(part: string, found: Found, levels: Levels): Check {
  const { comparison, contrast } = found;
  return {
    part,
    what: contrast?.of === undefined ? comparison.what : `${comparison.what} (${contrast.of})`,
    estimate: contrast?.at(LEVEL),
    hasToBe: hasToBe(comparison),
    status: statusOf(found, levels),
  };
}

function statusOfPart(checks: readonly Check[]): Status {
  const statuses = checks.map(({ status }) => status);
  if (statuses.includes("ruled out")) return "ruled out";
  return statuses.every((status) => status === "holds") ? "holds" : "open";
}

function outcomeOf(statuses: readonly Status[], alone: boolean): Verdict["outcome"] {
  const [first] = statuses;
  if (statuses.every((status) => status === "holds")) return "replicates";
  const ruledOut = alone ? statuses.every((status) => status === "ruled out") : first === "ruled out";
  if (ruledOut) return "does not replicate";
  const some = alone ? statuses.includes("holds") : first === "holds";
  return some && statuses.includes("ruled out") ? "replicates in part" : "too few items to tell";
}

/** A part's status, and the comparisons that decide it, the least clear first; of those that hold the least clear alone. */
function sentenceOf({ says, status, checks }: JudgedPart): string {
  const lowest = (end: "low" | "high") => (a: Check, b: Check) =>
    (a.estimate?.[end] ?? Number.NEGATIVE_INFINITY) - (b.estimate?.[end] ?? Number.NEGATIVE_INFINITY);
  const deciding = checks
    .filter((check) => check.status === status)
    .sort(lowest(status === "ruled out" ? "high" : "low"));
  const named = deciding.slice(0, status === "holds" ? 1 : MOST_SHOWN).map(shown);
  const more = deciding.length - named.length;
  const least = status === "holds" && more > 0 ? ", least clearly" : "";
  const others = status === "holds" || more === 0 ? "" : `; ${more} more`;
  return `${says}: ${status}${least} (${named.join("; ")}${others})`;
}

function shown({ what, estimate }: Check): string {
  return estimate ? `${what} ${showEstimate(estimate)}` : `${what}: not there`;
}

/** A verdict beside an experiment's own, as a paragraph. */
export function verdictText(of: string, { outcome, because }: Verdict): string {
  return `${of}: ${outcome}. ${because}.`;
}

/** `> 0; ruled out below 0.10`, as tables have it. */
export function hasToBe({ test, size }: Comparison): string {
  if (test === "not below") return `> −${show(size ?? 0)}; ruled out below −${show(size ?? 0)}`;
  return size === undefined ? "> 0" : `> 0; ruled out below ${show(size)}`;
}

function show(size: number): string {
  return Number.isInteger(size) ? `${size}` : size.toFixed(2);
}
