import { INSPECT } from "../../inspect.ts";
import type { Setting } from "../../patching/setting.ts";
import type { Tensor } from "../../tensor/tensor.ts";
import { textTable } from "../text-table.ts";

/** What a head does for a task: the change of the metric on corrupted prompts, on average. */
export interface HeadEffect {
  readonly layer: number;
  readonly head: number;
  /** How far this head brings the answer back: the metric with it patched, less that without, averaged over the prompts. */
  readonly effect: number;
}

interface Parts {
  readonly setting: Setting;
  readonly vector: Tensor;
  readonly chosen: readonly HeadEffect[];
  readonly ranked: readonly HeadEffect[];
  readonly method: "exact" | "attribution";
  readonly before: number;
  readonly prompts: { readonly examples: number; readonly corrupted: number };
}

/** A vector for the residual stream that stands for a task, and the heads that it is the sum of. */
export class FunctionVector implements Disposable {
  readonly setting: Setting;
  /** To be added to `resid_post` of a layer at a prompt's last token: f32 [width]. */
  readonly vector: Tensor;
  /** The heads that it sums, the largest effect first. */
  readonly heads: readonly HeadEffect[];
  /** All heads. */
  readonly ranked: readonly HeadEffect[];
  readonly method: "exact" | "attribution";
  /** The metric of the corrupted prompts as they are, on average. */
  readonly before: number;
  readonly #prompts: Parts["prompts"];

  constructor({ setting, vector, chosen, ranked, method, before, prompts }: Parts) {
    this.setting = setting;
    this.vector = vector;
    this.heads = chosen;
    this.ranked = ranked;
    this.method = method;
    this.before = before;
    this.#prompts = prompts;
  }

  /** The heads with their effects. */
  toString(): string {
    const { examples, corrupted } = this.#prompts;
    const how = this.method === "exact" ? "patched" : "estimated by gradients";
    const rows = this.heads.map(({ layer, head, effect }) => [`${layer}.${head}`, effect.toPrecision(3)]);
    return (
      `function vector of ${this.heads.length} heads, from ${examples} examples and ${corrupted} corrupted prompts ` +
      `(metric ${this.before.toPrecision(3)}), effects ${how}\n${textTable([["layer.head", "effect"], ...rows])}`
    );
  }

  /** Frees the vector. */
  dispose(): void {
    this.vector.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  [INSPECT](): string {
    return this.toString();
  }
}
