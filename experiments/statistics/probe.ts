import { CholeskyDecomposition, Matrix } from "ml-matrix";
import type { Points } from "./points.ts";
import { dot } from "./vectors.ts";

/** Of the mean squared norm of the training points. */
const RIDGE = 0.01;

export interface Labelled {
  readonly points: Points;
  readonly labels: readonly string[];
}

/**
 * The labels that a linear classifier trained on `train` gives to points: ridge regression onto the classes, in its dual
 * form since there are fewer points than features (Hastie et al. 2009, 18.3.5). The penalty is fixed, not tuned.
 */
export function probe(train: Labelled, points: Points): string[] {
  const classes = [...new Set(train.labels)];
  const width = train.points[0]!.length;
  const mean = Float64Array.from({ length: width }, (_, i) =>
    train.points.reduce((sum, point) => sum + point[i]! / train.points.length, 0),
  );
  const less = (point: ArrayLike<number>) => Float64Array.from(point, (x, i) => x - mean[i]!);
  const known = train.points.map(less);
  const products = new Matrix(known.map((a) => known.map((b) => dot(a, b))));
  const penalty = (RIDGE * products.trace()) / known.length || 1;
  const targets = new Matrix(
    train.labels.map((label) => classes.map((one) => (one === label ? 1 : 0) - 1 / classes.length)),
  );
  const weights = new CholeskyDecomposition(
    Matrix.add(products, Matrix.mul(Matrix.eye(known.length), penalty)),
  ).solve(targets);
  return points.map((point) => {
    const asked = less(point);
    const scores = new Matrix([known.map((a) => dot(a, asked))]).mmul(weights).getRow(0);
    return classes[scores.indexOf(Math.max(...scores))]!;
  });
}

/**
 * Whether each point is labelled rightly by a probe trained without its fold: 1 or 0. Points that belong together (the
 * same item) have to be in one fold.
 */
export function crossValidated({ points, labels }: Labelled, folds: readonly number[]): number[] {
  const right = new Array<number>(points.length).fill(0);
  for (const fold of new Set(folds)) {
    const part = <T>(list: ArrayLike<T>, inside: boolean) =>
      Array.from(list).filter((_, i) => (folds[i] === fold) === inside);
    const train = { points: part(points, false), labels: part(labels, false) };
    if (train.points.length === 0) throw new RangeError("expected at least two folds, found one");
    const given = probe(train, part(points, true));
    const indices = part([...points.keys()], true);
    indices.forEach((index, i) => {
      right[index] = given[i] === labels[index] ? 1 : 0;
    });
  }
  return right;
}
