import {
  aKindOf,
  aNumber,
  anArray,
  anObject,
  checkArgument,
  checkOptions,
  type Options,
} from "../arguments.ts";
import { SiteError } from "../errors.ts";
import { concat } from "../kernels/movement/concat.ts";
import type { LanguageModel } from "../model/language-model.ts";
import { firstImages } from "../model/prompt/image-places.ts";
import type { Prompt } from "../model/prompt/prompt.ts";
import { additionTo } from "../model/walk/additions.ts";
import { takeRows } from "../model/walk/forward.ts";
import { type Context, ContextKeys, ResumedKeys } from "../model/walk/key-value-store.ts";
import { Pass } from "../model/walk/pass.ts";
import { RowMap } from "../model/walk/row-map.ts";
import { Sites, type Walk } from "../model/walk/site-events.ts";
import type { SiteName } from "../model/walk/sites.ts";
import { drive, giveBack } from "../model/walk/walk.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { checkEdits, checkTaps } from "./arguments.ts";
import type { Edit } from "./edit.ts";
import type { ResolvedEdit } from "./edit-value.ts";
import { type Reach, reachOf } from "./reach.ts";
import { Recording } from "./recording.ts";
import { resolveTaps } from "./resolve-taps.ts";
import { encoderRowLayers } from "./row-layers.ts";
import type { TapLists } from "./run.ts";
import { batchOf } from "./site-targets.ts";
import type { Taps } from "./tap.ts";
import { type Computed, resolveEdits, Watcher } from "./watcher.ts";

/** One patched run: edits of one of the recorded prompts. */
export interface Variant {
  /** Index among the recorded prompts. Default 0. */
  readonly prompt?: number;
  /** Made on top of those of the recording. */
  readonly edits: readonly Edit[];
}

/** Taps of resumed runs. */
export interface ResumeOptions<T extends Taps> {
  /** Taken in every variant. They must lie where the variants differ from the recording. */
  taps?: T;
}

const VARIANT: Options<Variant> = { prompt: aNumber, edits: anArray };

/** Taps as for a list of prompts, a variant each. */
export type ResumeResult<T> = TapLists<T> & {
  /** [variants, vocab], at each prompt's last token. */
  logits: Tensor<"f32">;
  /** Rows times layers of the language model that were computed, those of an encoder of text among them. */
  rowLayers: number;
};

/** A variant with what it has to compute: the rows from `position` on, from `layer` on. */
interface Planned extends Reach {
  readonly variant: number;
  readonly prompt: number;
  /** Rows from the first changed position to the end of the prompt. */
  readonly count: number;
}

/**
 * Runs edited copies of recorded prompts, computing only what the edits can change: of each variant the rows from its
 * first changed position on, from its first changed layer on; all else is read from the recording. The variants form one
 * batch that grows where they enter, so a patch of every layer at the last token costs one row a layer each.
 *
 * The results are those of full runs with the same edits, after the recording's own if it has any. Throws SiteError or PromptError like `run`, and SiteError for
 * taps at activations that a variant leaves as they were (tap them in a plain run).
 */
export function resume<const T extends Taps = Record<never, never>>(
  recording: Recording,
  variants: readonly Variant[],
  options: ResumeOptions<T> = {},
): ResumeResult<T> {
  checkArgument("resume", "recording", recording, aKindOf(Recording, "model.record(…) makes one"));
  checkArgument("resume", "variants", variants, anArray);
  for (const [i, variant] of variants.entries()) {
    checkOptions<Variant>("resume", variant, VARIANT, { name: `variants[${i}]`, required: ["edits"] });
    checkEdits(`resume, variants[${i}]`, variant.edits);
  }
  checkOptions("resume", options, { taps: anObject });
  const { taps = {} } = options;
  checkTaps("resume", taps);
  const { model, sequences: prompts } = recording;
  const { device } = model.network;
  if (variants.length === 0) throw new SiteError("resume: expected at least one variant, found none");
  return device.scope(() => {
    const edited = variants.map(({ prompt = 0 }, i) => {
      if (prompts[prompt]) return prompts[prompt];
      throw new SiteError(`resume: variant ${i} names prompt ${prompt} of ${prompts.length}`);
    });
    const batch = batchOf(edited, model.config.vision);
    const images = firstImages(edited);
    for (const [i, { prompt = 0, edits }] of variants.entries()) {
      const other = edits.find((edit) => edit.prompt !== undefined && edit.prompt !== prompt);
      if (other) {
        throw new SiteError(
          `resume: variant ${i} is of prompt ${prompt}, but one of its edits of ${other.prompt}`,
        );
      }
    }
    const edits = variants.map((variant, i) =>
      resolveEdits(
        variant.edits.map((edit) => ({ ...edit, prompt: i })),
        model.sites,
        device,
        batch,
      ),
    );
    const plan = variants.map((variant, i) => planVariant(recording, variant, i, edits[i]!, images[i]!));
    const kept = resolveEdits(recordedEdits(recording, plan), model.sites, device, batch).filter((edit) =>
      comesByAgain(edit, plan, takesImages(model)),
    );
    const watcher = new Watcher([...kept, ...edits.flat()], resolveTaps(taps, model.sites, batch, false));
    const { walk, rowLayers } = resumedForward(recording, plan, watcher, edited);
    const logits = drive(walk, watcher);
    // Before a variant's first row the recorded edits have been at work already.
    const computed: Computed = ({ info }, variant, position) =>
      info.sequences !== "prompts" || position >= plan[variant]!.position;
    return { ...watcher.finish(computed), logits, rowLayers } as ResumeResult<T>;
  });
}

function planVariant(
  { model, sequences: prompts }: Recording,
  variant: Variant,
  index: number,
  edits: readonly ResolvedEdit[],
  firstImage: number,
): Planned {
  const prompt = variant.prompt ?? 0;
  if (edits.length === 0) throw new SiteError(`resume: variant ${index} has no edits`);
  const reach = reachOf(
    model,
    prompts[prompt]!,
    edits.map((edit) => edit.target),
    firstImage,
  );
  return { ...reach, variant: index, prompt, count: prompts[prompt]!.length - reach.position };
}

/** The recording's own edits, for each variant. */
function recordedEdits({ edits }: Recording, plan: readonly Planned[]): Edit[] {
  return plan.flatMap(({ variant, prompt }) =>
    edits
      .filter((edit) => edit.prompt === undefined || edit.prompt === prompt)
      .map((edit) => ({ ...edit, prompt: variant })),
  );
}

/**
 * Whether an edit's site is computed anew for its variant: those of the layers from its first one on, keys of cross-attention
 * where what these are made of is, and what comes before the layers where that is computed. What the recording has has been
 * through the sites before.
 */
function comesByAgain(
  { edit, target: { info } }: ResolvedEdit,
  plan: readonly Planned[],
  takesImages: boolean,
): boolean {
  const { layer, context, vision, encoder } = plan[edit.prompt!]!;
  if (info.order >= layer) return context || info.sequences === "prompts" || !info.site.startsWith("xattn_");
  if (info.order >= 0) return false;
  const embedded = takesImages && layer === 0 && plan.some((each) => each.layer === 0 && each.vision);
  return embedded || (info.stack !== "text" && context && (vision || encoder));
}

/** Whether features of pictures take places in the embedding that the layers start from. */
function takesImages({ config: { vision, encoder } }: LanguageModel): boolean {
  return vision?.embeds !== false && !encoder;
}

function resumedForward(
  recording: Recording,
  plan: readonly Planned[],
  watcher: Watcher,
  edited: readonly Prompt[],
): { walk: Walk<Tensor>; rowLayers: number } {
  const { network } = recording.model;
  const { device, config } = network;
  // In the order in which they enter, so that the rows of the batch so far always come first.
  const entering = [...plan].sort((a, b) => a.layer - b.layer || a.variant - b.variant);
  const rows = packed(entering);
  const prefix = new RowMap(
    entering.flatMap(({ variant, prompt, position }) =>
      position === 0
        ? []
        : [{ sequence: variant, position: 0, row: recording.rows.row(prompt, 0)!, count: position }],
    ),
  );
  const uses = (site: SiteName) => watcher.uses(site);
  const keys = new ResumedKeys(rows, prefix, recording.keys);
  const renewed = entering.filter(({ context }) => context);
  const context = recordedContext(recording, plan);
  const whole = Pass.over(device, edited, { rows, keys, context, inUse: uses });
  const anew = plan.filter(({ context, vision, encoder }) => context && (vision || encoder));
  const rowLayers =
    plan.reduce((sum, { layer, count }) => sum + (config.layers - layer) * count, 0) +
    anew.reduce(
      (sum, { prompt }) => sum + encoderRowLayers(recording.model, recording.sequences[prompt]!),
      0,
    );
  const firstImage = firstImages(edited);
  for (const { variant, prompt } of entering.filter(({ vision }) => !vision)) {
    for (const addition of recording.additions) {
      const own = additionTo(addition, prompt, { sequence: variant, firstImage: firstImage[variant]! });
      if (own) whole.add(own);
    }
  }
  return { walk: walk(), rowLayers };

  function* walk(): Walk<Tensor> {
    if (renewed.length > 0) context.fill(yield* contextAnew(renewed));
    const from = entering[0]!.layer;
    const starters = entering.filter(({ layer }) => layer === from);
    let active = starters.length;
    const x = yield* network.stack.run(yield* enter(from, starters), whole.first(active), {
      from,
      *entering(index, { x }) {
        const newcomers = entering.slice(active).filter(({ layer }) => layer === index);
        if (newcomers.length === 0) return undefined;
        active += newcomers.length;
        return { x: concat([x, yield* enter(index, newcomers)]), pass: whole.first(active) };
      },
    });
    return yield* head(x);
  }

  /** The recorded stream that enters `layer`, through the edits of the site that it comes from. */
  function* enter(layer: number, newcomers: readonly Planned[]): Walk<Tensor> {
    if (takesImages(recording.model) && newcomers.some((newcomer) => newcomer.vision))
      return yield* embedAnew(newcomers);
    const wanted = newcomers.flatMap(({ prompt, position, count }) =>
      Array.from({ length: count }, (_, i) => recording.rows.row(prompt, position + i)!),
    );
    const stream = takeRows(recording.stream[layer]!, wanted);
    const at = new Sites(whole.inUse, packed(newcomers), layer === 0 ? {} : { layer: layer - 1 });
    return yield* at.pass(layer === 0 ? "embed" : "resid_post", stream);
  }

  /**
   * What cross-attention of these variants reads, to be made keys of: computed again where a change lies before it, else as it
   * was recorded.
   */
  function* contextAnew(renewed: readonly Planned[]): Walk<Context> {
    const changed = renewed.filter(({ vision, encoder }) => vision || encoder);
    const parts: Context[] = [];
    if (changed.length > 0) {
      const inputs = changed.map(({ prompt }) => recording.sequences[prompt]!);
      const pass = Pass.over(device, edited, { rows: wholePrompts(changed), inUse: uses });
      parts.push((yield* network.context!(inputs, pass))!);
    }
    const first = firstImages(edited);
    const recordedImages = firstImages(recording.sequences);
    for (const { variant, prompt } of renewed.filter((each) => !changed.includes(each))) {
      const { x, rows, named } = recording.context!;
      const [span] = rows.of(prompt);
      const moved = { ...span!, row: 0 };
      const ofImages = named?.spans.filter(({ row }) => row >= span!.row && row < span!.row + span!.count);
      parts.push({
        x: x.rows(span!.row, span!.row + span!.count),
        rows: new RowMap([{ ...moved, sequence: variant }]),
        ...(ofImages && {
          named: new RowMap(
            ofImages.map((each) => ({
              ...each,
              sequence: first[variant]! + each.sequence - recordedImages[prompt]!,
              row: each.row - span!.row,
            })),
          ),
        }),
      });
    }
    return joined(parts);
  }

  /** All rows of these variants' prompts. */
  function wholePrompts(planned: readonly Planned[]): RowMap {
    return packed(
      planned.map((each) => ({ ...each, position: 0, count: recording.sequences[each.prompt]!.length })),
    );
  }

  /** The rows of variants some of which change an image: their prompts go through the vision side again. */
  function* embedAnew(newcomers: readonly Planned[]): Walk<Tensor> {
    const inputs = newcomers.map(({ prompt }) => recording.sequences[prompt]!);
    const inputRows = wholePrompts(newcomers);
    const pass = Pass.over(device, edited, { rows: inputRows, inUse: uses });
    const embedded = yield* network.embed(inputs, pass);
    const wanted = newcomers.flatMap(({ variant, position, count }) =>
      Array.from({ length: count }, (_, i) => inputRows.row(variant, position + i)!),
    );
    for (const { variant } of newcomers.filter(({ vision }) => vision)) {
      for (const addition of pass.additions) {
        const own = additionTo(addition, variant, { sequence: variant, firstImage: firstImage[variant]! });
        if (own) whole.add(own);
      }
    }
    const changed = takeRows(embedded, wanted);
    giveBack(embedded, changed);
    return changed;
  }

  /** Logits at the last row of every variant, in the order in which the variants were given. */
  function* head(x: Tensor): Walk<Tensor> {
    const spans = plan.map(({ variant }, row) => {
      const [span] = rows.of(variant);
      return { sequence: variant, position: span!.position + span!.count - 1, row, count: 1 };
    });
    const last = plan.map(({ variant, position, count }) => rows.row(variant, position + count - 1)!);
    return yield* network.head(takeRows(x, last), new Sites(whole.inUse, new RowMap(spans)));
  }
}

/** The keys of cross-attention for a batch of variants: those of the recording where a variant leaves them as they were. */
function recordedContext({ context }: Recording, plan: readonly Planned[]): ContextKeys {
  if (!context) return new ContextKeys();
  const spans = plan.flatMap(({ variant, prompt, context: renewed }) =>
    renewed ? [] : context.rows.of(prompt).map((span) => ({ ...span, sequence: variant })),
  );
  if (spans.length === 0) return new ContextKeys();
  return new ContextKeys({ recorded: { rows: new RowMap(spans), layers: context.layers } });
}

/** Contexts one after the other. */
function joined(contexts: readonly Context[]): Context {
  let start = 0;
  const moved = contexts.map(({ x, rows, named = rows }) => {
    const move = (map: RowMap) => map.spans.map((span) => ({ ...span, row: span.row + start }));
    const spans = { rows: move(rows), named: move(named) };
    start += x.dim(0);
    return spans;
  });
  return {
    x: contexts.length === 1 ? contexts[0]!.x : concat(contexts.map(({ x }) => x)),
    rows: new RowMap(moved.flatMap(({ rows }) => rows)),
    named: new RowMap(moved.flatMap(({ named }) => named)),
  };
}

/** Rows of variants one after the other. */
function packed(planned: readonly Planned[]): RowMap {
  let row = 0;
  return new RowMap(
    planned.map(({ variant, position, count }) => {
      row += count;
      return { sequence: variant, position, row: row - count, count };
    }),
  );
}
