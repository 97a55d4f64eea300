import { table } from "./layout.ts";
import type { Check } from "./parity-checks.ts";
import { formatSetting, type Setting } from "./session.ts";

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

/** The reports as text for a terminal: a line a check, then what was not run, then the sum. */
export function formatParity(results: readonly ParityResult[]): string {
  return results
    .map((result) => ("error" in result ? `${result.goldens}\nFAIL: ${result.error}` : formatReport(result)))
    .join("\n\n");
}

function formatReport(report: ParityReport): string {
  const { goldens, checks, notRun } = report;
  const heading = ["", "max abs", "rel norm", "1 - cosine", "tolerance", ""];
  const numbers = checks.flatMap((check) =>
    check.kind === "tensor"
      ? [
          [
            check.name,
            check.maxAbs.toExponential(1),
            check.relativeNorm.toExponential(1),
            (1 - check.cosine).toExponential(1),
            `${check.tolerance.atol} + ${check.tolerance.rtol}·|b|`,
            check.passed ? "pass" : "FAIL",
          ],
        ]
      : [],
  );
  const lines = [goldens, formatSetting(report)];
  if (report.note) lines.push(report.note);
  if (numbers.length > 0) lines.push("", table([heading, ...numbers], [1, 2, 3]));
  const equal = checks.flatMap((check) =>
    check.kind !== "equal"
      ? []
      : check.passed
        ? [`${check.name}: identical, pass`]
        : [`${check.name}: FAIL`, `  expected ${check.expected}`, `  found    ${check.found}`],
  );
  if (equal.length > 0) lines.push("", ...equal);
  if (notRun.length > 0) lines.push("", `not run, as xpatch has nothing of that name: ${notRun.join(", ")}`);
  const failed = checks.filter((check) => !check.passed).length;
  const verdict =
    checks.length === 0
      ? "FAIL: nothing could be compared"
      : failed
        ? `FAIL: ${failed} of ${checks.length} checks`
        : `pass: all ${checks.length} checks`;
  lines.push("", notRun.length > 0 ? `${verdict}; ${notRun.length} goldens not run` : verdict);
  return lines.join("\n");
}
