import { describe, expect, test } from "vitest";
import { checkTensor } from "../../src/parity/checks.ts";
import {
  expand,
  OMITTED,
  readThinned,
  type Thinned,
  thin,
  thinnedMetadata,
} from "../../src/parity/thinned.ts";
import { randomArray } from "../helpers/compare.ts";

const TOLERANCE = { atol: 1e-4, rtol: 1e-4 };
const values = randomArray(120, 1);
const largestAt = values.reduce((at, x, i) => (Math.abs(x) > Math.abs(values[at]!) ? i : at), 0);

function expanded(thinned: Thinned): Float32Array {
  return expand(thin(values, thinned)!, thinned, "test");
}

describe.each([
  ["the largest is kept besides", { shape: [12, 10], every: 7, largest: largestAt }],
  ["the largest is among those kept", { shape: [12, 10], every: 7, largest: 70 }],
])("a thinned golden, %s", (_, thinned: Thinned) => {
  test("keeps every seventh number and the largest", () => {
    const kept = [...values.keys()].filter((i) => i % 7 === 0 || i === thinned.largest);
    const found = expanded(thinned);
    expect(found.length).toBe(values.length);
    for (const i of values.keys()) expect(found[i]).toBe(kept.includes(i) ? values[i] : OMITTED);
    expect(checkTensor("x", [values], [found], TOLERANCE)).toMatchObject({
      passed: true,
      elements: kept.length,
      cosine: 1,
    });
  });

  test("is missed where a kept number is off, NaN too, and only there", () => {
    for (const [change, passed] of [
      [(i: number) => i % 7 === 0, false],
      [(i: number) => i === thinned.largest, false],
      [(i: number) => i % 7 !== 0 && i !== thinned.largest, true],
    ] as const) {
      for (const by of [0.01, Number.NaN]) {
        const off = values.map((x, i) => (change(i) ? x + by : x));
        expect(checkTensor("x", [off], [expanded(thinned)], TOLERANCE).passed).toBe(passed);
      }
    }
  });

  test("is refused where numbers are missing", () => {
    const kept = thin(values, thinned)!;
    expect(() => expand(kept.subarray(1), thinned, "test")).toThrow(
      `test: expected ${kept.length} numbers of [12,10], found ${kept.length - 1}`,
    );
  });
});

test("nothing kept is no agreement", () => {
  const none = new Float32Array(4).fill(OMITTED);
  expect(checkTensor("x", [new Float32Array(4)], [none], TOLERANCE).passed).toBe(false);
});

test("values that could be taken for ones left out are not thinned", () => {
  const rule = { every: 7, largest: 0 };
  expect(thin(Float32Array.of(1, OMITTED), rule)).toBeUndefined();
  expect(thin(Float32Array.of(1, Number.NaN), rule)).toBeUndefined();
});

test("metadata that makes no sense are refused by name", () => {
  const thinned = { shape: [12, 10], every: 7, largest: 3 };
  const read = (change: Partial<Thinned>) =>
    readThinned(
      new Map(Object.entries(thinnedMetadata(new Map([["a", { ...thinned, ...change }]])))),
      "file",
    );
  expect(read({})).toEqual(new Map([["a", thinned]]));
  for (const change of [{ every: 0 }, { every: 1.5 }, { largest: 120 }, { shape: [-1, 10] }]) {
    expect(() => read(change)).toThrow(/file: a is said to be thinned/);
  }
});
