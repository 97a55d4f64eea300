import { InvalidArgumentError } from "commander";
import { ControlVector } from "../../analysis/vectors/control-vector.ts";
import type { StoredTaskVectors } from "../../analysis/vectors/task-vectors.ts";
import { SiteError, XpatchError } from "../../errors.ts";
import { parseSite, type SiteName, stackOfVectors } from "../../model/walk/sites.ts";
import { nearestHint } from "../../nearest.ts";
import {
  addVector,
  type Edit,
  interpolate,
  projectOnto,
  projectOut,
  scale,
  set,
  zero,
} from "../../patching/edit.ts";
import { type Positions, showPositions } from "../../patching/positions.ts";
import { number, positions } from "./arguments.ts";

const OPERATIONS = ["set", "add", "scale", "zero", "interpolate", "project-out", "project-onto"] as const;

type OperationName = (typeof OPERATIONS)[number];

const NEEDS_AMOUNT: ReadonlySet<OperationName> = new Set(["scale", "interpolate"]);
const TAKES_AMOUNT: ReadonlySet<OperationName> = new Set([...NEEDS_AMOUNT, "add"]);
const NEEDS_FILE: ReadonlySet<OperationName> = new Set([
  "set",
  "add",
  "interpolate",
  "project-out",
  "project-onto",
]);

/** An edit as written on the command line, its vector not yet read. */
export interface EditArgument {
  readonly text: string;
  readonly operation: OperationName;
  readonly site: SiteName;
  readonly at: Positions;
  readonly amount?: number;
  /** Task vectors, of which the one of the site's layer is taken. */
  readonly file?: string;
}

export const EDIT_HELP =
  "change an activation: operation:site[@positions][*amount][=vectors], such as zero:mlp_out.3@-1, " +
  "scale:resid_post.2@all*0.5 or set:resid_post.15@-1=capital.safetensors (repeatable)";

/** Collects --edit arguments. Throws InvalidArgumentError saying what is wrong with one. */
export function editArgument(text: string, before: readonly EditArgument[] = []): EditArgument[] {
  const [, operation = "", name = "", at = "-1", factor, file] =
    /^([a-z-]+):([^@*=]+)(?:@([^*=]+))?(?:\*([^=]+))?(?:=(.+))?$/.exec(text) ?? [];
  const known = OPERATIONS.find((o) => o === operation);
  if (!known) {
    const found =
      operation === "" ? "" : `; there is no operation "${operation}"${nearestHint(operation, OPERATIONS)}`;
    throw new InvalidArgumentError(
      `Expected operation:site[@positions][*amount][=vectors] with one of ${OPERATIONS.join(", ")}${found}.`,
    );
  }
  const reject = (expected: string): never => {
    throw new InvalidArgumentError(`Expected ${known} to have ${expected}.`);
  };
  if (NEEDS_FILE.has(known) !== (file !== undefined)) reject(`${file ? "no" : "a"} file of vectors (=path)`);
  if (NEEDS_AMOUNT.has(known) && factor === undefined) reject("an amount (*0.5)");
  if (!TAKES_AMOUNT.has(known) && factor !== undefined) reject("no amount");
  const edit = { text, operation: known, site: siteName(name), at: positions(at), file };
  return [...before, factor === undefined ? edit : { ...edit, amount: number(factor) }];
}

function siteName(name: string): SiteName {
  try {
    parseSite(name);
    return name as SiteName;
  } catch (error) {
    if (!(error instanceof XpatchError)) throw error;
    throw new InvalidArgumentError(`${error.message}.`);
  }
}

/** The edit itself; `vectors` are those of its file. Throws SiteError when they have none for the site's layer. */
export function editOf(
  { operation, site, at, amount }: EditArgument,
  vectors?: StoredTaskVectors | ControlVector,
): Edit {
  switch (operation) {
    case "zero":
      return zero(site, at);
    case "scale":
      return scale(site, at, amount!);
    default: {
      const value =
        vectors instanceof ControlVector ? directionFor(operation, site, vectors) : vectorFor(site, vectors!);
      if (operation === "set") return set(site, at, value);
      if (operation === "add") return addVector(site, at, value, { scale: amount });
      if (operation === "interpolate") return interpolate(site, at, value, amount!);
      return operation === "project-out" ? projectOut(site, at, value) : projectOnto(site, at, value);
    }
  }
}

function vectorFor(site: SiteName, vectors: StoredTaskVectors): Float32Array {
  const { layer, stack } = parseSite(site);
  if (layer === undefined) {
    throw new SiteError(`vectors belong to layers, and ${site} has none`);
  }
  const { origin } = vectors;
  if (stack !== stackOfVectors(origin.site)) {
    throw new SiteError(`expected vectors of the stack that ${site} is in, found those of ${origin.site}`);
  }
  return vectors.at(layer);
}

/** Operations that mean something with a direction; in place of an activation it would take all else away. */
const WITH_DIRECTIONS: readonly OperationName[] = ["add", "project-out", "project-onto"];

function directionFor(operation: OperationName, site: SiteName, vector: ControlVector): Float32Array {
  if (!WITH_DIRECTIONS.includes(operation)) {
    throw new SiteError(
      `control vectors are directions: expected one of ${WITH_DIRECTIONS.join(", ")}, found ${operation}, ` +
        "which puts a vector in place of the activation",
    );
  }
  const { layer } = parseSite(site);
  if (layer === undefined || site !== `resid_post.${layer}`) {
    throw new SiteError(`control vectors are of resid_post.<layer>, found ${site}`);
  }
  return vector.at(layer);
}

/** How reports name an edit. */
export function showEdit({ operation, site, at, amount, file }: EditArgument): string {
  const factor = amount === undefined ? "" : ` by ${amount}`;
  return `${operation} ${site}, ${showPositions(at)}${factor}${file ? `, with ${file}` : ""}`;
}
