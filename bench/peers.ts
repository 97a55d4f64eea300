import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { matmul } from "#src/kernels/matmul/matmul";
import type { Device } from "#src/tensor/device";
import type { Tensor } from "#src/tensor/tensor";
import { type BenchResult, type Effort, measure, rounded } from "./harness.ts";
import { checkProduct, operands } from "./product.ts";

/** Libraries that multiply matrices on the same machine with the same driver; bench/peers has a script for each. */
const PEERS = [
  { library: "onnxruntime-node", backend: "webgpu" },
  { library: "@tensorflow/tfjs-backend-webgpu", backend: "webgpu" },
  { library: "@jax-js/jax", backend: "webgpu" },
  { library: "webgpu-torch", backend: "webgpu" },
  { library: "onnxruntime-node", backend: "cpu" },
] as const;

/** Seen from dist/bench. */
const FOLDER = fileURLToPath(new URL("../../bench/peers/", import.meta.url));
const TIMEOUT_MS = 300_000;

export interface PeerResult {
  library: string;
  version?: string;
  /** `cpu` is native code: no peer, but what the cores can do. */
  backend: "webgpu" | "cpu";
  bestMs?: number;
  medianMs?: number;
  gflops?: number;
  /** Why there are no figures. */
  missing?: string;
}

export interface PeerComparison {
  xpatch: BenchResult;
  peers: readonly PeerResult[];
  /** GFLOP/s of xpatch over those of the fastest peer on WebGPU, and over native code's. */
  ratioToBestPeer?: number;
  ratioToNative?: number;
}

/**
 * Multiplies n x n matrices with xpatch and with each peer that is installed (`npm run bench:peers`), in a process of
 * its own, in turn and several times over, since a shared machine has slow spells. Products are checked, pipelines warm,
 * operands and products stay on the device.
 */
export async function comparePeers(device: Device, n: number, effort: Effort): Promise<PeerComparison> {
  const own: BenchResult[] = [];
  const others: PeerResult[][] = PEERS.map(() => []);
  for (let turn = 0; turn < effort.rounds / 3; turn++) {
    own.push(await multiply(device, n, effort));
    for (const [i, peer] of PEERS.entries()) {
      others[i]!.push({ ...peer, ...(await measurePeer(peer, device, n, effort)) });
    }
  }
  const xpatch = fastest(own);
  const peers = others.map(fastest);
  const best = (backend: PeerResult["backend"]) =>
    Math.max(...peers.map((peer) => (peer.backend === backend ? (peer.gflops ?? 0) : 0)));
  const [webgpu, cpu] = [best("webgpu"), best("cpu")];
  return {
    xpatch,
    peers,
    ...(webgpu > 0 && { ratioToBestPeer: rounded(xpatch.gflops! / webgpu) }),
    ...(cpu > 0 && { ratioToNative: rounded(xpatch.gflops! / cpu) }),
  };
}

function fastest<T extends { gflops?: number }>(turns: readonly T[]): T {
  return turns.reduce((a, b) => ((b.gflops ?? 0) > (a.gflops ?? 0) ? b : a));
}

async function multiply(device: Device, n: number, effort: Effort): Promise<BenchResult> {
  const operand = operands(n);
  const a = device.tensor(operand.a, { shape: [n, n] });
  const b = device.tensor(operand.b, { shape: [n, n] });
  const check = async (product: Tensor) => checkProduct(await product.read(), n);
  const shapes = { a: a.shape, b: b.shape };
  const run = () => matmul(a, b);
  return measure(device, { name: "matmul", dtype: "f32", shapes, flops: 2 * n ** 3, run, check }, effort);
}

async function measurePeer(
  { library, backend }: (typeof PEERS)[number],
  { info }: Device,
  n: number,
  effort: Effort,
): Promise<Omit<PeerResult, "library" | "backend">> {
  const version = installedVersion(library);
  if (version === undefined) return { missing: "not installed" };
  const driver = info.architecture === "swiftshader" ? "swiftshader" : "lavapipe";
  const request = { n, effort, ...(info.fallback && { driver }) };
  const args = [`${FOLDER}measure.mjs`, library, backend, JSON.stringify(request)];
  const env = { ...process.env, ...(info.fallback && { XPATCH_ADAPTER: driver }) };
  try {
    const { stdout } = await promisify(execFile)(process.execPath, args, { env, timeout: TIMEOUT_MS });
    // Libraries print notes of their own.
    const { bestMs, medianMs } = JSON.parse(stdout.trim().split("\n").at(-1)!);
    const gflops = rounded((2 * n ** 3) / bestMs / 1e6);
    return { version, bestMs: rounded(bestMs), medianMs: rounded(medianMs), gflops };
  } catch (error) {
    const { stderr } = error as { stderr?: string };
    const reason = /^\w*Error: .*$/m.exec(stderr ?? "")?.[0] ?? String(error);
    return { version, missing: `failed: ${reason}` };
  }
}

function installedVersion(library: string): string | undefined {
  try {
    return JSON.parse(readFileSync(`${FOLDER}node_modules/${library}/package.json`, "utf8")).version;
  } catch {
    return undefined;
  }
}
