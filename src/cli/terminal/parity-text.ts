import type { ParityReport, ParityResult } from "../../parity/report.ts";
import { showSetting } from "../../patching/setting.ts";
import { table } from "./layout.ts";

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
  const lines = [goldens, showSetting(report)];
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
