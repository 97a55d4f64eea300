import { signal } from "@preact/signals";
import type { ComponentType, JSX } from "preact";
import { useEffect } from "preact/hooks";
import { Notice } from "./notice.tsx";

/** A component whose program comes when it is first shown, so that the page itself comes fast. */
export function later(load: () => Promise<ComponentType>): ComponentType {
  const state = signal<{ readonly component?: ComponentType; readonly error?: Error }>({});
  let loading = false;
  const begin = () => {
    if (loading || state.peek().component) return;
    loading = true;
    load()
      .then(
        (component) => {
          state.value = { component };
        },
        (error: Error) => {
          state.value = { error };
        },
      )
      .finally(() => {
        loading = false;
      });
  };
  return function Later(): JSX.Element | null {
    useEffect(begin, []);
    const { component: Component, error } = state.value;
    if (Component) return <Component />;
    if (!error) return null;
    return (
      <Notice kind="bad" title="This part of the page could not be loaded">
        <p>{error.message}</p>
        <button type="button" onClick={begin}>
          Try again
        </button>
      </Notice>
    );
  };
}
