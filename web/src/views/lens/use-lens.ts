import type { Setting } from "../../../../src/patching/setting.ts";
import type { SessionClient } from "../../../../src/session/client.ts";
import type {
  Answer,
  EncodedPrompt,
  LensAnswer,
  Reached,
  RunAnswer,
} from "../../../../src/session/messages/results.ts";
import type { EditSpec, ModelHandle, RecordingHandle } from "../../../../src/session/messages/values.ts";
import { type Asked, useAsked } from "../../ask.ts";
import { type Held, useHeld } from "../../hold.ts";
import { model } from "../../model.ts";
import { editSpecs, layerVariants, wantedBy } from "./edit-specs.ts";
import type { LensEdit } from "./lens-slice.ts";
import { boundsOf, readSite } from "./site-facts.ts";
import { readSource } from "./source-values.ts";

/** Tokens of an answer that are shown. */
export const TOP = 8;
/** Tokens of a cell. */
export const LENS_TOP = 3;

/** The target's pass, from which patched ones start. */
export interface Recorded {
  readonly recording: RecordingHandle;
  readonly answer: Answer;
  readonly setting: Setting;
  readonly rowLayers: number;
}

export interface Patched {
  readonly variant: Answer & { readonly reach: Reached };
  /** Probabilities without the edits, by the ids of the variant's tokens. */
  readonly before: ReadonlyMap<number, number>;
  readonly setting: Setting;
  readonly rowLayers: number;
}

/** Edits without what does not change what they do. */
export function essence(edits: readonly LensEdit[]): unknown {
  return edits.map(({ operation, amount, site, head, from, to }) => ({
    operation,
    ...((operation === "add" || operation === "interpolate") && { amount }),
    site,
    head,
    from,
    to,
  }));
}

export function useRecorded(target: Held<EncodedPrompt>): Held<Recorded> {
  const { value, key } = target;
  return useHeld(
    value && key,
    async ({ client, model, signal }) => {
      const { recording, top, tracked, setting, rowLayers } = await client.record(
        { model, prompt: value!.prompt, top: TOP },
        { signal },
      );
      return { recording, answer: { top, tracked }, setting, rowLayers };
    },
    ({ recording }, client) => void client.free([recording]).catch(() => {}),
  );
}

export function useRunOf({ value, key }: Held<EncodedPrompt>): Asked<RunAnswer> {
  return useAsked(value && ["run", key], ({ client, model, signal }) =>
    client.run({ model, prompt: value!.prompt, top: TOP }, { signal }),
  );
}

/** What the cells of a prompt read as, and which prompt and site those are. */
export interface PromptLens {
  readonly of: string;
  readonly answer: LensAnswer;
}

/** What each cell of a prompt reads as, under edits if there are any. What is known of another prompt or site is not shown. */
export function useLens(
  prompt: Held<EncodedPrompt>,
  site: string,
  edits: readonly LensEdit[] = [],
  source?: Held<EncodedPrompt>,
): Asked<LensAnswer> {
  const { value, key } = prompt;
  const from = edits.some((edit) => edit.from) ? source?.key : undefined;
  const of = `${key} ${readSite(site)}`;
  const { value: known, ...asked } = useAsked<PromptLens>(
    value && ["lens", key, readSite(site), essence(edits), from],
    async ({ client, model, signal, onProgress }) => {
      const specs = await specsOf(edits, source, { client, model, signal });
      const answer = await client.lens(
        { model, prompt: value!.prompt, site: readSite(site), k: LENS_TOP, edits: specs },
        { signal, onProgress },
      );
      return { of, answer };
    },
  );
  return known?.of === of ? { ...asked, value: known.answer } : asked;
}

/** The answer under edits, from the recorded pass. */
export function usePatched(
  edits: readonly LensEdit[],
  source: Held<EncodedPrompt>,
  recorded: Held<Recorded>,
): Asked<Patched> {
  const { value, key } = recorded;
  const from = edits.some((edit) => edit.from) ? source.key : undefined;
  return useAsked(
    value && edits.length > 0 ? ["patched", key, essence(edits), from] : undefined,
    async ({ client, model, signal }) => {
      const specs = await specsOf(edits, source, { client, model, signal });
      const { recording } = value!;
      const { variants, setting, rowLayers } = await client.resume(
        { recording, variants: [specs], top: TOP },
        { signal },
      );
      const variant = variants[0]!;
      const before = new Map(variant.before.map(({ id, probability }) => [id, probability]));
      return { variant, before, setting, rowLayers };
    },
  );
}

const NO_LENGTHS = { source: undefined, target: undefined };

interface At {
  readonly client: SessionClient;
  readonly model: ModelHandle;
  readonly signal: AbortSignal;
}

/** Edits with what they take from the source, as the session takes them. */
export async function specsOf(
  edits: readonly LensEdit[],
  source: Held<EncodedPrompt> | undefined,
  at: At,
): Promise<EditSpec[]> {
  const state = model.peek();
  const summary = state.status === "ready" ? state.summary : undefined;
  const wanted = wantedBy(edits);
  if (wanted.length === 0) return edits.flatMap((edit) => editSpecs(edit, nothing));
  if (!source?.value || source.key === undefined) throw new Error("the source is not read yet");
  const { prompt } = source.value;
  const width = summary?.width ?? 0;
  // With what the other layers hold there, since all of them are shown next to each other: it takes no other pass.
  const others = summary
    ? edits.flatMap((edit) =>
        wantedBy(layerVariants(edit, boundsOf(summary, edit, NO_LENGTHS).siteLayers ?? [])),
      )
    : [];
  const holds = await readSource({ ...at, prompt, key: source.key }, wanted, width, others);
  return edits.flatMap((edit) => editSpecs(edit, holds));
}

function nothing(): never {
  throw new Error("an edit takes something from the source that was not asked for");
}
