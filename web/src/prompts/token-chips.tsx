import type { JSX } from "preact";
import type { EncodedPrompt, SpanSummary, TokenList } from "../../../src/session/messages/results.ts";
import { tokenInWords } from "../ui/words.ts";
import { tokensComputed } from "./tokens-computed.ts";

/** The tokens that a model reads, each with its position and id; those of a picture as one. */
export function TokenChips({ encoded }: { encoded: EncodedPrompt }): JSX.Element {
  return (
    <div class="tokens">
      {encoded.sequence && <h3>What the encoder reads</h3>}
      <Chips list={encoded} spans={encoded.spans} />
      {encoded.sequence && (
        <>
          <h3>What the decoder begins with</h3>
          <Chips list={tokensComputed(encoded)} spans={{}} />
        </>
      )}
    </div>
  );
}

interface ChipsProps {
  readonly list: TokenList;
  readonly spans: Readonly<Record<string, SpanSummary>>;
}

function Chips({ list: { ids, tokens, texts }, spans }: ChipsProps): JSX.Element {
  const pictures = pictureSpans(spans);
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls has to be reached by keys
    <ol class="chips" aria-label="Tokens" tabIndex={0}>
      {ids.map((id, position) => {
        const picture = pictures.find(({ start, end }) => position >= start && position < end);
        if (picture) {
          const { name, start, end, grid } = picture;
          if (position > start) return null;
          const size = grid ? `${grid.rows} × ${grid.columns} patches` : `${end - start} tokens`;
          return (
            <li key={position} class="chip picture" title={`${name}: positions ${start} to ${end - 1}`}>
              <span class="text">▦ {name}</span>
              <span class="where">
                {start}–{end - 1} · {size}
              </span>
            </li>
          );
        }
        const text = tokenInWords(texts[position]!);
        return (
          <li
            key={position}
            class="chip"
            title={`position ${position}, id ${id}, in the vocabulary ${JSON.stringify(tokens[position])}`}
          >
            <span class="text">{text}</span>
            <span class="where">
              {position} · {id}
            </span>
          </li>
        );
      })}
    </ol>
  );
}

/** Spans of pictures, by their names in the prompt. */
export function pictureSpans(
  spans: Readonly<Record<string, SpanSummary>>,
): (SpanSummary & { readonly name: string })[] {
  return Object.entries(spans).flatMap(([name, span]) =>
    /^image\d*$/.test(name)
      ? [{ ...span, name: name === "image" ? "picture" : `picture ${name.slice(5)}` }]
      : [],
  );
}
