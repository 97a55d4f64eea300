import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useAsked } from "../../ask.ts";
import { FigurePanel } from "../../keep/figure-panel.tsx";
import { model } from "../../model.ts";
import { Thumbnail } from "../../prompts/picture-chip.tsx";
import { store } from "../../state.ts";
import { ChoiceField } from "../../ui/choice-field.tsx";
import { NumberField } from "../../ui/number-field.tsx";
import { Panel } from "../../ui/panel.tsx";
import { Problem } from "../../ui/problem.tsx";
import { ProgressBar } from "../../ui/progress.tsx";
import { percentInWords } from "../../ui/words.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { ExampleFields } from "../vectors/example-fields.tsx";
import { askPlane, layOut, type PlaneAnswer, planeCsv, planeFigure, planeInWords } from "./plane.ts";
import { type PlaneSet, SEE } from "./see-slice.ts";

const MOST_TASKS = 6;

const METHODS: readonly [PlaneSet["method"], string][] = [
  ["pca", "PCA: directions of most variance"],
  ["tsne", "t-SNE: who is near whom"],
];

/** Vectors of many prompts on a plane: whether those of one task lie together, however it was told. */
export function PlanePanel(): JSX.Element {
  const { plane, shown } = store.slice(SEE).value;
  const { value: tasks = [] } = useTasks();
  const state = model.value;
  const summary = state.status === "ready" ? state.summary : undefined;
  const layers = summary?.layers ?? 1;
  const change = (part: Partial<PlaneSet>) =>
    store.set(SEE, "change the set of vectors", (slice) => ({
      ...slice,
      plane: { ...slice.plane, ...part },
    }));
  const asked = shown && { ...shown, layer: Math.min(shown.layer, layers - 1) };
  const { value, current, error, progress } = useAsked(
    asked && tasks.length > 0 ? ["plane", asked] : undefined,
    (asking) => askPlane(asking, asked!, tasks),
  );
  const stop = () => store.set(SEE, "give the plane up", ({ shown: _, ...slice }) => slice);
  const full = plane.tasks.length >= MOST_TASKS;
  return (
    <div class="see-columns">
      <Panel title="Set of vectors">
        <form
          class="form"
          aria-label="Set of vectors"
          onSubmit={(event) => {
            event.preventDefault();
            store.set(SEE, "draw vectors on a plane", (slice) => ({ ...slice, shown: slice.plane }));
          }}
        >
          <fieldset class="choices">
            <legend>Tasks</legend>
            {tasks.map(({ name }) => {
              const isIn = plane.tasks.includes(name);
              return (
                <label key={name} class="check">
                  <input
                    type="checkbox"
                    checked={isIn}
                    disabled={full && !isIn}
                    onChange={() =>
                      change({
                        tasks: isIn ? plane.tasks.filter((each) => each !== name) : [...plane.tasks, name],
                      })
                    }
                  />
                  {name}
                </label>
              );
            })}
          </fieldset>
          <fieldset class="choices">
            <legend>Told and asked</legend>
            <label class="check">
              <input
                type="checkbox"
                checked={plane.text}
                onChange={({ currentTarget }) => change({ text: currentTarget.checked })}
              />
              in words
            </label>
            <label class="check">
              <input
                type="checkbox"
                checked={plane.image}
                disabled={!summary?.takesPictures}
                onChange={({ currentTarget }) => change({ image: currentTarget.checked })}
              />
              with pictures
            </label>
          </fieldset>
          <div class="fields">
            <NumberField
              label="Items"
              value={plane.items}
              min={1}
              max={50}
              set={(items) => change({ items })}
            />
            <NumberField
              label="Layer"
              value={Math.min(plane.layer, layers - 1)}
              min={0}
              max={layers - 1}
              set={(layer) => change({ layer })}
            />
            <ExampleFields value={plane} change={change} />
          </div>
          <ChoiceField
            label="Drawn by"
            value={plane.method}
            choices={METHODS}
            set={(method) => change({ method })}
          />
          <button type="submit" class="primary" disabled={plane.tasks.length === 0}>
            Draw
          </button>
        </form>
      </Panel>
      <FigurePanel
        title="Vectors on a plane"
        busy={asked !== undefined && !current}
        setting={value && summary?.setting}
        save={
          value && current && asked && summary
            ? {
                name: "plane",
                figure: () => planeFigure(value, asked, summary.setting),
                csv: () => planeCsv(value),
              }
            : undefined
        }
      >
        {error ? (
          <Problem error={error} />
        ) : asked && current && value ? (
          <Plane answer={value} set={asked} />
        ) : asked ? (
          <ProgressBar
            label="Computing the vectors"
            done={progress?.phase === "prompts" ? progress.done : 0}
            total={progress?.phase === "prompts" ? progress.total : undefined}
            words={progress?.phase === "prompts" ? `${progress.done} of ${progress.total} prompts` : "waits"}
            onCancel={stop}
          />
        ) : (
          <p class="soft">
            A dot for each prompt: the vector at its last token, where the model is about to answer. If a task
            has a place of its own, its dots lie together, in words and with pictures alike.
          </p>
        )}
      </FigurePanel>
    </div>
  );
}

const SIZE = { width: 680, height: 440, room: 24 };

function Plane({ answer, set }: { answer: PlaneAnswer; set: PlaneSet }): JSX.Element {
  const { points, explained } = answer;
  const [at, setAt] = useState(0);
  const field = useRef<SVGSVGElement>(null);
  const moved = useRef(false);
  const places = layOut(points, SIZE);
  const names = [...new Set(points.map(({ task }) => task))];
  const here = Math.min(at, points.length - 1);
  const point = points[here]!;
  useEffect(() => {
    if (!moved.current) return;
    moved.current = false;
    field.current?.querySelector<SVGGElement>("[tabindex='0']")?.focus();
  });
  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    moved.current = true;
    setAt((here + step + points.length) % points.length);
  };
  return (
    <div class="plane">
      <svg
        ref={field}
        viewBox={`0 0 ${SIZE.width} ${SIZE.height}`}
        role="listbox"
        aria-label={`${planeInWords(set)}: ${points.length} vectors`}
        tabIndex={-1}
      >
        {points.map((each, i) => (
          <g
            key={`${each.task} ${each.asked} ${each.input}`}
            role="option"
            aria-selected={i === here}
            aria-label={wordsOf(each)}
            tabIndex={i === here ? 0 : -1}
            class={`dot ${i === here ? "here" : ""}`}
            style={`--category:var(--category-${names.indexOf(each.task) % 6})`}
            transform={`translate(${places[i]!.x.toFixed(1)} ${places[i]!.y.toFixed(1)})`}
            onPointerEnter={() => setAt(i)}
            onFocus={() => setAt(i)}
            onKeyDown={onKeyDown}
          >
            {each.asked === "image" ? <rect x={-6} y={-6} width={12} height={12} /> : <circle r={6} />}
          </g>
        ))}
      </svg>
      <div class="about">
        <div class="which" aria-hidden="true">
          {point.asked === "image" ? (
            <Thumbnail picture={{ kind: "task", task: point.task, input: point.input }} />
          ) : (
            <span class="thumb words">{point.input}</span>
          )}
          <p>
            <strong>{point.input}</strong>
            <br />
            <span class="soft">
              {point.task}, {point.asked === "image" ? "with pictures" : "in words"}
              <br />
              right: {point.output}
            </span>
          </p>
        </div>
        <ul class="legend">
          {names.map((name, i) => (
            <li key={name} style={`--category:var(--category-${i % 6})`}>
              <span class="swatch" />
              {name}
            </li>
          ))}
          <li class="soft">● in words ■ with pictures</li>
        </ul>
        <p class="soft small">
          {planeInWords(set)}, {points.length} prompts
          {explained &&
            `; ${percentInWords(explained[0])} and ${percentInWords(explained[1])} of the variance along x and y`}
          . Only distances mean anything.
        </p>
      </div>
    </div>
  );
}

function wordsOf({ input, task, asked, output }: PlaneAnswer["points"][number]): string {
  return `${input}: ${task}, ${asked === "image" ? "with pictures" : "in words"}, right is ${output}`;
}
