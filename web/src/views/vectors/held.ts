import { signal } from "@preact/signals";

/** The vector that has been picked up with the keyboard or a click, to be put on a picture. Of the moment, not of the document. */
export const held = signal<string | undefined>(undefined);

/** What is dragged: the id of a vector of the shelf. */
export const VECTOR_TYPE = "application/x-xpatch-vector";

export function carriesVector(event: DragEvent): boolean {
  return event.dataTransfer?.types.includes(VECTOR_TYPE) ?? false;
}

/** A, B, …: what a vector is called where there is no room for its name. */
export function letterOf(index: number): string {
  return String.fromCharCode(65 + (index % 26));
}
