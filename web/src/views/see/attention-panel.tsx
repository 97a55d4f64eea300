import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { AttentionAnswer, EncodedPrompt } from "../../../../src/session/messages/results.ts";
import { useAsked } from "../../ask.ts";
import { toCsv } from "../../keep/csv.ts";
import { FigurePanel } from "../../keep/figure-panel.tsx";
import { model } from "../../model.ts";
import { PatchPicture } from "../../prompts/patch-picture.tsx";
import { tokensComputed } from "../../prompts/tokens-computed.ts";
import { store } from "../../state.ts";
import { ChoiceField } from "../../ui/choice-field.tsx";
import { NumberField } from "../../ui/number-field.tsx";
import { Problem } from "../../ui/problem.tsx";
import { ProgressBar } from "../../ui/progress.tsx";
import { percentInWords, tokenInWords } from "../../ui/words.ts";
import { firstLayer } from "../../vectors/shelf.ts";
import { HeatTile } from "./heat-tile.tsx";
import { type Mode, SEE, type SeeSlice } from "./see-slice.ts";
import { rgbOf, useBitmap } from "./use-bitmap.ts";

interface OfEncoded {
  readonly encoded: EncodedPrompt;
  readonly encodedKey: string;
}

const WORDS: Record<Mode, string> = {
  layers: "each layer, mean of its heads",
  heads: "each head of a layer",
  rollout: "rollout up to each layer",
};

/** How a token's attention lies over the picture: a tile a layer or a head, and the chosen one with its numbers. */
export function AttentionPanel({ encoded, encodedKey }: OfEncoded): JSX.Element {
  const slice = store.slice(SEE).value;
  const { mode, at } = slice;
  const layers = model.value.status === "ready" ? model.value.summary.layers : 1;
  const layer = Math.min(slice.layer ?? firstLayer(layers), layers - 1);
  const seen = encoded.pictures[0];
  const bitmap = useBitmap(seen?.view?.png);
  const { value, current, error, progress } = useAsked(
    seen ? ["attention", encodedKey, at, mode, mode === "heads" ? layer : ""] : undefined,
    ({ client, model: handle, signal, onProgress }) =>
      client.attention(
        {
          model: handle,
          prompt: encoded.prompt,
          at,
          span: seen!.span,
          heads: mode === "layers" ? "mean" : mode === "heads" ? "each" : "rollout",
          ...(mode === "heads" && { layers: [layer] }),
        },
        { signal, onProgress },
      ),
  );
  const counted = progress?.phase === "layers" ? progress : undefined;
  const change = (label: string, part: Partial<SeeSlice>, same?: string) =>
    store.set(SEE, label, (before) => ({ ...before, ...part }), same);
  const texts = tokensComputed(encoded).texts;
  const from = tokenInWords(texts[at < 0 ? texts.length + at : at] ?? "");
  const isChosen = (map: AttentionAnswer["maps"][number]) =>
    mode === "heads" ? map.head === (slice.head ?? 0) : map.layer === layer;
  const chosen = value?.maps.find(isChosen) ?? value?.maps[0];
  return (
    <FigurePanel
      title="Attention"
      busy={!current}
      setting={value?.setting}
      save={
        value && seen?.view
          ? {
              name: "attention",
              figure: () => attentionFigureOf(value, seen.view!.png, `attention of ${from}: ${WORDS[mode]}`),
              csv: () => attentionCsv(value),
            }
          : undefined
      }
    >
      <div class="fields">
        <ChoiceField
          label="Shown"
          value={mode}
          choices={Object.entries(WORDS) as [Mode, string][]}
          set={(next) => change("show other attention", { mode: next })}
        />
        {mode === "heads" && (
          <NumberField
            label="Layer"
            value={layer}
            min={0}
            max={layers - 1}
            set={(next) => change(`look at layer ${next}`, { layer: next })}
          />
        )}
      </div>
      {!seen ? (
        <p class="soft hint">
          The prompt has no picture. Choose one asked by picture, or put one into the text.
        </p>
      ) : error ? (
        <Problem error={error} />
      ) : !value || !chosen || !bitmap ? (
        <ProgressBar
          label="Reading the attention"
          done={counted?.done ?? 0}
          total={counted?.total}
          words={counted ? `${counted.done} of ${counted.total} layers` : ""}
        />
      ) : (
        <div class="attention">
          <Tiles
            maps={value.maps}
            bitmap={bitmap}
            isChosen={isChosen}
            onChoose={(map) =>
              mode === "heads"
                ? change(`look at head ${map.head}`, { head: map.head! }, "see head")
                : change(`look at layer ${map.layer}`, { layer: map.layer }, "see layer")
            }
          />
          <div class="chosen">
            <h3>{nameOf(chosen)}</h3>
            <p class="soft">
              From <span class="mono">“{from}”</span>: {percentInWords(chosen.share)} of its attention is on
              the picture; the rest is on text.
            </p>
            <Chosen seen={seen} map={chosen} />
          </div>
        </div>
      )}
    </FigurePanel>
  );
}

type Map = AttentionAnswer["maps"][number];

function nameOf({ layer, head }: Map): string {
  return head === undefined ? `Layer ${layer}` : `Layer ${layer}, head ${head}`;
}

function peakOf({ weights }: Map): number {
  return weights.reduce((a, b) => Math.max(a, b), 0);
}

function Chosen({ seen, map }: { seen: EncodedPrompt["pictures"][number]; map: Map }): JSX.Element {
  const peak = peakOf(map);
  const positions = seen.patches?.positions ?? [];
  return (
    <PatchPicture
      label="the picture"
      seen={seen}
      cell={(position) => {
        const i = positions.indexOf(position);
        const weight = map.weights[i] ?? 0;
        const place = seen.patches
          ? `row ${Math.floor(i / seen.patches.columns)}, column ${i % seen.patches.columns}`
          : "";
        return {
          value: peak > 0 ? weight / peak : 0,
          text: percentInWords(weight),
          title: `patch ${place}: ${percentInWords(weight)} of the attention`,
        };
      }}
    />
  );
}

interface TilesProps {
  readonly maps: readonly Map[];
  readonly bitmap: ImageBitmap;
  readonly isChosen: (map: Map) => boolean;
  readonly onChoose: (map: Map) => void;
}

/** One of them is in the order of the Tab key; the arrows go on. */
function Tiles({ maps, bitmap, isChosen, onChoose }: TilesProps): JSX.Element {
  const group = useRef<HTMLDivElement>(null);
  const moved = useRef(false);
  const index = Math.max(0, maps.findIndex(isChosen));
  useEffect(() => {
    if (!moved.current) return;
    moved.current = false;
    group.current?.querySelector<HTMLElement>("[tabindex='0']")?.focus();
  });
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    moved.current = true;
    onChoose(maps[Math.min(maps.length - 1, Math.max(0, index + step))]!);
  };
  return (
    <div ref={group} class="tiles" role="radiogroup" aria-label="Attention maps">
      {maps.map((map, i) => (
        <button
          key={`${map.layer}.${map.head}`}
          type="button"
          role="radio"
          class="tile"
          aria-checked={isChosen(map)}
          aria-label={`${nameOf(map)}: ${percentInWords(map.share)} on the picture, peak ${percentInWords(peakOf(map))}`}
          title={`${nameOf(map)}: ${percentInWords(map.share)} on the picture, peak ${percentInWords(peakOf(map))}`}
          tabIndex={i === index ? 0 : -1}
          onClick={() => onChoose(map)}
          onKeyDown={onKeyDown}
        >
          <HeatTile picture={bitmap} grid={map.grid} weights={map.weights} peak={peakOf(map)} />
          <span class="number">
            {map.head ?? map.layer} <span class="soft">{percentInWords(map.share)}</span>
          </span>
        </button>
      ))}
    </div>
  );
}

async function attentionFigureOf({ maps, setting }: AttentionAnswer, png: Uint8Array, title: string) {
  const { attentionFigure } = await import("../../../../src/figures/attention-figure.ts");
  return attentionFigure(
    maps.map((map) => ({ ...map, setting })),
    { title, picture: await rgbOf(png) },
  );
}

export function attentionCsv({ maps }: AttentionAnswer): string {
  return toCsv(
    ["layer", "head", "row", "column", "weight"],
    maps.flatMap(({ layer, head, grid, weights }) =>
      Array.from(weights, (weight, i) => [
        layer,
        head,
        Math.floor(i / grid.columns),
        i % grid.columns,
        weight,
      ]),
    ),
  );
}
