import type { JSX } from "preact";
import type { ModelSummary } from "../../../../src/session/messages/results.ts";
import { store } from "../../state.ts";
import {
  HAS_AMOUNT,
  type How as HowOf,
  type LensSlice,
  lensSlice,
  OPERATION_WORDS,
  OPERATIONS,
  type Operation,
} from "./lens-slice.ts";
import { editableSites } from "./site-facts.ts";

/** What the next edit does: the operation, its amount, the site, the head. And how the grids look. */
export function How({ slice, summary }: { slice: LensSlice; summary: ModelSummary }): JSX.Element {
  const { how, words } = slice;
  const set = (label: string, next: HowOf) =>
    store.set(lensSlice, label, (before) => ({ ...before, how: next }), "how");
  const sites = editableSites(summary);
  const heads = sites.find(({ name }) => name === how.site)?.heads;
  const { head: _, ...withoutHead } = how;
  return (
    <section class="panel lens-how" aria-label="What is put, and how">
      <div class="row fields">
        <label>
          <span class="label">Operation</span>
          <select
            value={how.operation}
            onChange={({ currentTarget }) =>
              set("choose an operation", { ...how, operation: currentTarget.value as Operation })
            }
          >
            {OPERATIONS.map((each) => (
              <option key={each} value={each}>
                {OPERATION_WORDS[each]}
              </option>
            ))}
          </select>
        </label>
        {HAS_AMOUNT.has(how.operation) && (
          <Amount value={how.amount} onChange={(amount) => set("change the amount", { ...how, amount })} />
        )}
        <label>
          <span class="label">Site</span>
          <select
            class="mono"
            value={how.site}
            onChange={({ currentTarget }) =>
              set("choose a site", { ...withoutHead, site: currentTarget.value })
            }
          >
            {!sites.some(({ name }) => name === how.site) && <option value={how.site}>{how.site}</option>}
            {sites.map(({ name }) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        {heads !== undefined && (
          <label>
            <span class="label">Head</span>
            <select
              value={how.head ?? ""}
              onChange={({ currentTarget: { value } }) =>
                set("choose a head", { ...withoutHead, ...(value !== "" && { head: Number(value) }) })
              }
            >
              <option value="">all</option>
              {Array.from({ length: heads }, (_, head) => (
                <option key={head} value={head}>
                  {head}
                </option>
              ))}
            </select>
          </label>
        )}
        <div class="segments" role="radiogroup" aria-label="Cells">
          {[true, false].map((each) => (
            <label key={String(each)}>
              <input
                type="radio"
                name="lens-words"
                checked={words === each}
                onChange={() =>
                  store.set(lensSlice, "change the cells", (before) => ({ ...before, words: each }))
                }
              />
              <span>{each ? "Words" : "All layers in sight"}</span>
            </label>
          ))}
        </div>
      </div>
      <p class="soft lens-hint">
        Drag from the source to the target; or <kbd>Enter</kbd> picks up and puts down, <kbd>Shift</kbd> with
        arrows takes a span, <kbd>R</kbd> all layers of a token, <kbd>Del</kbd> ablates, <kbd>Esc</kbd> lets
        go.
      </p>
    </section>
  );
}

export function Amount({
  value,
  label = "Amount",
  onChange,
}: {
  value: number;
  label?: string;
  onChange: (value: number) => void;
}): JSX.Element {
  return (
    <label>
      <span class="label">{label}</span>
      <input
        type="number"
        step={0.1}
        min={-1000}
        max={1000}
        value={value}
        onInput={({ currentTarget: { valueAsNumber } }) => {
          if (Number.isFinite(valueAsNumber)) onChange(Math.max(-1000, Math.min(1000, valueAsNumber)));
        }}
      />
    </label>
  );
}
