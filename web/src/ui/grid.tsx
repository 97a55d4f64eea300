import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

/** A place in a grid, from 0. */
export interface GridPlace {
  readonly row: number;
  readonly column: number;
}

export interface GridCell {
  readonly text: string;
  /** Between 0 and 1, for the ground. */
  readonly value?: number;
  /** All there is to say about it: read out, and shown under the pointer. */
  readonly title: string;
  /** More classes, such as `reached`. */
  readonly class?: string;
}

export interface GridProps {
  readonly label: string;
  readonly rows: readonly { readonly key: string | number; readonly head: string; readonly title?: string }[];
  readonly columns: readonly {
    readonly key: string | number;
    readonly head: string;
    readonly title?: string;
  }[];
  cell(place: GridPlace): GridCell | undefined;
  isChosen?(place: GridPlace): boolean;
  /** A click, Enter or Space; with Shift `extend` is true. */
  onChoose?(place: GridPlace, extend: boolean): void;
  onMove?(place: GridPlace): void;
  /** Drag and drop between grids; the keyboard's way is for the view to give. */
  onDragStart?(place: GridPlace, event: DragEvent): void;
  onDragOver?(place: GridPlace, event: DragEvent): void;
  onDrop?(place: GridPlace, event: DragEvent): void;
}

const PAGE = 10;

/**
 * Cells in rows and columns, one of which is in the order of the Tab key; arrows, Home, End, Page Up and Down (with Ctrl to the ends)
 * move within, as the pattern `grid` of ARIA has it.
 */
export function Grid(props: GridProps): JSX.Element {
  const { label, rows, columns, cell } = props;
  const [at, setAt] = useState<GridPlace>({ row: 0, column: 0 });
  const table = useRef<HTMLTableElement>(null);
  const here = {
    row: Math.min(at.row, Math.max(0, rows.length - 1)),
    column: Math.min(at.column, Math.max(0, columns.length - 1)),
  };
  const moved = useRef(false);
  useEffect(() => {
    if (!moved.current) return;
    moved.current = false;
    table.current?.querySelector<HTMLElement>("td[tabindex='0']")?.focus();
  });

  const go = (place: GridPlace) => {
    moved.current = true;
    setAt(place);
    props.onMove?.(place);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const ends = event.ctrlKey || event.metaKey;
    const [lastRow, lastColumn] = [rows.length - 1, columns.length - 1];
    const { row, column } = here;
    const places: Record<string, GridPlace> = {
      ArrowLeft: { row, column: column - 1 },
      ArrowRight: { row, column: column + 1 },
      ArrowUp: { row: row - 1, column },
      ArrowDown: { row: row + 1, column },
      PageUp: { row: Math.max(0, row - PAGE), column },
      PageDown: { row: Math.min(lastRow, row + PAGE), column },
      Home: { row: ends ? 0 : row, column: 0 },
      End: { row: ends ? lastRow : row, column: lastColumn },
    };
    const place = places[event.key];
    if (place) {
      event.preventDefault();
      if (place.row >= 0 && place.row <= lastRow && place.column >= 0 && place.column <= lastColumn)
        go(place);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      props.onChoose?.(here, event.shiftKey);
    }
  };

  return (
    <table
      ref={table}
      class="grid"
      role="grid"
      aria-label={label}
      aria-rowcount={rows.length + 1}
      aria-colcount={columns.length + 1}
      aria-multiselectable={props.onChoose ? true : undefined}
    >
      <thead>
        <tr aria-rowindex={1}>
          <td />
          {columns.map(({ key, head, title }) => (
            <th key={key} scope="col" title={title}>
              {head}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((each, row) => (
          <tr key={each.key} aria-rowindex={row + 2}>
            <th scope="row" title={each.title}>
              {each.head}
            </th>
            {columns.map(({ key }, column) => {
              const place = { row, column };
              const found = cell(place);
              const isHere = row === here.row && column === here.column;
              return (
                <td
                  key={key}
                  class={`cell ${found?.class ?? ""}`}
                  style={found?.value === undefined ? undefined : `--value:${found.value.toFixed(3)}`}
                  title={found?.title}
                  aria-label={found?.title}
                  aria-colindex={column + 2}
                  aria-selected={props.isChosen ? props.isChosen(place) : undefined}
                  role="gridcell"
                  tabIndex={isHere ? 0 : -1}
                  onKeyDown={onKeyDown}
                  draggable={props.onDragStart !== undefined}
                  onClick={(event) => {
                    go(place);
                    props.onChoose?.(place, event.shiftKey);
                  }}
                  onDragStart={(event) => props.onDragStart?.(place, event)}
                  onDragOver={(event) => props.onDragOver?.(place, event)}
                  onDrop={(event) => props.onDrop?.(place, event)}
                >
                  {found?.text}
                </td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
