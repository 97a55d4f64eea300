import { store } from "../state.ts";
import { changeVector, SHELF, type ShelfVector } from "./shelf.ts";

/** Puts a vector of the shelf into another layer; several in a row are one step. */
export function chooseLayer({ id, name }: ShelfVector, layer: number): void {
  store.set(
    SHELF,
    `put ${name} into layer ${layer}`,
    (shelf) => changeVector(shelf, id, { layer }),
    `layer ${id}`,
  );
}
