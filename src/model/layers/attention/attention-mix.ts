import {
  type AttentionInputs,
  type AttentionOptions,
  attention,
} from "../../../kernels/attention/attention.ts";
import { type AttentionMaskOptions, maskAttention } from "../../../kernels/attention/attention-mask.ts";
import {
  attentionMix,
  attentionPattern,
  attentionScores,
} from "../../../kernels/attention/attention-pattern.ts";
import { concat } from "../../../kernels/movement/concat.ts";
import type { Tensor } from "../../../tensor/tensor.ts";
import type { KeysToUse } from "../../walk/key-value-store.ts";
import type { AttentionRule } from "../../walk/masks.ts";
import type { Pass } from "../../walk/pass.ts";
import type { SequencePart } from "../../walk/sequence-part.ts";
import type { AttentionMask, Sites, Walk } from "../../walk/site-events.ts";
import type { SiteMark } from "../../walk/sites.ts";
import { scoped } from "../../walk/walk.ts";
import type { RelativeBias } from "./relative-bias.ts";

/** What a family says of how queries meet keys. */
export interface Mixing {
  readonly headDim: number;
  /** Of the scores; default headDim ** -0.5. */
  readonly scale?: number;
  /** Bound of the scores, see `attention`. */
  readonly softcap?: number;
  /** Added to the scores by how far a key lies from its query (T5). */
  readonly bias?: RelativeBias;
}

/**
 * Values mixed by what queries make of keys: q [rows, heads * headDim] → z, the same. `keys` are those of each part of the
 * pass; one that has none gives 0.
 */
export function* mixed(
  { headDim, scale = headDim ** -0.5, softcap, bias }: Mixing,
  q: Tensor,
  keys: readonly (KeysToUse | undefined)[],
  layer: number,
  rule: AttentionRule,
  pass: Pass,
  mark?: SiteMark,
): Walk<Tensor> {
  const options = { headDim, scale, softcap };
  const inputsOf = (own: Tensor, keys: KeysToUse, pass: Pass, part?: SequencePart): AttentionInputs => ({
    q: own,
    ...keys,
    segments: pass.segments(rule, part),
    ...(bias && { bias: { table: bias.table(), shifts: pass.shifts(part) } }),
  });
  const nothing = (rows: Tensor) => pass.device.zeros(rows.shape);
  if (pass.parts.length > 1) {
    let end = 0;
    const parts = pass.parts.map((part, i) => {
      end += part.rows.length;
      const own = q.rows(end - part.rows.length, end);
      return keys[i] ? attention(inputsOf(own, keys[i], part), options) : nothing(own);
    });
    return concat(parts); // [rows, heads * headDim]
  }
  const at = pass.sites(layer, { mark });
  const [all] = keys;
  if (!all) return yield* at.pass("z", nothing(q));
  if (!at.uses("scores") && !at.uses("pattern")) {
    return yield* at.pass("z", attention(inputsOf(q, all, pass), options));
  }
  const ofSequences: Tensor[] = [];
  for (const part of pass.sequences) {
    const own = part.rowsOf(q);
    if (!part.hasKeys) {
      ofSequences.push(nothing(own));
      continue;
    }
    const inputs = inputsOf(own, part.keysOf(all), pass, part);
    const sites = pass.sites(layer, { part, mark });
    ofSequences.push(yield* scoped(pass.device, () => throughPattern(inputs, options, part, sites)));
  }
  return yield* at.pass("z", ofSequences.length === 1 ? ofSequences[0]! : concat(ofSequences));
}

/** Attention of one sequence step by step, through the sites of its scores and pattern. */
function* throughPattern(
  inputs: AttentionInputs,
  options: AttentionOptions,
  part: SequencePart,
  at: Sites,
): Walk<Tensor> {
  const { segments } = inputs;
  const mask = (hidden: number) => maskOf(segments, { prefixKeys: part.prefix.length, hidden });
  const scores = yield* at.pass("scores", attentionScores(inputs, options), mask(Number.NEGATIVE_INFINITY));
  const pattern = yield* at.pass("pattern", attentionPattern(scores), mask(0)); // [heads, rows, keys]
  return attentionMix(pattern, inputs, options);
}

function maskOf(segments: Tensor, options: AttentionMaskOptions): AttentionMask {
  return {
    hide: (value) => maskAttention(value, segments, options),
    visible: ({ device, shape: [, rows, keys] }) => {
      const ones = device.tensor([1]).broadcastTo([1, rows!, keys!]);
      return maskAttention(ones, segments, { ...options, hidden: 0 }).at(0);
    },
  };
}
