import { readCount, readFields, readList, readString } from "../document/read.ts";
import { defineSlice } from "../document/slice.ts";
import { type Recipe, readRecipe } from "./recipe.ts";

/** A task vector on the shelf: how it is made, and the layer that it is put into. */
export type ShelfVector = {
  readonly id: string;
  readonly name: string;
  readonly recipe: Recipe;
  readonly layer: number;
};

export type Shelf = { readonly vectors: readonly ShelfVector[] };

const MOST_VECTORS = 24;

/** The vectors that the reader keeps, for all views. */
export const SHELF = defineSlice<Shelf>({
  name: "shelf",
  initial: { vectors: [] },
  read(value, at) {
    const fields = readFields(value, at, ["vectors"]);
    return { vectors: readList(fields["vectors"], `${at}.vectors`, readShelfVector, MOST_VECTORS) };
  },
});

function readShelfVector(value: unknown, at: string): ShelfVector {
  const fields = readFields(value, at, ["id", "name", "recipe", "layer"]);
  return {
    id: readString(fields["id"], `${at}.id`, 20),
    name: readString(fields["name"], `${at}.name`, 100),
    recipe: readRecipe(fields["recipe"], `${at}.recipe`),
    layer: readCount(fields["layer"], `${at}.layer`, 1000),
  };
}

/** With another vector behind those that there are, under an id of its own. */
export function withVector(
  { vectors }: Shelf,
  vector: Omit<ShelfVector, "id">,
): { readonly shelf: Shelf; readonly id: string } {
  if (vectors.length >= MOST_VECTORS)
    throw new Error(`the shelf holds ${MOST_VECTORS} vectors; take one off`);
  const last = vectors.reduce((most, { id }) => Math.max(most, Number(id.slice(1)) || 0), 0);
  const id = `v${last + 1}`;
  const names = new Set(vectors.map(({ name }) => name));
  const own = vector.name.slice(0, 90); // with a number behind it a name fits the document
  let name = own;
  for (let n = 2; names.has(name); n++) name = `${own} ${n}`;
  return { shelf: { vectors: [...vectors, { ...vector, name, id }] }, id };
}

export function withoutVector({ vectors }: Shelf, id: string): Shelf {
  return { vectors: vectors.filter((each) => each.id !== id) };
}

export function changeVector(
  { vectors }: Shelf,
  id: string,
  change: Partial<Omit<ShelfVector, "id">>,
): Shelf {
  return { vectors: vectors.map((each) => (each.id === id ? { ...each, ...change } : each)) };
}

/** Where a vector is put to begin with: seven tenths up, near where those of the shipped model work best (docs/model.md). */
export function firstLayer(layers: number): number {
  return Math.min(layers - 1, Math.floor(layers * 0.72));
}
