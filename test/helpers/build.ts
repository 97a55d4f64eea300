import type { TestProject } from "vitest/node";
// @ts-expect-error: plain JavaScript
import { ensureBuild } from "../../scripts/build.mjs";

/** Makes dist/ before any test file runs: several of them run what is in it, at the same time. */
export default async function build(project: TestProject): Promise<void> {
  await ensureBuild();
  project.onTestsRerun(ensureBuild);
}
