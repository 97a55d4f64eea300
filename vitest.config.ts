import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { conditions: ["xpatch-source"] },
  ssr: { resolve: { conditions: ["xpatch-source", "node", "import", "module", "default"] } },
  test: {
    include: ["test/**/*.test.ts"],
    // One process, one device: the software drivers use every core, and worker threads never let Dawn go.
    pool: "forks",
    isolate: false,
    maxWorkers: 1,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
