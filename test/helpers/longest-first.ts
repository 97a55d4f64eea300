import { relative } from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** The files that take longest, from the longest on. On a fresh checkout Vitest would go by the length of their text. */
const LONGEST = [
  "test/experiments/known-circuit.test.ts",
  "test/patching/growth.test.ts",
  "test/parity/authors.test.ts",
  "test/parity/shipped-model.test.ts",
  "test/cli/cli.test.ts",
  "test/cli/commands/experiment.test.ts",
  "test/model/checkpoint/config/config-fuzz.test.ts",
  "test/model/checkpoint/config/picture-config-fuzz.test.ts",
  "test/project/outside-project.test.ts",
  "test/project/vite.test.ts",
  "test/project/docs.test.ts",
  "test/project/examples.test.ts",
  "test/project/first-hour.test.ts",
];

/** Starts the longest files first, so that no core is left with one of them at the end. */
export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const index = LONGEST.indexOf(relative(this.ctx.config.root, moduleId).replaceAll("\\", "/"));
      return index === -1 ? LONGEST.length : index;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}
