import { readBoolean, readCount, readFields } from "../../document/read.ts";
import { defineSlice } from "../../document/slice.ts";

export type TourSlice = {
  /** Whether the reader is on it; left, it can be gone on with. */
  readonly on: boolean;
  readonly chapter: number;
  readonly step: number;
};

/** Where the reader is on the tour. */
export const TOUR = defineSlice<TourSlice>({
  name: "tour",
  apart: true,
  initial: { on: false, chapter: 0, step: 0 },
  read(value, at) {
    const fields = readFields(value, at, ["on", "chapter", "step"]);
    return {
      on: readBoolean(fields["on"], `${at}.on`),
      chapter: readCount(fields["chapter"], `${at}.chapter`, 100),
      step: readCount(fields["step"], `${at}.step`, 100),
    };
  },
});
