/** Most layers of a grid with a second dimension: the patches are as many as its squares. */
const MOST_LAYERS = 12;

/** For the captions of such grids. */
export const SPREAD_NOTE = `Of models with more than ${MOST_LAYERS} layers so many at even distances.`;

/** All layers, or of a deep model so many at even distances, with the first and the last. */
export function spread(layers: number): number[] {
  const count = Math.min(layers, MOST_LAYERS);
  return Array.from({ length: count }, (_, i) => Math.round((i * (layers - 1)) / Math.max(1, count - 1)));
}
