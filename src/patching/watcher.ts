import { SiteError } from "../errors.ts";
import type { Tape, Watched } from "../gradient/tape.ts";
import { copy } from "../kernels/movement/copy.ts";
import { SiteEvent, type Visitor } from "../model/walk/site-events.ts";
import type { SiteMap } from "../model/walk/site-shapes.ts";
import type { SiteName } from "../model/walk/sites.ts";
import type { Device } from "../tensor/device.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Edit } from "./edit.ts";
import { editAttention } from "./edit-attention.ts";
import { editRows } from "./edit-rows.ts";
import { editValue, type ResolvedEdit } from "./edit-value.ts";
import { eachResult, type TapResults } from "./resolve-taps.ts";
import { type Batch, resolveTarget, type Target } from "./site-targets.ts";
import { TapResult } from "./tap-result.ts";

/**
 * Carries out taps and edits as a forward pass goes by. At each site the edits come first, in the order given; taps copy
 * what flows on. Afterwards {@link finish} gives the taps' results and throws if anything did not fire.
 */
export class Watcher implements Visitor {
  readonly #edits = new Map<SiteName, ResolvedEdit[]>();
  readonly #taps = new Map<SiteName, TapResult[]>();
  readonly #results: TapResults;
  /** Rows that each edit has been applied to so far. */
  readonly #fired = new Map<ResolvedEdit, number>();
  readonly #tape: Tape | undefined;
  /** What gradients are asked for, and where it came by. */
  readonly #watched: { readonly event: SiteEvent; readonly watched: Watched }[] = [];

  /** `tape`: for taps that are gradients; it has to be recording. */
  constructor(edits: readonly ResolvedEdit[], taps: TapResults, tape?: Tape) {
    this.#tape = tape;
    for (const edit of edits) {
      push(this.#edits, edit.target.site, edit);
      this.#fired.set(edit, 0);
    }
    this.#results = taps;
    for (const result of eachResult(taps)) push(this.#taps, result.target.site, result);
  }

  uses(site: SiteName): boolean {
    return this.#edits.has(site) || this.#taps.has(site);
  }

  visit(event: SiteEvent): void {
    for (const edit of this.#edits.get(event.site) ?? []) {
      const before = event.value;
      const apply = event.layout === "rows" ? editRows : editAttention;
      // Views would keep what they were cut from in memory.
      const { value, rows } = before.device.scope(() => apply(edit, event));
      putIn(event, value);
      this.#fired.set(edit, this.#fired.get(edit)! + rows);
    }
    const results = this.#taps.get(event.site) ?? [];
    if (results.some(({ kind }) => kind === "gradient")) this.#watch(event);
    for (const result of results) if (result.kind === "tap") result.take(event);
  }

  #watch(event: SiteEvent): void {
    // In memory of its own: that of the value may be read on other ways than through this site.
    putIn(event, copy(event.value));
    const { site, layout, value, rows, keys } = event;
    const kept = new SiteEvent(site, layout, value, rows, { ...(keys && { keys }) });
    this.#watched.push({ event: kept, watched: this.#tape!.watch(value) });
  }

  /** The values of taps that have been collected so far, without gradients; for what is computed from them. */
  tapped(): Record<string, TapValue | Record<string, TapValue>> {
    const taps = Object.entries(this.#results).filter(([, result]) => kindOf(result) === "tap");
    return valuesOf(Object.fromEntries(taps));
  }

  /** Collects the gradients, once the tape has gone back from the result. */
  takeGradients(): void {
    for (const { event, watched } of this.#watched) {
      const { site, layout, rows, keys } = event;
      const value = this.#tape!.gradient(watched);
      const back = new SiteEvent(site, layout, value, rows, { ...(keys && { keys }) });
      for (const result of this.#taps.get(site)!) if (result.kind === "gradient") result.take(back);
      value.dispose();
    }
  }

  /**
   * The tapped values and gradients by name. Throws SiteError naming the taps and edits that did not fire everywhere; of edits only the
   * positions count that `computed` lets through.
   */
  finish(computed: Computed = () => true): Record<string, TapValue | Record<string, TapValue>> {
    const problems: string[] = [];
    for (const [{ target }, rows] of this.#fired) {
      const expected = countPositions(target, computed);
      if (rows < expected) problems.push(`${target.label}: fired for ${rows} of ${expected} positions`);
    }
    for (const result of eachResult(this.#results)) {
      const missing = result.missing();
      if (missing > 0) problems.push(`${result.target.label}: ${missing} positions were not computed`);
    }
    if (problems.length > 0) throw new SiteError(`not everything fired: ${problems.join("; ")}`);
    return valuesOf(this.#results);
  }
}

function kindOf(result: TapResults[string]): "tap" | "gradient" {
  return result instanceof TapResult ? result.kind : Object.values(result)[0]!.kind;
}

function valuesOf(results: TapResults): Record<string, TapValue | Record<string, TapValue>> {
  return mapValues(results, (result) =>
    result instanceof TapResult ? result.value() : mapValues(result, (each) => each.value()),
  );
}

/** Puts a value in the place of an event's, which goes, unless somebody else owns it. */
function putIn(event: SiteEvent, value: Tensor): void {
  const before = event.value;
  event.value = value;
  const masked = event.masked();
  event.handedOver ||= masked !== before;
  for (const old of new Set([before, value])) {
    if (old !== masked && old.scope !== undefined && old.scope === masked.scope) old.dispose();
  }
}

function mapValues<V, W>(record: Readonly<Record<string, V>>, fn: (value: V) => W): Record<string, W> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, fn(value)]));
}

/**
 * Checks edits against a model and its inputs; prompts may grow by `newTokens`. Throws SiteError or PromptError. Values are
 * put on the device.
 */
export function resolveEdits(
  edits: readonly Edit[],
  sites: SiteMap,
  device: Device,
  batch: Batch,
  newTokens = 0,
): ResolvedEdit[] {
  const count = batch.images.length;
  return edits.map((edit) => {
    const { prompt } = edit;
    if (prompt !== undefined && !(Number.isInteger(prompt) && prompt >= 0 && prompt < count)) {
      throw new SiteError(`${edit.operation} at ${edit.site}: there is no prompt ${prompt} among ${count}`);
    }
    const members = prompt === undefined ? batch.images.keys() : [prompt];
    const target = resolveTarget(edit.operation, edit, sites, batch, { members, newTokens });
    return { edit, target, value: editValue(edit, target, device) };
  });
}

type TapValue = Tensor | Tensor[];

/** Whether a position of a sequence came by at the target's site. */
export type Computed = (target: Target, sequence: number, position: number) => boolean;

function countPositions(target: Target, computed: Computed): number {
  let count = 0;
  for (const [sequence, positions] of target.positions) {
    for (const position of positions) if (computed(target, sequence, position)) count++;
  }
  return count;
}

function push<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
