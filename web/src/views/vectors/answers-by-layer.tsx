import type { JSX } from "preact";
import { showSetting } from "../../../../src/patching/setting.ts";
import { useAsked } from "../../ask.ts";
import { toCsv } from "../../keep/csv.ts";
import { Export } from "../../keep/export.tsx";
import { pictureKey, pictureName } from "../../pictures/picture-ref.ts";
import { store } from "../../state.ts";
import { Problem } from "../../ui/problem.tsx";
import { ProgressBar } from "../../ui/progress.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import { percentInWords, tokenInWords } from "../../ui/words.ts";
import { chooseLayer } from "../../vectors/choose-layer.ts";
import { askLayers, type ByLayer, firstTokenOf } from "../../vectors/patched.ts";
import { queryOf, rightAnswers } from "../../vectors/query.ts";
import { taskOf } from "../../vectors/recipe.ts";
import type { ShelfVector } from "../../vectors/shelf.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { LayerChart } from "./layer-chart.tsx";
import { type Sweep, VECTORS } from "./vectors-slice.ts";

/** What one picture's question is answered with, by the layer that the vector is put into, all from one recorded pass. */
export function AnswersByLayer({ sweep, vector }: { sweep: Sweep; vector: ShelfVector }): JSX.Element | null {
  const { pictures, context } = store.slice(VECTORS).value;
  const { value: tasks = [] } = useTasks();
  const { recipe, name, layer } = vector;
  const picture = pictures.find((each) => pictureKey(each) === sweep.picture);
  const right = picture ? rightAnswers(picture, taskOf(recipe), tasks)[0] : undefined;
  const { value, current, error } = useAsked(
    picture && tasks.length > 0 ? ["by layer", recipe, picture, context, right] : undefined,
    async (asking) => {
      const id = right === undefined ? undefined : await firstTokenOf(asking, right);
      return askLayers(asking, queryOf(picture!, context, tasks), recipe, id === undefined ? [] : [id]);
    },
  );
  if (!picture) return <p class="soft hint">The picture has been taken away.</p>;
  if (error) return <Problem error={error} />;
  if (!current || !value) return <ProgressBar label={`Asking about ${pictureName(picture)}`} words="" />;
  const tracked = value.plain.tracked[0];
  const here = value.layers.find((each) => each.layer === layer);
  const measured = tracked ? `of ${tokenInWords(tracked.text)}` : "of the answer";
  const choose = (next: number) => chooseLayer(vector, next);
  const title = `${name} put on ${pictureName(picture)}: probability ${measured}`;
  return (
    <div class="stack wide">
      <LayerChart
        label={`Layer of ${name}`}
        chosen={layer}
        onChoose={choose}
        bars={value.layers.map(({ layer: at, top, tracked: own }) => {
          const shown = (own[0] ?? top[0])!.probability;
          return {
            layer: at,
            value: shown,
            word: tokenInWords(top[0]!.text),
            title: `layer ${at}: ${tokenInWords(top[0]!.text)} ${percentInWords(top[0]!.probability)}${own[0] ? `, ${tokenInWords(own[0].text)} ${percentInWords(own[0].probability)}` : ""}`,
            class: own[0]?.id === top[0]!.id ? "best" : "",
          };
        })}
        lines={tracked ? [{ label: "no vector", value: tracked.probability }] : []}
      />
      <div class="row">
        <p role="status">
          Bars: probability {measured}, the words below: what is answered. Layer {layer}:{" "}
          <span class="mono">{tokenInWords(here?.top[0]?.text ?? "")}</span>{" "}
          {here && percentInWords(here.top[0]!.probability)}; without a vector{" "}
          <span class="mono">{tokenInWords(value.plain.top[0]!.text)}</span>{" "}
          {percentInWords(value.plain.top[0]!.probability)}.
        </p>
        <Export
          name="answers-by-layer"
          figure={() => answersFigure(value, title)}
          csv={() => answersCsv(value)}
        />
      </div>
      <p class="soft small">
        {value.rowLayers} rows × layers computed after the recorded pass.{" "}
        <Provenance setting={value.setting} />
      </p>
    </div>
  );
}

async function answersFigure({ layers, plain, setting }: ByLayer, title: string) {
  const { curveFigure } = await import("../../../../src/figures/curve-figure.ts");
  const [tracked] = plain.tracked;
  return curveFigure(
    {
      patched: layers.map(({ layer, top, tracked: own }) => ({
        x: layer,
        y: (own[0] ?? top[0])!.probability,
      })),
    },
    {
      title,
      y: "probability",
      range: [0, 1],
      ...(tracked && { references: { "no vector": tracked.probability } }),
      caption: showSetting(setting),
    },
  );
}

export function answersCsv({ layers, plain }: ByLayer): string {
  const row = (name: string | number, { top, tracked }: ByLayer["plain"]) => [
    name,
    top[0]!.text,
    top[0]!.probability,
    tracked[0]?.text,
    tracked[0]?.probability,
  ];
  return toCsv(
    ["layer", "answer", "probability", "tracked", "probability of tracked"],
    [row("none", plain), ...layers.map((each) => row(each.layer, each))],
  );
}
