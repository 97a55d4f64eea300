import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Answer } from "../../../../src/session/messages/results.ts";
import { isCorrect } from "../../../../src/tasks/correct.ts";
import { useAsked } from "../../ask.ts";
import { model } from "../../model.ts";
import { type PictureRef, pictureKey, pictureName } from "../../pictures/picture-ref.ts";
import { Thumbnail } from "../../prompts/picture-chip.tsx";
import type { PromptDoc } from "../../prompts/prompt-doc.ts";
import { store } from "../../state.ts";
import { Icon } from "../../ui/icons.tsx";
import { Problem } from "../../ui/problem.tsx";
import { percentInWords, tokenInWords } from "../../ui/words.ts";
import { askPatched } from "../../vectors/patched.ts";
import { type Context, queryOf, rightAnswers } from "../../vectors/query.ts";
import { taskOf } from "../../vectors/recipe.ts";
import { SHELF } from "../../vectors/shelf.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { Badge } from "./badge.tsx";
import { carriesVector, held, VECTOR_TYPE } from "./held.ts";
import { VECTORS, withDrop, withoutDrop, withoutPicture } from "./vectors-slice.ts";

/** A picture and its answers; a vector can be put on it. */
export function PictureCard({ picture }: { picture: PictureRef }): JSX.Element {
  const slice = store.slice(VECTORS).value;
  const shelf = store.slice(SHELF).value.vectors;
  const { value: tasks = [] } = useTasks();
  const [over, setOver] = useState(false);
  const key = pictureKey(picture);
  const name = pictureName(picture);
  const dropped = slice.drops.flatMap((drop) => {
    const vector = drop.picture === key ? shelf.find(({ id }) => id === drop.vector) : undefined;
    return vector ? [vector] : [];
  });
  const patches = dropped.map(({ recipe, layer }) => ({ recipe, layer }));
  const state = model.value;
  const canAsk = state.status === "ready" && state.summary.takesPictures;
  const question = canAsk ? questionOf(picture, slice.context, tasks) : {};
  const { value, current, error } = useAsked(
    tasks.length > 0 && question.prompt ? ["patched", question.prompt, patches] : undefined,
    (asking) => askPatched(asking, question.prompt!, patches),
  );
  const put = (vector: string) => {
    const from = shelf.find(({ id }) => id === vector);
    if (!from) return;
    store.set(VECTORS, `put ${from.name} on ${name}`, (before) => withDrop(before, { vector, picture: key }));
    held.value = undefined;
  };
  const problem = question.error ?? error;
  return (
    <li
      class={`picture-card ${over ? "over" : ""} ${held.value === undefined ? "" : "open"}`}
      aria-busy={!current}
      onDragOver={(event) => {
        if (!carriesVector(event)) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        setOver(false);
        const id = event.dataTransfer?.getData(VECTOR_TYPE);
        if (!id) return;
        event.preventDefault();
        put(id);
      }}
    >
      <div class="head">
        <button
          type="button"
          class="picture"
          aria-label={held.value === undefined ? name : `Put the vector on ${name}`}
          aria-disabled={held.value === undefined}
          onClick={() => held.value !== undefined && put(held.value)}
        >
          <Thumbnail picture={picture} />
        </button>
        <span class="name">{name}</span>
        <button
          type="button"
          class="quiet icon"
          aria-label={`Take ${name} away`}
          onClick={() => store.set(VECTORS, `take ${name} away`, (before) => withoutPicture(before, key))}
        >
          <Icon name="close" />
        </button>
      </div>
      {problem ? (
        <Problem error={problem} />
      ) : (
        <ol class="said" aria-label={`Answers to ${name}`}>
          <Said label="without a vector" answer={value?.plain} />
          {dropped.map(({ id, name: from, layer, recipe }, i) => (
            <Said
              key={id}
              label={`${from}, layer ${layer}`}
              badge={<Badge id={id} />}
              answer={current ? value?.patched[i] : undefined}
              right={rightAnswers(picture, taskOf(recipe), tasks)}
              onRemove={() =>
                store.set(VECTORS, `take ${from} off ${name}`, (before) =>
                  withoutDrop(before, { vector: id, picture: key }),
                )
              }
            />
          ))}
        </ol>
      )}
    </li>
  );
}

function questionOf(
  picture: PictureRef,
  context: Context,
  tasks: Parameters<typeof queryOf>[2],
): { readonly prompt?: PromptDoc; readonly error?: Error } {
  try {
    return tasks.length > 0 ? { prompt: queryOf(picture, context, tasks) } : {};
  } catch (error) {
    return { error: error as Error };
  }
}

interface SaidProps {
  readonly label: string;
  readonly badge?: JSX.Element;
  readonly answer: Answer | undefined;
  readonly right?: readonly string[];
  readonly onRemove?: () => void;
}

/** The most probable token of an answer, its probability as a bar, and the next ones where there is room to read them. */
function Said({ label, badge, answer, right = [], onRemove }: SaidProps): JSX.Element {
  const [best, ...others] = answer?.top ?? [];
  const isRight = best !== undefined && isCorrect(best.text, right);
  const all = answer?.top.map(
    ({ text, probability }) => `${tokenInWords(text)} ${percentInWords(probability)}`,
  );
  return (
    <li class="answer" title={all && `${label}: ${all.join(", ")}`}>
      {badge ?? <span class="badge none" aria-hidden="true" />}
      <span class="visually-hidden">{label}: </span>
      {best ? (
        <>
          <span class="token mono">{tokenInWords(best.text)}</span>
          <span class="number share" style={`--value:${best.probability.toFixed(4)}`}>
            {percentInWords(best.probability)}
          </span>
          <span class={isRight ? "right" : "right none"}>
            {isRight && (
              <span role="img" aria-label={`right: ${right.join(" or ")}`}>
                ✓
              </span>
            )}
          </span>
          <span class="next soft mono" aria-hidden="true">
            {others
              .slice(0, 2)
              .map(({ text }) => tokenInWords(text))
              .join(" ")}
          </span>
        </>
      ) : (
        <span class="soft waiting">…</span>
      )}
      {onRemove && (
        <button type="button" class="quiet icon small" aria-label={`Take off: ${label}`} onClick={onRemove}>
          <Icon name="close" size={12} />
        </button>
      )}
    </li>
  );
}
