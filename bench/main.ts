import { mkdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { formatProfile } from "#src/cli/commands/profile-text";
import { loadModel } from "#src/patching/model";
import { cacheFolder } from "#src/platform/node-cache";
import { writeWhole } from "#src/platform/node-write";
import type { Limits } from "#src/profile/limits";
import { type ProfilePhase, profile } from "#src/profile/profile";
import type { Device } from "#src/tensor/device";
import { openDevice } from "#src/tensor/open-device";
import { attentionKernels } from "./attention.bench.ts";
import { type BesideRow, besideRows, formatBeside } from "./beside-table.ts";
import { compareJobs } from "./compare.ts";
import { elementwise } from "./elementwise.bench.ts";
import { formatJob, formatKernel, formatPeers } from "./format.ts";
import { type BenchCase, type BenchResult, FULL, measure, QUICK, rounded, type Suite } from "./harness.ts";
import { JOBS, type JobResult } from "./jobs.ts";
import { jointStage } from "./joint.ts";
import { limitsOf } from "./limits.ts";
import { type Adapter, describeAdapter, describeMachine, type Machine } from "./machine.ts";
import { matrix } from "./matmul.bench.ts";
import { promptOf } from "./model-work.ts";
import { rowWise } from "./norm.bench.ts";
import { comparePeers, type PeerComparison } from "./peers.ts";
import { visionCases } from "./vision.bench.ts";

const SUITES: Readonly<Record<string, Suite>> = {
  matmul: matrix,
  attention: attentionKernels,
  norm: rowWise,
  elementwise,
};
const NAMES = ["peers", ...Object.keys(SUITES), ...Object.keys(JOBS), "profile", "vision", "joint"];
const FIXTURES = fileURLToPath(new URL("../../test/fixtures/", import.meta.url));

/** Everything that was measured in one run. */
interface Report {
  date: string;
  machine: Machine;
  adapter: Adapter;
  kernels: (BenchResult & { ofHardware?: number })[];
  peers?: PeerComparison;
  /** What ran the jobs and profiles. */
  model?: { name: string; family: string; weights: string };
  jobs: JobResult[];
  /** Of a prompt of 128 tokens, and of the two steps after it. */
  profiles: readonly ProfilePhase[];
  /** What the adapter can do at most, as two small kernels found in this run. */
  limits?: Limits;
  /** Ours, the best peer's and the limit's times. */
  beside: BesideRow[];
}

interface Arguments {
  model: string;
  visionModel: string;
  joint?: string;
  quick?: boolean;
  json?: boolean;
  save?: boolean;
  compare?: string;
}

const program = new Command("npm run bench --")
  .description(
    "Measures kernels, peers and main jobs on this machine's WebGPU adapter (XPATCH_ADAPTER picks another).",
  )
  .argument("[names...]", `what to measure, of ${NAMES.join(", ")}; all unless given`)
  .option(
    "--model <folder>",
    "for the jobs and profiles",
    join(cacheFolder(), "models", "smollm2-135m-instruct"),
  )
  .option(
    "--vision-model <folder>",
    "a LLaVA for `vision`; by default a tiny one",
    join(FIXTURES, "llava", "model"),
  )
  .option(
    "--joint <folder>",
    "what weights/recipe/joint.py --record wrote, for `joint`: the joint stage in xpatch, its losses beside PyTorch's",
  )
  .option("--quick", "a few runs of each, to see that everything works")
  .option("--json", "print the report as JSON, and the lines to stderr")
  .option("--save", "write the report to bench/results")
  .option(
    "--compare <file>",
    "an earlier report, of the same adapter: says whether the main jobs do more work than they did, and fails if so",
  )
  .action(main);
await program.parseAsync();

async function main(
  names: string[],
  { model, visionModel, joint, quick, json, save, compare }: Arguments,
): Promise<void> {
  const unknown = names.find((name) => !NAMES.includes(name));
  if (unknown !== undefined) program.error(`expected ${NAMES.join(", ")}; found "${unknown}"`);
  const wanted = (name: string) => names.length === 0 || names.includes(name);
  const say = json ? console.error : console.log;
  const effort = quick ? QUICK : FULL;
  const earlier = compare === undefined ? undefined : readReport(compare);

  await using device = await openDevice({ toggles: ["-timestamp_quantization"] });
  const adapter = describeAdapter(device);
  const report: Report = {
    date: new Date().toISOString(),
    machine: describeMachine(),
    adapter,
    kernels: [],
    jobs: [],
    profiles: [],
    beside: [],
  };
  const measureKernels = async (on: Device, cases: Iterable<BenchCase>) => {
    for (const bench of cases) {
      const result = await measure(on, bench, effort);
      report.kernels.push({ ...result, ...ofHardware(result, adapter) });
      say(formatKernel(result));
    }
  };
  say(`${adapter.description}, load average ${report.machine.loadAverage}`);

  if (wanted("peers") || wanted("hooks")) report.limits = await limitsOf(device);
  if (wanted("peers")) {
    report.peers = await comparePeers(device, 512, effort);
    say(formatPeers(report.peers));
  }
  for (const [name, suite] of Object.entries(SUITES)) {
    if (!wanted(name)) continue;
    // Its buffers go with the device; those of all suites together would be too many for some.
    await using own = await openDevice();
    await measureKernels(own, suite(own));
  }
  if (wanted("vision")) {
    using llava = await loadModel(visionModel, { device });
    await measureKernels(device, await visionCases(llava, join(FIXTURES, "images", "photo.png")));
  }
  if (wanted("joint")) {
    if (joint !== undefined) {
      const result = await jointStage(device, joint);
      report.jobs.push(result);
      say(formatJob(result));
    } else if (names.includes("joint")) program.error("joint: expected --joint <folder>");
  }
  const jobs = Object.entries(JOBS).filter(([name]) => wanted(name));
  if (jobs.length > 0 || wanted("profile")) {
    using loaded = await loadModel(model, { device });
    report.model = { name: basename(model), family: loaded.family, weights: loaded.storedDtypes.join(", ") };
    for (const [, job] of jobs) {
      const result = await job(loaded, effort.rounds);
      report.jobs.push(result);
      say(formatJob(result));
    }
    if (wanted("profile")) {
      const limits = await limitsOf(device);
      report.limits = limits;
      const found = await profile(loaded, promptOf(loaded, 128), { maxNewTokens: 3, limits });
      report.profiles = found.phases;
      say(formatProfile(found));
    }
  }

  report.beside = besideRows(report.peers, report.jobs, report.limits);
  if (report.beside.length > 0) say(`\n${formatBeside(report.beside)}`);

  const text = `${JSON.stringify(report, null, 2)}\n`;
  if (json) process.stdout.write(text);
  if (save) say(await write(report, text));
  if (earlier) {
    const { grown, lines } = compareJobs(report.jobs, earlier.jobs);
    for (const line of lines) say(line);
    if (grown.length > 0) program.error(`more work than in ${compare}: ${grown.join("; ")}`);
  }
}

function readReport(file: string): Pick<Report, "jobs"> {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    return program.error(
      `${file}: expected a report of this bench, found none (${(error as Error).message})`,
    );
  }
}

/** Returns the path of the file. */
async function write({ date, adapter }: Report, text: string): Promise<string> {
  const folder = fileURLToPath(new URL("../../bench/results/", import.meta.url));
  const name = adapter.device.match(/[\w.]+/g)?.join("-") ?? "adapter";
  const file = `${folder}${date.slice(0, 10)}-${name}.json`;
  mkdirSync(folder, { recursive: true });
  await writeWhole(file, text);
  return file;
}

/** The share of the hardware's limit that a kernel reaches: of arithmetic or of memory, whichever is nearer. */
function ofHardware(
  { gflops = 0, gbPerSecond = 0 }: BenchResult,
  { hardware }: Adapter,
): { ofHardware?: number } {
  if (!hardware) return {};
  return { ofHardware: rounded(Math.max(gflops / hardware.gflops, gbPerSecond / hardware.gbPerSecond)) };
}
