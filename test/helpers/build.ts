import { rmSync } from "node:fs";
import type { TestProject } from "vitest/node";
// @ts-expect-error: plain JavaScript
import { ensureBuild } from "../../scripts/build.mjs";
import { packedFolder } from "./outside-project.ts";

/** Makes dist/ before any test file runs: several of them run what is in it, at the same time. */
export default async function build(project: TestProject): Promise<() => void> {
  const forgetPackage = () => rmSync(packedFolder(process.pid), { recursive: true, force: true });
  await ensureBuild();
  project.onTestsRerun(async () => {
    forgetPackage();
    await ensureBuild();
  });
  return forgetPackage;
}
