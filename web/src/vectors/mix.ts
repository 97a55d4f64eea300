import type { MixRecipe, Recipe } from "./recipe.ts";

/** Between two vectors: `amount` of the second, the rest of the first. */
export function mixOf(first: Recipe, second: Recipe, amount: number): MixRecipe {
  return {
    kind: "mix",
    parts: [
      { recipe: first, weight: rounded(1 - amount) },
      { recipe: second, weight: rounded(amount) },
    ],
  };
}

/** As it is written: 0.35, not 0.35000000000000003. */
function rounded(weight: number): number {
  return Math.round(weight * 1e6) / 1e6;
}
