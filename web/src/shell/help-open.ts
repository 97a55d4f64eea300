import { signal } from "@preact/signals";

/** Whether the list of keys is shown. */
export const helpIsOpen = signal(false);

export function openHelp(): void {
  helpIsOpen.value = true;
}

export function closeHelp(): void {
  helpIsOpen.value = false;
}
