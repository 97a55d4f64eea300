/**
 * Runs a TypeScript file of this checkout on its sources, on any Node that xpatch takes:
 *
 *   node scripts/run-ts.mjs examples/zero-shot.ts [arguments]
 *
 * Node 22.18 and later do it themselves: `node -C xpatch-source examples/zero-shot.ts`.
 */
import { resolve } from "node:path";
import { root } from "./cache.mjs";
import { runScript, SetupError } from "./command.mjs";
import { ensureDependencies } from "./dependencies.mjs";

await runScript(async () => {
  const [file] = process.argv.splice(2, 1);
  if (!file) throw new SetupError("expected a TypeScript file");
  await ensureDependencies();
  const { createViteServer } = await import("vitest/node");
  const server = await createViteServer({
    root,
    configFile: "vitest.config.ts",
    appType: "custom",
    logLevel: "error",
    // The oldest Node has no `using` yet.
    oxc: { target: "node18" },
    server: { middlewareMode: true, hmr: false, ws: false, watch: null },
    // Nothing is prepared for browsers, such as what the page in web/ imports.
    optimizeDeps: { noDiscovery: true, include: [] },
  });
  try {
    await server.ssrLoadModule(resolve(file));
  } finally {
    await server.close();
  }
});
