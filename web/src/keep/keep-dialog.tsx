import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import "../style/vectors.css";
import "../style/keep.css";
import { CodeDialog } from "./code-dialog.tsx";
import { HistoryDialog } from "./history-dialog.tsx";
import { closeKeep, keepOpen } from "./keep-open.ts";

/** History with comparing, or the program of what is on the screen. */
export function KeepDialog(): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  const which = keepOpen.value;
  useEffect(() => {
    if (which && !dialog.current?.open) dialog.current?.showModal();
    if (!which && dialog.current?.open) dialog.current.close();
  }, [which]);
  return (
    <dialog ref={dialog} class="keep" aria-labelledby="keep-title" onClose={closeKeep}>
      {which === "history" && <HistoryDialog />}
      {which === "code" && <CodeDialog />}
    </dialog>
  );
}
