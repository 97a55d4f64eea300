import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ROOT } from "../helpers/outside-project.ts";

// The everyday things of docs/coming-from.md, whose code docs.test.ts runs, stay the few lines that they are.

const PAGE = readFileSync(join(ROOT, "docs", "coming-from.md"), "utf8");

/** Lines of code, without imports and what is printed, of the first block under a heading. */
function linesUnder(heading: string): string[] {
  const section = PAGE.slice(PAGE.indexOf(`\n## ${heading}\n`));
  const [, block] = /^```ts\n(.*?)^```$/ms.exec(section)!;
  return block!.split("\n").filter((line) => line.trim() !== "" && !/^(import |\/\/)/.test(line));
}

test.each([
  ["Cache everything, or some of it", "cacheAll(", 3],
  ["Patch every layer and position: a heat map", "heatFigure(await patchMap(", 1],
  ["Rank the heads", "rankHeads(", 3],
  ["Where a head looks", "headPattern(", 2],
  ["Load a model", 'loadModel("xpatch:vlm"', 2],
])("%s: a few lines", (heading, call, most) => {
  const lines = linesUnder(heading);
  expect(lines.join("\n")).toContain(call);
  expect(lines.length).toBeLessThanOrEqual(most);
});
