import type { JSX } from "preact";
import { store } from "../../state.ts";
import { MOST_NEW_TOKENS, type PromptSlice, promptSlice } from "./prompt-slice.ts";

/** How tokens are chosen, and how many. */
export function Decoding({ value }: { value: PromptSlice }): JSX.Element {
  const change = (part: Partial<PromptSlice>) =>
    store.set(promptSlice, "change how it answers", (before) => ({ ...before, ...part }), "decoding");
  return (
    <div class="row fields">
      <label>
        <span class="label">New tokens</span>
        <input
          type="number"
          min={1}
          max={MOST_NEW_TOKENS}
          value={value.maxNewTokens}
          onInput={({ currentTarget: { valueAsNumber } }) =>
            change({ maxNewTokens: within(valueAsNumber, 1, MOST_NEW_TOKENS) })
          }
        />
      </label>
      <label title="0 always takes the most probable token">
        <span class="label">Temperature</span>
        <input
          type="number"
          min={0}
          max={10}
          step={0.1}
          value={value.temperature}
          onInput={({ currentTarget: { valueAsNumber } }) =>
            change({ temperature: Math.min(10, Math.max(0, valueAsNumber || 0)) })
          }
        />
      </label>
      {value.temperature > 0 && (
        <label>
          <span class="label">Seed</span>
          <input
            type="number"
            min={0}
            value={value.seed}
            onInput={({ currentTarget: { valueAsNumber } }) =>
              change({ seed: within(valueAsNumber, 0, 2 ** 31) })
            }
          />
        </label>
      )}
    </div>
  );
}

function within(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, Math.round(value) || 0));
}
