import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { model } from "../../model.ts";
import { pictureKey, pictureName } from "../../pictures/picture-ref.ts";
import { store } from "../../state.ts";
import { ChoiceField } from "../../ui/choice-field.tsx";
import { NumberField } from "../../ui/number-field.tsx";
import { Panel } from "../../ui/panel.tsx";
import { taskOf } from "../../vectors/recipe.ts";
import { SHELF } from "../../vectors/shelf.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { AccuracyByLayer } from "./accuracy-by-layer.tsx";
import { AnswersByLayer } from "./answers-by-layer.tsx";
import { type Sweep, VECTORS } from "./vectors-slice.ts";

const MEASURES: readonly [Sweep["measure"], string][] = [
  ["accuracy", "accuracy over a task"],
  ["picture", "answer to one picture"],
];

/** Which layer a vector works in: how often it is right over a task, or what one picture's question is answered with. */
export function SweepPanel(): JSX.Element | null {
  const { sweep, pictures } = store.slice(VECTORS).value;
  const { vectors } = store.slice(SHELF).value;
  const { value: tasks = [] } = useTasks();
  const [draft, setDraft] = useState<Sweep>(() => sweep ?? firstSweep());
  // Another sweep in the document (undo, a link, the tour) is what the form says too.
  useEffect(() => {
    if (sweep) setDraft(sweep);
  }, [sweep]);
  const first = vectors[0];
  if (!first) return null;
  // What is shown is in the document; what is being chosen is not, until it is asked for.
  const shown = { ...draft };
  const vector = vectors.find(({ id }) => id === shown.vector) ?? first;
  const task = shown.task || taskOf(vector.recipe) || tasks[0]?.name || "";
  const picture = pictures.find((each) => pictureKey(each) === shown.picture) ?? pictures[0];
  const change = (part: Partial<Sweep>) => setDraft((before) => ({ ...before, ...part }));
  const asked: Sweep = {
    ...shown,
    vector: vector.id,
    task,
    picture: picture ? pictureKey(picture) : "",
  };
  const takesPictures = model.value.status === "ready" && model.value.summary.takesPictures;
  const start = (event: SubmitEvent) => {
    event.preventDefault();
    store.set(VECTORS, `sweep ${vector.name} by layer`, (slice) => ({ ...slice, sweep: asked }));
  };
  const stop = () => store.set(VECTORS, "give the sweep up", ({ sweep: _, ...slice }) => slice);
  const swept = sweep && vectors.find(({ id }) => id === sweep.vector);
  return (
    <Panel title="By layer">
      <form class="fields" onSubmit={start} aria-label="Sweep by layer">
        <ChoiceField
          label="Vector"
          value={vector.id}
          choices={vectors.map(({ id, name }) => [id, name] as const)}
          set={(id) => change({ vector: id, task: "" })}
        />
        <ChoiceField
          label="Shown"
          value={shown.measure}
          choices={MEASURES}
          set={(measure) => change({ measure })}
        />
        {shown.measure === "accuracy" ? (
          <>
            <ChoiceField
              label="Task"
              value={task}
              choices={tasks.map(({ name }) => name)}
              set={(name) => change({ task: name })}
            />
            <ChoiceField
              label="Asked by"
              value={shown.asked}
              choices={[
                ["image", "picture", takesPictures],
                ["text", "name"],
              ]}
              set={(how) => change({ asked: how })}
            />
            <NumberField
              label="Items"
              value={shown.items}
              min={1}
              max={200}
              set={(items) => change({ items })}
            />
          </>
        ) : (
          <ChoiceField
            label="Picture"
            value={picture ? pictureKey(picture) : ""}
            choices={pictures.map((each) => [pictureKey(each), pictureName(each)] as const)}
            set={(key) => change({ picture: key })}
          />
        )}
        <button type="submit" class="primary" disabled={shown.measure === "picture" && !picture}>
          Sweep
        </button>
      </form>
      {sweep && swept && sweep.measure === "accuracy" && (
        <AccuracyByLayer sweep={sweep} vector={swept} onCancel={stop} />
      )}
      {sweep && swept && sweep.measure === "picture" && <AnswersByLayer sweep={sweep} vector={swept} />}
      {!sweep && (
        <p class="soft hint">
          One pass over the questions, then for each layer only what the vector can change: all layers cost
          little more than one.
        </p>
      )}
    </Panel>
  );
}

function firstSweep(): Sweep {
  return { vector: "", measure: "accuracy", task: "", asked: "image", items: 16, picture: "" };
}
