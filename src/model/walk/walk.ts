import type { Device } from "../../tensor/device.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import type { SiteEvent, Visitor, Walk } from "./site-events.ts";

/** Runs a walk to its end, showing every site event to the visitor. */
export function drive<T>(walk: Walk<T>, visitor: Visitor): T {
  try {
    for (;;) {
      const step = walk.next();
      if (step.done) return step.value;
      visitor.visit(step.value);
    }
  } finally {
    walk.return(undefined as never); // after a visitor's error the walk has memory to give back
  }
}

/**
 * Gives a walk a memory scope of its own, entered only while the walk itself runs: what it allocates goes when it ends
 * (or is broken off), except its result. What the one who drives it allocates between two steps is not touched, and
 * several walks can be driven in turns.
 */
export function* scoped<T>(device: Device, body: () => Walk<T>): Walk<T> {
  const scope = device.openScope();
  const walk = scope.enter(body);
  try {
    for (;;) {
      const step: IteratorResult<SiteEvent, T> = scope.enter(() => walk.next());
      if (step.done) return scope.release(step.value);
      yield step.value;
    }
  } finally {
    scope.enter(() => walk.return(undefined as never));
    scope.dispose();
  }
}

/** Disposes of the stream that a block has gone on from to `next`. One that a visitor put in belongs to the visitor. */
export function giveBack(x: Tensor, next: Tensor): void {
  if (x !== next && x.scope !== undefined && x.scope === x.device.currentScope) x.dispose();
}
