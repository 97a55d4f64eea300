import { aNumber, checkArgument } from "../../arguments.ts";
import { ArgumentError } from "../../errors.ts";
import { INSPECT } from "../../inspect.ts";
import type { PatchGrid } from "../../model/prompt/prompt.ts";
import type { SiteName } from "../../model/walk/sites.ts";
import { textTable } from "../text-table.ts";

/** A prompt in which a latent is active, at the token where it is most. */
export interface LatentExample {
  /** The latent there. */
  readonly value: number;
  /** Which prompt, counted from the first. */
  readonly prompt: number;
  readonly position: number;
  /** The token, as the vocabulary spells it. */
  readonly token: string;
  /** The tokens around it, from position `start` on, and the latent at each: NaN where a store has no row. */
  readonly start: number;
  readonly tokens: readonly string[];
  readonly values: readonly number[];
  /** Where the token is a patch of a picture: which, and the latent at all patches of that picture, row by row. */
  readonly patch?: {
    readonly span: string;
    readonly grid: PatchGrid;
    readonly row: number;
    readonly column: number;
    readonly values: readonly number[];
  };
}

/** What a latent is active at. */
export interface LatentActivity {
  readonly latent: number;
  /** One of each prompt, the most active first. */
  readonly examples: readonly LatentExample[];
  /** Tokens that it is active at, of how many. */
  readonly active: number;
  readonly tokens: number;
}

/** Letters of context that a line of text shows on each side. */
const SHOWN_LETTERS = 40;

/** Top activating tokens of latents. Plain data, and text where it is printed. */
export class LatentExamples {
  /** Name and site of the autoencoder. */
  readonly autoencoder: string;
  readonly site: SiteName;
  readonly latents: readonly LatentActivity[];

  constructor(fields: Pick<LatentExamples, "autoencoder" | "site" | "latents">) {
    this.autoencoder = fields.autoencoder;
    this.site = fields.site;
    this.latents = fields.latents;
  }

  /** Those of one latent. Throws ArgumentError for one that was not asked for. */
  of(latent: number): LatentActivity {
    checkArgument("of", "latent", latent, aNumber);
    const found = this.latents.find((each) => each.latent === latent);
    if (found) return found;
    throw new ArgumentError(
      `of: expected one of ${this.latents.map((each) => each.latent).join(", ")}, found ${latent}`,
    );
  }

  /** For each latent a line a prompt, with the token between « and ». */
  toString(): string {
    const blocks = this.latents.map(
      (activity) => `${titleOf(activity)}\n${textTable(activity.examples.map(lineOf))}`,
    );
    return [`${this.autoencoder}, ${this.site}`, ...blocks].join("\n\n").trimEnd();
  }

  [INSPECT](): string {
    return this.toString();
  }
}

/** `latent 17: active at 4.2 % of 734 tokens` */
export function titleOf({ latent, active, tokens }: LatentActivity): string {
  const share = tokens === 0 ? 0 : (100 * active) / tokens;
  return `latent ${latent}: active at ${share.toFixed(share < 10 ? 1 : 0)} % of ${tokens} tokens`;
}

/** `prompt 3, position 12`, or where in a picture. */
export function placeOf({ prompt, position, patch }: LatentExample): string {
  return patch
    ? `prompt ${prompt}, ${patch.span}, row ${patch.row}, column ${patch.column}`
    : `prompt ${prompt}, position ${position}`;
}

function lineOf(example: LatentExample): string[] {
  const { value, position, start, tokens, token, patch } = example;
  const at = position - start;
  const before = spelt(tokens.slice(0, at).join(""));
  const behind = spelt(tokens.slice(at + 1).join(""));
  const around = patch
    ? ""
    : `${before.slice(-SHOWN_LETTERS).padStart(SHOWN_LETTERS)}«${spelt(token)}»${behind.slice(0, SHOWN_LETTERS)}`;
  return [`  ${placeOf(example)}`, value.toPrecision(4), around.padEnd(2 * SHOWN_LETTERS)];
}

/** On one line, with the blanks that vocabularies have signs for. */
function spelt(text: string): string {
  return JSON.stringify(text.replaceAll(/[Ġ▁]/g, " ").replaceAll("Ċ", "\n")).slice(1, -1);
}
