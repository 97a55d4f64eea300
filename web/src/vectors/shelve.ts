import { model } from "../model.ts";
import { store } from "../state.ts";
import { type Recipe, recipeName } from "./recipe.ts";
import { firstLayer, SHELF, withVector } from "./shelf.ts";

/** Puts a vector on the shelf. Throws where there is no room. */
export function shelve(recipe: Recipe, layer?: number, name = recipeName(recipe)): string {
  const state = model.peek();
  const layers = state.status === "ready" ? state.summary.layers : 1;
  let id = "";
  store.set(SHELF, `make ${name}`, (shelf) => {
    const made = withVector(shelf, { name, recipe, layer: layer ?? firstLayer(layers) });
    id = made.id;
    return made.shelf;
  });
  return id;
}

/** What a vector of the shelf is called. */
export function nameOnShelf(id: string): string {
  return (
    store
      .slice(SHELF)
      .peek()
      .vectors.find((each) => each.id === id)?.name ?? id
  );
}
