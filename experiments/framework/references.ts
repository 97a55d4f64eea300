import type { Reference } from "xpatch";
import { accuracy } from "../statistics/accuracy.ts";
import { type AskedTask, constantAnswers, type Judge } from "./constants.ts";
import type { Scoring } from "./scored.ts";

/** What always giving the same answer would come to, as lines over accuracies: of the mean over the tasks asked about. */
export function constantReferences(
  scoring: Scoring,
  asked: readonly AskedTask[],
  where: Omit<Reference, "label" | "y"> = {},
  judge?: Judge,
): Reference[] {
  const { frequent, constant } = constantAnswers(asked, scoring, judge);
  return [
    { label: "most frequent answer", y: accuracy(frequent).mean, ...where },
    { label: "best constant answer", y: accuracy(constant).mean, ...where },
  ];
}
