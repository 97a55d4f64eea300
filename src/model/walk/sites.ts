import { aKindOf, checkArgument } from "../../arguments.ts";
import { LifetimeError, SiteError } from "../../errors.ts";
import { nearest } from "../../nearest.ts";
import { Tensor } from "../../tensor/tensor.ts";
import type { RowMap } from "./row-map.ts";
import { siteFromElsewhere } from "./site-translation.ts";

/** Activations of a transformer block that nearly all families have, in the order in which they are born. */
export const LAYER_SITES = [
  "resid_pre",
  "attn_in",
  "q",
  "k",
  "v",
  "scores",
  "pattern",
  "z",
  "attn_out",
  "resid_mid",
  "mlp_in",
  "mlp_pre",
  "mlp_act",
  "mlp_out",
  "resid_post",
] as const;

/** Those that some families have beside. */
const FURTHER_LAYER_SITES = ["q_norm", "k_norm"] as const;

export type LayerSite = (typeof LAYER_SITES)[number] | (typeof FURTHER_LAYER_SITES)[number];

/** Everything that may be born in a block. */
export const ALL_LAYER_SITES = [...LAYER_SITES, ...FURTHER_LAYER_SITES] as const;

/**
 * The stacks of blocks that a model may have, with what goes in front of their sites' names. `text` is what chooses the next
 * token (or the text tower of a dual encoder).
 */
export const STACKS = { text: "", vision: "vision." } as const;

export type StackName = keyof typeof STACKS;

/** Goes in front of the names of a stack's sites. */
export type SitePrefix = (typeof STACKS)[StackName];

/** Activations outside the blocks, by the stack whose sequences their rows are of. */
export const OUTER_SITES = {
  text: ["embed", "final_norm", "logits"],
  vision: ["vision.embed", "vision.post_norm", "tile_features", "projector"],
} as const satisfies Record<StackName, readonly string[]>;

export type OuterSite = (typeof OUTER_SITES)[StackName][number];

/**
 * The name of an activation: `resid_post.15`, `pattern.3`, `logits`; in the vision tower `vision.resid_post.3`.
 * Layers count from 0. docs/sites.md says what each one is and what it is called elsewhere.
 */
export type SiteName = `${SitePrefix}${LayerSite}.${number}` | OuterSite;

/** What the rows of a site's value stand for. */
export type SiteLayout =
  /** [rows, features]: a row a token (or image patch). */
  | "rows"
  /** [heads, rows, keys]: a row a query token, for each head. */
  | "attention";

export function layoutOf(site: LayerSite | OuterSite): SiteLayout {
  return site === "scores" || site === "pattern" ? "attention" : "rows";
}

/** A site name taken apart. */
export interface SiteAddress {
  readonly stack: StackName;
  readonly site: LayerSite | OuterSite;
  /** Absent for sites outside the blocks. */
  readonly layer?: number;
}

const STACK_NAMES = Object.keys(STACKS) as StackName[];
/** The stack of each site outside the blocks. */
const OUTER: ReadonlyMap<string, StackName> = new Map(
  STACK_NAMES.flatMap((stack) => OUTER_SITES[stack].map((site) => [site, stack] as const)),
);
/** The stack of each prefix. */
const PREFIXED: ReadonlyMap<string, StackName> = new Map(STACK_NAMES.map((stack) => [STACKS[stack], stack]));
const LAYERED: ReadonlySet<string> = new Set(ALL_LAYER_SITES);

/** Takes a site name apart. Throws SiteError for anything that is none, with the nearest site and what there is. */
export function parseSite(name: string): SiteAddress {
  const outer = OUTER.get(name);
  if (outer) return { stack: outer, site: name as OuterSite };
  const [, prefix = "", site, layer] = /^([a-z.]+\.)?([a-z_]+)\.(0|[1-9]\d*)$/.exec(name) ?? [];
  const stack = PREFIXED.get(prefix);
  if (stack && site !== undefined && LAYERED.has(site)) {
    return { stack, site: site as LayerSite, layer: Number(layer) };
  }
  throw new SiteError(
    `there is no site ${JSON.stringify(name)}${hint(name)}; expected ${LAYER_SITES.join(", ")} with a layer ("resid_post.3"), ` +
      `${OUTER_SITES.text.join(", ")}, or one of the vision tower ("vision.resid_post.3", ${OUTER_SITES.vision.join(", ")})`,
  );
}

/** What was probably meant. */
function hint(name: string): string {
  const elsewhere = siteFromElsewhere(name);
  if (elsewhere !== undefined) return `; it is called ${elsewhere}`;
  const vision = name.startsWith("vision.");
  if (LAYERED.has(vision ? name.slice("vision.".length) : name))
    return `, a layer is missing, as in "${name}.3"`;
  const [layer = "0"] = /\d+/.exec(name) ?? [];
  const candidates = ALL_LAYER_SITES.map((site) => `${vision ? "vision." : ""}${site}.${Number(layer)}`);
  return `; the nearest is "${nearest(name, [...candidates, ...OUTER.keys()])}"`;
}

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
    { prefix = "", layer, keys }: { prefix?: SitePrefix; layer?: number; keys?: RowMap } = {},
  ) {
    this.#inUse = inUse;
    this.#nameOf = (site) => (layer === undefined ? site : `${prefix}${site}.${layer}`);
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
