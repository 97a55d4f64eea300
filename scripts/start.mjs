/** `npm start`: sets everything up, then runs the main job. Arguments go to it. */
import { join } from "node:path";
import { root } from "./cache.mjs";
import { become, runScript } from "./command.mjs";
import { ensureSmolLM2 } from "./fetch-smollm2.mjs";
import { setUp } from "./setup.mjs";

await runScript(async () => {
  await setUp();
  const model = await ensureSmolLM2();
  become(join(root, "dist", "cli", "main.js"), ["demo", model, ...process.argv.slice(2)]);
});
