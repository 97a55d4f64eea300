import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import type { SeenPicture } from "../../../src/session/messages/results.ts";
import { useAddress } from "./use-prompt.ts";

export interface PatchCell {
  /** Between 0 and 1, for the ground; without it the picture is to be seen. */
  readonly value?: number;
  readonly text?: string;
  /** All there is to say about it. */
  readonly title: string;
  readonly class?: string;
}

export interface PatchPictureProps {
  readonly label: string;
  readonly seen: SeenPicture;
  /** What a patch says, by its position in the prompt. */
  cell(position: number): PatchCell;
  /** The patch that the Tab key comes to. */
  readonly at?: number | undefined;
  isChosen?(position: number): boolean;
  /** Shift extends. */
  onChoose?(position: number, extend: boolean): void;
  onKey?(event: KeyboardEvent, position: number): void;
  onDragStart?(position: number, event: DragEvent): void;
  onDragOver?(position: number, event: DragEvent): void;
  onDrop?(position: number, event: DragEvent): void;
}

/** A picture as the model sees it, with its patches over it as a grid of cells. */
export function PatchPicture(props: PatchPictureProps): JSX.Element | null {
  const { seen, label } = props;
  const { view, patches } = seen;
  const address = useAddress(view?.png);
  const grid = useRef<HTMLDivElement>(null);
  if (!view || !address) return null;
  const { rows = 0, columns = 0, positions = [] } = patches ?? {};
  const here = Math.max(0, props.at === undefined ? 0 : positions.indexOf(props.at));
  const focus = (index: number) => {
    const cell = grid.current?.querySelectorAll<HTMLElement>("[role='gridcell']")[index];
    cell?.focus();
    cell?.scrollIntoView({ block: "nearest" });
  };
  const onKeyDown = (event: KeyboardEvent, index: number) => {
    const [row, column] = [Math.floor(index / columns), index % columns];
    const steps: Record<string, [number, number]> = {
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      Home: [row, 0],
      End: [row, columns - 1],
    };
    const step = steps[event.key];
    if (!step) return props.onKey?.(event, positions[index]!);
    event.preventDefault();
    if (step[0] < 0 || step[0] >= rows || step[1] < 0 || step[1] >= columns) return;
    const next = step[0] * columns + step[1];
    props.onChoose?.(positions[next]!, event.shiftKey);
    focus(next);
  };
  return (
    <figure class="patch-picture">
      <div class="field" style={`aspect-ratio:${view.width}/${view.height}`}>
        <img src={address} alt={`${label}, as the model sees it`} width={view.width} height={view.height} />
        {patches && (
          <div
            ref={grid}
            class="patches"
            role="grid"
            aria-label={`Patches of ${label}`}
            style={`grid-template:repeat(${rows},1fr)/repeat(${columns},1fr)`}
          >
            {Array.from({ length: rows }, (_, row) => (
              <div key={row} role="row" tabIndex={-1}>
                {positions.slice(row * columns, (row + 1) * columns).map((position, column) => {
                  const index = row * columns + column;
                  const { value, text, title, class: more = "" } = props.cell(position);
                  return (
                    <div
                      key={position}
                      role="gridcell"
                      class={`patch ${value === undefined ? "" : "valued"} ${more}`}
                      style={value === undefined ? undefined : `--value:${value.toFixed(3)}`}
                      tabIndex={index === here ? 0 : -1}
                      aria-label={title}
                      aria-selected={props.isChosen ? props.isChosen(position) : undefined}
                      title={title}
                      draggable={props.onDragStart !== undefined}
                      onClick={(event) => props.onChoose?.(position, event.shiftKey)}
                      onKeyDown={(event) => onKeyDown(event, index)}
                      onDragStart={(event) => props.onDragStart?.(position, event)}
                      onDragOver={(event) => props.onDragOver?.(position, event)}
                      onDrop={(event) => props.onDrop?.(position, event)}
                    >
                      {text && columns <= 8 ? <span>{text}</span> : null}
                    </div>
                  );
                })}
              </div>
            ))}
          </div>
        )}
      </div>
      <figcaption class="soft">
        {label}: {seen.width} × {seen.height}, seen as {view.width} × {view.height}
        {patches ? `, ${rows} × ${columns} patches` : "; its patches are no one grid of places in the prompt"}
      </figcaption>
    </figure>
  );
}
