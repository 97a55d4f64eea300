/** `npm run bench`: sets everything up, compiles the benches and runs them. Arguments go to them. */
import { join } from "node:path";
import { root } from "../scripts/cache.mjs";
import { become, runScript } from "../scripts/command.mjs";
import { ensureSmolLM2 } from "../scripts/fetch-smollm2.mjs";
import { setUp } from "../scripts/setup.mjs";
import { buildBenches } from "./build.mjs";

await runScript(async () => {
  await setUp();
  await buildBenches();
  await ensureSmolLM2();
  become(join(root, "dist", "bench", "main.js"), process.argv.slice(2), { cwd: root });
});
