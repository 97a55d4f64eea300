/** `npm test`: sets everything up that the tests need, then runs them. Arguments go to vitest. */
import { join } from "node:path";
import { root } from "./cache.mjs";
import { ensureChromium } from "./chromium.mjs";
import { become, runScript, SetupError } from "./command.mjs";
import { ensureAdapter } from "./drivers.mjs";
import { ensureSmolLM2 } from "./fetch-smollm2.mjs";
import { ensurePackedModel } from "./pack-model.mjs";
import { ensureRedis } from "./redis.mjs";
import { ensureRuntimes } from "./runtimes.mjs";
import { setUp } from "./setup.mjs";

await runScript(async () => {
  await setUp();
  // The tests that need one of these fail with a message of their own; the others can go on without.
  const software = process.platform === "linux" ? ["lavapipe", "swiftshader"] : [];
  const drivers = software.map((name) => () => ensureAdapter(name));
  for (const work of [
    ...drivers,
    ensureSmolLM2,
    ensurePackedModel,
    ensureChromium,
    ensureRuntimes,
    ensureRedis,
  ]) {
    await work().catch((error) => {
      if (!(error instanceof SetupError)) throw error;
      process.stderr.write(`\nxpatch set-up: ${error.message}\n\n`);
    });
  }
  become(join(root, "node_modules", "vitest", "vitest.mjs"), ["run", ...process.argv.slice(2)], {
    cwd: root,
  });
});
