import type { JSX } from "preact";
import type { EncodedPrompt, ModelSummary, TokenAnswer } from "../../../../src/session/messages/results.ts";
import { useAsked } from "../../ask.ts";
import type { Held } from "../../hold.ts";
import { Notice } from "../../ui/notice.tsx";
import { Panel } from "../../ui/panel.tsx";
import { Provenance } from "../../ui/provenance.tsx";
import { percentInWords, tokenInWords } from "../../ui/words.ts";
import { editSpecs, layerVariants, problemOf, wantedBy } from "./edit-specs.ts";
import { chosenEdit, type LensEdit, type LensSlice, OPERATION_WORDS } from "./lens-slice.ts";
import { placeInWords } from "./places.ts";
import { boundsOf } from "./site-facts.ts";
import { readSource } from "./source-values.ts";
import { essence, type Recorded } from "./use-lens.ts";

export interface LayerStripProps {
  readonly slice: LensSlice;
  readonly summary: ModelSummary;
  readonly source: Held<EncodedPrompt>;
  readonly recorded: Held<Recorded>;
  /** What the source says. */
  readonly sourceTop: TokenAnswer | undefined;
  readonly bounds: { readonly source: number | undefined; readonly target: number | undefined };
}

/** One edit, alone, at every layer in turn: all of them from one recorded pass, in one batch. */
export function LayerStrip(props: LayerStripProps): JSX.Element | null {
  const { slice, summary, source, recorded, sourceTop, bounds } = props;
  const edit = chosenEdit(slice);
  const facts = edit && boundsOf(summary, edit, bounds);
  const layers = facts?.siteLayers ?? [];
  const variants = edit ? layerVariants(edit, layers) : [];
  const problem = variants[0] && facts && problemOf(variants[0], facts);
  const first = recorded.value?.answer.top[0];
  const tracked = [...new Set([first?.id, edit?.from && sourceTop?.id])].filter((id) => id !== undefined);
  const isReady = edit && !problem && recorded.value && first && (!edit.from || sourceTop);
  const from = edit?.from ? source.key : undefined;
  const asked = useAsked(
    isReady ? ["layers", recorded.key, essence([variants[0]!]), layers, from, tracked] : undefined,
    async ({ client, model, signal }) => {
      const wanted = wantedBy(variants);
      const key = source.key ?? "";
      const { prompt } = source.value ?? {};
      const holds =
        prompt && wanted.length > 0
          ? await readSource({ client, model, prompt, key, signal }, wanted, summary.width)
          : () => {
              throw new Error("the source is not read yet");
            };
      return client.resume(
        {
          recording: recorded.value!.recording,
          variants: variants.map((each) => editSpecs(each, holds)),
          top: 1,
          track: tracked,
        },
        { signal },
      );
    },
  );
  if (!edit) return null;
  const { error, current } = asked;
  const value = current ? asked.value : undefined;
  return (
    <Panel
      title="All layers at once"
      busy={isReady && !current}
      footer={
        value && (
          <>
            {layers.length} patches: {value.rowLayers} rows × layers computed, in full passes{" "}
            {layers.length * recorded.value!.rowLayers} · <Provenance setting={value.setting} />
          </>
        )
      }
    >
      <p class="soft">
        {inWords(edit, summary.layers)}, at each layer in turn
        {edit.from && ", from the same layer of the source"}; nothing else is edited.
      </p>
      {problem && <p class="problem">Not computed: {problem}.</p>}
      {error && (
        <Notice kind="bad" title="It could not be computed">
          <p>{error.message}</p>
        </Notice>
      )}
      {value && (
        <>
          <Legend before={first} source={edit.from && sourceTop} />
          <ol class="strip" aria-label="Answers by layer">
            {value.variants.map(({ top, tracked: probabilities }, i) => {
              const [best] = top;
              const [before, wanted] = probabilities;
              const words = [
                `layer ${layers[i]}: ${tokenInWords(best!.text)} ${percentInWords(best!.probability)}`,
                before && `${tokenInWords(before.text)} ${percentInWords(before.probability)}`,
                wanted && `${tokenInWords(wanted.text)} ${percentInWords(wanted.probability)}`,
              ];
              const text = words.filter(Boolean).join("; ");
              return (
                <li key={layers[i]} title={text}>
                  <div class="bars" aria-hidden="true">
                    {before && (
                      <span class="bar-of before" style={`--value:${before.probability.toFixed(4)}`} />
                    )}
                    {wanted && (
                      <span class="bar-of wanted" style={`--value:${wanted.probability.toFixed(4)}`} />
                    )}
                  </div>
                  <span class="token mono" aria-hidden="true">
                    {tokenInWords(best!.text)}
                  </span>
                  <span class="layer number" aria-hidden="true">
                    {layers[i]}
                  </span>
                  <span class="visually-hidden">{text}</span>
                </li>
              );
            })}
          </ol>
        </>
      )}
    </Panel>
  );
}

function Legend({
  before,
  source,
}: {
  before: TokenAnswer | undefined;
  source: TokenAnswer | undefined;
}): JSX.Element {
  return (
    <p class="strip-legend">
      {before && (
        <span class="legend-item">
          <span class="key before" /> probability of <b class="mono">{tokenInWords(before.text)}</b>, which
          the target says unpatched
        </span>
      )}
      {source && source.id !== before?.id && (
        <span class="legend-item">
          <span class="key wanted" /> of <b class="mono">{tokenInWords(source.text)}</b>, which the source
          says
        </span>
      )}
      <span class="legend-item soft">below: the answer</span>
    </p>
  );
}

function inWords({ operation, amount, site, head, from, to }: LensEdit, layers: number): string {
  const positions = (place: LensEdit["to"]) => placeInWords(place, layers).split(", ")[1]!;
  const share = operation === "add" || operation === "interpolate" ? ` (${amount})` : "";
  const source = from ? ` to ${positions(from)} of the source` : "";
  const where = `${site}${head === undefined ? "" : `, head ${head},`}`;
  return `${OPERATION_WORDS[operation]}${share} ${where} at ${positions(to)}${source}`;
}
