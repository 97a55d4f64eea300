import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { LongestFirst } from "./test/helpers/longest-first.ts";

/** Files that have a process of their own; the others share one a core. */
const ALONE = [
  // Run programs and browsers.
  ...["cli", "platform", "project", "web"].map((folder) => `test/${folder}/**/*.test.ts`),
  // Measure what the process holds, or lose devices.
  ...["growth", "memory"].map((name) => `test/patching/${name}.test.ts`),
  "test/activations/memory.test.ts",
  ...["device", "fate"].map((name) => `test/tensor/${name}.test.ts`),
  // Hold a model of half a gigabyte.
  ...["authors", "shipped-model"].map((name) => `test/parity/${name}.test.ts`),
  // Put another module in place of the real one.
  "test/experiments/controls.test.ts",
  // Have little in common with other files but the large buffers and pictures that they leave to be collected.
  ...["images", "kernels"].map((folder) => `test/${folder}/**/*.test.ts`),
];

/**
 * For files that run small models: a dispatch of a few numbers takes less than waking lavapipe's threads for it. Those that stand
 * alone, the tests of all kernels among them, have its threads.
 */
const WITHOUT_THREADS = { LP_NUM_THREADS: "0" };

export default defineConfig({
  resolve: { conditions: ["xpatch-source"] },
  ssr: { resolve: { conditions: ["xpatch-source", "node", "import", "module", "default"] } },
  test: {
    globalSetup: "test/helpers/build.ts",
    // Worker threads never let Dawn go. The software drivers use every core, but most of a test is JavaScript on one: as
    // many processes as cores, with a limit because of the models.
    pool: "forks",
    maxWorkers: Math.min(availableParallelism(), 4),
    sequence: { sequencer: LongestFirst },
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // The other cores have tests of their own.
    execArgv: ["--single-threaded-gc"],
    experimental: { fsModuleCache: true },
    // A fresh process is slow until its code is compiled, and opens its devices and makes its pipelines anew.
    projects: [
      { extends: true, test: { name: "alone", include: ALONE, isolate: true } },
      {
        extends: true,
        test: {
          name: "shared",
          include: ["test/**/*.test.ts"],
          exclude: ALONE,
          isolate: false,
          env: WITHOUT_THREADS,
        },
      },
    ],
  },
});
