import { describe, expect, test } from "vitest";
import { RelativeBias, relativeBucket } from "../../../src/model/layers/attention/relative-bias.ts";
import { testDevice } from "../../helpers/device.ts";

/** Distances at which a bucket begins, from -maxDistance on, as transformers 5.24 has them: [distance, bucket]. */
const STARTS: Readonly<Record<string, readonly (readonly [number, number])[]>> = {
  // T5's own
  "32 128 true": [
    ...([
      [-128, 15],
      [-90, 14],
      [-63, 13],
      [-45, 12],
      [-31, 11],
      [-22, 10],
      [-15, 9],
      [-11, 8],
    ] as const),
    ...Array.from({ length: 8 }, (_, i) => [i - 7, 7 - i] as const),
    ...Array.from({ length: 8 }, (_, i) => [i + 1, 17 + i] as const),
    ...([
      [12, 25],
      [16, 26],
      [23, 27],
      [32, 28],
      [46, 29],
      [64, 30],
      [91, 31],
    ] as const),
  ],
  "32 128 false": [
    ...([
      [-128, 31],
      [-112, 30],
      [-98, 29],
      [-86, 28],
      [-76, 27],
      [-66, 26],
      [-58, 25],
      [-51, 24],
    ] as const),
    ...([
      [-45, 23],
      [-39, 22],
      [-34, 21],
      [-30, 20],
      [-26, 19],
      [-23, 18],
      [-20, 17],
      [-18, 16],
    ] as const),
    ...Array.from({ length: 16 }, (_, i) => [i - 15, 15 - i] as const),
  ],
  "16 24 true": [
    ...([
      [-24, 7],
      [-15, 6],
      [-9, 5],
      [-6, 4],
      [-3, 3],
      [-2, 2],
      [-1, 1],
      [0, 0],
    ] as const),
    ...([
      [1, 9],
      [2, 10],
      [3, 11],
      [4, 12],
      [7, 13],
      [10, 14],
      [16, 15],
    ] as const),
  ],
  "8 12 false": [
    [-12, 7],
    [-9, 6],
    [-6, 5],
    [-5, 4],
    [-3, 3],
    [-2, 2],
    [-1, 1],
    [0, 0],
  ],
};

describe.each(Object.entries(STARTS))("buckets, %s", (key, starts) => {
  const [buckets, maxDistance, side] = key.split(" ");
  const options = {
    buckets: Number(buckets),
    maxDistance: Number(maxDistance),
    bidirectional: side === "true",
  };

  test("begin where those of transformers do", () => {
    const found: [number, number][] = [];
    for (let distance = -options.maxDistance; distance <= options.maxDistance; distance++) {
      const bucket = relativeBucket(distance, options);
      if (bucket !== found.at(-1)?.[1]) found.push([distance, bucket]);
    }
    expect(found).toEqual(starts);
    for (const far of [-5, -1, 1, 5].map((n) => n * 1000)) {
      expect(relativeBucket(far, options)).toBe(
        relativeBucket(Math.sign(far) * options.maxDistance, options),
      );
    }
  });

  test("fill a table by distance and head", async () => {
    const device = await testDevice();
    const weight = device.tensor(
      Float32Array.from({ length: options.buckets * 2 }, (_, i) => i),
      { shape: [options.buckets, 2] },
    );
    const bias = new RelativeBias(device, weight, options);
    const values = await (bias.table() as import("../../../src/tensor/tensor.ts").Tensor<"f32">).read();
    expect(values.length).toBe((2 * options.maxDistance + 1) * 2);
    for (const distance of [-options.maxDistance, -1, 0, 3]) {
      const row = (distance + options.maxDistance) * 2;
      const bucket = relativeBucket(distance, options);
      expect([...values.slice(row, row + 2)]).toEqual([2 * bucket, 2 * bucket + 1]);
    }
    bias.dispose();
    weight.dispose();
  });
});
