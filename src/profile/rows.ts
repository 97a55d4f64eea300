import { STACKS } from "../model/walk/sites.ts";
import { grouped } from "./grouped.ts";
import type { Limits } from "./limits.ts";
import { type Dispatch, msOf } from "./profile-work.ts";

/** What some dispatches came to. */
export interface Total {
  readonly dispatches: number;
  /** Sum of the times of the dispatches. */
  readonly ms: number;
  /** Of the elements bound, each counted once a dispatch: what has to be moved where no cache helps. */
  readonly bytes: number;
  /** Of products and attention. */
  readonly flops: number;
  /** Bind groups that were made for them; none where the caches do their work. */
  readonly bindGroups: number;
  /** The time that memory and arithmetic would take at the adapter's limits, whichever is longer, over the time taken. */
  readonly ofLimit: number;
}

/** Times and traffic of the dispatches of one name. */
export interface ProfileRow extends Total {
  readonly name: string;
  /** Of the time of all rows. */
  readonly share: number;
}

/** A row of a kernel in one operation with inputs of one kind. */
export interface KernelRow extends ProfileRow {
  readonly operation: string;
  /** Of the operation's inputs, with their dtypes. */
  readonly inputs: string;
}

/** By kernel, operation and inputs, those that take longest first. */
export function kernelRows(dispatches: readonly Dispatch[], limits: Limits): KernelRow[] {
  const groups = grouped(
    dispatches,
    ({ kernel, operation }) => `${kernel}\n${operation?.name}\n${operation?.inputs}`,
  );
  const shares = arithmeticShares(dispatches);
  const whole = total(dispatches, limits, shares);
  return [...groups.values()]
    .map((own): KernelRow => {
      const [{ kernel, operation }] = own as [Dispatch];
      const { name = "", inputs = "" } = operation ?? {};
      return { ...row(kernel, own, whole.ms, limits, shares), operation: name, inputs };
    })
    .sort((a, b) => b.ms - a.ms);
}

/** By part of the model, in the order in which they are first come to. */
export function placeRows(dispatches: readonly Dispatch[], limits: Limits): ProfileRow[] {
  const shares = arithmeticShares(dispatches);
  const whole = total(dispatches, limits, shares);
  return [...grouped(dispatches, placeName)].map(([name, own]) => row(name, own, whole.ms, limits, shares));
}

/** What a place is called: `embed`, `block 3`, `vision block 0`, `head`; and what lies in none, such as the choice of a token. */
export function placeName({ place }: Dispatch): string {
  if (!place) return "elsewhere";
  if (place.part !== "block") return place.part;
  const [stack] = Object.entries(STACKS).find(([, prefix]) => prefix === place.stack)!;
  return `${stack === "text" ? "" : `${stack} `}block ${place.index}`;
}

export function totalOf(dispatches: readonly Dispatch[], limits: Limits): Total {
  return total(dispatches, limits, arithmeticShares(dispatches));
}

function row(
  name: string,
  dispatches: readonly Dispatch[],
  wholeMs: number,
  limits: Limits,
  shares: ReadonlyMap<Dispatch, number>,
): ProfileRow {
  const sum = total(dispatches, limits, shares);
  return { name, ...sum, share: wholeMs > 0 ? sum.ms / wholeMs : 0 };
}

function total(
  dispatches: readonly Dispatch[],
  limits: Limits,
  shares: ReadonlyMap<Dispatch, number>,
): Total {
  const sum = { ms: 0, bytes: 0, flops: 0, bindGroups: 0 };
  let leastMs = 0;
  for (const dispatch of dispatches) {
    const bytes = bytesOf(dispatch);
    const flops = shares.get(dispatch) ?? 0;
    sum.ms += msOf(dispatch);
    sum.bytes += bytes;
    sum.flops += flops;
    sum.bindGroups += dispatch.bindGroups;
    leastMs += Math.max(bytes / limits.gbPerSecond, flops / limits.gflops) / 1e6;
  }
  return { dispatches: dispatches.length, ...sum, ofLimit: sum.ms > 0 ? leastMs / sum.ms : 0 };
}

const bytesOf = ({ readBytes, writtenBytes }: Dispatch): number => readBytes + writtenBytes;

/** Floating-point operations by dispatch: an operation of several shares its own out among them by time. */
function arithmeticShares(dispatches: readonly Dispatch[]): Map<Dispatch, number> {
  const shares = new Map<Dispatch, number>();
  for (const [operation, own] of grouped(dispatches, ({ operation }) => operation)) {
    if (operation?.flops === undefined) continue;
    const ms = own.reduce((sum, dispatch) => sum + msOf(dispatch), 0);
    for (const dispatch of own) {
      shares.set(dispatch, operation.flops * (ms > 0 ? msOf(dispatch) / ms : 1 / own.length));
    }
  }
  return shares;
}
