import type { Figure } from "../report/figure.ts";
import type { Table } from "../report/table.ts";
import type { Cell } from "./cell.ts";
import type { Lab } from "./lab.ts";

export type Outcome = "replicates" | "replicates in part" | "does not replicate" | "not testable here";

export interface Verdict {
  readonly outcome: Outcome;
  /** Why, with the numbers that decide it. */
  readonly because: string;
}

/** What an experiment found: a section of the report. */
export interface Findings {
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
  /** Why the lab cannot test the claim, if it cannot. */
  untestable?(lab: Lab): string | undefined;
  /** Everything to be computed, in order; cells that others have computed already cost nothing. */
  cells(lab: Lab): readonly Cell<unknown>[];
  /** From the results of the cells alone, so that it can be made again at any time. */
  report(lab: Lab): Findings;
}
