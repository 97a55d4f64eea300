import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { Icon } from "./icons.tsx";

interface Toast {
  readonly id: number;
  readonly text: string;
  readonly bad: boolean;
}

const SHOWN_MS = 6000;
const MOST = 4;

const toasts = signal<readonly Toast[]>([]);
let last = 0;

/** Says something for some seconds; what went wrong stays until it is closed. */
export function toast(text: string, { bad = false } = {}): void {
  const id = ++last;
  toasts.value = [...toasts.peek(), { id, text, bad }].slice(-MOST);
  if (!bad) setTimeout(() => close(id), SHOWN_MS);
}

/** Says what went wrong. */
export function toastError(error: unknown): void {
  toast(error instanceof Error ? error.message : String(error), { bad: true });
}

function close(id: number): void {
  toasts.value = toasts.peek().filter((each) => each.id !== id);
}

export function Toasts(): JSX.Element {
  // The region is there from the start: what is put into a new one is not read out.
  return (
    <div class="toasts" role="status" aria-live="polite" aria-label="Messages">
      {toasts.value.map(({ id, text, bad }) => (
        <div key={id} class={bad ? "toast bad" : "toast"}>
          <p>{text}</p>
          <button type="button" class="quiet icon" aria-label="Close this message" onClick={() => close(id)}>
            <Icon name="close" />
          </button>
        </div>
      ))}
    </div>
  );
}
