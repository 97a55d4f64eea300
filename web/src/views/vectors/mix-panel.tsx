import type { JSX } from "preact";
import { useAsked } from "../../ask.ts";
import { pictureKey, pictureName } from "../../pictures/picture-ref.ts";
import { AnswerTable } from "../../prompts/answer-table.tsx";
import { store } from "../../state.ts";
import { ChoiceField } from "../../ui/choice-field.tsx";
import { Panel } from "../../ui/panel.tsx";
import { Problem } from "../../ui/problem.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import { toastError } from "../../ui/toasts.tsx";
import { percentInWords, tokenInWords } from "../../ui/words.ts";
import { mixOf } from "../../vectors/mix.ts";
import { askPatched } from "../../vectors/patched.ts";
import { queryOf } from "../../vectors/query.ts";
import { SHELF } from "../../vectors/shelf.ts";
import { shelve } from "../../vectors/shelve.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { type Mix, VECTORS } from "./vectors-slice.ts";

/** Steps of the slider: the answer at each is computed, all of them in one batch. */
const STEPS = 20;

/** Two vectors, a slider between them, and what a picture's question is answered with on the way. */
export function MixPanel(): JSX.Element | null {
  const { mix, pictures, context } = store.slice(VECTORS).value;
  const { vectors } = store.slice(SHELF).value;
  const { value: tasks = [] } = useTasks();
  const [first, second] = [
    vectors.find(({ id }) => id === mix?.first) ?? vectors[0],
    vectors.find(({ id }) => id === mix?.second) ?? vectors[1],
  ];
  const picture = pictures.find((each) => pictureKey(each) === mix?.picture) ?? pictures[0];
  const isWhole = first && second && picture;
  const amount = mix?.amount ?? 0.5;
  const mixes = isWhole
    ? Array.from({ length: STEPS + 1 }, (_, i) => ({
        recipe: mixOf(first.recipe, second.recipe, i / STEPS),
        layer: first.layer,
      }))
    : [];
  const { value, current, error } = useAsked(
    isWhole && mix && tasks.length > 0
      ? ["mix", first.recipe, first.layer, second.recipe, picture, context]
      : undefined,
    (asking) => askPatched(asking, queryOf(picture!, context, tasks), mixes),
  );
  if (!isWhole) return null;
  const change = (part: Partial<Mix>, label: string, same?: string) =>
    store.set(
      VECTORS,
      label,
      (slice) => ({
        ...slice,
        mix: { first: first.id, second: second.id, amount, picture: pictureKey(picture), ...mix, ...part },
      }),
      same,
    );
  const step = Math.round(amount * STEPS);
  const answer = value?.patched[step];
  const choices = vectors.map(({ id, name }) => [id, name] as const);
  return (
    <Panel
      title="Mix"
      footer={value && <Provenance setting={value.setting} />}
      busy={mix !== undefined && !current}
      actions={
        <button
          type="button"
          class="quiet"
          onClick={() => {
            try {
              shelve(
                mixOf(first.recipe, second.recipe, step / STEPS),
                first.layer,
                `${first.name} + ${second.name}`,
              );
            } catch (problem) {
              toastError(problem);
            }
          }}
        >
          Put on the shelf
        </button>
      }
    >
      <div class="fields">
        <ChoiceField
          label="From"
          value={first.id}
          choices={choices}
          set={(id) => change({ first: id }, "mix another vector")}
        />
        <ChoiceField
          label="To"
          value={second.id}
          choices={choices}
          set={(id) => change({ second: id }, "mix another vector")}
        />
        <ChoiceField
          label="On"
          value={pictureKey(picture)}
          choices={pictures.map((each) => [pictureKey(each), pictureName(each)] as const)}
          set={(key) => change({ picture: key }, "mix on another picture")}
        />
      </div>
      <label class="slider">
        <span class="visually-hidden">How much of {second.name}</span>
        <input
          type="range"
          min={0}
          max={1}
          step={1 / STEPS}
          value={amount}
          aria-valuetext={`${percentInWords(1 - step / STEPS)} ${first.name}, ${percentInWords(step / STEPS)} ${second.name}`}
          onInput={({ currentTarget }) =>
            change({ amount: currentTarget.valueAsNumber }, "move the mix", "mix")
          }
        />
      </label>
      {!mix ? (
        <button type="button" class="primary" onClick={() => change({}, "begin a mix")}>
          Mix
        </button>
      ) : error ? (
        <Problem error={error} />
      ) : (
        <>
          <ol class="along" aria-label="Answers along the way">
            {value?.patched.map(({ top }, i) => (
              <li
                key={mixes[i]?.recipe.parts[1]?.weight}
                class={i === step ? "here" : ""}
                style={`--value:${top[0]!.probability.toFixed(4)}`}
                title={`${percentInWords(i / STEPS)} ${second.name}: ${tokenInWords(top[0]!.text)} ${percentInWords(top[0]!.probability)}`}
              >
                {i === 0 || top[0]!.id !== value.patched[i - 1]!.top[0]!.id ? tokenInWords(top[0]!.text) : ""}
              </li>
            ))}
          </ol>
          <p class="number">
            {percentInWords(1 - step / STEPS)} {first.name}, {percentInWords(step / STEPS)} {second.name}, in
            layer {first.layer}
          </p>
          {answer && (
            <AnswerTable label={`Answers to ${pictureName(picture)} with the mix`} top={answer.top} />
          )}
        </>
      )}
    </Panel>
  );
}
