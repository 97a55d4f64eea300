import type { JSX } from "preact";
import type { ModelSummary } from "../../../../src/session/messages/results.ts";
import { store } from "../../state.ts";
import { Icon } from "../../ui/icons.tsx";
import { Panel } from "../../ui/panel.tsx";
import { Amount } from "./how.tsx";
import {
  chosenEdit,
  HAS_AMOUNT,
  type LensEdit,
  type LensSlice,
  lensSlice,
  OPERATION_WORDS,
  withEdit,
} from "./lens-slice.ts";
import { placeInWords } from "./places.ts";

export interface EditListProps {
  readonly slice: LensSlice;
  readonly summary: ModelSummary;
  /** Why edits do nothing, by their ids. */
  readonly problems: ReadonlyMap<number, string>;
}

/** What has been put on the target, in the order in which it takes effect. */
export function EditList({ slice, summary, problems }: EditListProps): JSX.Element {
  const { edits } = slice;
  const set = (label: string, change: (edits: readonly LensEdit[]) => readonly LensEdit[], same?: string) =>
    store.set(lensSlice, label, (before) => ({ ...before, edits: change(before.edits) }), same);
  const replace = (label: string, id: number, part: Partial<LensEdit>, same?: string) =>
    set(label, (list) => list.map((each) => (each.id === id ? { ...each, ...part } : each)), same);
  const chosen = chosenEdit(slice)?.id;
  return (
    <Panel
      title={edits.length > 0 ? `Edits (${edits.length})` : "Edits"}
      actions={
        edits.length > 0 && (
          <button type="button" class="quiet" onClick={() => set("remove all edits", () => [])}>
            Remove all
          </button>
        )
      }
    >
      {edits.length === 0 && (
        <p class="soft">None yet: the target is as it is. Drag a cell of the source onto the target.</p>
      )}
      <ul class="edits">
        {edits.map((edit) => {
          const { id, on, operation, site, head, from, to, amount } = edit;
          const where = `${site}${head === undefined ? "" : `, head ${head}`}`;
          const words = `${OPERATION_WORDS[operation]} ${where} at ${placeInWords(to, summary.layers)}`;
          const problem = problems.get(id);
          return (
            <li key={id} class={on ? "" : "off"}>
              <input
                type="checkbox"
                aria-label={words}
                checked={on}
                onChange={() => replace(on ? "switch an edit off" : "switch an edit on", id, { on: !on })}
              />
              <div class="what">
                <span>
                  <b>{OPERATION_WORDS[operation]}</b> <span class="mono">{where}</span>{" "}
                  {placeInWords(to, summary.layers)}
                </span>
                {from && <span class="soft">← source {placeInWords(from, summary.layers)}</span>}
                {problem && <span class="problem">does nothing: {problem}</span>}
              </div>
              {HAS_AMOUNT.has(operation) && (
                <span class="amount">
                  <Amount
                    value={amount}
                    label={operation === "add" ? "Scale" : "Share"}
                    onChange={(next) => replace("change an amount", id, { amount: next }, `amount-${id}`)}
                  />
                </span>
              )}
              <button
                type="button"
                class="quiet"
                aria-pressed={id === chosen}
                title="Show this edit at all layers"
                onClick={() =>
                  store.set(lensSlice, "show another edit at all layers", (before) => ({
                    ...before,
                    chosen: id,
                  }))
                }
              >
                At all layers
              </button>
              <button
                type="button"
                class="quiet"
                aria-label={`Copy: ${words}`}
                onClick={() =>
                  store.set(lensSlice, "copy an edit", (before) => {
                    const { id: _, on: __, ...copied } = edit;
                    return withEdit(before, copied);
                  })
                }
              >
                Copy
              </button>
              <button
                type="button"
                class="quiet icon"
                aria-label={`Remove: ${words}`}
                onClick={() => set("remove an edit", (list) => list.filter((each) => each.id !== id))}
              >
                <Icon name="close" />
              </button>
            </li>
          );
        })}
      </ul>
    </Panel>
  );
}
