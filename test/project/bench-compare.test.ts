import { expect, test } from "vitest";
import { compareJobs } from "../../bench/compare.ts";

const before = [
  { name: "decode", newTokens: 32, perToken: { bestMs: 100, dispatches: 456, bytesWritten: 28 } },
  { name: "prefill", bestMs: 10, dispatches: 396 },
];

test("jobs that do no more work than before pass, whatever time they take", () => {
  const now = [{ name: "decode", perToken: { bestMs: 900, dispatches: 450, bytesWritten: 28 } }];
  const { grown, lines } = compareJobs(now, before);
  expect(grown).toEqual([]);
  expect(lines).toEqual([
    expect.stringMatching(/perToken\.dispatches 450 \(was 456\).*perToken\.bestMs × 9\.00/),
  ]);
});

test("more dispatches or bytes are named", () => {
  const now = [{ name: "decode", perToken: { bestMs: 1, dispatches: 457, bytesWritten: 29 } }];
  expect(compareJobs(now, before).grown).toEqual([
    "decode: perToken.dispatches 457, was 456",
    "decode: perToken.bytesWritten 29, was 28",
  ]);
});

test("a job that was not measured before is said to be new", () => {
  expect(compareJobs([{ name: "sweep", dispatches: 1 }], before)).toEqual({
    grown: [],
    lines: ["sweep: not in the earlier results"],
  });
});
