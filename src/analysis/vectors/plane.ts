import { TSNE } from "@keckelt/tsne";
import { PCA } from "ml-pca";
import { checkArgument, type Expected } from "../../arguments.ts";
import { seededNumbers } from "../../model/walk/sampling.ts";

/** A point of the plane for each vector: x and y. */
export type Plane = readonly (readonly [x: number, y: number])[];

const STEPS = 500;

const somePoints: Expected = {
  words: "at least two vectors of one length",
  holds: (points) =>
    Array.isArray(points) && points.length > 1 && points.every(({ length }) => length === points[0].length),
};

/** The first two principal components of each point (Pearson 1901), and the shares of the variance along them. */
export function principalPlane(points: readonly ArrayLike<number>[]): {
  readonly plane: Plane;
  readonly explained: readonly [number, number];
} {
  checkArgument("principalPlane", "points", points, somePoints);
  const rows = points.map((point) => Array.from(point));
  const pca = new PCA(rows, { method: "SVD" });
  const plane = pca
    .predict(rows, { nComponents: 2 })
    .to2DArray()
    .map(([x, y]): [number, number] => [x!, y ?? 0]);
  const [first = 0, second = 0] = pca.getExplainedVariance();
  return { plane, explained: [first, second] };
}

/**
 * t-SNE (van der Maaten and Hinton 2008) of distances [points, points], from a seeded start: the same every time.
 *
 * @param seed of the start. Default 0.
 */
export function neighbourPlane(distances: readonly (readonly number[])[], { seed = 0 } = {}): Plane {
  checkArgument("neighbourPlane", "distances", distances, somePoints);
  const perplexity = Math.max(2, Math.min(30, (distances.length - 1) / 3));
  const tsne = new SeededTsne({ dim: 2, perplexity, epsilon: 10 }, seed);
  tsne.initDataDist(distances);
  for (let step = 0; step < STEPS; step++) tsne.step();
  return tsne.getSolution().map(([x, y]: number[]) => [x!, y!]);
}

/** The package draws its start from Math.random by this method. */
class SeededTsne extends TSNE {
  readonly #random: () => number;

  constructor(options: ConstructorParameters<typeof TSNE>[0], seed: number) {
    super(options);
    this.#random = seededNumbers(seed);
  }

  /** A standard normal number (Box and Muller 1958). */
  override gaussRandom(): number {
    return Math.sqrt(-2 * Math.log(1 - this.#random())) * Math.cos(2 * Math.PI * this.#random());
  }
}
