import { type TaskVectorOrigin, TaskVectors } from "../../analysis/vectors/task-vectors.ts";
import { SiteError } from "../../errors.ts";
import type { Setting } from "../../patching/setting.ts";
import type { Tensor } from "../../tensor/tensor.ts";

/** Where a vector of one place was read. */
export interface PlaceOrigin {
  readonly model: string;
  /** With its layer. */
  readonly site: string;
  /** Which positions, in words. */
  readonly position: string;
  readonly promptHash: string;
  readonly weights: string;
}

export type VectorOrigin =
  | { readonly kind: "layers"; readonly origin: TaskVectorOrigin }
  | { readonly kind: "place"; readonly origin: PlaceOrigin; readonly onePosition: boolean };

/** A vector on the device that a client has a handle of: one a layer, or what a place of one prompt holds. */
export class StoredVector {
  /** [layers, features], or [positions, features]. */
  readonly rows: Tensor;
  readonly from: VectorOrigin;
  readonly setting: Setting;
  /** Where it comes from, in words. */
  readonly words: string;

  constructor(rows: Tensor, from: VectorOrigin, setting: Setting, words: string) {
    this.rows = rows;
    this.from = from;
    this.setting = setting;
    this.words = words;
  }

  /** The site that it was read at, of a place with its layer, and the head. */
  get site(): { readonly name: string; readonly head?: number } {
    const [, name, head] = /^(.*?)(?:, head (\d+))?$/.exec(this.from.origin.site)!;
    return { name: name!, ...(head !== undefined && { head: Number(head) }) };
  }

  /** Its layers, where it has one a layer. Throws SiteError where it has not. */
  get taskVectors(): TaskVectors {
    if (this.from.kind === "layers") return new TaskVectors(this.rows, this.from.origin);
    throw new SiteError(`${this.words}: expected a vector a layer, found one of ${this.from.origin.site}`);
  }

  /** What an edit at a layer is given: [features], or [positions, features]. Throws SiteError where there is none of that layer. */
  valueFor(layer: number | undefined): Tensor {
    const { from, rows } = this;
    if (from.kind === "place") return from.onePosition ? rows.at(0) : rows;
    const { layers, site } = from.origin;
    if (layer !== undefined) return this.taskVectors.at(layer);
    throw new SiteError(
      `${this.words}: expected the layer whose ${site} is meant, of ${layers.join(", ")}; the edit's site has none`,
    );
  }

  dispose(): void {
    this.rows.dispose();
  }
}

/** An origin with another vector's in it, for sums. */
export function mixedOrigin(
  parts: readonly { readonly vector: StoredVector; readonly weight: number }[],
): VectorOrigin {
  const [first] = parts;
  const promptHash = `mix:${parts.map(({ vector, weight }) => `${weight}*${vector.from.origin.promptHash}`).join("+")}`;
  const { from } = first!.vector;
  if (from.kind === "place") return { ...from, origin: { ...from.origin, promptHash } };
  const prompts = parts.reduce(
    (sum, { vector }) => sum + (vector.from.kind === "layers" ? vector.from.origin.prompts : 1),
    0,
  );
  return { ...from, origin: { ...from.origin, prompts, promptHash } };
}
