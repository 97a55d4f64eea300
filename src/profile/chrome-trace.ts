import { grouped } from "./grouped.ts";
import type { Profile, TracedDispatch } from "./profile.ts";
import { placeName } from "./rows.ts";

/** A complete event, or the name of a track, of the Trace Event Format; times in microseconds. */
export type TraceEvent =
  | {
      readonly ph: "X";
      readonly name: string;
      readonly cat: string;
      readonly ts: number;
      readonly dur: number;
      readonly pid: number;
      readonly tid: number;
      readonly args: Readonly<Record<string, string | number>>;
    }
  | {
      readonly ph: "M";
      readonly name: "process_name" | "thread_name";
      readonly pid: number;
      readonly tid: number;
      readonly args: { readonly name: string };
    };

/** A trace in the format of chrome://tracing and Perfetto. */
export interface ChromeTrace {
  readonly traceEvents: readonly TraceEvent[];
  readonly displayTimeUnit: "ms";
  readonly otherData: Readonly<Record<string, string>>;
}

interface Span {
  readonly name: string;
  readonly start: number;
  readonly end: number;
  readonly args: Readonly<Record<string, string | number>>;
}

const PID = 1;

/**
 * A profile as a trace for chrome://tracing, Perfetto or speedscope: tracks of steps, of parts of the model and of kernels. What
 * overlaps, as dispatches may on a GPU, is on tracks of its own.
 *
 * @example await writeFile("trace.json", JSON.stringify(chromeTrace(await profile(model, prompt))));
 */
export function chromeTrace({ adapter, method, dispatches }: Profile): ChromeTrace {
  const tracks = [
    ...lanes(
      "steps",
      runs(dispatches, ({ phase, step }) => (step === 0 ? phase : `${phase} ${step}`)),
    ),
    ...lanes("parts", runs(dispatches, placeName)),
    ...lanes("kernels", dispatches.map(kernelSpan)),
  ];
  const process = adapter.description || adapter.device || adapter.vendor;
  return {
    traceEvents: [
      { ph: "M", name: "process_name", pid: PID, tid: 0, args: { name: process } },
      ...tracks.flatMap(({ name, spans }, i): TraceEvent[] => [
        { ph: "M", name: "thread_name", pid: PID, tid: i + 1, args: { name } },
        ...spans.map((span) => event(span, name, i + 1)),
      ]),
    ],
    displayTimeUnit: "ms",
    otherData: { adapter: process, timing: method },
  };
}

function event({ name, start, end, args }: Span, track: string, tid: number): TraceEvent {
  const ts = microseconds(start);
  return { ph: "X", name, cat: track, ts, dur: microseconds(end) - ts, pid: PID, tid, args };
}

/** To the nanosecond, as a number that the difference of two is exact for. */
function microseconds(ms: number): number {
  return Math.round(ms * 1e6) / 1e3;
}

function kernelSpan({ kernel, variant, operation, readBytes, writtenBytes, ...rest }: TracedDispatch): Span {
  const { start, end, bindGroups } = rest;
  const { name = "", inputs = "", flops } = operation ?? {};
  const args = {
    variant,
    operation: name,
    inputs,
    readBytes,
    writtenBytes,
    ...(flops !== undefined && { operationFlops: flops }),
    bindGroups,
  };
  return { name: kernel, start, end: Math.max(start, end), args };
}

/** Dispatches in a row that have one name, as one span. */
function runs(dispatches: readonly TracedDispatch[], nameOf: (dispatch: TracedDispatch) => string): Span[] {
  const found: { name: string; step: string; own: TracedDispatch[] }[] = [];
  for (const dispatch of dispatches) {
    const [name, step] = [nameOf(dispatch), `${dispatch.phase} ${dispatch.step}`];
    const last = found.at(-1);
    if (last?.name === name && last.step === step) last.own.push(dispatch);
    else found.push({ name, step, own: [dispatch] });
  }
  return found.map(({ name, own }) => ({
    name,
    start: own.reduce((least, { start }) => Math.min(least, start), Number.POSITIVE_INFINITY),
    end: own.reduce((most, { start, end }) => Math.max(most, start, end), Number.NEGATIVE_INFINITY),
    args: { dispatches: own.length },
  }));
}

/** The spans on as few tracks as it takes for none to overlap on one. */
function lanes(name: string, spans: readonly Span[]): { name: string; spans: readonly Span[] }[] {
  const ends: number[] = [];
  const placed = spans
    .toSorted((a, b) => a.start - b.start)
    .map((span) => {
      const free = ends.findIndex((end) => microseconds(end) <= microseconds(span.start));
      const lane = free < 0 ? ends.length : free;
      ends[lane] = span.end;
      return { lane, span };
    });
  return [...grouped(placed, ({ lane }) => lane)]
    .sort(([a], [b]) => a - b)
    .map(([lane, own]) => ({
      name: lane === 0 ? name : `${name} ${lane + 1}`,
      spans: own.map(({ span }) => span),
    }));
}
