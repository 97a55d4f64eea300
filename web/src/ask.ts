import { useEffect, useRef, useState } from "preact/hooks";
import type { RequestOptions, SessionClient } from "../../src/session/client.ts";
import type { Progress } from "../../src/session/messages/requests.ts";
import type { ModelHandle } from "../../src/session/messages/values.ts";
import { KnownAnswers } from "./known-answers.ts";
import { model } from "./model.ts";
import { activity } from "./rest.ts";
import { noteError, session } from "./session.ts";

/** What a computation has to work with. */
export interface Asking extends Required<Pick<RequestOptions, "signal">> {
  readonly client: SessionClient;
  readonly model: ModelHandle;
  readonly onProgress: (progress: Progress) => void;
}

/** A value that is computed elsewhere: what is known of it. */
export interface Asked<T> {
  /** The newest there is; while another is being computed, that of before. */
  readonly value?: T;
  /** Whether `value` is of what was asked for last. */
  readonly current: boolean;
  readonly error?: Error;
  readonly progress?: Progress;
}

/** Values are never part of the document: an answer to go back to is here, or is computed anew. */
const known = new KnownAnswers({ bytes: 64 * 2 ** 20, answers: 200 });

/**
 * Asks the session for a value that depends on nothing but `key` (plain data, or undefined for not now) and the model, and asks again when
 * either changes. An answer that is known comes at once; what nobody waits for any more is cancelled.
 */
export function useAsked<T>(key: unknown, ask: (asking: Asking) => Promise<T>): Asked<T> {
  const [asked, setAsked] = useState<Asked<T>>({ current: false });
  const latest = useRef(ask);
  latest.current = ask;
  const state = model.value;
  const [handle, serial] = state.status === "ready" ? [state.summary.model, state.serial] : [];
  const client = session.value.status === "open" ? session.value.client : undefined;
  const text = key === undefined || !handle || !client ? undefined : JSON.stringify([serial, key]);
  useEffect(() => {
    if (text === undefined) {
      setAsked({ current: false });
      return;
    }
    if (known.has(text)) {
      setAsked({ value: known.get(text) as T, current: true });
      return;
    }
    const stop = new AbortController();
    const { signal } = stop;
    setAsked(({ value }) => ({ ...(value !== undefined && { value }), current: false }));
    const onProgress = (progress: Progress) => {
      if (!signal.aborted) setAsked((before) => ({ ...before, progress }));
    };
    activity.value++;
    latest
      .current({ client: client!, model: handle!, signal, onProgress })
      .then(
        (value) => {
          if (signal.aborted) return;
          known.keep(text, value);
          setAsked({ value, current: true });
        },
        (error: Error) => {
          if (signal.aborted) return;
          noteError(error);
          setAsked({ error, current: true });
        },
      )
      .finally(() => {
        activity.value--;
      });
    return () => stop.abort(new DOMException("something else was asked for", "AbortError"));
  }, [text, client]);
  return asked;
}
