import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const inWeb = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** The page is static and works from any sub-path: every address in it is relative. */
export default defineConfig({
  root: inWeb("."),
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
    rolldownOptions: {
      input: { index: inWeb("index.html"), "service-worker": inWeb("src/service-worker.ts") },
      // A service worker is known by its address, and keeps what lies below it.
      output: {
        entryFileNames: ({ name }) => (name === "service-worker" ? "[name].js" : "assets/[name]-[hash].js"),
      },
    },
  },
});
