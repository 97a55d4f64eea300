import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { conditions: ["xpatch-source"] },
  ssr: { resolve: { conditions: ["xpatch-source", "node", "import", "module", "default"] } },
  test: {
    include: ["test/**/*.test.ts"],
    // One process at a time: the software drivers use every core, and worker threads never let Dawn go. A process a file
    // costs no time and keeps files apart; one of two runs in a single process died without a word, why is not known.
    pool: "forks",
    isolate: true,
    maxWorkers: 1,
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
