import { platform } from "#platform";
import { CheckpointError } from "../../../errors.ts";
import { nearest, nearestHint } from "../../../nearest.ts";
import { type Folder, localSource } from "./folder.ts";

/** The names of the models that come with xpatch; `xpatch:x` is the folder `weights/x` of the package. */
export const SHIPPED_MODELS = ["xpatch:vlm", "xpatch:llm", "xpatch:smollm2"] as const;

export type ShippedModel = (typeof SHIPPED_MODELS)[number];

const SHIPPED = "xpatch:";

/** The folder of a model that comes with xpatch, in the package. */
export function shippedPlace(model: ShippedModel): string {
  return `weights/${model.slice(SHIPPED.length)}`;
}

/** Letters in which a name may be wrong and still be known. */
const MISSPELT = 3;

/** What a message says of a reference that may have been meant as one of the names: `; the nearest is "xpatch:vlm"`, or nothing. */
export function shippedHint(ref: string): string {
  const meant =
    SHIPPED_MODELS.find((model) => model === SHIPPED + ref) ?? nearest(ref, SHIPPED_MODELS, MISSPELT);
  return meant === undefined ? "" : `; the nearest is "${meant}"`;
}

/**
 * The files of a model that comes with xpatch; undefined for what is no such name. Throws CheckpointError for names that
 * begin as theirs do and are none, and in a browser.
 */
export function shippedFolder(ref: string): Folder | undefined {
  if (!ref.toLowerCase().startsWith(SHIPPED)) return undefined;
  const model = SHIPPED_MODELS.find((name) => name === ref);
  if (!model) {
    throw new CheckpointError(
      `no model with the name ${ref} comes with xpatch, expected one of ${SHIPPED_MODELS.join(", ")}${nearestHint(ref, SHIPPED_MODELS)}`,
    );
  }
  const place = shippedPlace(model);
  const root = platform.packageFolder();
  if (root === undefined) {
    throw new CheckpointError(
      `${ref}: a browser cannot read the package's files; serve its folder weights, pass the URL of ${place}, and as base ` +
        "that of a folder with SmolLM2",
    );
  }
  // A path beside it (`../llm`) is one of the package's too.
  const pathOf = (file: string) => `${root}/${place}/${file}`;
  return { name: model, open: (file) => localSource(pathOf(file)), whyMissing: pathOf };
}
