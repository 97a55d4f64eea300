import { aBoolean, aNumber, checkOptions, type Expected, type Options, oneOf } from "../../../arguments.ts";
import { ArgumentError } from "../../../errors.ts";
import { nearest } from "../../../nearest.ts";
import type { PackedFormat } from "../../../tensor/packed/packed-format.ts";
import { fourBit, GGML_FORMATS, int4, int8 } from "../../../tensor/packed/packed-formats.ts";
import { commonName, HEAD } from "../entries/module-names.ts";
import { isObject } from "../json/config-reader.ts";

/** Formats that weights can be quantised to; K-quants of GGUF files are read, but not made. */
export const QUANTISE_FORMATS = ["int8", "int4", "nf4", "fp4", "q8_0", "q4_0", "q4_1"] as const;

/**
 * A format of 4 or 8 bits: `int8`, `int4`, `nf4`, `fp4`, `q8_0`, `q4_0`, `q4_1`, or one of the first four with its
 * group size. docs/quantised.md compares them.
 */
export type QuantiseFormat =
  | (typeof QUANTISE_FORMATS)[number]
  /** `group` elements of a row share a scale: a multiple of 8, default 64. `zeros`: with zero points, instead of symmetric. */
  | { readonly format: "int8" | "int4"; readonly group?: number; readonly zeros?: boolean }
  /** As in bitsandbytes; `nested` (the default) is double quantisation, `group` a power of two from 32, default 64. */
  | { readonly format: "nf4" | "fp4"; readonly group?: number; readonly nested?: boolean };

/** A format, or `"stored"` for what stays as the checkpoint has it. */
export type QuantiseTo = QuantiseFormat | "stored";

/** What is quantised to which format. A format alone is that of the linear layers but the one that makes the logits. */
export type Quantise =
  | QuantiseFormat
  | {
      /** All linear layers but the head. */
      readonly linear?: QuantiseTo;
      /** The token embedding. One matrix with the head in models that tie them: then give both the same. */
      readonly embedding?: QuantiseTo;
      /** The layer that makes the logits. */
      readonly head?: QuantiseTo;
      /** Linear layers by consecutive parts of their names: `"down_proj"`, `"layers.0"`, `"vision_tower"`. The last that fits counts. */
      readonly modules?: Readonly<Record<string, QuantiseTo>>;
    };

const FIELDS = ["linear", "embedding", "head", "modules"];
const WORDS =
  `one of ${QUANTISE_FORMATS.join(", ")}, { format, group, zeros } of int8 and int4, { format, group, nested } of nf4 and fp4, ` +
  `or an object of these (or "stored") as ${FIELDS.join(", ")}`;

export const aQuantise: Expected = {
  words: WORDS,
  holds: (value) => (QUANTISE_FORMATS as readonly unknown[]).includes(value) || isObject(value),
};

const INTEGER_OPTIONS: Options<Record<string, unknown>> = {
  format: oneOf("int8", "int4"),
  group: aNumber,
  zeros: aBoolean,
};
const FOUR_BIT_OPTIONS: Options<Record<string, unknown>> = {
  format: oneOf("nf4", "fp4"),
  group: aNumber,
  nested: aBoolean,
};

/** Throws ArgumentError for what is no format. */
export function packedFormat(given: QuantiseFormat): PackedFormat {
  const options = typeof given === "string" ? { format: given } : given;
  if (!isObject(options) || !(QUANTISE_FORMATS as readonly unknown[]).includes(options.format)) {
    throw new ArgumentError(`quantise: expected ${WORDS}, found ${JSON.stringify(given)}`);
  }
  switch (options.format) {
    case "int8":
    case "int4": {
      checkOptions("quantise", options, INTEGER_OPTIONS);
      const { format, ...rest } = options as { format: "int8" | "int4"; group?: number; zeros?: boolean };
      const { group } = rest;
      if (group !== undefined && !(Number.isInteger(group) && group > 0 && group % 8 === 0)) {
        throw new ArgumentError(`quantise: expected groups of a multiple of 8 elements, found ${group}`);
      }
      return format === "int8" ? int8(rest) : int4(rest);
    }
    case "nf4":
    case "fp4": {
      checkOptions("quantise", options, FOUR_BIT_OPTIONS);
      const { format, ...rest } = options as { format: "nf4" | "fp4"; group?: number; nested?: boolean };
      const { group = 64 } = rest;
      if (!(group >= 32 && group <= 4096 && Number.isInteger(Math.log2(group)))) {
        throw new ArgumentError(`quantise: expected groups of 32, 64, 128 … 4096 elements, found ${group}`);
      }
      return fourBit(format, rest);
    }
    default:
      return GGML_FORMATS[options.format];
  }
}

/** What a matrix of a model is there for. */
export type MatrixRole = "linear" | "embedding" | "tied";

/** Which format a matrix gets. */
export class QuantiseChoice {
  readonly #roles: Readonly<Partial<Record<"linear" | "embedding" | "head", QuantiseTo>>>;
  readonly #modules: readonly (readonly [pattern: string, to: QuantiseTo])[];
  readonly #names: string[] = [];
  readonly #fitted = new Set<string>();
  /** Roles that some matrix has. */
  readonly #met = new Set<string>();

  /** Throws ArgumentError for what is no {@link Quantise}. */
  constructor(quantise: Quantise | undefined) {
    const isFormat = typeof quantise === "string" || (quantise !== undefined && "format" in quantise);
    const { modules = {}, ...roles } = isFormat ? { linear: quantise as QuantiseFormat } : (quantise ?? {});
    const unknown = Object.keys(roles).find((field) => !FIELDS.includes(field));
    if (unknown !== undefined) {
      throw new ArgumentError(
        `quantise: there is no ${JSON.stringify(unknown)}; the nearest is "${nearest(unknown, FIELDS)}" (${WORDS})`,
      );
    }
    this.#roles = roles;
    this.#modules = Object.entries(modules);
    for (const to of [...Object.values(roles), ...Object.values(modules)]) formatOf(to);
  }

  /** Whether anything may be quantised. */
  get isAny(): boolean {
    return this.#modules.length > 0 || Object.keys(this.#roles).length > 0;
  }

  /** Of the matrix `<module>.weight`; undefined for one that stays as it is stored. Throws ArgumentError. */
  formatOf(module: string, role: MatrixRole): PackedFormat | undefined {
    this.#names.push(module);
    const { linear, embedding, head } = this.#roles;
    const isHead = commonName(`${module}.weight`) === HEAD;
    for (const met of role === "tied"
      ? ["embedding", "head"]
      : [role === "linear" && isHead ? "head" : role]) {
      this.#met.add(met);
    }
    const own = this.#modules.filter(([pattern]) => `.${module}.`.includes(`.${pattern}.`));
    for (const [pattern] of own) this.#fitted.add(pattern);
    const [, last] = own.at(-1) ?? [];
    if (last !== undefined) return formatOf(last);
    if (role === "embedding") return formatOf(embedding);
    if (role === "tied") {
      const [first, second] = [embedding, head].map((to) => JSON.stringify(to ?? "stored"));
      if (first !== second) {
        throw new ArgumentError(
          "quantise: embedding and head are one matrix in this model; expected the same format for both, found " +
            `${first} and ${second}`,
        );
      }
      return formatOf(head);
    }
    return formatOf(isHead ? head : linear);
  }

  /** Throws ArgumentError for patterns that fit no matrix asked for so far, and for roles that none has. */
  finish(): void {
    for (const [role, to] of Object.entries(this.#roles)) {
      if (formatOf(to) === undefined || this.#met.has(role)) continue;
      throw new ArgumentError(
        `quantise: this model has no ${role} that can be kept in few bits; leave it out`,
      );
    }
    const idle = this.#modules.find(([pattern]) => !this.#fitted.has(pattern))?.[0];
    if (idle === undefined) return;
    const parts = this.#names.flatMap((name) => [name, name.slice(name.lastIndexOf(".") + 1)]);
    throw new ArgumentError(
      `quantise: no matrix has ${JSON.stringify(idle)} in its name; the nearest is "${nearest(idle, parts)}"`,
    );
  }
}

function formatOf(to: QuantiseTo | undefined): PackedFormat | undefined {
  return to === undefined || to === "stored" ? undefined : packedFormat(to);
}
