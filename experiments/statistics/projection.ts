import { TSNE } from "@keckelt/tsne";
import { PCA } from "ml-pca";
import type { Points } from "./points.ts";
import { normal, seededRandom } from "./random.ts";

export type Plane = readonly (readonly [number, number])[];

const STEPS = 500;
const SEED = 0;

/** The first two principal components of each point. */
export function principalPlane(points: Points): Plane {
  const pca = new PCA(
    points.map((point) => Array.from(point)),
    { method: "SVD" },
  );
  return pca
    .predict(
      points.map((point) => Array.from(point)),
      { nComponents: 2 },
    )
    .to2DArray()
    .map(([x, y]) => [x!, y ?? 0]);
}

/** t-SNE (van der Maaten and Hinton 2008) of distances, from a seeded start: the same every time. */
export function neighbourPlane(distances: readonly (readonly number[])[]): Plane {
  const perplexity = Math.max(2, Math.min(30, (distances.length - 1) / 3));
  const tsne = new SeededTsne({ dim: 2, perplexity, epsilon: 10 });
  tsne.initDataDist(distances);
  for (let step = 0; step < STEPS; step++) tsne.step();
  return tsne.getSolution().map(([x, y]: number[]) => [x!, y!]);
}

/** The package draws its start from Math.random by this method. */
class SeededTsne extends TSNE {
  readonly #random = seededRandom(SEED);

  override gaussRandom(): number {
    return normal(this.#random);
  }
}
