import type { VectorSummary } from "../../../src/session/messages/results.ts";
import type { Asking } from "../ask.ts";
import { promptSpec } from "../prompts/prompt-spec.ts";
import type { Recipe } from "./recipe.ts";
import { Shared } from "./shared.ts";
import { vectorFile } from "./vector-files.ts";

/** Vectors of all layers of the shipped model take 70 kB each. */
const MOST_VECTORS = 64;

const vectors = new Shared<VectorSummary>(MOST_VECTORS, ({ vector }, client) => {
  client.freeVector({ vector }).catch(() => {});
});

/** The vector of a recipe by the page's model: made once, for all that use it. */
export function vectorOf(asking: Asking, recipe: Recipe): Promise<VectorSummary> {
  return vectors.get(asking, JSON.stringify(recipe), (own) => make(own, recipe));
}

async function make(asking: Asking, recipe: Recipe): Promise<VectorSummary> {
  const { client, model, signal, onProgress } = asking;
  const options = { signal, onProgress };
  switch (recipe.kind) {
    case "examples": {
      const { task, asked, count, seed, items } = recipe;
      const specify = { kind: asked, count, seed };
      return client.makeVector({ model, recipe: { task, specify, items } }, options);
    }
    case "instruction":
      // Where the library reads the vector of an instruction: its last token, before any question.
      return client.makeVector({ model, recipe: { prompts: [{ parts: recipe.text }], at: -1 } }, options);
    case "mix": {
      const parts: { vector: VectorSummary["vector"]; weight: number }[] = [];
      for (const part of recipe.parts) {
        parts.push({ vector: (await vectorOf(asking, part.recipe)).vector, weight: part.weight });
      }
      return client.mixVectors({ vectors: parts }, options);
    }
    case "place": {
      const { site, position: at, layer, head } = recipe;
      const prompt = await promptSpec(client, recipe.prompt);
      const from =
        layer === undefined
          ? { prompts: [prompt], at, site }
          : { prompt, at, site: `${site}.${layer}`, ...(head !== undefined && { head }) };
      return client.makeVector({ model, recipe: from }, options);
    }
    case "file":
      return client.loadVector({ model, bytes: vectorFile(recipe), name: recipe.name }, options);
  }
}
