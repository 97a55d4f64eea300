import { signal } from "@preact/signals";

/** Which of its dialogs is open. Of the moment, not of the document. */
export const keepOpen = signal<"history" | "code" | undefined>(undefined);

export function openKeep(which: "history" | "code"): void {
  keepOpen.value = which;
}

export function closeKeep(): void {
  keepOpen.value = undefined;
}
