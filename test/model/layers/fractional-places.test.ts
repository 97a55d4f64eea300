import { expect, test } from "vitest";
import { fractionalPlaces } from "../../../src/model/layers/towers/fractional-places.ts";

/** What torch.bucketize makes of the fractions in transformers 5.24 (torch 2.15 with AVX2). */
const BY_TORCH: readonly (readonly [count: number, side: number, places: readonly number[]])[] = [
  [19, 19, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11, 13, 14, 15, 16, 17, 18]],
  [25, 25, [0, 1, 2, 3, 4, 4, 6, 7, 8, 8, 9, 10, 11, 12, 14, 14, 16, 17, 17, 19, 19, 21, 22, 22, 24]],
  [25, 20, [0, 0, 1, 2, 3, 3, 4, 5, 6, 7, 7, 8, 9, 10, 11, 12, 12, 13, 14, 15, 15, 16, 17, 18, 19]],
  [7, 20, [0, 2, 5, 8, 11, 14, 17]],
];

test("fractions on the border of two buckets fall where torch has them", () => {
  for (const [count, side, places] of BY_TORCH) expect(fractionalPlaces(count, side)).toEqual(places);
});

test("with the sizes of published towers each patch has a place of its own", () => {
  for (const side of [16, 24, 26, 27, 32, 70]) {
    expect(fractionalPlaces(side, side)).toEqual(Array.from({ length: side }, (_, i) => i));
  }
});
