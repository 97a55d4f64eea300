import type { JSX } from "preact";

/** Model, adapter and connection, in the header. */
export function Facts(): JSX.Element {
  return <div class="facts" />;
}
