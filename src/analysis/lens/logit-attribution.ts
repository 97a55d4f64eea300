import {
  aNumber,
  anArray,
  aString,
  checkArgument,
  checkOptions,
  either,
  type Options,
} from "../../arguments.ts";
import { SiteError } from "../../errors.ts";
import { add, mul, sub } from "../../kernels/elementwise/elementwise.ts";
import { matmul } from "../../kernels/matmul/matmul.ts";
import { cast, contiguous } from "../../kernels/movement/copy.ts";
import { sum } from "../../kernels/reduction/reduce.ts";
import type { LanguageModel } from "../../model/language-model.ts";
import type { DecoderParts } from "../../model/layers/decoder.ts";
import { frozenNorm } from "../../model/layers/frozen-norm.ts";
import { blockPartsOf, decoderPartsOf, unembeddingOf } from "../../model/layers/named-weights.ts";
import type { Prompt } from "../../model/prompt/prompt.ts";
import { aModel, aPrompt, onePosition } from "../../patching/arguments.ts";
import type { Edit } from "../../patching/edit.ts";
import { type OneToken, oneTokenId } from "../../patching/one-token.ts";
import { type OnePosition, resolvePositions } from "../../patching/positions.ts";
import { run } from "../../patching/run.ts";
import { tap } from "../../patching/tap.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { LogitAttribution, type LogitComponent } from "./logit-attribution-result.ts";

/** Which logit {@link logitAttribution} takes apart, and where. */
export interface LogitAttributionOptions {
  /** Whose logit is taken apart: an id, or a text of one token. */
  answer: OneToken;
  /** Taken away from it: the difference of the two logits is taken apart. */
  against?: OneToken;
  /** The position that predicts. Default: the last. */
  at?: OnePosition;
  edits?: readonly Edit[];
}

const aToken = either(aNumber, aString);
const OPTIONS: Options<LogitAttributionOptions> = {
  answer: aToken,
  against: aToken,
  at: onePosition,
  edits: anArray,
};

/** Of the sizes of all parts together: how far their sum may be from the logit by rounding. */
const ROUNDING = 1e-4;

/**
 * Direct logit attribution (Elhage et al. 2021): what the embedding, each head, each MLP and the biases add to a logit, or to
 * the difference of two, by way of the residual stream alone, the final norm's scale taken as it was. The parts sum to the
 * logit (before Gemma 2's soft cap). Throws like `run`, ArgumentError for a text that is not one token, and SiteError for
 * models in which something else writes to the stream.
 *
 * @example console.log(await logitAttribution(model, prompt, { answer: " Paris", against: " Rome" }));
 */
export async function logitAttribution(
  model: LanguageModel,
  prompt: Prompt,
  options: LogitAttributionOptions,
): Promise<LogitAttribution> {
  checkArgument("logitAttribution", "model", model, aModel);
  checkArgument("logitAttribution", "prompt", prompt, aPrompt);
  checkOptions("logitAttribution", options, OPTIONS, { required: ["answer"] });
  const tokens = [options.answer, ...(options.against === undefined ? [] : [options.against])].map((token) =>
    oneTokenId("logitAttribution", model, token),
  );
  const [position] = resolvePositions(options.at ?? -1, prompt) as [number];
  const { device } = model;
  const scope = device.openScope();
  try {
    const parts = scope.enter(() => partsOf(model, prompt, tokens, position, options.edits ?? []));
    const read = await device.read(parts.map(({ values }) => values));
    const [logit, ...components] = parts.map(({ name, layer, values }, i) =>
      [...read[i]!].map(
        (value, head): LogitComponent => ({
          name: values.size === 1 ? name : `${name} head ${head}`,
          ...(layer !== undefined && { layer }),
          ...(name.startsWith("z.") && { head }),
          value,
        }),
      ),
    );
    return checkSum(
      new LogitAttribution(components.flat(), {
        tokens: tokens.map((id) => model.tokenizer.decode([id])),
        position,
      }),
      logit![0]!.value,
    );
  } finally {
    scope.dispose();
  }
}

interface Part {
  readonly name: string;
  readonly layer?: number;
  /** f32 [heads] of a layer's heads, else [1] */
  readonly values: Tensor<"f32">;
}

/** The logit itself, then what it is made of. */
function partsOf(
  model: LanguageModel,
  prompt: Prompt,
  tokens: readonly number[],
  position: number,
  edits: readonly Edit[],
): Part[] {
  const { layers, heads, headDim, width } = model.config;
  const { stack } = model.network;
  const decoder = decoderPartsOf(stack);
  checkDirect(decoder);
  const { finalNorm } = decoder;
  const unembedding = unembeddingOf(decoder);
  const last = `resid_post.${layers - 1}` as const;
  const { x } = run(model, prompt, {
    taps: { x: tap(["embed", "z.*", "mlp_out.*", last, "final_norm"], [position]) },
    edits,
  }); // each [1, features]
  const difference = (rows: Tensor) => {
    const [first, second] = tokens.map((id) => cast(rows.rows(id, id + 1), "f32"));
    return second ? sub(first!, second) : first!;
  };
  const dot = (a: Tensor, b: Tensor) => sum(mul(a, b)).reshape([1]) as Tensor<"f32">;
  const unembedded = difference(unembedding.dense()); // [1, width]
  const bias = unembedding.bias && (difference(unembedding.bias) as Tensor<"f32">);
  const behindNorm = dot(x.final_norm, unembedded);
  const final = frozenNorm(finalNorm, x[last]!);
  const direction = final.pull(unembedded); // [1, width], in front of the final norm
  const parts: Part[] = [
    { name: "logit", values: bias ? (add(behindNorm, bias) as Tensor<"f32">) : behindNorm },
    { name: "embed", values: dot(x.embed, direction) },
  ];
  for (let layer = 0; layer < layers; layer++) {
    const { attention, attentionPostNorm } = blockPartsOf(stack, layer);
    const z = x[`z.${layer}`]!; // [1, heads * headDim]
    const post = attentionPostNorm && frozenNorm(attentionPostNorm, attention.o.apply(z));
    const wanted = post ? post.pull(direction) : direction; // [1, width], behind the output projection
    const perFeature = mul(z, matmul(wanted, attention.o.dense())); // [1, heads * headDim]
    const values = sum(contiguous(perFeature).reshape([heads, headDim]), -1) as Tensor<"f32">;
    parts.push({ name: `z.${layer}`, layer, values });
    const biases = [
      ...(attention.o.bias ? [dot(attention.o.bias.reshape([1, width]), wanted)] : []),
      ...(post?.bias ? [dot(post.bias.reshape([1, width]), direction)] : []),
    ];
    for (const each of biases) parts.push({ name: `b_O.${layer}`, layer, values: each });
    parts.push({ name: `mlp_out.${layer}`, layer, values: dot(x[`mlp_out.${layer}`]!, direction) });
  }
  if (final.bias) {
    parts.push({ name: "final_norm bias", values: dot(final.bias.reshape([1, width]), unembedded) });
  }
  if (bias) parts.push({ name: "b_U", values: bias });
  return parts;
}

/** Something may write to the stream that is no head and no MLP: then the parts are not all. */
function checkSum(attribution: LogitAttribution, logit: number): LogitAttribution {
  const { total, components } = attribution;
  const size = components.reduce((all, { value }) => all + Math.abs(value), 0);
  if (Math.abs(total - logit) <= ROUNDING * size) return attribution;
  throw new SiteError(
    `logitAttribution: expected heads, MLPs and embedding to sum to the logit ${logit}, found ${total}: ` +
      "an edit or a part of this model changes the residual stream by itself",
  );
}

/** Throws SiteError for decoders whose logits are not what the embedding, the heads and the MLPs add up to. */
function checkDirect({ blocks, headScale }: DecoderParts): void {
  if (headScale !== undefined)
    throw new SiteError("logit attribution: models that scale what the unembedding reads are not supported");
  if (blocks.some(({ crossRule }) => crossRule))
    throw new SiteError("logit attribution: models with cross-attention are not supported");
}
