import type { ComponentChildren, JSX } from "preact";
import { useEffect, useErrorBoundary } from "preact/hooks";
import { store } from "../state.ts";
import { Notice } from "../ui/notice.tsx";

/** A part of the page. Where it cannot be drawn, its place says why, and the rest of the page goes on; the next change draws it again. */
export function Guarded({ what, children }: { what: string; children: ComponentChildren }): JSX.Element {
  const [error, draw] = useErrorBoundary((problem) => console.error(problem));
  const document = store.document.value;
  useEffect(() => {
    if (error) draw();
  }, [document]);
  if (!error) return <>{children}</>;
  return (
    <Notice kind="bad" title={`${what} cannot be shown`}>
      <p>{(error as Error).message}</p>
      <p>This is an error in the explorer itself; please report it. Undo takes back the last change.</p>
    </Notice>
  );
}
