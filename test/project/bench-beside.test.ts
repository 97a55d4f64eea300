import { afterEach, expect, test, vi } from "vitest";
import { besideRows, formatBeside } from "../../bench/beside-table.ts";
import type { PeerComparison } from "../../bench/peers.ts";
import { PythonPeer } from "../../bench/python-peer.ts";

afterEach(() => vi.unstubAllEnvs());

const PEERS: PeerComparison = {
  xpatch: {
    name: "matmul",
    dtype: "f32",
    shapes: { a: [100, 100], b: [100, 100] },
    bestMs: 1,
    medianMs: 2,
    dispatches: 1,
    bindGroups: 0,
  },
  peers: [
    { library: "slow", backend: "webgpu", bestMs: 5, medianMs: 8 },
    { library: "fast", backend: "webgpu", bestMs: 3, medianMs: 4 },
    { library: "native", backend: "cpu", bestMs: 0.1, medianMs: 0.1 },
    { library: "absent", backend: "webgpu", missing: "not installed" },
  ],
};
const time = (medianMs: number) => ({ bestMs: medianMs / 2, medianMs });
const LIMITS = { gflops: 4, gbPerSecond: 10 };

test("the best peer is the one with the lowest median, and native code is none", () => {
  const [row] = besideRows(PEERS, [], LIMITS);
  // 2 * 100^3 operations at 4 GFLOP/s take 0.5 ms.
  expect(row).toEqual({
    job: "matmul 100³, f32",
    ours: 2,
    peer: { name: "fast, WebGPU", ms: 4 },
    limitMs: 0.5,
  });
});

test("of the two ways to sweep in PyTorch the faster one counts; where torch is missing there is no peer", () => {
  const sweep = { ours: time(6), torch: { plain: time(30), batch: time(12) }, limitMs: 3 };
  const decode = { ours: time(9), limitMs: 3 };
  const rows = besideRows(
    undefined,
    [{ name: "hooks", results: { sweep, decode } }, { name: "load" }],
    undefined,
  );
  expect(formatBeside(rows).split("\n")).toEqual([
    "| job | ours | best peer | limit | ours ÷ peer | ours ÷ limit |",
    "|---|---|---|---|---|---|",
    "| sweep over the layers | 6 ms | 12 ms (PyTorch, one batch) | 3 ms | 0.5 | 2 |",
    "| decoding, a token | 9 ms | – | 3 ms | – | 3 |",
  ]);
});

test("without Python, or without torch in it, the peer says so and how to name another", async () => {
  for (const [python, message] of [
    ["/no/such/python", /^not measured: \/no\/such\/python: .*ENOENT.* \(PYTHON names another\)$/],
    // Fails as a Python without torch does: a message on stderr and nothing on stdout.
    [process.execPath, /^not measured: .*PYTHON names another\)$/],
  ] as const) {
    vi.stubEnv("PYTHON", python);
    const peer = await PythonPeer.open("transformers_hooks.py", { "request.json": "{}" });
    expect(peer.missing).toMatch(message);
    peer.close();
  }
});
