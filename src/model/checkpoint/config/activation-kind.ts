import { CheckpointError } from "../../../errors.ts";
import type { ActivationKind } from "../../../kernels/elementwise/activation.ts";

/** Hugging Face's names. */
const ACTIVATIONS: Readonly<Record<string, ActivationKind>> = {
  silu: "silu",
  swish: "silu",
  gelu: "gelu",
  gelu_python: "gelu",
  gelu_accurate: "gelu_tanh",
  gelu_fast: "gelu_tanh",
  gelu_new: "gelu_tanh",
  gelu_python_tanh: "gelu_tanh",
  gelu_pytorch_tanh: "gelu_tanh",
  quick_gelu: "quick_gelu",
  relu: "relu",
  relu2: "relu2",
};

/** The activation that a config names. Throws CheckpointError for one that there is no kernel for. */
export function activationKind(name: string, where: string): ActivationKind {
  const kind = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  if (kind) return kind;
  throw new CheckpointError(
    `${where}: activation ${JSON.stringify(name)} is not supported; supported are ${Object.keys(ACTIVATIONS).join(", ")}`,
  );
}
