import { afterAll, beforeAll, expect, test } from "vitest";
import { loadModel } from "../../src/patching/model.ts";
import { chromeTrace, type TraceEvent } from "../../src/profile/chrome-trace.ts";
import { type Profile, profile, type TracedDispatch } from "../../src/profile/profile.ts";
import type { Device } from "../../src/tensor/device.ts";
import { openDevice } from "../../src/tensor/open-device.ts";
import { nanoFiles, nanoFolder } from "../helpers/nano.ts";

type Complete = Extract<TraceEvent, { ph: "X" }>;

let device: Device;
let found: Profile;
beforeAll(async () => {
  device = await openDevice({ toggles: ["-timestamp_quantization"] });
  const model = await loadModel(nanoFolder(nanoFiles(), "vlm"), { device });
  const image = { width: 8, height: 8, data: new Uint8Array(8 * 8 * 3).fill(90) };
  const prompt = model.prompt(["Q:", image, "\nA:"]);
  found = await profile(model, prompt, { maxNewTokens: 3, limits: { gflops: 1, gbPerSecond: 1 } });
  model.dispose();
});
afterAll(() => device.destroy());

/** The trace as a viewer gets it, by track. */
function tracksOf(profiled: Profile): Map<string, Complete[]> {
  const { traceEvents } = JSON.parse(JSON.stringify(chromeTrace(profiled))) as { traceEvents: TraceEvent[] };
  const names = new Map<number, string>();
  for (const event of traceEvents)
    if (event.ph === "M" && event.name === "thread_name") names.set(event.tid, event.args.name);
  const tracks = new Map<string, Complete[]>([...names.values()].map((name) => [name, []]));
  for (const event of traceEvents) if (event.ph === "X") tracks.get(names.get(event.tid)!)!.push(event);
  return tracks;
}

function expectApart(events: readonly Complete[]): void {
  const sorted = events.toSorted((a, b) => a.ts - b.ts);
  sorted.forEach(({ ts, dur }, i) => {
    expect(ts).toBeGreaterThanOrEqual(0);
    expect(dur).toBeGreaterThanOrEqual(0);
    const before = sorted[i - 1];
    if (before) expect(before.ts + before.dur).toBeLessThanOrEqual(ts + 1e-6);
  });
}

test("events of a track do not overlap, and each dispatch is one", () => {
  const tracks = tracksOf(found);
  for (const events of tracks.values()) expectApart(events);
  const kernels = [...tracks].filter(([name]) => name.startsWith("kernels")).flatMap(([, events]) => events);
  expect(kernels).toHaveLength(found.dispatches.length);
  expect(kernels.reduce((sum, { dur }) => sum + dur, 0) / 1000).toBeCloseTo(
    found.phases.reduce((sum, { ms }) => sum + ms, 0),
    1,
  );
});

test("steps and parts are on tracks of their own, the tower's blocks among them", () => {
  const named = (kind: string) =>
    [...tracksOf(found)]
      .filter(([track]) => track.startsWith(kind))
      .flatMap(([, own]) => own.map(({ name }) => name));
  expect(named("steps")).toEqual(["prefill", "decode", "decode 1"]);
  const parts = named("parts");
  for (const name of ["embed", "vision block 0", "block 0", "head"]) expect(parts).toContain(name);
  expect(parts.indexOf("vision block 0")).toBeLessThan(parts.indexOf("block 0"));
});

test("dispatches that overlap are on two tracks", () => {
  const [first] = found.dispatches as [TracedDispatch];
  const at = (start: number, end: number) => ({ ...first, start, end });
  const tracks = tracksOf({ ...found, dispatches: [at(0, 2), at(1, 3), at(2, 4), at(3.5, 5)] });
  expect(tracks.get("kernels")!.map(({ ts }) => ts)).toEqual([0, 2000]);
  expect(tracks.get("kernels 2")!.map(({ ts }) => ts)).toEqual([1000, 3500]);
  for (const events of tracks.values()) expectApart(events);
});
