import type { JSX } from "preact";
import { store } from "../../state.ts";
import { SHELF } from "../../vectors/shelf.ts";
import { letterOf } from "./held.ts";

const COLOURS = 6;

/** The letter of a vector of the shelf, on its colour. */
export function Badge({ id }: { id: string }): JSX.Element {
  const { vectors } = store.slice(SHELF).value;
  const index = vectors.findIndex((each) => each.id === id);
  return (
    <span class="badge" style={`--category:var(--category-${index % COLOURS})`} title={vectors[index]?.name}>
      {index < 0 ? "?" : letterOf(index)}
    </span>
  );
}
