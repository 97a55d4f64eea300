import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { conditions: ["xpatch-source"] },
  ssr: { resolve: { conditions: ["xpatch-source", "node", "import", "module", "default"] } },
  test: {
    include: ["test/**/*.test.ts"],
    // One process at a time: the software drivers use every core, and worker threads never let Dawn go. A process a file:
    // drivers that have lived through hundreds of devices, lost ones among them, have been seen to crash.
    pool: "forks",
    isolate: true,
    maxWorkers: 1,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
