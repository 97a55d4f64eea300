/*
 * Dragging by touch. Browsers drag with a mouse, and with a finger some do and some do not; so a finger that rests on something that can be
 * dragged picks it up here, and what takes drags is told by the events that it knows: `dragstart`, `dragover`, `drop`, `dragend`.
 */

/** How long a finger rests before it has picked something up, and how far it may tremble meanwhile; it scrolls else. */
const HOLD_MS = 350;
const STILL_PX = 10;
/** Near the edges of the view it scrolls while something is dragged. */
const EDGE_PX = 56;
const SCROLL_PX = 14;
const SCROLL_MS = 30;

interface Drag {
  readonly source: Element;
  readonly data: DataTransfer;
  readonly ghost: HTMLElement;
  readonly scrolling: ReturnType<typeof setInterval>;
  over: Element | undefined;
  /** Whether what is under the finger would take it. */
  fits: boolean;
  point: Point;
}

interface Point {
  readonly x: number;
  readonly y: number;
}

/** Listens until the function that it gives is called. */
export function listenForTouchDrags(): () => void {
  let waiting: { readonly timer: ReturnType<typeof setTimeout>; readonly from: Point } | undefined;
  let drag: Drag | undefined;

  const forget = () => {
    clearTimeout(waiting?.timer);
    waiting = undefined;
  };
  const onStart = (event: TouchEvent) => {
    forget();
    const source = event.touches.length === 1 ? draggableAt(event.target) : undefined;
    if (!source || drag) return;
    const from = pointOf(event.touches[0]!);
    waiting = {
      from,
      timer: setTimeout(() => {
        waiting = undefined;
        drag = begin(source, from);
      }, HOLD_MS),
    };
  };
  const onMove = (event: TouchEvent) => {
    const point = pointOf(event.touches[0]!);
    if (waiting && Math.hypot(point.x - waiting.from.x, point.y - waiting.from.y) > STILL_PX) forget();
    if (!drag) return;
    event.preventDefault(); // it would scroll
    move(drag, point);
  };
  const end = (isDropped: boolean) => (event: TouchEvent) => {
    forget();
    if (!drag) return;
    if (event.cancelable) event.preventDefault(); // it would click
    finish(drag, isDropped);
    drag = undefined;
  };
  const onEnd = end(true);
  const onCancel = end(false);
  // A finger that rests opens menus and begins the browser's own drags.
  const isOurs = (event: Event) => event.isTrusted && (waiting !== undefined || drag !== undefined);
  const refuse = (event: Event) => {
    if (!isOurs(event)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  };
  const active = { passive: false };
  document.addEventListener("touchstart", onStart, { passive: true });
  document.addEventListener("touchmove", onMove, active);
  document.addEventListener("touchend", onEnd, active);
  document.addEventListener("touchcancel", onCancel, active);
  document.addEventListener("contextmenu", refuse, true);
  document.addEventListener("dragstart", refuse, true);
  return () => {
    forget();
    if (drag) finish(drag, false);
    document.removeEventListener("touchstart", onStart);
    document.removeEventListener("touchmove", onMove);
    document.removeEventListener("touchend", onEnd);
    document.removeEventListener("touchcancel", onCancel);
    document.removeEventListener("contextmenu", refuse, true);
    document.removeEventListener("dragstart", refuse, true);
  };
}

/** What can be dragged there. Fields and buttons in it are used as they are. */
function draggableAt(target: EventTarget | null): Element | undefined {
  if (!(target instanceof Element) || target.closest("input, select, textarea, button, a")) return undefined;
  return target.closest('[draggable="true"]') ?? undefined;
}

function pointOf({ clientX, clientY }: Touch): Point {
  return { x: clientX, y: clientY };
}

/** Picks it up; undefined where it is not let go. */
function begin(source: Element, point: Point): Drag | undefined {
  const data = new DataTransfer();
  let image: Element = source;
  data.setDragImage = (given) => {
    image = given.cloneNode(true) as Element;
  };
  if (!tell("dragstart", source, data, point)) return undefined;
  const ghost = document.createElement("div");
  ghost.className = "touch-dragged";
  ghost.append(image === source ? pictureOf(source) : image);
  document.body.append(ghost);
  const drag: Drag = {
    source,
    data,
    ghost,
    over: undefined,
    fits: false,
    point,
    scrolling: setInterval(() => scrollAtEdges(drag), SCROLL_MS),
  };
  move(drag, point);
  return drag;
}

function pictureOf(source: Element): Element {
  const copy = source.cloneNode(true) as HTMLElement;
  copy.style.width = `${source.getBoundingClientRect().width}px`;
  for (const each of [copy, ...copy.querySelectorAll("[id]")]) each.removeAttribute("id");
  return copy;
}

function move(drag: Drag, point: Point): void {
  drag.point = point;
  drag.ghost.style.transform = `translate(${point.x}px, ${point.y}px)`;
  const over = document.elementFromPoint(point.x, point.y) ?? undefined;
  if (drag.over && drag.over !== over) tell("dragleave", drag.over, drag.data, point);
  drag.over = over;
  // What takes it says so by preventing what would happen else.
  drag.fits = over !== undefined && !tell("dragover", over, drag.data, point);
}

function finish({ source, data, ghost, over, fits, point, scrolling }: Drag, isDropped: boolean): void {
  clearInterval(scrolling);
  ghost.remove();
  if (over) tell(isDropped && fits ? "drop" : "dragleave", over, data, point);
  tell("dragend", source, data, point);
}

/** Whether nobody has prevented what follows. */
function tell(type: string, target: Element, dataTransfer: DataTransfer, { x, y }: Point): boolean {
  const where = { clientX: x, clientY: y, bubbles: true, cancelable: true, composed: true };
  return target.dispatchEvent(new DragEvent(type, { ...where, dataTransfer }));
}

function scrollAtEdges(drag: Drag): void {
  const view = document.querySelector("#main");
  if (!view) return;
  const { top, bottom } = view.getBoundingClientRect();
  const { y } = drag.point;
  const by = y < top + EDGE_PX ? -SCROLL_PX : y > bottom - EDGE_PX ? SCROLL_PX : 0;
  if (by === 0) return;
  const before = view.scrollTop;
  view.scrollBy({ top: by });
  if (view.scrollTop !== before) move(drag, drag.point);
}
