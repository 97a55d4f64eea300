import { store } from "../../state.ts";
import { toast } from "../../ui/toasts.tsx";
import { HAS_AMOUNT, type How, lensSlice, OPERATION_WORDS, withEdit } from "./lens-slice.ts";
import { aimed, carried } from "./lens-state.ts";
import { type Cell, type Extent, type Place, placeInWords, putAt } from "./places.ts";

/** Puts what is carried onto a cell of the target. Says so where it does not fit. */
export function put(how: How, cell: Cell, extent: Extent): void {
  const from = carried.peek()?.place;
  if (!from) return;
  const to = putAt(from, cell, extent);
  if (typeof to === "string") {
    toast(`Not put: ${to}.`, { bad: true });
    return;
  }
  letGo();
  if (how.operation === "zero") ablate(how, to, extent);
  else add(how, to, extent, from);
}

/** Sets a place of the target to zero: nothing is taken from the source. */
export function ablate(how: How, to: Place, extent: Extent): void {
  add({ ...how, operation: "zero" }, to, extent);
}

export function letGo(): void {
  carried.value = undefined;
  aimed.value = undefined;
}

function add(how: How, to: Place, extent: Extent, from?: Place): void {
  const { operation } = how;
  const label = `${OPERATION_WORDS[operation]} ${how.site} at ${placeInWords(to, extent.layers)}`;
  const { amount, ...rest } = how;
  store.set(lensSlice, label, (slice) =>
    withEdit(slice, {
      ...rest,
      operation,
      amount: HAS_AMOUNT.has(operation) ? amount : 1,
      ...(from && { from }),
      to,
    }),
  );
  toast(`${label}.`);
}
