import { aListOf, aNumber, checkOptions, type Options } from "../../arguments.ts";
import { CheckpointError, SiteError } from "../../errors.ts";
import { readTensor } from "../../model/checkpoint/entries/tensor-entry.ts";
import { GgufFile } from "../../model/checkpoint/gguf/gguf.ts";
import { encodeGguf } from "../../model/checkpoint/gguf/gguf-writer.ts";
import { memorySource } from "../../model/checkpoint/source/sources.ts";
import { addVector, type Edit } from "../../patching/edit.ts";
import type { Positions } from "../../patching/positions.ts";
import type { StoredTaskVectors } from "./task-vectors.ts";

const ARCHITECTURE = "controlvector";

/** How strongly a control vector is added, in which layers, and to which tokens. */
export interface ControlOptions {
  /** What directions are multiplied by. Default 1. */
  readonly scale?: number;
  /** Which of its layers. Default: all. */
  readonly layers?: readonly number[];
  /**
   * Which tokens. Default all of the prompt; llama.cpp and repeng add to every token, those that are generated too, which is
   * `{ start: 0, end: prompt.length + maxNewTokens - 1 }` here.
   */
  readonly at?: Positions;
}

/** Positions are checked by the edits that are made of them. */
const anyPositions = { words: "positions", holds: () => true };
const CONTROL_OPTIONS: Options<ControlOptions> = {
  scale: aNumber,
  layers: aListOf(aNumber),
  at: anyPositions,
};

/**
 * A control vector, as llama.cpp and repeng have them in GGUF files: a direction a layer, to be *added* to the residual stream
 * behind that layer. A task vector is something else: it is put *in place* of the residual stream (`set`).
 *
 * `direction.N` is added to the output of block N, counted from 0 (llama.cpp: `build_cvec` behind a block's last sum,
 * `llama_adapter_cvec`), which is `resid_post.N` here. Block 0 cannot have one: llama.cpp refuses `direction.0`.
 */
export class ControlVector {
  /** By layer, ascending; `width` numbers each. */
  readonly directions: ReadonlyMap<number, Float32Array>;
  readonly width: number;
  /** What the file says of its model: llama.cpp's name of the architecture, repeng's `model_type`. Nobody checks it. */
  readonly modelHint: string;

  /** Throws SiteError for directions of layer 0, of different widths, or none at all. */
  constructor(directions: Iterable<readonly [layer: number, direction: Float32Array]>, modelHint: string) {
    const sorted = [...directions].sort(([a], [b]) => a - b);
    if (sorted.length === 0)
      throw new SiteError("a control vector: expected at least one direction, found none");
    this.width = sorted[0]![1].length;
    for (const [layer, { length }] of sorted) {
      if (!Number.isSafeInteger(layer) || layer < 1) {
        throw new SiteError(
          `a control vector: expected directions of layers from 1 on, found one of layer ${layer}; ` +
            "the format has none for the first layer",
        );
      }
      if (length !== this.width) {
        throw new SiteError(
          `a control vector: expected directions of one width, found ${this.width} and, of layer ${layer}, ${length}`,
        );
      }
    }
    this.directions = new Map(sorted);
    this.modelHint = modelHint;
  }

  /** Layers that have a direction, ascending. */
  get layers(): number[] {
    return [...this.directions.keys()];
  }

  /** The direction of a layer. Throws SiteError where it has none. */
  at(layer: number): Float32Array {
    const direction = this.directions.get(layer);
    if (direction) return direction;
    throw new SiteError(`no direction of layer ${layer}; there are those of ${this.layers.join(", ")}`);
  }

  /** Edits that add it, one a layer. Throws SiteError for a layer that it has no direction of. */
  edits(options: ControlOptions = {}): Edit[] {
    checkOptions("ControlVector.edits", options, CONTROL_OPTIONS);
    const { scale = 1, layers = this.layers, at = "all" } = options;
    return layers.map((layer) => addVector(`resid_post.${layer}`, at, this.at(layer), { scale }));
  }
}

/**
 * Reads a control vector of llama.cpp or repeng from the bytes of a GGUF file, as strictly as llama.cpp does. Throws CheckpointError,
 * saying what was expected, for other and for damaged files.
 */
export async function decodeControlVector(
  bytes: Uint8Array<ArrayBuffer>,
  name = "control vector",
): Promise<ControlVector> {
  const file = await GgufFile.open(memorySource(bytes, name));
  const architecture = file.metadata.get("general.architecture");
  if (architecture !== ARCHITECTURE) {
    throw new CheckpointError(
      `${name}: expected a control vector (general.architecture ${ARCHITECTURE}), found ${architecture ?? "none"}`,
    );
  }
  const directions: [number, Float32Array][] = [];
  for (const entry of file.entries) {
    const [, digits] = /^direction\.(\d+)$/.exec(entry.name) ?? [];
    if (digits === undefined || entry.stored !== "F32" || entry.shape.length !== 1) {
      throw new CheckpointError(
        `${name}: expected tensors direction.1, direction.2, … of F32 with one dimension, found ${entry.name}, ` +
          `${entry.stored} [${entry.shape.join(", ")}]`,
      );
    }
    const data = await readTensor(entry);
    directions.push([Number(digits), new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4)]);
  }
  const hint = file.metadata.get(`${ARCHITECTURE}.model_hint`);
  try {
    return new ControlVector(directions, typeof hint === "string" ? hint : "");
  } catch (error) {
    if (!(error instanceof SiteError)) throw error;
    throw new CheckpointError(`${name}: ${error.message}`, { cause: error });
  }
}

/** A control vector as the bytes of a GGUF file, which llama.cpp (`--control-vector`) and repeng read. */
export function encodeControlVector({ directions, modelHint }: ControlVector): Uint8Array<ArrayBuffer> {
  return encodeGguf(
    {
      "general.architecture": ARCHITECTURE,
      [`${ARCHITECTURE}.model_hint`]: modelHint,
      [`${ARCHITECTURE}.layer_count`]: directions.size,
    },
    [...directions].map(([layer, values]) => ({
      name: `direction.${layer}`,
      shape: [values.length],
      values,
    })),
  );
}

/**
 * A control vector from task vectors `t`, which are meant to be put in place of the residual stream x. Added to x they would bring
 * all that residual streams have in common a second time; `t − m` brings, added, on average what `t` brings in place, where `m` is
 * the mean of what it replaces: vectors of bare questions, read at the token that is to be patched.
 *
 * @param less `m`, extracted likewise (`extractTaskVectors`); or `"nothing"` where the vectors are directions already
 * @param layers of both. Default: all but the first, for which the format has no place
 * @throws SiteError for vectors of other sites than `resid_post`, of different widths, or of layers that one of them lacks
 */
export function controlVectorOf(
  vectors: StoredTaskVectors,
  less: StoredTaskVectors | "nothing",
  { modelHint = vectors.origin.model, layers }: { modelHint?: string; layers?: readonly number[] } = {},
): ControlVector {
  for (const { origin, width } of less === "nothing" ? [vectors] : [vectors, less]) {
    if (origin.site !== "resid_post") {
      throw new SiteError(`a control vector: expected vectors of resid_post, found those of ${origin.site}`);
    }
    if (width === vectors.width) continue;
    throw new SiteError(
      `a control vector: expected vectors of one width, found ${vectors.width} and ${width}`,
    );
  }
  const chosen = layers ?? vectors.origin.layers.filter((layer) => layer > 0);
  const directions = chosen.map((layer): [number, Float32Array] => {
    const own = vectors.at(layer);
    if (less === "nothing") return [layer, own];
    const mean = less.at(layer);
    return [layer, own.map((x, i) => x - mean[i]!)];
  });
  return new ControlVector(directions, modelHint);
}
