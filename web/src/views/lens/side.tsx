import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type {
  EncodedPrompt,
  LensAnswer,
  ModelSummary,
  Reached,
  TokenAnswer,
} from "../../../../src/session/messages/results.ts";
import type { Asked } from "../../ask.ts";
import type { Held } from "../../hold.ts";
import { PatchPicture } from "../../prompts/patch-picture.tsx";
import { isEmpty, type PromptDoc, promptInWords } from "../../prompts/prompt-doc.ts";
import { PromptEditor } from "../../prompts/prompt-editor.tsx";
import { store } from "../../state.ts";
import { Notice } from "../../ui/notice.tsx";
import { Panel } from "../../ui/panel.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import { toast, toastError } from "../../ui/toasts.tsx";
import { percentInWords, tokenInWords } from "../../ui/words.ts";
import { nameOnShelf, shelve } from "../../vectors/shelve.ts";
import type { Bounds } from "./edit-specs.ts";
import { cellInWords, cellReader, gridRows } from "./lens-cells.ts";
import { LensGrid } from "./lens-grid.tsx";
import { type How, type LensEdit, type LensSlice, lensSlice } from "./lens-slice.ts";
import { aimed, carried, choices, type SideName } from "./lens-state.ts";
import {
  type Cell,
  type Choice,
  countOf,
  holds,
  type Place,
  placeInWords,
  placeOf,
  putAt,
} from "./places.ts";
import { ablate, letGo, put } from "./put.ts";
import { readSite } from "./site-facts.ts";

export interface SideProps {
  readonly name: SideName;
  readonly slice: LensSlice;
  readonly held: Held<EncodedPrompt>;
  readonly lens: Asked<LensAnswer>;
  readonly summary: ModelSummary;
  readonly answer: TokenAnswer | undefined;
  readonly bounds: Bounds;
  /** What edits can change; of the target alone. */
  readonly reach?: Reached | undefined;
  readonly edits?: readonly LensEdit[];
}

const TITLES: Record<SideName, string> = { source: "Source", target: "Target" };
const KIND = "application/x-xpatch-place";

/** One of the two prompts: how it is made, its pictures, its grid, and what the cell at hand reads as. */
export function Side(props: SideProps): JSX.Element {
  const { name, slice, held, lens, summary, answer } = props;
  const prompt = slice[name];
  // It stays as it is while the prompt is being written.
  const [open, setOpen] = useState(isEmpty(prompt));
  const encoded = held.value;
  const problem = held.error ?? lens.error;
  const isBusy = !isEmpty(prompt) && !problem && !(held.current && lens.current);
  return (
    <Panel
      title={TITLES[name]}
      busy={isBusy}
      actions={
        answer && (
          <span class="says" title={`The most probable next token: ${percentInWords(answer.probability)}`}>
            says <b class="mono">{tokenInWords(answer.text)}</b>{" "}
            <span class="number soft">{percentInWords(answer.probability)}</span>
          </span>
        )
      }
      footer={
        lens.value && (
          <>
            logit lens of {readSite(slice.how.site)} · <Provenance setting={lens.value.setting} />
          </>
        )
      }
    >
      <details class="prompt-fold" open={open} onToggle={({ currentTarget }) => setOpen(currentTarget.open)}>
        <summary>{isEmpty(prompt) ? "Write the prompt" : promptInWords(prompt)}</summary>
        <PromptEditor
          name={name}
          value={prompt}
          onChange={(label, next, same) =>
            store.set(lensSlice, label, (before) => ({ ...before, [name]: next }), same)
          }
        />
      </details>
      {problem && (
        <Notice kind="bad" title={`The ${name} cannot be read`}>
          <p>{problem.message}</p>
        </Notice>
      )}
      {encoded && <Grids {...props} encoded={encoded} layers={summary.layers} />}
    </Panel>
  );
}

function Grids(props: SideProps & { encoded: EncodedPrompt; layers: number }): JSX.Element {
  const { name, slice, lens, bounds, reach, edits = [], encoded, layers } = props;
  const { how } = slice;
  const length = bounds[name] ?? 0;
  const extent = { positions: bounds.target ?? 0, layers };
  const choice = within(choices[name].value!, length, layers);
  const rows = gridRows(encoded, choice.at.position);
  const heads = new Map(rows.map((row) => [row.position, row.head]));
  const read = cellReader(lens.value);
  const reached = reach?.cells.map((positions) => new Set(positions));
  const isReached = ({ layer, position }: Cell) => reached?.[layer]?.has(position) ?? false;
  const isEdited = (cell: Cell) => edits.some(({ to }) => holds(to, cell));
  const title = (cell: Cell, head = heads.get(cell.position) ?? "▦") =>
    cellInWords(cell, head, read(cell), { reached: isReached(cell), edited: isEdited(cell) });
  const place = placeOf(choice, layers);
  const isTarget = name === "target";

  const choose = (next: Choice) => {
    choices[name].value = next;
    if (isTarget) aim(next.at);
  };
  const aim = (cell: Cell | undefined) => {
    const from = carried.peek()?.place;
    const to = from && cell ? putAt(from, cell, extent) : undefined;
    aimed.value = typeof to === "string" ? undefined : to;
  };
  const pickUp = () => {
    carried.value = { place, by: "hand" };
    document.querySelector<HTMLElement>(".side-target [role='grid'].lens-grid")?.focus();
    const target = choices.target.peek()!;
    const to = putAt(place, target.at, extent);
    aimed.value = typeof to === "string" ? undefined : to;
  };
  const putDown = () => {
    if (carried.peek()) put(how, choice.at, extent);
    else if (how.operation === "zero") ablate(how, place, extent);
  };
  const onKey = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys: Record<string, (() => void) | undefined> = {
      Enter: isTarget ? putDown : pickUp,
      " ": isTarget ? putDown : pickUp,
      r: () => choose({ ...choice, whole: !choice.whole }),
      Delete: isTarget ? () => ablate(how, place, extent) : undefined,
      Backspace: isTarget ? () => ablate(how, place, extent) : undefined,
      Escape: carried.peek()
        ? () => {
            letGo();
            document.querySelector<HTMLElement>(".side-source [role='grid'].lens-grid")?.focus();
          }
        : undefined,
    };
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };
  const drags = isTarget
    ? {
        onDragOver: (event: DragEvent, cell: Cell | undefined) => {
          if (!event.dataTransfer?.types.includes(KIND)) return;
          aim(cell);
          if (!cell || !aimed.peek()) return;
          event.preventDefault();
          event.dataTransfer.dropEffect = "copy";
        },
        onDrop: (event: DragEvent, cell: Cell) => {
          if (!event.dataTransfer?.types.includes(KIND)) return;
          event.preventDefault();
          choices.target.value = { at: cell, anchor: cell, whole: false };
          put(how, cell, extent);
        },
      }
    : {
        onDragStart: (event: DragEvent) => {
          const now = placeOf(within(choices.source.peek()!, length, layers), layers);
          carried.value = { place: now, by: "drag" };
          event.dataTransfer!.setData(KIND, placeInWords(now, layers));
          event.dataTransfer!.effectAllowed = "copy";
          showDragged(event, `${how.site}, ${placeInWords(now, layers)}`);
        },
      };
  const inHand = carried.value;
  return (
    <div
      role="group"
      aria-label={`Grids of the ${name}`}
      class={`grids side-${name} ${encoded.pictures.length > 0 ? "pictured" : ""}`}
      onDragEnd={() => carried.peek()?.by === "drag" && letGo()}
    >
      {encoded.pictures.length > 0 && (
        <div class="seen">
          {encoded.pictures.map((seen) => (
            <PatchPicture
              key={seen.span}
              seen={seen}
              label={`${seen.span === "image" ? "picture" : `picture ${seen.span.slice(5)}`} of the ${name}, layer ${choice.at.layer}`}
              at={choice.at.position}
              isChosen={(position) => holds(place, { position, layer: choice.at.layer })}
              cell={(position) => {
                const cell = { position, layer: choice.at.layer };
                const [first] = read(cell) ?? [];
                return {
                  title: title(cell),
                  ...(first && { value: first.probability, text: tokenInWords(first.text) }),
                  class: [isReached(cell) && "reached", isEdited(cell) && "edited", isAimed(cell) && "aimed"]
                    .filter(Boolean)
                    .join(" "),
                };
              }}
              onChoose={(position, extend) => {
                const at = { position, layer: choice.at.layer };
                choose({ at, anchor: extend ? choice.anchor : at, whole: choice.whole && extend });
              }}
              onKey={onKey}
              {...(isTarget
                ? {
                    onDragOver: (position, event) =>
                      drags.onDragOver?.(event, { position, layer: choice.at.layer }),
                    onDrop: (position, event) => drags.onDrop?.(event, { position, layer: choice.at.layer }),
                  }
                : {
                    onDragStart: (position, event) => {
                      const at = { position, layer: choice.at.layer };
                      if (!holds(place, at)) choose({ at, anchor: at, whole: false });
                      drags.onDragStart?.(event);
                    },
                  })}
            />
          ))}
        </div>
      )}
      <LensGrid
        label={`Tokens and layers of the ${name}`}
        rows={rows}
        layers={layers}
        words={slice.words}
        choice={choice}
        busy={!lens.current}
        cell={(cell) => {
          const [first] = read(cell) ?? [];
          return first && { text: tokenInWords(first.text), value: first.probability };
        }}
        title={title}
        isReached={isReached}
        isEdited={isEdited}
        aimed={isTarget ? aimed.value : inHand?.place}
        onChoose={choose}
        onKey={onKey}
        {...drags}
      />
      <div class="at-hand">
        <p>
          <span class="soft">{placeInWords(place, layers)}</span>{" "}
          <span class="mono">{heads.get(choice.at.position)}</span>
          {(read(choice.at) ?? []).map(({ id, text, probability }) => (
            <span key={id} class="reads">
              <span class="mono">{tokenInWords(text)}</span>{" "}
              <span class="number soft">{percentInWords(probability)}</span>
            </span>
          ))}
        </p>
        <div class="row">
          {isTarget ? (
            <>
              <button type="button" class={inHand ? "primary" : ""} disabled={!inHand} onClick={putDown}>
                Put here
              </button>
              <button type="button" onClick={() => ablate(how, place, extent)}>
                Ablate
              </button>
            </>
          ) : (
            <>
              <button type="button" onClick={pickUp}>
                Pick up
              </button>
              <button
                type="button"
                aria-pressed={choice.whole}
                onClick={() => choose({ ...choice, whole: !choice.whole })}
              >
                All layers
              </button>
              <ToShelf how={how} prompt={slice.source} place={place} layers={layers} />
            </>
          )}
        </div>
      </div>
      {isTarget && (
        <p class="soft hand" role="status">
          {inHand
            ? `In hand: ${how.site}, ${placeInWords(inHand.place, layers)} of the source. Enter puts it down, Esc lets go.`
            : ""}
        </p>
      )}
    </div>
  );

  function isAimed(cell: Cell): boolean {
    return isTarget && aimed.value !== undefined && holds(aimed.value, cell);
  }
}

/** Keeps what one token has, in one layer or in all, as a vector of the shelf. */
function ToShelf({
  how: { site, head },
  prompt,
  place: { positions, layers: chosen },
  layers,
}: {
  how: How;
  prompt: PromptDoc;
  place: Place;
  layers: number;
}): JSX.Element {
  const isOne = countOf(chosen) === 1;
  const isAll = countOf(chosen) === layers && head === undefined;
  const fits = countOf(positions) === 1 && (isOne || isAll);
  return (
    <button
      type="button"
      disabled={!fits}
      title={fits ? "Keep it as a task vector" : "One token, of one layer or of all of them"}
      onClick={() => {
        try {
          const part = isOne ? { layer: chosen.start, ...(head !== undefined && { head }) } : {};
          const id = shelve(
            { kind: "place", prompt, site, position: positions.start, ...part },
            isOne ? chosen.start : undefined,
          );
          toast(`${nameOnShelf(id)} is on the shelf of Task vectors.`);
        } catch (error) {
          toastError(error);
        }
      }}
    >
      To the shelf
    </button>
  );
}

/** A choice of before may be of a longer prompt or a deeper model. */
function within({ at, anchor, whole }: Choice, positions: number, layers: number): Choice {
  const inside = ({ position, layer }: Cell): Cell => ({
    position: Math.min(position, Math.max(0, positions - 1)),
    layer: Math.min(layer, layers - 1),
  });
  return { at: inside(at), anchor: inside(anchor), whole };
}

/** What is dragged, in words beside the pointer, in place of a picture of the whole grid. */
function showDragged(event: DragEvent, words: string): void {
  const label = document.createElement("div");
  label.className = "dragged";
  label.textContent = words;
  document.body.append(label);
  event.dataTransfer!.setDragImage(label, -8, -8);
  setTimeout(() => label.remove());
}
