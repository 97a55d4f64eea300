import type { Figure } from "../report/figure.ts";
import type { Table } from "../report/table.ts";
import type { Estimate } from "../statistics/estimate.ts";
import type { Cell } from "./cell.ts";
import type { Lab } from "./lab.ts";

export type Outcome =
  | "replicates"
  | "replicates in part"
  | "does not replicate"
  | "too few items to tell"
  | "not testable here"
  /** Cells are missing, in a grid. */
  | "incomplete";

/** What is known of a part of a claim, or of a comparison that it rests on. */
export type Status = "holds" | "ruled out" | "open";

/** A comparison that a verdict rests on. */
export interface Check {
  /** The part of the claim that it belongs to. */
  readonly part: string;
  readonly what: string;
  /** With its 95 % interval; absent where it could not be made. */
  readonly estimate?: Estimate;
  readonly hasToBe: string;
  readonly status: Status;
}

export interface Verdict {
  readonly outcome: Outcome;
  /** Why, with the numbers that decide it. */
  readonly because: string;
  readonly checks: readonly Check[];
  /** Which control would sink the claim. */
  readonly sunkBy?: string;
}

/** What an experiment found: a section of the report. */
export interface Findings {
  /** What the reader has to know before the claim: the first words of the section. */
  readonly preface?: string;
  readonly verdict: Verdict;
  /** Paragraphs before the figures. */
  readonly text: readonly string[];
  readonly figures: readonly Figure[];
  readonly tables: readonly Table[];
  /** What shows that the result is not something else. */
  readonly controls: readonly Table[];
}

/** One finding of the paper (or beyond it), from its cells to its section of the report. */
export interface Experiment {
  /** Its name on the command line. */
  readonly name: string;
  readonly title: string;
  /** What is claimed, in a sentence. */
  readonly claim: string;
  /** Whether `reproduce` leaves it out unless everything is asked for: what takes long, or comes out otherwise each time. */
  readonly onlyInFull?: boolean;
  /** Why the lab cannot test the claim, if it cannot. */
  untestable?(lab: Lab): string | undefined;
  /** Everything to be computed, in order; cells that others have computed already cost nothing. */
  cells(lab: Lab): readonly Cell<unknown>[];
  /** From the results of the cells alone, so that it can be made again at any time. */
  report(lab: Lab): Findings;
}
