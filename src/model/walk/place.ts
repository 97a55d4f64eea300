import type { Device } from "../../tensor/device.ts";
import type { Walk } from "./site-events.ts";
import type { SitePrefix } from "./sites.ts";

/** A part of a model: a block of one of its stacks, or what lies before and behind the blocks. */
export type Place =
  | { readonly part: "block"; readonly stack: SitePrefix; readonly index: number }
  /** Up to what enters the first block, less the blocks of other stacks: embeddings, projectors. */
  | { readonly part: "embed" }
  /** The final norm and the logits. */
  | { readonly part: "head" };

/** Tells whoever profiles the device where in a model the work of a walk belongs. */
export function at<T>(device: Device, place: Place, walk: Walk<T>): Walk<T> {
  return device.profiler ? placed(device, place, walk) : walk;
}

/** The walk is at its place only while it runs itself; several may be driven in turns. */
function* placed<T>(device: Device, place: Place, walk: Walk<T>): Walk<T> {
  const next = () => {
    const { profiler } = device;
    if (!profiler) return walk.next();
    const outer = profiler.place;
    profiler.place = place;
    try {
      return walk.next();
    } finally {
      profiler.place = outer;
    }
  };
  try {
    for (;;) {
      const step = next();
      if (step.done) return step.value;
      yield step.value;
    }
  } finally {
    walk.return(undefined as never);
  }
}
