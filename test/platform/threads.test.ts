import { fork } from "node:child_process";
import cluster from "node:cluster";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { SHARE_ENV, Worker } from "node:worker_threads";
import { describe, expect, test } from "vitest";
import { installedDriver } from "../../src/platform/node-drivers.ts";

interface Task {
  adapter: "lavapipe" | "swiftshader" | "auto";
  model?: string;
  start?: Int32Array;
  workers?: number;
}

const script = new URL("../helpers/answer.mjs", import.meta.url);
const model = fileURLToPath(new URL("../fixtures/llama/model", import.meta.url));
/** What transformers generates (test/fixtures/llama/case.json). */
const ids = [156, 90, 218, 232, 292];

async function inWorker(workerData: Task, env: NodeJS.ProcessEnv | typeof SHARE_ENV | undefined) {
  const worker = new Worker(script, { workerData, env, execArgv: [] });
  const [answer] = await once(worker, "message");
  await worker.terminate();
  return answer;
}

describe.runIf(process.platform === "linux")("software drivers beside the main thread", () => {
  test("a worker thread that shares the environment runs a model", async () => {
    expect(await inWorker({ adapter: "lavapipe", model }, SHARE_ENV)).toEqual({
      description: expect.stringMatching(/llvmpipe/),
      ids,
    });
  });

  test("threads that start at once get the driver that each asks for, and leave no variables behind", async () => {
    const { VK_DRIVER_FILES } = process.env;
    for (let round = 0; round < 3; round++) {
      const start = new Int32Array(new SharedArrayBuffer(4));
      const adapters = ["lavapipe", "swiftshader", "lavapipe", "swiftshader"] as const;
      const task = { start, workers: adapters.length };
      const answers = adapters.map((adapter) => inWorker({ ...task, adapter }, SHARE_ENV));
      for (const [i, { description }] of (await Promise.all(answers)).entries()) {
        expect(description).toMatch(adapters[i] === "lavapipe" ? /llvmpipe/ : /SwiftShader/);
      }
    }
    expect(process.env.VK_DRIVER_FILES).toBe(VK_DRIVER_FILES);
  });

  test("a worker thread with a copy of the environment is told what to do", async () => {
    const { icd } = installedDriver("lavapipe")!;
    for (const adapter of ["lavapipe", "auto"] as const) {
      const { error } = await inWorker({ adapter }, undefined);
      expect(error).toMatch(/^DeviceError: a worker thread .*\{ env: SHARE_ENV \}/);
      expect(error).toContain(`VK_DRIVER_FILES=${icd}`);
    }
  });

  test("a driver that the whole process was given is there, and no other one in its name", async () => {
    process.env.VK_DRIVER_FILES = installedDriver("lavapipe")!.icd;
    try {
      expect((await inWorker({ adapter: "lavapipe" }, undefined)).description).toMatch(/llvmpipe/);
      expect((await inWorker({ adapter: "auto" }, undefined)).description).toMatch(/llvmpipe/);
      expect((await inWorker({ adapter: "swiftshader" }, undefined)).error).toMatch(/SHARE_ENV/);
    } finally {
      delete process.env.VK_DRIVER_FILES;
    }
  });

  test("forked processes and workers of a cluster run a model", async () => {
    const env = { XPATCH_TEST_TASK: JSON.stringify({ adapter: "lavapipe", model }) };
    const expected = { description: expect.stringMatching(/llvmpipe/), ids };
    const child = fork(script, { env: { ...process.env, ...env }, execArgv: [], silent: true });
    expect((await once(child, "message"))[0]).toEqual(expected);

    cluster.setupPrimary({ exec: fileURLToPath(script), execArgv: [], silent: true });
    const worker = cluster.fork(env);
    expect((await once(worker, "message"))[0]).toEqual(expected);
  });
});
