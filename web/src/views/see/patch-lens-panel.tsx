import type { JSX } from "preact";
import type { EncodedPrompt, LensAnswer } from "../../../../src/session/messages/results.ts";
import { useAsked } from "../../ask.ts";
import { toCsv } from "../../keep/csv.ts";
import { FigurePanel } from "../../keep/figure-panel.tsx";
import { model } from "../../model.ts";
import { PatchPicture } from "../../prompts/patch-picture.tsx";
import { store } from "../../state.ts";
import { Problem } from "../../ui/problem.tsx";
import { ProgressBar } from "../../ui/progress.tsx";
import { percentInWords, tokenInWords } from "../../ui/words.ts";
import { firstLayer } from "../../vectors/shelf.ts";
import { SEE } from "./see-slice.ts";
import { rgbOf } from "./use-bitmap.ts";

/** Words of a patch that are told. */
const WORDS = 3;
/** Up to so many patches all layers are computed at once, so that the slider moves freely; of more, the layer that is looked at. */
const MOST_AT_ONCE = 64;
/** Patches that a table of words is readable of. */
const MOST_IN_TABLE = 16;

/** What the patches of the picture read as in a layer, by the logit lens. */
export function PatchLensPanel({
  encoded,
  encodedKey,
}: {
  encoded: EncodedPrompt;
  encodedKey: string;
}): JSX.Element {
  const slice = store.slice(SEE).value;
  const layers = model.value.status === "ready" ? model.value.summary.layers : 1;
  const layer = Math.min(slice.layer ?? firstLayer(layers), layers - 1);
  const seen = encoded.pictures[0];
  const positions = seen?.patches?.positions;
  const atOnce = (positions?.length ?? 0) <= MOST_AT_ONCE;
  const { value, current, error, progress } = useAsked(
    positions ? ["patch lens", encodedKey, positions, atOnce ? "all" : layer] : undefined,
    ({ client, model: handle, signal, onProgress }) =>
      client.lens(
        {
          model: handle,
          prompt: encoded.prompt,
          at: [...positions!],
          k: WORDS,
          ...(!atOnce && { layers: [layer] }),
        },
        { signal, onProgress },
      ),
  );
  const index = value?.layers.indexOf(layer) ?? -1;
  return (
    <FigurePanel
      title="Words of patches"
      busy={!current}
      setting={value?.setting}
      save={
        value && seen?.view
          ? {
              name: "words-of-patches",
              figure: () => lensFigureOf(value, seen, layer),
              csv: () => lensCsv(value),
            }
          : undefined
      }
    >
      {!positions || !seen ? (
        <p class="soft">
          {seen
            ? "The patches of this model's pictures are no one grid of places in the prompt."
            : "The prompt has no picture. Choose one asked by picture, or put one into the text."}
        </p>
      ) : error ? (
        <Problem error={error} />
      ) : (
        <>
          <label class="slider field">
            <span>
              Layer <output class="number">{layer}</output> of 0 to {layers - 1}
            </span>
            <input
              type="range"
              min={0}
              max={layers - 1}
              step={1}
              value={layer}
              aria-label="Layer"
              onInput={({ currentTarget }) =>
                store.set(
                  SEE,
                  `look at layer ${currentTarget.value}`,
                  (before) => ({ ...before, layer: currentTarget.valueAsNumber }),
                  "see layer",
                )
              }
            />
          </label>
          {value && index >= 0 ? (
            <div class="words-of-patches">
              <PatchPicture
                label="the picture"
                seen={seen}
                cell={(position) => {
                  const told = wordsOf(value, index, value.positions.indexOf(position));
                  return {
                    value: told[0]?.probability ?? 0,
                    text: tokenInWords(told[0]?.text ?? ""),
                    title: `position ${position}: ${told.map(({ text, probability }) => `${tokenInWords(text)} ${percentInWords(probability)}`).join(", ")}`,
                  };
                }}
              />
              <div>
                <p class="soft">
                  Each patch of layer {layer} read by the model's own head (logit lens); the darker, the more
                  probable. Pointing at one, or going to it with the arrows, tells its {WORDS} likeliest
                  words.
                </p>
                {positions.length <= MOST_IN_TABLE && <WordTable value={value} layer={index} seen={seen} />}
              </div>
            </div>
          ) : (
            <ProgressBar label="Reading the patches" done={progress?.done ?? 0} total={progress?.total} />
          )}
        </>
      )}
    </FigurePanel>
  );
}

/** The words of every patch, for those who would rather read than point. */
function WordTable({
  value,
  layer,
  seen,
}: {
  value: LensAnswer;
  layer: number;
  seen: EncodedPrompt["pictures"][number];
}): JSX.Element {
  const { positions, columns } = seen.patches!;
  return (
    <table aria-label="Words of the patches">
      <tbody>
        {positions.map((position, i) => (
          <tr key={position}>
            <th scope="row" class="soft number">
              row {Math.floor(i / columns)}, column {i % columns}
            </th>
            {wordsOf(value, layer, value.positions.indexOf(position)).map(({ id, text, probability }) => (
              <td key={id}>
                <span class="mono">{tokenInWords(text)}</span>{" "}
                <span class="soft number">{percentInWords(probability)}</span>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function wordsOf({ ids, probabilities, texts, positions, k }: LensAnswer, layer: number, position: number) {
  const start = (layer * positions.length + position) * k;
  return Array.from({ length: k }, (_, rank) => ({
    id: ids[start + rank]!,
    text: texts[ids[start + rank]!] ?? "",
    probability: probabilities[start + rank] ?? 0,
  }));
}

async function lensFigureOf(value: LensAnswer, seen: EncodedPrompt["pictures"][number], layer: number) {
  const [{ lensFigure }, { showSetting }] = await Promise.all([
    import("../../../../src/figures/lens-figure.ts"),
    import("../../../../src/patching/setting.ts"),
  ]);
  const index = value.layers.indexOf(layer);
  const cells = value.positions.map((position, p) => ({
    layer,
    position,
    tokens: wordsOf(value, index, p),
  }));
  const { rows, columns } = seen.patches!;
  return lensFigure(cells, {
    title: `what patches read as in layer ${layer}`,
    lines: [showSetting(value.setting)],
    picture: await rgbOf(seen.view!.png),
    grid: { rows, columns },
  });
}

export function lensCsv(value: LensAnswer): string {
  return toCsv(
    ["layer", "position", "rank", "id", "text", "probability"],
    value.layers.flatMap((layer, l) =>
      value.positions.flatMap((position, p) =>
        wordsOf(value, l, p).map(({ id, text, probability }, rank) => [
          layer,
          position,
          rank,
          id,
          text,
          probability,
        ]),
      ),
    ),
  );
}
