import { join } from "node:path";
import { root } from "../scripts/cache.mjs";
import { command, step } from "../scripts/command.mjs";

/** Compiles the benches into dist/bench; they use the build of src/ that lies around it. */
export async function buildBenches() {
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  await step("benches", () =>
    command(process.execPath, [tsc, "-p", join("bench", "tsconfig.build.json")], { cwd: root }),
  );
}
