import { anArray, anObject, checkArgument, checkOptions } from "../../arguments.ts";
import { ArgumentError } from "../../errors.ts";
import { parseSite, type SiteName } from "../../model/walk/sites.ts";
import { checkEdits, checkTaps } from "../../patching/arguments.ts";
import type { Edit, EditValue } from "../../patching/edit.ts";
import { type Taps, tap } from "../../patching/tap.ts";
import type { Device } from "../../tensor/device.ts";
import type { ArraySpec, EditSpec, TapSpec, ValueSpec } from "../messages/values.ts";
import type { Work } from "./work.ts";

/**
 * The edits of a request as the library has them. Makes tensors: call it within a scope of the device. Throws ArgumentError, and
 * SessionError for vectors that the client does not have.
 */
export function readEdits(work: Work, device: Device, call: string, given: unknown = []): Edit[] {
  checkArgument(call, "edits", given, anArray);
  const edits = (given as EditSpec[]).map((spec, i) => readEdit(work, device, `${call}, edits[${i}]`, spec));
  checkEdits(call, edits);
  return edits;
}

function readEdit(work: Work, device: Device, call: string, spec: EditSpec): Edit {
  checkArgument(call, "the edit", spec, anObject);
  const { value, ...rest } = spec;
  if ("prompt" in rest || "kind" in rest) {
    throw new ArgumentError(`${call}: expected an operation, a site and positions, found a prompt or a kind`);
  }
  const edit = { kind: "edit", ...rest } as Edit;
  if (value === undefined) return edit;
  return { ...edit, value: readValue(work, device, call, value, rest.site as SiteName) };
}

function readValue(work: Work, device: Device, call: string, value: ValueSpec, site: SiteName): EditValue {
  if (value instanceof Float32Array || Array.isArray(value)) return value as EditValue;
  if (typeof value === "object" && value !== null) {
    if ("vector" in value) {
      const { vector, layer } = value;
      return work.kept.get("vector", vector).valueFor(layer ?? parseSite(site).layer);
    }
    if ("shape" in value) return arrayTensor(device, call, value);
  }
  throw new ArgumentError(`${call}: expected a value: numbers, { shape, data } or { vector }`);
}

/** Numbers with a shape as a tensor. Throws ArgumentError and ShapeError. */
export function arrayTensor(device: Device, call: string, { shape, data }: ArraySpec) {
  const isShape = Array.isArray(shape) && shape.every((n) => Number.isInteger(n) && n > 0);
  if (!isShape || !(data instanceof Float32Array)) {
    throw new ArgumentError(
      `${call}: expected { shape, data }, the shape a list of whole numbers, the data a Float32Array`,
    );
  }
  return device.tensor(data, { shape });
}

/** The taps of a request as the library has them. Throws ArgumentError. */
export function readTaps(call: string, given: unknown = {}): Taps {
  checkArgument(call, "taps", given, anObject);
  const taps = Object.entries(given as Record<string, TapSpec>).map(([name, spec]) => {
    checkOptions(`${call}, taps.${name}`, spec, TAP, { name: "the tap", required: ["site"] });
    const { site, at = "all", ...part } = spec;
    return [name, tap(site as SiteName, at, part)] as const;
  });
  const made = Object.fromEntries(taps);
  checkTaps(call, made);
  return made;
}

const anything = { words: "anything", holds: () => true };
/** Checked, in words, by `tap` itself. */
const TAP = { site: anything, at: anything, head: anything, features: anything, image: anything };
