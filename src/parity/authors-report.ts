import type { Setting } from "../patching/setting.ts";
import {
  type AuthorsComparison,
  type AuthorsRule,
  type Difference,
  type SplitCount,
  WAYS,
} from "./authors.ts";

/** What came out of comparing a model's answers with those of the authors' program. */
export interface AuthorsReport extends Setting, AuthorsComparison {
  readonly authors: string;
  /** How the weights were read. */
  readonly weights: string;
  readonly rule: AuthorsRule;
  readonly answers: AnswerCount;
  /** Whether all vectors agree, and all answers but ties. */
  readonly passed: boolean;
}

export interface AnswerCount {
  readonly compared: number;
  readonly same: number;
  readonly ties: number;
}

export function newAuthorsReport(
  parts: Setting & AuthorsComparison & Pick<AuthorsReport, "authors" | "weights" | "rule">,
): AuthorsReport {
  const answers = countOf(parts.counts, parts.differences);
  const { compared, same, ties } = answers;
  const passed = compared > 0 && same + ties === compared && parts.vectors.every((check) => check.passed);
  return { ...parts, answers, passed };
}

/** Counts over splits, and those of their differences that are ties. */
export function countOf(counts: readonly SplitCount[], differences: readonly Difference[]): AnswerCount {
  const sum = (what: "compared" | "same") =>
    counts.reduce((total, count) => total + WAYS.reduce((own, way) => own + count[what][way], 0), 0);
  return { compared: sum("compared"), same: sum("same"), ties: differences.filter(({ tie }) => tie).length };
}
