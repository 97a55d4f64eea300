/** Keys of the whole page. Those of a view are beside what they act on. */
export interface Shortcut {
  /** As it is written for the reader: `Ctrl+Z`, `1`, `?`. */
  readonly keys: string;
  readonly words: string;
  matches(event: KeyboardEvent): boolean;
  run(): void;
}

/** Whether a key belongs to what is being written. */
export function isWriting(event: KeyboardEvent): boolean {
  const { target } = event;
  if (!(target instanceof HTMLElement)) return false;
  if (
    target.isContentEditable ||
    target instanceof HTMLTextAreaElement ||
    target instanceof HTMLSelectElement
  )
    return true;
  return (
    target instanceof HTMLInputElement && !["checkbox", "radio", "range", "button"].includes(target.type)
  );
}

/** Ctrl, or ⌘ where that is what it is. */
export function isCommand(event: KeyboardEvent): boolean {
  return (event.ctrlKey || event.metaKey) && !event.altKey;
}

/** Carries shortcuts out until what it gives is called. Dialogs keep their keys to themselves. */
export function listenForKeys(shortcuts: () => readonly Shortcut[]): () => void {
  const onKey = (event: KeyboardEvent) => {
    if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
    const shortcut = shortcuts().find((each) => each.matches(event));
    if (!shortcut) return;
    event.preventDefault();
    shortcut.run();
  };
  addEventListener("keydown", onKey);
  return () => removeEventListener("keydown", onKey);
}
