import type { JSX } from "preact";
import { useArrows } from "../../ui/arrows.ts";

export interface LayerBar {
  readonly layer: number;
  /** Between 0 and 1. */
  readonly value: number;
  /** All there is to say about it. */
  readonly title: string;
  /** Written under the bar, where it is wide enough. */
  readonly word?: string;
  readonly class?: string;
}

export interface LayerChartProps {
  readonly label: string;
  readonly bars: readonly LayerBar[];
  readonly chosen: number | undefined;
  readonly onChoose: (layer: number) => void;
  /** Lines across, such as the accuracy without a vector. */
  readonly lines?: readonly { readonly label: string; readonly value: number }[];
}

/** A value by layer, as bars to choose a layer by: with the arrows, Home and End, or a click. The figure to save is drawn by the library. */
export function LayerChart({ label, bars, chosen, onChoose, lines = [] }: LayerChartProps): JSX.Element {
  const index = Math.max(
    0,
    bars.findIndex(({ layer }) => layer === chosen),
  );
  const { group, onKeyDown } = useArrows(bars.length, index, (next) => onChoose(bars[next]!.layer), true);
  return (
    <div class="layer-chart">
      <div class="axis" aria-hidden="true">
        <span>100 %</span>
        <span>50</span>
        <span>0</span>
      </div>
      <div class="plot">
        {lines.map(({ label: name, value }) => (
          <div key={name} class="reference" style={`--value:${value.toFixed(4)}`}>
            <span>{name}</span>
          </div>
        ))}
        <div ref={group} class="bars" role="radiogroup" aria-label={label}>
          {bars.map(({ layer, value, title, word, class: more = "" }, i) => (
            <button
              key={layer}
              type="button"
              role="radio"
              class={`column ${more}`}
              aria-checked={layer === chosen}
              aria-label={title}
              title={title}
              tabIndex={i === index ? 0 : -1}
              onKeyDown={onKeyDown}
              onClick={() => onChoose(layer)}
            >
              <span class="room">
                <span class="fill" style={`--value:${value.toFixed(4)}`} />
              </span>
              <span class="layer">{layer}</span>
              {word !== undefined && <span class="word mono">{word}</span>}
            </button>
          ))}
        </div>
      </div>
    </div>
  );
}
