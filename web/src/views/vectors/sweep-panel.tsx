import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { model } from "../../model.ts";
import { type PictureRef, pictureKey, pictureName } from "../../pictures/picture-ref.ts";
import { store } from "../../state.ts";
import { Panel } from "../../ui/panel.tsx";
import { taskOf } from "../../vectors/recipe.ts";
import { SHELF } from "../../vectors/shelf.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { AccuracyByLayer } from "./accuracy-by-layer.tsx";
import { AnswersByLayer } from "./answers-by-layer.tsx";
import { NumberField } from "./number-field.tsx";
import { type Sweep, VECTORS } from "./vectors-slice.ts";

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
        <label class="field">
          <span>Vector</span>
          <select
            value={vector.id}
            onChange={({ currentTarget }) => change({ vector: currentTarget.value, task: "" })}
          >
            {vectors.map(({ id, name }) => (
              <option key={id} value={id}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>Shown</span>
          <select
            value={shown.measure}
            onChange={({ currentTarget }) => change({ measure: currentTarget.value as Sweep["measure"] })}
          >
            <option value="accuracy">accuracy over a task</option>
            <option value="picture">answer to one picture</option>
          </select>
        </label>
        {shown.measure === "accuracy" ? (
          <>
            <label class="field">
              <span>Task</span>
              <select value={task} onChange={({ currentTarget }) => change({ task: currentTarget.value })}>
                {tasks.map(({ name }) => (
                  <option key={name} value={name}>
                    {name}
                  </option>
                ))}
              </select>
            </label>
            <label class="field">
              <span>Asked by</span>
              <select
                value={shown.asked}
                onChange={({ currentTarget }) => change({ asked: currentTarget.value as Sweep["asked"] })}
              >
                <option value="image" disabled={!takesPictures}>
                  picture
                </option>
                <option value="text">name</option>
              </select>
            </label>
            <NumberField
              label="Items"
              value={shown.items}
              min={1}
              max={200}
              set={(items) => change({ items })}
            />
          </>
        ) : (
          <label class="field">
            <span>Picture</span>
            <select
              value={picture ? pictureKey(picture) : ""}
              onChange={({ currentTarget }) => change({ picture: currentTarget.value })}
            >
              {pictures.map((each: PictureRef) => (
                <option key={pictureKey(each)} value={pictureKey(each)}>
                  {pictureName(each)}
                </option>
              ))}
            </select>
          </label>
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
