import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";

export interface PanelProps {
  readonly title: string;
  /** Buttons at the right of the title. */
  readonly actions?: ComponentChildren;
  /** What the numbers come from; see `Provenance`. */
  readonly footer?: ComponentChildren;
  /** Without room around what is in it. */
  readonly flush?: boolean;
  readonly busy?: boolean;
  /** Files that are dropped on it. */
  readonly onFiles?: (files: FileList) => void;
  readonly children?: ComponentChildren;
}

/** A titled part of a view. */
export function Panel({ title, actions, footer, flush, busy, onFiles, children }: PanelProps): JSX.Element {
  const id = useId();
  return (
    <section
      class="panel"
      aria-labelledby={id}
      aria-busy={busy}
      onDragOver={(event) => {
        if (onFiles && event.dataTransfer?.types.includes("Files")) event.preventDefault();
      }}
      onDrop={(event) => {
        const files = event.dataTransfer?.files;
        if (!onFiles || !files?.length || event.defaultPrevented) return;
        event.preventDefault();
        onFiles(files);
      }}
    >
      <header>
        <h2 id={id}>{title}</h2>
        {actions && <div class="actions">{actions}</div>}
      </header>
      <div class={flush ? "body flush" : "body"}>{children}</div>
      {footer && <footer>{footer}</footer>}
    </section>
  );
}
