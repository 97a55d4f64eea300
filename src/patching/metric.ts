import { aFunction, aKindOf, aNumber, aString, checkArgument, either } from "../arguments.ts";
import { ArgumentError } from "../errors.ts";
import { exp, mul, sub } from "../kernels/elementwise/elementwise.ts";
import { sum } from "../kernels/reduction/reduce.ts";
import { logSoftmax } from "../kernels/reduction/softmax.ts";
import type { ModelOutline } from "../model/language-model.ts";
import { Tensor } from "../tensor/tensor.ts";
import { type OneToken, oneTokenId } from "./one-token.ts";

/** A number made of the logits of a run's next token, as plain data. */
export type NamedMetric =
  /** logit(answer) − logit(against) */
  | { readonly kind: "logitDifference"; readonly answer: OneToken; readonly against: OneToken }
  /** log p(answer), natural */
  | { readonly kind: "logProbability"; readonly answer: OneToken }
  | { readonly kind: "probability"; readonly answer: OneToken }
  /** KL(clean ‖ patched) in nats, of the clean prompt's next-token probabilities from those of the patched run. */
  | { readonly kind: "klDivergence" };

/** What a patched run is judged by. */
export type Metric =
  | NamedMetric
  /** A measure of one's own: logits [runs, vocab] and those of the clean prompt [1, vocab] → [runs]. */
  | ((logits: Tensor, clean: Tensor) => Tensor);

/** logit(answer) − logit(against), tokens by id or as texts of one token each: `logitDifference(" Paris", " Rome")`. */
export function logitDifference(answer: OneToken, against: OneToken): NamedMetric {
  return checked("logitDifference", { kind: "logitDifference", answer, against });
}

/** log p(answer), natural. */
export function logProbability(answer: OneToken): NamedMetric {
  return checked("logProbability", { kind: "logProbability", answer });
}

/** The probability of the answer as next token, from 0 to 1. The answer is a token's id, or a text of one token. */
export function probability(answer: OneToken): NamedMetric {
  return checked("probability", { kind: "probability", answer });
}

/** KL(clean ‖ patched) in nats: 0 where the patched run predicts what the clean prompt does. */
export function klDivergence(): NamedMetric {
  return { kind: "klDivergence" };
}

const aToken = either(aNumber, aString);
const TOKENS = {
  logitDifference: ["answer", "against"],
  logProbability: ["answer"],
  probability: ["answer"],
  klDivergence: [],
} as const;

function checked(call: string, metric: NamedMetric): NamedMetric {
  for (const name of TOKENS[metric.kind]) {
    checkArgument(call, name, (metric as Readonly<Record<string, unknown>>)[name], aToken);
  }
  return metric;
}

/** A metric for one model, its tokens looked up. Throws ArgumentError for what is no metric or no token. */
export function resolveMetric(call: string, model: ModelOutline, metric: Metric): Metric {
  if (typeof metric === "function") return metric;
  const kinds = Object.keys(TOKENS);
  if (typeof metric !== "object" || metric === null || !kinds.includes(metric.kind)) {
    checkArgument(call, "metric", metric, {
      words: `a function, or an object whose kind is ${kinds.join(", ")}, as logitDifference(…) makes one`,
      holds: aFunction.holds,
    });
  }
  checked(`${call}, metric`, metric);
  const ids = TOKENS[metric.kind].map((name) => [
    name,
    oneTokenId(`${call}, metric.${name}`, model, (metric as Readonly<Record<string, OneToken>>)[name]!),
  ]);
  return { ...metric, ...Object.fromEntries(ids) } as Metric;
}

/** A resolved metric of logits [runs, vocab], given those of the clean prompt [1, vocab]: f32 [runs]. */
export function measure(metric: Metric, logits: Tensor, clean: Tensor): Tensor {
  return logits.device.scope(() => {
    const runs = logits.dim(0);
    const of = (x: Tensor, id: OneToken) => x.slice(1, Number(id), Number(id) + 1); // [runs, 1]
    if (typeof metric === "function") {
      const values = metric(logits, clean);
      checkArgument(
        "metric",
        "what the function returns",
        values,
        aKindOf(Tensor, "of [runs], a number for each"),
      );
      if (values.size === runs && values.rank === 1) return values;
      throw new ArgumentError(
        `metric: expected the function to return [${runs}], found [${values.shape.join(", ")}]`,
      );
    }
    switch (metric.kind) {
      case "logitDifference":
        return sub(of(logits, metric.answer), of(logits, metric.against)).reshape([runs]);
      case "logProbability":
        return mul(of(logSoftmax(logits), metric.answer), 1).reshape([runs]);
      case "probability":
        return exp(of(logSoftmax(logits), metric.answer)).reshape([runs]);
      case "klDivergence": {
        const wanted = logSoftmax(clean); // [1, vocab]
        return sum(mul(exp(wanted), sub(wanted, logSoftmax(logits))), -1);
      }
    }
  });
}

/** How to call a resolved metric. */
export function showMetric(metric: Metric, { tokenizer }: ModelOutline): string {
  if (typeof metric === "function") return metric.name || "a function of the logits";
  const text = (id: OneToken) => JSON.stringify(tokenizer.decode([Number(id)]));
  switch (metric.kind) {
    case "logitDifference":
      return `logit of ${text(metric.answer)} − ${text(metric.against)}`;
    case "logProbability":
      return `log probability of ${text(metric.answer)}`;
    case "probability":
      return `probability of ${text(metric.answer)}`;
    case "klDivergence":
      return "KL divergence from the clean prompt";
  }
}
