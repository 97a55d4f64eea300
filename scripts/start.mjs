/** `npm start`: sets everything up, then runs the main job. Arguments go to it. */
import { join } from "node:path";
import { root } from "./cache.mjs";
import { become, runScript } from "./command.mjs";
import { ensureSmolLM2 } from "./fetch-smollm2.mjs";
import { setUp } from "./setup.mjs";

await runScript(async () => {
  await setUp();
  // The base of the model that comes with the checkout.
  await ensureSmolLM2();
  const main = join(root, "dist", "cli", "main.js");
  become(main, ["demo", "--html", "xpatch-demo.html", ...process.argv.slice(2)]);
});
