import { effect, signal } from "@preact/signals";
import { model } from "./model.ts";
import { store } from "./state.ts";

/** How many requests are being computed. */
export const activity = signal(0);

/** How many values are still being changed by hand, and are asked about when they rest. */
export const unsettled = signal(0);

/**
 * Whether nothing is computed, and nothing is going to be: what was changed last has been seen by all that depends on it. What one answer
 * makes another ask begins within this many milliseconds.
 */
export const rests = signal(false);
const PAUSE = 150;

let waiting: ReturnType<typeof setTimeout> | undefined;
effect(() => {
  void store.document.value;
  void model.value;
  const isIdle = activity.value === 0 && unsettled.value === 0;
  clearTimeout(waiting);
  rests.value = false;
  if (isIdle)
    waiting = setTimeout(() => {
      rests.value = true;
    }, PAUSE);
});
