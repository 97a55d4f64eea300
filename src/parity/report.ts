import type { Setting } from "../patching/setting.ts";
import type { Check } from "./checks.ts";

/** What came out of one case folder, or of one file of a real model's goldens. */
export interface ParityReport extends Setting {
  readonly goldens: string;
  /** What was done otherwise than usual, to match how the goldens were computed. */
  readonly note?: string;
  readonly checks: readonly Check[];
  /** Goldens that nothing was compared with: xpatch has no site or check of that name. */
  readonly notRun: readonly string[];
  /** Whether there were checks and all of them passed. */
  readonly passed: boolean;
}

/** A report, or why there is none. */
export type ParityResult =
  | ParityReport
  | { readonly goldens: string; readonly error: string; readonly passed: false };

export function newReport(
  goldens: string,
  setting: Setting,
  checks: readonly Check[],
  notRun: readonly string[],
  note?: string,
): ParityReport {
  const passed = checks.length > 0 && checks.every((check) => check.passed);
  return { goldens, ...setting, ...(note && { note }), checks, notRun, passed };
}
