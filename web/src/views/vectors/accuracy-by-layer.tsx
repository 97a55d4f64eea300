import type { JSX } from "preact";
import { showSetting } from "../../../../src/patching/setting.ts";
import type { SweepAnswer } from "../../../../src/session/messages/results.ts";
import { useAsked } from "../../ask.ts";
import { toCsv } from "../../keep/csv.ts";
import { Export } from "../../keep/export.tsx";
import { Problem } from "../../ui/problem.tsx";
import { ProgressBar } from "../../ui/progress.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import { percentInWords } from "../../ui/words.ts";
import { chooseLayer } from "../../vectors/choose-layer.ts";
import { vectorOf } from "../../vectors/make-vector.ts";
import type { ShelfVector } from "../../vectors/shelf.ts";
import { LayerChart } from "./layer-chart.tsx";
import type { Sweep } from "./vectors-slice.ts";

export interface AccuracyProps {
  readonly sweep: Sweep;
  readonly vector: ShelfVector;
  readonly onCancel: () => void;
}

/** How often the vector's answers are right, by the layer that it is put into. */
export function AccuracyByLayer({ sweep, vector, onCancel }: AccuracyProps): JSX.Element {
  const { recipe, name, layer } = vector;
  const { task, asked, items } = sweep;
  const { value, current, error, progress } = useAsked(
    ["sweep", recipe, task, asked, items],
    async (asking) => {
      const { client, model, signal, onProgress } = asking;
      const { vector: handle } = await vectorOf(asking, recipe);
      return client.sweep({ model, vector: handle, task, asked, items }, { signal, onProgress });
    },
  );
  if (error) return <Problem error={error} />;
  if (!current || !value) {
    const counted = progress?.phase === "items" || progress?.phase === "prompts" ? progress : undefined;
    return (
      <ProgressBar
        label={progress?.phase === "prompts" ? "Making the vector" : `Asking about ${task}`}
        done={counted?.done ?? 0}
        total={counted?.total}
        words={counted ? `${counted.done} of ${counted.total} ${counted.phase}` : "waits"}
        onCancel={onCancel}
      />
    );
  }
  const { unpatched, best } = value;
  const choose = (next: number) => chooseLayer(vector, next);
  const here = value.layers.find((each) => each.layer === layer);
  const bestCorrect = value.layers.find((each) => each.layer === best)!.correct;
  const words = `${name}: accuracy on ${task}, asked by ${asked === "image" ? "picture" : "name"}`;
  return (
    <div class="stack wide">
      <LayerChart
        label={`Layer of ${name}`}
        chosen={layer}
        onChoose={choose}
        bars={value.layers.map(({ layer: at, accuracy, correct, total }) => ({
          layer: at,
          value: accuracy,
          title: `layer ${at}: ${correct} of ${total} right`,
          class: at === best ? "best" : "",
        }))}
        lines={[{ label: "no vector", value: unpatched.accuracy }]}
      />
      <div class="row">
        <p role="status">
          Layer {layer}:{" "}
          {here ? `${here.correct} of ${here.total} right (${percentInWords(here.accuracy)})` : "not swept"}.
          Best is layer {best} with {bestCorrect} of {unpatched.total}. Without a vector {unpatched.correct}{" "}
          are right; the most frequent right answer, given each time, would be in{" "}
          {percentInWords(unpatched.majority)}.
        </p>
        {here && here.correct < bestCorrect && (
          <button type="button" onClick={() => choose(best)}>
            Use layer {best}
          </button>
        )}
        <Export
          name="accuracy-by-layer"
          figure={() => accuracyFigure(value, words)}
          csv={() => accuracyCsv(value)}
        />
      </div>
      <p class="soft small">
        {task}, validation split, {unpatched.total} items asked by {asked === "image" ? "picture" : "name"};{" "}
        computed were {value.rowLayers.toLocaleString("en")} tokens × layers, where full passes take{" "}
        {value.plainRowLayers.toLocaleString("en")}. <Provenance setting={value.setting} />
      </p>
    </div>
  );
}

export async function accuracyFigure(value: SweepAnswer, title: string) {
  const { curveFigure } = await import("../../../../src/figures/curve-figure.ts");
  return curveFigure(
    { patched: value.layers.map(({ layer, accuracy }) => ({ x: layer, y: accuracy })) },
    {
      title,
      y: "accuracy",
      chosen: value.best,
      references: { "no vector": value.unpatched.accuracy, majority: value.unpatched.majority },
      caption: `${value.unpatched.total} items. ${showSetting(value.setting)}`,
    },
  );
}

export function accuracyCsv({ layers, unpatched }: SweepAnswer): string {
  return toCsv(
    ["layer", "correct", "total", "accuracy"],
    [
      ["none", unpatched.correct, unpatched.total, unpatched.accuracy],
      ...layers.map(({ layer, correct, total, accuracy }) => [layer, correct, total, accuracy]),
    ],
  );
}
