import type { ClaimPart, Comparison } from "./framework/rule.ts";

/* Comparisons that several rules share. */

/** A tenth of the answers: the difference of accuracies that counts. What the paper claims is .14 and more. */
export const ACCURACY = 0.1;

export const above = (what: string, size: number = ACCURACY) => ({ what, test: "above", size }) as const;

/** What has to be held against any accuracy: the answers that know nothing of the query. */
export function aboveConstants(what: string) {
  return {
    frequent: above(`${what} − the task's most frequent answer`),
    constant: { what: `${what} − the best constant answer`, test: "above" },
  } as const satisfies Record<string, Comparison>;
}

export function aboveControls(what: string) {
  return {
    noContext: above(`${what} − no context`),
    nearestTask: above(`${what} − vector of the nearest task`),
    anotherTask: above(`${what} − another task's vector`),
    meanOfTasks: above(`${what} − mean of the tasks' vectors`),
    random: above(`${what} − random vector`),
    ...aboveConstants(what),
  } as const satisfies Record<string, Comparison>;
}

/** What an accuracy with a name's residual stream at a picture's last token is held against. */
export function aboveEntities(way: string) {
  const what = `${way} with the name's residual stream`;
  return {
    picture: above(`${what} − the picture as it is`),
    another: above(`${what} − another item's name's`),
    meanName: above(`${what} − mean of the names'`),
    random: above(`${what} − random vector`),
    ...aboveConstants(what),
  } as const satisfies Record<string, Comparison>;
}

/** What examples say beyond which things are asked about and what answers look like (Min et al. 2022). */
export const MAPPING = {
  says: "what belongs to what tells the task, not the kind of answer alone",
  comparisons: { permutedAnswers: above("patch − vector of examples with permuted answers") },
} as const satisfies ClaimPart;
