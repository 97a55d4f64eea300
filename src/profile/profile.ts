import { aFunction, aNumber, anArray, anObject, checkOptions, type Options } from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { checkPrompts } from "../patching/arguments.ts";
import type { Edit } from "../patching/edit.ts";
import type { PatchableModel } from "../patching/model.ts";
import type { Device } from "../tensor/device.ts";
import type { DeviceInfo } from "../tensor/device-info.ts";
import type { TimingMethod } from "../tensor/profiler.ts";
import { grouped } from "./grouped.ts";
import { type Limits, measureLimits } from "./limits.ts";
import { type Dispatch, msOf, profileParts, type WorkPart } from "./profile-work.ts";
import { type KernelRow, kernelRows, type ProfileRow, placeRows, type Total, totalOf } from "./rows.ts";

/** What {@link profile} generates, and how often. */
export interface ProfileOptions extends ProfileWorkOptions {
  /** Tokens to generate: the first one's step is the prefill, the others are decoding. Default 5. */
  maxNewTokens?: number;
  /** As of `generate`. */
  edits?: readonly Edit[];
}

/** How often {@link profileWork} repeats the work. */
export interface ProfileWorkOptions {
  /** How often to profile; the fastest counts. Default 2. */
  rounds?: number;
  /** Those of the device, where they have been measured. Default: measured anew. */
  limits?: Limits;
}

/** One part of what was profiled: the prefill, or all steps of decoding together. */
export interface ProfilePhase extends Total {
  readonly name: string;
  /** Of how many steps this is the sum. */
  readonly steps: number;
  /** From beginning to end on the host: without the profiler, and with it. */
  readonly plainMs: number;
  readonly profiledMs: number;
  readonly submits: number;
  readonly copies: number;
  readonly bytesWritten: number;
  /** By kernel, operation and inputs; those that take longest first. */
  readonly kernels: readonly KernelRow[];
  /** By part of the model, in order. */
  readonly places: readonly ProfileRow[];
}

/** What was measured: phases with their kernels, and every dispatch. */
export interface Profile {
  readonly adapter: DeviceInfo;
  readonly limits: Limits;
  readonly method: TimingMethod;
  /**
   * The step in which times are taken, where they are found to be multiples of one (a browser's 0.1 ms); with the method "one
   * by one", what submitting nothing and waiting for it takes, which is part of every time.
   */
  readonly resolutionMs: number;
  readonly phases: readonly ProfilePhase[];
  /** Every dispatch in order, for {@link chromeTrace}. */
  readonly dispatches: readonly TracedDispatch[];
}

/** A dispatch with its time, and where in the run it was. */
export interface TracedDispatch extends Dispatch {
  readonly phase: string;
  /** Number of the step in the phase. */
  readonly step: number;
}

const WORK_OPTIONS: Options<ProfileWorkOptions> = { rounds: aNumber, limits: anObject };
const OPTIONS: Options<ProfileOptions> = { ...WORK_OPTIONS, maxNewTokens: aNumber, edits: anArray };

/**
 * What a prompt and some new tokens cost: time, bytes, dispatches and bind groups by kernel and by layer, and how near each is to
 * what the adapter can do. Runs the generation twice without looking (to compile, and to time it as it is), then `rounds` times with
 * a timestamp at either end of every dispatch; without the feature `timestamp-query` each dispatch is submitted and waited for by
 * itself.
 *
 * Throws what `generate` throws, and DeviceError where the device is being profiled already.
 *
 * @example const { phases } = await profile(model, model.prompt("The capital of France is"), { maxNewTokens: 4 });
 */
export async function profile(
  model: PatchableModel,
  prompt: Prompt,
  options: ProfileOptions = {},
): Promise<Profile> {
  checkPrompts("profile", prompt);
  checkOptions("profile", options, OPTIONS);
  const { maxNewTokens = 5, edits = [], ...rest } = options;
  return profileSteps(model.device, rest, async (endPart) => {
    let tokens = 0;
    const onToken = () => endPart(tokens++ === 0 ? "prefill" : "decode");
    await model.generate(prompt, { maxNewTokens, edits, stopIds: [], onToken });
  });
}

/**
 * The same of any work on a device: a gradient, a sweep, a training step. It is done two times and `rounds` more.
 *
 * @example await profileWork(device, () => sweepLayers(model, queries, vectors));
 */
export function profileWork(
  device: Device,
  work: () => unknown,
  options: ProfileWorkOptions = {},
): Promise<Profile> {
  checkOptions("profileWork", { ...options, work }, { ...WORK_OPTIONS, work: aFunction });
  return profileSteps(device, options, async (endPart) => {
    await work();
    await device.sync();
    endPart("work");
  });
}

type Steps = (endPart: (name: string) => void) => Promise<unknown>;

async function profileSteps(
  device: Device,
  { rounds = 2, limits }: ProfileWorkOptions,
  work: Steps,
): Promise<Profile> {
  if (!(Number.isInteger(rounds) && rounds >= 1)) {
    throw new ArgumentError(`profile: expected rounds to be a whole number >= 1, found ${rounds}`);
  }
  await work(() => {});
  const plain = await plainTimes(work);
  const measured = limits ?? (await measureLimits(device));
  const runs = [];
  for (let round = 0; round < rounds; round++) runs.push(await profileParts(device, work));
  const total = (parts: readonly WorkPart[]) =>
    parts.flatMap(({ dispatches }) => dispatches).reduce((sum, dispatch) => sum + msOf(dispatch), 0);
  const { method, parts } = runs.reduce((a, b) => (total(b.parts) < total(a.parts) ? b : a));
  const phases = [...grouped(parts, ({ name }) => name)];
  return {
    adapter: device.info,
    limits: measured,
    method,
    resolutionMs: method === "timestamps" ? resolution(parts) : await waitingTime(device),
    phases: phases.map(([name, own]) => phaseOf(name, own, plain.get(name) ?? 0, measured)),
    dispatches: phases.flatMap(([phase, own]) =>
      own.flatMap(({ dispatches }, step) => dispatches.map((each) => ({ ...each, phase, step }))),
    ),
  };
}

/** Milliseconds on the host by phase. */
async function plainTimes(work: Steps): Promise<Map<string, number>> {
  const times = new Map<string, number>();
  let last = performance.now();
  await work((name) => {
    const now = performance.now();
    times.set(name, (times.get(name) ?? 0) + now - last);
    last = now;
  });
  return times;
}

function phaseOf(name: string, parts: readonly WorkPart[], plainMs: number, limits: Limits): ProfilePhase {
  const dispatches = parts.flatMap((part) => part.dispatches);
  const count = (counter: keyof WorkPart["counters"]) =>
    parts.reduce((sum, { counters }) => sum + counters[counter], 0);
  return {
    name,
    steps: parts.length,
    plainMs,
    profiledMs: parts.reduce((sum, { hostMs }) => sum + hostMs, 0),
    ...totalOf(dispatches, limits),
    submits: count("submits"),
    copies: count("copies"),
    bytesWritten: count("bytesWritten"),
    kernels: kernelRows(dispatches, limits),
    places: placeRows(dispatches, limits),
  };
}

/** Quantised timestamps (Dawn's 65.536 µs, browsers' 100 µs) are multiples of one number: the greatest that all of them are. */
function resolution(parts: readonly WorkPart[]): number {
  const nanoseconds = parts
    .flatMap(({ dispatches }) => dispatches)
    .flatMap(({ start, end }) => [start, end])
    .map((ms) => Math.round(ms * 1e6));
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
  return nanoseconds.reduce(gcd, 0) / 1e6;
}

async function waitingTime(device: Device): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 9; i++) {
    const start = performance.now();
    device.gpu.queue.submit([]);
    await device.wait(device.gpu.queue.onSubmittedWorkDone());
    times.push(performance.now() - start);
  }
  return times.toSorted((a, b) => a - b)[4]!;
}
