import { effect, signal } from "@preact/signals";
import { model } from "../../model.ts";
import { modelStore } from "../../model-store.ts";
import type { Kept } from "../../models/model-store.ts";
import { toastError } from "../../ui/toasts.tsx";

/** What this browser keeps; undefined as long as nobody has looked. */
export const keptModels = signal<Kept | undefined>(undefined);

export async function lookAtKept(): Promise<void> {
  try {
    keptModels.value = await modelStore.list();
  } catch (error) {
    toastError(error);
  }
}

/** Looks again whenever a model has come or has been given up. */
export function followKept(): () => void {
  let before: string | undefined;
  return effect(() => {
    const { status } = model.value;
    if (status !== before) void lookAtKept();
    before = status;
  });
}
