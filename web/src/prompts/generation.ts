import { signal } from "@preact/signals";
import { useRef, useState } from "preact/hooks";
import type { GeneratedAnswer } from "../../../src/session/messages/results.ts";
import type { Asking } from "../ask.ts";
import { model } from "../model.ts";
import { activity } from "../rest.ts";
import { noteError, session } from "../session.ts";

/** What has been generated, as far as it is. */
export interface Generation {
  readonly text: string;
  readonly tokens: number;
  /** `stopped`: by the reader. */
  readonly state: "running" | "done" | "stopped" | "failed";
  readonly answer?: GeneratedAnswer;
  readonly error?: Error;
}

/** By what they were generated from; they are there again after an undo. */
const known = new Map<string, Generation>();
const MOST = 100;
/** Told of every change of `known`. */
const version = signal(0);

/**
 * Generates when it is told to, and shows tokens as they come. `key` (plain data) says what the answer depends on; an answer of before is
 * shown as long as that is the same.
 */
export function useGeneration(key: unknown): {
  readonly generation: Generation | undefined;
  readonly running: boolean;
  start(
    ask: (asking: Omit<Asking, "onProgress"> & { onToken(text: string): void }) => Promise<GeneratedAnswer>,
  ): void;
  stop(): void;
} {
  const state = model.value;
  const text = JSON.stringify([state.status === "ready" ? state.serial : 0, key]);
  const [runs, setRuns] = useState(0);
  const stopping = useRef<AbortController | undefined>(undefined);
  void version.value;
  const put = (generation: Generation) => {
    known.delete(text);
    known.set(text, generation);
    if (known.size > MOST) known.delete(known.keys().next().value!);
    version.value++;
  };
  return {
    generation: known.get(text),
    running: runs > 0,
    stop: () => stopping.current?.abort(new DOMException("the reader has stopped it", "AbortError")),
    start(ask) {
      const { value: open } = session;
      if (open.status !== "open" || state.status !== "ready") return;
      stopping.current?.abort(new DOMException("another answer was asked for", "AbortError"));
      const stop = new AbortController();
      stopping.current = stop;
      let current: Generation = { text: "", tokens: 0, state: "running" };
      put(current);
      setRuns((count) => count + 1);
      activity.value++;
      const onToken = (next: string) => {
        if (stop.signal.aborted) return;
        current = { ...current, text: current.text + next, tokens: current.tokens + 1 };
        put(current);
      };
      ask({ client: open.client, model: state.summary.model, signal: stop.signal, onToken })
        .then(
          (answer) => put({ text: answer.text, tokens: answer.ids.length, state: "done", answer }),
          (error: Error) => {
            if (stop.signal.aborted) return put({ ...current, state: "stopped" });
            noteError(error);
            put({ ...current, state: "failed", error });
          },
        )
        .finally(() => {
          activity.value--;
          setRuns((count) => count - 1);
        });
    },
  };
}
