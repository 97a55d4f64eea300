import type { JSX } from "preact";
import type { EncodedPrompt } from "../../../../src/session/messages/results.ts";
import { pictureSpans } from "../../prompts/token-chips.tsx";
import { tokensComputed } from "../../prompts/tokens-computed.ts";
import { store } from "../../state.ts";
import { useArrows } from "../../ui/arrows.ts";
import { tokenInWords } from "../../ui/words.ts";
import { SEE } from "./see-slice.ts";

/** The tokens of the prompt, of which one is chosen: with the arrows, or a click. Those of pictures are left out. */
export function TokenPicker({ encoded }: { encoded: EncodedPrompt }): JSX.Element {
  const { at } = store.slice(SEE).value;
  const { texts } = tokensComputed(encoded);
  const spans = encoded.sequence ? [] : pictureSpans(encoded.spans);
  const positions = texts.flatMap((_, i) =>
    spans.some(({ start, end }) => i >= start && i < end) ? [] : [i],
  );
  const here = at < 0 ? texts.length + at : at;
  const index = Math.max(0, positions.indexOf(here));
  const choose = (position: number) =>
    store.set(
      SEE,
      `look from token ${position}`,
      // From the end, so that it is the same token in another question.
      (slice) => ({ ...slice, at: position - texts.length }),
      "see token",
    );
  const { group, onKeyDown } = useArrows(positions.length, index, (next) => choose(positions[next]!));
  return (
    <div>
      <h3 id="from-token">From the token</h3>
      <div ref={group} class="chips picker" role="radiogroup" aria-labelledby="from-token">
        {positions.map((position, i) => (
          <button
            key={position}
            type="button"
            role="radio"
            class="chip"
            aria-checked={position === here}
            aria-label={`${position}: ${tokenInWords(texts[position]!)}`}
            tabIndex={i === index ? 0 : -1}
            onClick={() => choose(position)}
            onKeyDown={onKeyDown}
          >
            <span class="text">{tokenInWords(texts[position]!)}</span>
          </button>
        ))}
      </div>
    </div>
  );
}
