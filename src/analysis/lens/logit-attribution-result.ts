import { aCount, checkArgument } from "../../arguments.ts";
import { INSPECT } from "../../inspect.ts";
import { shortToken, textTable } from "../text-table.ts";

/** What one part of a model adds to a logit. */
export interface LogitComponent {
  /** `embed`, `z.5 head 3`, `mlp_out.7`, `b_O.2`, `final_norm bias`, `b_U` */
  readonly name: string;
  /** Absent outside the layers. */
  readonly layer?: number;
  /** Of `z`: which head. */
  readonly head?: number;
  /** What it adds to the logit, or to the difference. */
  readonly value: number;
}

/** Components that text shows. */
const SHOWN = 20;

/** A logit, or the difference of two, taken apart. */
export class LogitAttribution {
  /** In the order of the forward pass. */
  readonly components: readonly LogitComponent[];
  /** The answer, and what it was compared with. */
  readonly tokens: readonly string[];
  readonly position: number;

  constructor(
    components: readonly LogitComponent[],
    { tokens, position }: { tokens: readonly string[]; position: number },
  ) {
    this.components = components;
    this.tokens = tokens;
    this.position = position;
  }

  /** The sum of all components: the logit, or the difference. */
  get total(): number {
    return this.components.reduce((sum, { value }) => sum + value, 0);
  }

  /** Components, the largest first, whether for the answer or against it. */
  top(count: number = Number.POSITIVE_INFINITY): LogitComponent[] {
    checkArgument("top", "count", count, aCount);
    return this.components.toSorted((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, count);
  }

  /** The largest contributions as a table. */
  toString(): string {
    const tokens = this.tokens.map((token) => shortToken(token, 20)).join(" − ");
    const rows = this.top(SHOWN).map(({ name, value }) => [name, value.toFixed(3)]);
    const more = this.components.length - SHOWN;
    return (
      `logit of ${tokens} at position ${this.position}: ${this.total.toFixed(3)}, of which\n${textTable(rows)}` +
      (more > 0 ? `\nand ${more} more` : "")
    );
  }

  [INSPECT](): string {
    return this.toString();
  }
}
