import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

/** The page is static and works from any sub-path: every address in it is relative. */
export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  resolve: { conditions: ["xpatch-source", "browser", "module", "import", "default"] },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  worker: { format: "es" },
  build: {
    target: "es2023",
    outDir: "dist",
    // The model beside it is made by scripts/build-web.mjs, which also removes what is old.
    emptyOutDir: false,
    assetsDir: "assets",
    modulePreload: { polyfill: false },
  },
});
