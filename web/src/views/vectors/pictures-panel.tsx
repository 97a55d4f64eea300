import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { model } from "../../model.ts";
import { type PictureRef, pictureKey } from "../../pictures/picture-ref.ts";
import { takeReadable } from "../../prompts/prompt-spec.ts";
import { session } from "../../session.ts";
import { store } from "../../state.ts";
import { ChoiceField } from "../../ui/choice-field.tsx";
import { Panel } from "../../ui/panel.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import { toastError } from "../../ui/toasts.tsx";
import { SHELF } from "../../vectors/shelf.ts";
import { useTasks } from "../../vectors/use-tasks.ts";
import { Badge } from "./badge.tsx";
import { ContextFields } from "./context-fields.tsx";
import { held } from "./held.ts";
import { PictureCard } from "./picture-card.tsx";
import { VECTORS, withDrop, withPicture } from "./vectors-slice.ts";

/** Pictures, what the model says of each, and what it says with the vectors that were dropped on it. */
export function PicturesPanel(): JSX.Element {
  const slice = store.slice(VECTORS).value;
  const { vectors } = store.slice(SHELF).value;
  const state = model.value;
  const inHand = vectors.find(({ id }) => id === held.value);
  useEffect(() => {
    const letGo = (event: KeyboardEvent) => {
      if (event.key === "Escape") held.value = undefined;
    };
    addEventListener("keydown", letGo);
    return () => removeEventListener("keydown", letGo);
  }, []);
  const dropOnAll = (id: string, name: string) => {
    store.set(VECTORS, `put ${name} on all pictures`, (before) =>
      before.pictures.reduce(
        (after, picture) => withDrop(after, { vector: id, picture: pictureKey(picture) }),
        before,
      ),
    );
    held.value = undefined;
  };
  return (
    <Panel
      title="Pictures"
      footer={state.status === "ready" && <Provenance setting={state.summary.setting} />}
    >
      <ContextFields
        context={slice.context}
        onChange={(context) =>
          store.set(VECTORS, "change what stands before the question", (before) => ({ ...before, context }))
        }
      />
      <p class="hint" role="status">
        {inHand ? (
          <>
            <Badge id={inHand.id} /> {inHand.name} is picked up: choose a picture, or{" "}
            <button type="button" class="link" onClick={() => dropOnAll(inHand.id, inHand.name)}>
              put it on all of them
            </button>
            . Escape lets go.
          </>
        ) : (
          <span class="soft">
            Drag a vector from the shelf onto a picture, or pick it up and choose a picture.
          </span>
        )}
      </p>
      {state.status === "ready" && !state.summary.takesPictures && (
        <p class="hint">
          {state.summary.setting.model} takes no pictures. Its vectors can be swept below, asked by name, once
          there is one on the shelf.
        </p>
      )}
      <ul class="cards">
        {slice.pictures.map((picture) => (
          <PictureCard key={pictureKey(picture)} picture={picture} />
        ))}
        <AddPicture />
      </ul>
    </Panel>
  );
}

/** Another picture: of a task, or the reader's own, chosen or dropped here. */
function AddPicture(): JSX.Element {
  const { value: tasks = [] } = useTasks();
  const withPictures = tasks.filter(({ items }) => items.some(({ picture }) => picture));
  const [chosen, choose] = useState("country-capital");
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const task = withPictures.find(({ name }) => name === chosen);
  const add = (picture: PictureRef) => {
    try {
      store.set(VECTORS, "add a picture", (slice) => withPicture(slice, picture));
    } catch (error) {
      toastError(error);
    }
  };
  const take = async (files: Iterable<File>) => {
    const state = session.peek();
    if (state.status !== "open") return;
    try {
      for (const file of files) add(await takeReadable(state.client, file));
    } catch (error) {
      toastError(error);
    }
  };
  return (
    <li
      class={`picture-card add ${over ? "over" : ""}`}
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        setOver(false);
        if (!event.dataTransfer?.files.length) return;
        event.preventDefault();
        void take(event.dataTransfer.files);
      }}
    >
      <ChoiceField
        label="Pictures of"
        value={chosen}
        choices={withPictures.map(({ name }) => name)}
        set={choose}
      />
      <label class="field">
        <span>Add</span>
        <select
          value=""
          onChange={({ currentTarget }) => {
            if (currentTarget.value) add({ kind: "task", task: chosen, input: currentTarget.value });
            currentTarget.value = "";
          }}
        >
          <option value="">choose…</option>
          {task?.items.map(({ input: name, picture, split }) =>
            picture ? (
              <option key={name} value={name}>
                {split === "train" ? `${name} (train)` : name}
              </option>
            ) : null,
          )}
        </select>
      </label>
      <button type="button" onClick={() => input.current?.click()}>
        Your own…
      </button>
      <p class="soft">or drop a file here</p>
      <input
        ref={input}
        type="file"
        hidden
        accept="image/png,image/jpeg,image/webp"
        multiple
        aria-label="Add pictures from files"
        onChange={({ currentTarget }) => {
          void take([...(currentTarget.files ?? [])]);
          currentTarget.value = "";
        }}
      />
    </li>
  );
}
