import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { useAsked } from "../../ask.ts";
import { partOf } from "../../keep/questions.ts";
import { model } from "../../model.ts";
import { session } from "../../session.ts";
import { store } from "../../state.ts";
import { Icon } from "../../ui/icons.tsx";
import { NumberField } from "../../ui/number-field.tsx";
import { Panel } from "../../ui/panel.tsx";
import { Problem } from "../../ui/problem.tsx";
import { ProgressBar } from "../../ui/progress.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import { saveAs } from "../../ui/save.ts";
import { toastError } from "../../ui/toasts.tsx";
import { vectorOf } from "../../vectors/make-vector.ts";
import { recipeInWords } from "../../vectors/recipe.ts";
import { changeVector, SHELF, type ShelfVector, withoutVector } from "../../vectors/shelf.ts";
import { shelve } from "../../vectors/shelve.ts";
import { takeVectorFile } from "../../vectors/vector-files.ts";
import { Badge } from "./badge.tsx";
import { held, VECTOR_TYPE } from "./held.ts";
import { VECTORS, withoutUses } from "./vectors-slice.ts";

/** The vectors that are kept: how each was made, where it goes, and what can be done with it. */
export function ShelfPanel(): JSX.Element {
  const { vectors } = store.slice(SHELF).value;
  const input = useRef<HTMLInputElement>(null);
  const state = model.value;
  const load = async (files: FileList | null | undefined) => {
    try {
      for (const file of files ?? []) shelve(await takeVectorFile(file));
    } catch (error) {
      toastError(error);
    }
  };
  return (
    <Panel
      title="Shelf"
      onFiles={load}
      actions={
        <button type="button" class="quiet" onClick={() => input.current?.click()}>
          Load…
        </button>
      }
      footer={state.status === "ready" && <Provenance setting={state.summary.setting} />}
    >
      <input
        ref={input}
        type="file"
        hidden
        accept=".safetensors"
        multiple
        aria-label="Load vectors from safetensors files"
        onChange={({ currentTarget }) => {
          void load(currentTarget.files);
          currentTarget.value = "";
        }}
      />
      {vectors.length === 0 ? (
        <p class="soft">
          No vector yet. Make one above, drop a safetensors file here, or keep what a token holds in the patch
          lens; then drag it onto a picture.
        </p>
      ) : (
        <ul class="shelf">
          {vectors.map((vector) => (
            <ShelfCard key={vector.id} vector={vector} />
          ))}
        </ul>
      )}
    </Panel>
  );
}

function ShelfCard({ vector }: { vector: ShelfVector }): JSX.Element {
  const { id, name, recipe, layer } = vector;
  const { value, error, progress, current } = useAsked(["vector", recipe], (asking) =>
    vectorOf(asking, recipe),
  );
  const isHeld = held.value === id;
  const state = model.value;
  const last = state.status === "ready" ? state.summary.layers - 1 : 1000;
  const change = (label: string, part: Partial<ShelfVector>, same?: string) =>
    store.set(SHELF, label, (shelf) => changeVector(shelf, id, part), same);
  const remove = () => {
    if (held.peek() === id) held.value = undefined;
    // With what it was put on: the next vector may have its id.
    store.change(`take ${name} off the shelf`, (document) => ({
      ...document,
      slices: {
        ...document.slices,
        [SHELF.name]: withoutVector(partOf(document, SHELF), id),
        [VECTORS.name]: withoutUses(partOf(document, VECTORS), id),
      },
    }));
  };
  const norm = value?.norms[value.layers.length > 0 ? value.layers.indexOf(layer) : 0];
  return (
    <li
      class={`shelf-card ${isHeld ? "held" : ""}`}
      draggable
      onDragStart={(event) => {
        event.dataTransfer?.setData(VECTOR_TYPE, id);
        if (event.dataTransfer) event.dataTransfer.effectAllowed = "copy";
      }}
    >
      <div class="row">
        <Badge id={id} />
        <input
          class="name grow"
          aria-label={`Name of vector ${name}`}
          value={name}
          onChange={({ currentTarget }) =>
            change(`rename ${name}`, { name: currentTarget.value.slice(0, 100) || name })
          }
        />
        <button type="button" class="quiet icon" aria-label={`Take ${name} off the shelf`} onClick={remove}>
          <Icon name="close" />
        </button>
      </div>
      <p class="soft recipe">{recipeInWords(recipe)}</p>
      {error ? (
        <Problem error={error} />
      ) : current && value ? (
        <p class="soft number">
          {value.layers.length > 0
            ? `${value.layers.length} layers of ${value.features}`
            : `${value.features} numbers`}
          {norm !== undefined &&
            `; length ${norm.toFixed(1)}${value.layers.length > 0 ? ` in layer ${layer}` : ""}`}
        </p>
      ) : (
        state.status === "ready" && (
          <ProgressBar
            label="Making"
            done={progress?.phase === "prompts" ? progress.done : 0}
            total={progress?.phase === "prompts" ? progress.total : undefined}
            words={progress?.phase === "prompts" ? `${progress.done} of ${progress.total} prompts` : "waits"}
            onCancel={remove}
          />
        )
      )}
      <div class="row">
        <button
          type="button"
          aria-pressed={isHeld}
          title="Then choose a picture; Escape lets go"
          onClick={() => {
            held.value = isHeld ? undefined : id;
          }}
        >
          {isHeld ? "Picked up" : "Pick up"}
        </button>
        <NumberField
          label="Layer"
          value={layer}
          min={0}
          max={last}
          set={(next) => change(`put ${name} into layer ${next}`, { layer: next })}
        />
        <button type="button" class="quiet" onClick={() => save(vector)} disabled={!value}>
          Save
        </button>
      </div>
    </li>
  );
}

async function save({ recipe, name }: ShelfVector): Promise<void> {
  const [open, state] = [session.peek(), model.peek()];
  if (open.status !== "open" || state.status !== "ready") return;
  const { client } = open;
  const asking = {
    client,
    model: state.summary.model,
    signal: new AbortController().signal,
    onProgress: () => {},
  };
  try {
    const { vector } = await vectorOf(asking, recipe);
    const { bytes } = await client.saveVector({ vector });
    saveAs(
      `${name.replace(/[^\w-]+/g, "-")}.safetensors`,
      bytes as Uint8Array<ArrayBuffer>,
      "application/octet-stream",
    );
  } catch (error) {
    toastError(error);
  }
}
