import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { closeHelp, helpIsOpen } from "./help-open.ts";
import { shortcuts } from "./shortcuts.ts";

/** The keys of the page. */
export function Help(): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (helpIsOpen.value) dialog.current?.showModal();
  }, [helpIsOpen.value]);
  return (
    <dialog ref={dialog} aria-labelledby="keys" onClose={closeHelp}>
      <form method="dialog" class="stack">
        <h2 id="keys">Keys</h2>
        <dl class="pairs">
          {shortcuts().map(({ keys, words }) => (
            <>
              <dt>
                <kbd>{keys}</kbd>
              </dt>
              <dd>{words}</dd>
            </>
          ))}
          <dt>
            <kbd>← ↑ ↓ →</kbd>
          </dt>
          <dd>In a grid: to the next cell; Enter chooses it, with Shift up to it</dd>
        </dl>
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
