import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

/**
 * A row of things of which one is chosen and has the focus: the arrows, Home and End choose another. The one with tabindex 0 within
 * `group` is focused once it is drawn.
 */
export function useArrows(
  count: number,
  index: number,
  choose: (index: number) => void,
  /** Whether up is more, and down less: of what has a height. */
  vertical = false,
): { readonly group: RefObject<HTMLDivElement | null>; readonly onKeyDown: (event: KeyboardEvent) => void } {
  const group = useRef<HTMLDivElement>(null);
  const moved = useRef(false);
  useEffect(() => {
    if (!moved.current) return;
    moved.current = false;
    group.current?.querySelector<HTMLElement>("[tabindex='0']")?.focus();
  });
  const onKeyDown = (event: KeyboardEvent) => {
    const last = count - 1;
    const [less, more] = [Math.max(0, index - 1), Math.min(last, index + 1)];
    const next = {
      ArrowLeft: less,
      ArrowRight: more,
      ...(vertical && { ArrowDown: less, ArrowUp: more }),
      Home: 0,
      End: last,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    moved.current = true;
    choose(next);
  };
  return { group, onKeyDown };
}
