import type { JSX } from "preact";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { theme } from "../../ui/theme.ts";
import { drawGrid, type GridSizes, gridSizes, spotUnder } from "./draw-grid.ts";
import { gridColours } from "./grid-colours.ts";
import { spotAfter } from "./grid-keys.ts";
import type { GridRow } from "./lens-cells.ts";
import { type Cell, type Choice, holds, type Place, placeOf } from "./places.ts";

export interface LensGridProps {
  readonly label: string;
  readonly rows: readonly GridRow[];
  readonly layers: number;
  /** Whether cells have room for words. */
  readonly words: boolean;
  readonly choice: Choice;
  readonly busy: boolean;
  /** For the ground and the words of a cell. */
  cell(cell: Cell): { readonly text: string; readonly value: number } | undefined;
  /** All there is to say about a cell. */
  title(cell: Cell, head: string): string;
  isReached?(cell: Cell): boolean;
  isEdited?(cell: Cell): boolean;
  /** Where something would be put. */
  readonly aimed?: Place | undefined;
  onChoose(choice: Choice): void;
  /** Keys that do not move. */
  onKey?(event: KeyboardEvent): void;
  onDragStart?(event: DragEvent, cell: Cell): void;
  /** While something is dragged over it; undefined when it has left. */
  onDragOver?(event: DragEvent, cell: Cell | undefined): void;
  onDrop?(event: DragEvent, cell: Cell): void;
}

/**
 * Tokens in rows, layers in columns. What is seen is a canvas of the size of the field; what is read out and focused is the grid around
 * it, which holds the one cell that is active.
 */
export function LensGrid(props: LensGridProps): JSX.Element {
  const { rows, layers, choice, words } = props;
  const id = useId();
  const field = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const probe = useRef<HTMLSpanElement>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const [focused, setFocused] = useState(false);
  const sizes = gridSizes(words, layers, size.width);
  const spot = spotOf(choice.at, rows);
  const draw = useRef<() => void>(() => {});
  draw.current = () =>
    paint(props, { sizes, size, focused, spot }, field.current, canvas.current, probe.current);

  useLayoutEffect(() => {
    const element = field.current!;
    const measure = () => setSize({ width: element.clientWidth, height: element.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    measure();
    return () => observer.disconnect();
  }, []);
  // One drawing a frame, however often it is asked for.
  const frame = useRef(0);
  const drawSoon = () => {
    cancelAnimationFrame(frame.current);
    frame.current = requestAnimationFrame(() => draw.current());
  };
  useLayoutEffect(drawSoon);
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", drawSoon);
    const stop = theme.subscribe(drawSoon);
    return () => {
      dark.removeEventListener("change", drawSoon);
      stop();
      cancelAnimationFrame(frame.current);
    };
  }, []);

  const cellAt = (event: MouseEvent): { cell: Cell; inHead: boolean } | undefined => {
    const element = field.current!;
    const box = element.getBoundingClientRect();
    const point = { x: event.clientX - box.left, y: event.clientY - box.top };
    const under = spotUnder(sizes, point, { left: element.scrollLeft, top: element.scrollTop });
    const row = rows[under.row];
    if (!row || under.column >= layers) return undefined;
    const cell = { position: row.position, layer: Math.max(0, under.column) };
    return { cell, inHead: under.column < 0 };
  };

  const choose = (cell: Cell, extend: boolean, whole = choice.whole && extend) => {
    props.onChoose({ at: cell, anchor: extend ? choice.anchor : cell, whole });
    show(cell, rows, sizes, field.current!);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const next = spotAfter(event.key, event.ctrlKey || event.metaKey, spot, {
      rows: rows.length,
      columns: layers,
    });
    if (!next) return props.onKey?.(event);
    event.preventDefault();
    choose({ position: rows[next.row]!.position, layer: next.column }, event.shiftKey);
  };
  const active = rows[spot.row];
  const title = active && props.title({ position: active.position, layer: spot.column }, active.head);

  return (
    <div
      ref={field}
      class="lens-grid"
      role="grid"
      aria-label={props.label}
      aria-rowcount={rows.length}
      aria-colcount={layers}
      aria-multiselectable="true"
      aria-activedescendant={active && `${id}-cell`}
      aria-busy={props.busy}
      tabIndex={0}
      title={title}
      draggable={props.onDragStart !== undefined}
      onScroll={drawSoon}
      onKeyDown={onKeyDown}
      onFocus={() => setFocused(true)}
      onBlur={() => setFocused(false)}
      onClick={(event) => {
        const under = cellAt(event);
        if (under) choose(under.cell, event.shiftKey, under.inHead);
      }}
      onDragStart={(event) => {
        const under = cellAt(event);
        if (!under || !props.onDragStart) return event.preventDefault();
        const place = placeOf(choice, layers);
        if (under.inHead) choose(under.cell, false, true);
        else if (!holds(place, under.cell)) choose(under.cell, false);
        props.onDragStart(event, under.cell);
      }}
      onDragOver={(event) => props.onDragOver?.(event, cellAt(event)?.cell)}
      onDragLeave={(event) => props.onDragOver?.(event, undefined)}
      onDrop={(event) => {
        const under = cellAt(event);
        if (under) props.onDrop?.(event, under.cell);
      }}
    >
      <div class="sight" aria-hidden="true">
        <canvas ref={canvas} />
      </div>
      <div
        class="extent"
        role="presentation"
        style={`width:${sizes.head.width + layers * sizes.cell.width}px;height:${sizes.head.height + rows.length * sizes.cell.height}px`}
      />
      <span ref={probe} hidden />
      {active && (
        <div role="row" class="visually-hidden" aria-rowindex={spot.row + 1} tabIndex={-1}>
          <div
            id={`${id}-cell`}
            role="gridcell"
            aria-colindex={spot.column + 1}
            aria-selected={holds(placeOf(choice, layers), choice.at)}
            tabIndex={-1}
          >
            {title}
          </div>
        </div>
      )}
    </div>
  );
}

function spotOf({ position, layer }: Cell, rows: readonly GridRow[]): { row: number; column: number } {
  return {
    row: Math.max(
      0,
      rows.findIndex((row) => row.position === position),
    ),
    column: layer,
  };
}

/** Scrolls as little as needed for a cell to be seen. */
function show(
  cell: Cell,
  rows: readonly GridRow[],
  { head, cell: box }: GridSizes,
  field: HTMLElement,
): void {
  const { row, column } = spotOf(cell, rows);
  const [x, y] = [column * box.width, row * box.height];
  const width = field.clientWidth - head.width;
  const height = field.clientHeight - head.height;
  if (x < field.scrollLeft) field.scrollLeft = x;
  else if (x + box.width > field.scrollLeft + width) field.scrollLeft = x + box.width - width;
  if (y < field.scrollTop) field.scrollTop = y;
  else if (y + box.height > field.scrollTop + height) field.scrollTop = y + box.height - height;
}

interface Painting {
  readonly sizes: GridSizes;
  readonly size: { readonly width: number; readonly height: number };
  readonly focused: boolean;
  readonly spot: { readonly row: number; readonly column: number };
}

function paint(
  { rows, layers, choice, cell, isReached, isEdited, aimed }: LensGridProps,
  { sizes, size, focused, spot }: Painting,
  field: HTMLElement | null,
  canvas: HTMLCanvasElement | null,
  probe: HTMLElement | null,
): void {
  const context = canvas?.getContext("2d");
  if (!field || !canvas || !probe || !context) return;
  const scale = devicePixelRatio;
  const [width, height] = [Math.round(size.width * scale), Math.round(size.height * scale)];
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
    canvas.style.width = `${size.width}px`;
    canvas.style.height = `${size.height}px`;
  }
  context.setTransform(scale, 0, 0, scale, 0, 0);
  const chosen = placeOf(choice, layers);
  const at = (row: number, layer: number): Cell => ({ position: rows[row]!.position, layer });
  drawGrid(
    context,
    {
      rows,
      columns: layers,
      cell: (row, column) => cell(at(row, column)),
      isChosen: (row, column) => holds(chosen, at(row, column)),
      isReached: (row, column) => isReached?.(at(row, column)) ?? false,
      isEdited: (row, column) => isEdited?.(at(row, column)) ?? false,
      isAimed: (row, column) => aimed !== undefined && holds(aimed, at(row, column)),
      at: rows.length > 0 ? spot : undefined,
      focused,
    },
    sizes,
    { ...size, left: field.scrollLeft, top: field.scrollTop },
    gridColours(probe),
  );
}
