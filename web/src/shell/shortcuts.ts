import { store } from "../state.ts";
import { isCommand, isWriting, type Shortcut } from "../ui/keys.ts";
import { VIEWS } from "../views/views.ts";
import { openHelp } from "./help-open.ts";

/** Keys that do the same wherever the focus is, except in a field that is being written in. */
export function shortcuts(): readonly Shortcut[] {
  const plain = (key: string) => (event: KeyboardEvent) =>
    event.key === key && !event.ctrlKey && !event.metaKey && !event.altKey && !isWriting(event);
  const command = (key: string, shift: boolean) => (event: KeyboardEvent) =>
    isCommand(event) && event.shiftKey === shift && event.key.toLowerCase() === key && !isWriting(event);
  return [
    ...VIEWS.map(({ id, title }, i) => ({
      keys: String(i + 1),
      words: title,
      matches: plain(String(i + 1)),
      run: () => store.visit(id),
    })),
    { keys: "Ctrl+Z", words: "Undo", matches: command("z", false), run: () => store.undo() },
    { keys: "Ctrl+Shift+Z", words: "Redo", matches: command("z", true), run: () => store.redo() },
    { keys: "?", words: "These keys", matches: plain("?"), run: openHelp },
  ];
}
