import type { ComponentChildren, JSX } from "preact";

/** Something that has to be known before one goes on. A bad one is read out at once. */
export function Notice({
  kind = "",
  title,
  children,
}: {
  kind?: "" | "warn" | "bad";
  title?: string;
  children?: ComponentChildren;
}): JSX.Element {
  return (
    <div class={`notice ${kind}`} role={kind === "bad" ? "alert" : "note"}>
      {title && <h3>{title}</h3>}
      {children}
    </div>
  );
}
