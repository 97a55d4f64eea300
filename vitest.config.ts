import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/helpers/longest-first.ts";

export default defineConfig({
  resolve: { conditions: ["xpatch-source"] },
  ssr: { resolve: { conditions: ["xpatch-source", "node", "import", "module", "default"] } },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/helpers/build.ts",
    // Processes, because worker threads never let Dawn go; one a file, because files of one process share its devices'
    // fate. The software drivers use every core, but much of a test is JavaScript on one: as many files at once as cores,
    // with a limit because some hold a model of half a gigabyte.
    pool: "forks",
    isolate: true,
    maxWorkers: Math.min(availableParallelism(), 4),
    sequence: { sequencer: LongestFirst },
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
