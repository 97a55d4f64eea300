import { relative } from "node:path";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** The files that take longest, from the longest on. On a fresh checkout Vitest would go by the length of their text. */
const LONGEST = [
  "test/experiments/known-circuit.test.ts",
  "test/project/vite.test.ts",
  "test/patching/growth.test.ts",
  "test/web/lens-view.test.ts",
  "test/model/checkpoint/config/config-fuzz.test.ts",
  "test/parity/parity.test.ts",
  "test/web/tour-view.test.ts",
  "test/web/models.test.ts",
  "test/project/examples.test.ts",
  "test/web/prompt-view.test.ts",
  "test/patching/image-families.test.ts",
  "test/web/memory.test.ts",
  "test/project/outside-project.test.ts",
  "test/model/checkpoint/config/picture-config-fuzz.test.ts",
  "test/parity/authors.test.ts",
  "test/web/shipped.test.ts",
  "test/web/input.test.ts",
  "test/parity/shipped-model.test.ts",
  "test/patching/resume.test.ts",
  "test/cli/commands/experiment.test.ts",
  "test/web/hub.test.ts",
  "test/web/vectors-view.test.ts",
  "test/project/docs.test.ts",
  "test/web/offline.test.ts",
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
