import { aKindOf, checkArgument } from "../../arguments.ts";
import { LifetimeError, SiteError } from "../../errors.ts";
import { INSPECT } from "../../inspect.ts";
import { Tensor } from "../../tensor/tensor.ts";
import type { RowMap } from "./row-map.ts";
import {
  type LayerSite,
  layoutOf,
  type OuterSite,
  type SiteLayout,
  type SiteMark,
  type SiteName,
  type SitePrefix,
} from "./sites.ts";

/**
 * The attention mask over scores or a pattern, [heads, rows, keys]. It is the model's: whatever a visitor puts in, a row
 * attends to no more than the mask lets it.
 */
export interface AttentionMask {
  /** The values with −∞ (scores) or 0 (patterns) wherever the row does not attend. */
  hide(value: Tensor): Tensor;
  /** f32 [rows, keys] for values of that shape: 1 where a row attends, else 0. */
  visible(value: Tensor): Tensor;
}

/**
 * An activation on its way through the forward pass. Whoever drives the walk may look at `value` and may put another
 * tensor of the same shape in its place; the pass goes on with that.
 */
export class SiteEvent {
  readonly site: SiteName;
  readonly layout: SiteLayout;
  /** Which row belongs to which sequence and position. */
  readonly rows: RowMap;
  /** For attention sites: which key column belongs to which sequence and position. */
  readonly keys: RowMap | undefined;
  /** For attention sites. */
  readonly mask: AttentionMask | undefined;
  /** A visitor sets it who leaves the memory of the value that it put in to the pass. */
  handedOver = false;
  #value: Tensor;
  /** The latest value that obeys the mask. */
  #masked: Tensor;

  constructor(
    site: SiteName,
    layout: SiteLayout,
    value: Tensor,
    rows: RowMap,
    { keys, mask }: { keys?: RowMap; mask?: AttentionMask } = {},
  ) {
    this.site = site;
    this.layout = layout;
    this.#value = this.#masked = value;
    this.rows = rows;
    this.keys = keys;
    this.mask = mask;
  }

  /** The activation, [rows, …] as docs/sites.md says for its site. Setting it puts another of that shape in its place. */
  get value(): Tensor {
    return this.#value;
  }

  /**
   * Throws SiteError when the shape or dtype differs from what the forward pass made, ArgumentError for what is no tensor
   * and LifetimeError for one that is gone or of another device.
   */
  set value(replacement: Tensor) {
    const { shape, dtype, device } = this.#value;
    checkArgument(
      this.site,
      "value",
      replacement,
      aKindOf(Tensor, "device.tensor(…), or made of the event's"),
    );
    if (replacement.disposed || replacement.device !== device) {
      const problem = replacement.disposed
        ? "has been disposed of"
        : "lives on another device than the model";
      throw new LifetimeError(`${this.site}: the value ${replacement} ${problem}`);
    }
    if (replacement.dtype !== dtype || replacement.shape.join() !== shape.join()) {
      throw new SiteError(`${this.site}: expected a value ${this.#value}, found ${replacement}`);
    }
    this.#value = replacement;
  }

  [INSPECT](): string {
    return `SiteEvent ${this.site}: ${this.#value}`;
  }

  /** The value with the mask laid on what a visitor has put in. */
  masked(): Tensor {
    if (this.#value !== this.#masked && this.mask) this.#value = this.mask.hide(this.#value);
    this.#masked = this.#value;
    return this.#value;
  }
}

/** A forward pass that can be watched: yields each activation whose site is in use, returns its result. */
export type Walk<T> = Generator<SiteEvent, T, void>;

/** Says which sites somebody wants to see; all others cost nothing. */
export type SiteFilter = (site: SiteName) => boolean;

/** Watches a forward pass: names the sites that it wants and is shown each of them as it comes by. */
export interface Visitor {
  uses: SiteFilter;
  visit(event: SiteEvent): void;
}

/** Sees nothing, and so costs nothing. */
export const NO_VISITOR: Visitor = { uses: () => false, visit() {} };

/** The sites of one block (or of none, for those outside the blocks) within one pass. */
export class Sites {
  readonly #inUse: SiteFilter;
  /** What a site of a layer is called in full; sites outside the layers have names of their own. */
  readonly #nameOf: (site: string) => string;
  readonly #rows: RowMap;
  readonly #keys: RowMap | undefined;

  constructor(
    inUse: SiteFilter,
    rows: RowMap,
    {
      prefix = "",
      mark = "",
      layer,
      keys,
    }: { prefix?: SitePrefix; mark?: SiteMark | ""; layer?: number; keys?: RowMap } = {},
  ) {
    this.#inUse = inUse;
    this.#nameOf = (site) => (layer === undefined ? site : `${prefix}${mark}${site}.${layer}`);
    this.#rows = rows;
    this.#keys = keys;
  }

  uses(site: LayerSite | OuterSite): boolean {
    return this.#inUse(this.#name(site));
  }

  /** Passes an activation through its site: `x = yield* at.pass("resid_pre", x)`. */
  *pass(site: LayerSite | OuterSite, value: Tensor, mask?: AttentionMask): Walk<Tensor> {
    const name = this.#name(site);
    if (!this.#inUse(name)) return value;
    const event = new SiteEvent(name, layoutOf(site), value, this.#rows, { keys: this.#keys, mask });
    yield event;
    const passed = event.masked();
    if (event.handedOver) passed.scope?.release(passed);
    return passed;
  }

  #name(site: string): SiteName {
    return this.#nameOf(site) as SiteName;
  }
}
