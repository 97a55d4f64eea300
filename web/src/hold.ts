import { useEffect, useRef, useState } from "preact/hooks";
import type { SessionClient } from "../../src/session/client.ts";
import type { Asking } from "./ask.ts";
import { model } from "./model.ts";
import { activity, unsettled } from "./rest.ts";
import { noteError, session } from "./session.ts";

/** Something that the session keeps for the page: the newest there is, and what it was made from. */
export interface Held<T> {
  readonly value?: T;
  /** What `value` was made from; what depends on it is asked under this, not under what is wanted next. */
  readonly key?: string;
  /** Whether `value` is of what is wanted now. */
  readonly current: boolean;
  readonly error?: Error;
}

/**
 * As `useAsked`, for answers with handles that take memory (prompts, recordings): one at a time is kept, and given back with the next,
 * or when nobody looks any more.
 */
export function useHeld<T>(
  wanted: unknown,
  make: (asking: Omit<Asking, "onProgress">) => Promise<T>,
  free: (value: T, client: SessionClient) => void,
): Held<T> {
  const [held, setHeld] = useState<Held<T>>({ current: false });
  const latest = useRef({ make, free });
  latest.current = { make, free };
  const kept = useRef<() => void>(() => {});
  const state = model.value;
  const [handle, serial] = state.status === "ready" ? [state.summary.model, state.serial] : [];
  const client = session.value.status === "open" ? session.value.client : undefined;
  const key = wanted === undefined || !handle || !client ? undefined : JSON.stringify([serial, wanted]);
  const giveBack = () => {
    kept.current();
    kept.current = () => {};
  };
  useEffect(() => {
    if (key === undefined) {
      setHeld({ current: false });
      giveBack();
      return;
    }
    const stop = new AbortController();
    const { signal } = stop;
    setHeld(({ value, key: of }) => ({
      current: false,
      ...(value !== undefined && { value }),
      ...(of !== undefined && { key: of }),
    }));
    activity.value++;
    latest.current
      .make({ client: client!, model: handle!, signal })
      .then(
        (value) => {
          const give = () => latest.current.free(value, client!);
          if (signal.aborted) return give();
          giveBack();
          kept.current = give;
          setHeld({ value, key, current: true });
        },
        (error: Error) => {
          if (signal.aborted) return;
          noteError(error);
          giveBack();
          setHeld({ error, current: true });
        },
      )
      .finally(() => {
        activity.value--;
      });
    return () => stop.abort(new DOMException("something else is wanted", "AbortError"));
  }, [key, client]);
  useEffect(() => giveBack, []);
  return held;
}

/** A value once it has stopped changing, so that nothing is computed of what is still being written. */
export function useSettled<T>(value: T, milliseconds: number): T {
  const [settled, settle] = useState(value);
  const text = JSON.stringify(value);
  useEffect(() => {
    if (text === JSON.stringify(settled)) return;
    let isWaiting = true;
    const end = () => {
      if (isWaiting) unsettled.value--;
      isWaiting = false;
    };
    unsettled.value++;
    const timer = setTimeout(() => {
      settle(value);
      end();
    }, milliseconds);
    return () => {
      clearTimeout(timer);
      end();
    };
  }, [text]);
  return settled;
}
