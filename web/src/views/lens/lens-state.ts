import { signal } from "@preact/signals";
import { type Choice, chooseCell, type Place } from "./places.ts";

/* What is under the reader's hand: of this page alone, no part of the document. */

export type SideName = "source" | "target";

export const choices: Readonly<Record<SideName, ReturnType<typeof signal<Choice>>>> = {
  source: signal(chooseCell({ position: 0, layer: 0 })),
  target: signal(chooseCell({ position: 0, layer: 0 })),
};

/** What has been picked up in the source: by a key or a button, or by dragging. */
export const carried = signal<{ readonly place: Place; readonly by: "hand" | "drag" } | undefined>(undefined);

/** Where it would come to lie. */
export const aimed = signal<Place | undefined>(undefined);
