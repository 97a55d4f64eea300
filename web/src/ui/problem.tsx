import type { JSX } from "preact";

/** In place of what could not be computed: why. */
export function Problem({ error }: { error: Error }): JSX.Element {
  return (
    <p class="bad-words hint" role="alert">
      {error.message}
    </p>
  );
}
