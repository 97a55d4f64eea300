import { describe, expect, test } from "vitest";
import { bytesOf, KnownAnswers } from "../../web/src/known-answers.ts";

const numbers = (count: number) => ({ data: new Float32Array(count) });

describe("answers that are kept", () => {
  test("those used last stay, as many as there is room for", () => {
    const known = new KnownAnswers({ bytes: 10_000, answers: 100 });
    for (const key of ["a", "b"]) known.keep(key, numbers(1000));
    expect(known.get("a")).toEqual(numbers(1000));
    known.keep("c", numbers(1000));
    expect(["a", "b", "c"].map((key) => known.has(key))).toEqual([true, false, true]);
    expect(known.bytes).toBeLessThanOrEqual(10_000);
  });

  test("a large one pushes out many small ones, not one of them", () => {
    const known = new KnownAnswers({ bytes: 10_000, answers: 100 });
    for (let i = 0; i < 50; i++) known.keep(`small ${i}`, numbers(20));
    known.keep("large", numbers(2400));
    expect(known.has("large")).toBe(true);
    expect(known.has("small 40")).toBe(false);
    expect(known.bytes).toBeLessThanOrEqual(10_000);
  });

  test("the newest is kept whatever its size, and alone if it must", () => {
    const known = new KnownAnswers({ bytes: 1000, answers: 100 });
    known.keep("small", 1);
    known.keep("larger than all", numbers(10_000));
    expect(known.has("larger than all")).toBe(true);
    expect(known.has("small")).toBe(false);
    known.keep("next", 2);
    expect(known.has("larger than all")).toBe(false);
  });

  test("there are no more than so many, however small they are", () => {
    const known = new KnownAnswers({ bytes: 2 ** 30, answers: 3 });
    for (const key of ["a", "b", "c", "d"]) known.keep(key, 1);
    expect(["a", "b", "c", "d"].map((key) => known.has(key))).toEqual([false, true, true, true]);
  });

  test("one that is kept again counts once", () => {
    const known = new KnownAnswers({ bytes: 10_000, answers: 100 });
    known.keep("a", numbers(1000));
    const { bytes } = known;
    known.keep("a", numbers(1000));
    expect(known.bytes).toBe(bytes);
  });

  test("undefined is an answer too", () => {
    const known = new KnownAnswers({ bytes: 1000, answers: 100 });
    known.keep("nothing", undefined);
    expect(known.has("nothing")).toBe(true);
    expect(known.get("nothing")).toBeUndefined();
  });

  test("arrays of numbers count by their bytes, in whatever they lie", () => {
    expect(bytesOf({ taps: [{ data: new Float32Array(100) }] })).toBeGreaterThanOrEqual(400);
    expect(bytesOf("abc")).toBe(14);
  });
});
