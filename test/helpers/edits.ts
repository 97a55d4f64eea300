import type { SiteName } from "../../src/model/walk/sites.ts";
import {
  addVector,
  type Edit,
  interpolate,
  projectOnto,
  projectOut,
  scale,
  set,
  zero,
} from "../../src/patching/edit.ts";

export const EDIT_KINDS = [
  "set",
  "add",
  "scale",
  "zero",
  "interpolate",
  "projectOut",
  "projectOnto",
] as const;

export type EditKind = (typeof EDIT_KINDS)[number];

/** An edit of a kind at a position; what it does with `value` is a change that logits show. */
export function makeEdit(
  kind: EditKind,
  site: SiteName,
  at: number,
  value: Float32Array,
  part: { head?: number | undefined; image?: number } = {},
): Edit {
  switch (kind) {
    case "set":
      return set(site, at, value, part);
    case "add":
      return addVector(site, at, value, { scale: 0.5, ...part });
    case "scale":
      return scale(site, at, -1.5, part);
    case "zero":
      return zero(site, at, part);
    case "interpolate":
      return interpolate(site, at, value, 0.3, part);
    case "projectOut":
      return projectOut(site, at, value, part);
    case "projectOnto":
      return projectOnto(site, at, value, part);
  }
}
