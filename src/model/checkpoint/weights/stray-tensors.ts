import { commonName } from "../entries/module-names.ts";

/** Buffers that older versions saved and that follow from the config: transformers leaves them out without a warning. */
const HARMLESS = /(^|\.)(rotary_emb\.\w+|position_ids|masked_bias)$/;
const LORA = /(^|\.)lora_|^base_model\./;

/**
 * Of a file's tensors, those that the model did not ask for although they would change what it computes: they are inside of
 * a module that it reads (a scale beside a weight, a bias that the config does not mention, a norm between others), stand
 * for one that it read under another name, or are LoRA's. Modules of their own (a value head, layers beyond the config's
 * number) and stale buffers are not among them.
 *
 * @param asked names that the model asked for, there or not
 * @param skipped modules and tensors that the model is known to have no use for
 */
export function strayTensors(
  present: Iterable<string>,
  asked: ReadonlySet<string>,
  skipped: readonly string[],
): string[] {
  const modules = new Set<string>();
  const twins = new Set<string>();
  for (const name of asked) {
    twins.add(commonName(name));
    for (let module = parentOf(name); ; module = parentOf(module)) {
      modules.add(module);
      if (module === "") break;
    }
  }
  const rootHasTensors = [...asked].some((name) => !name.includes("."));
  return [...present].filter((name) => {
    if (asked.has(name) || HARMLESS.test(name)) return false;
    if (LORA.test(name) || twins.has(commonName(name))) return true;
    if (skipped.some((module) => name === module || name.startsWith(`${module}.`))) return false;
    let module = parentOf(name);
    while (!modules.has(module)) module = parentOf(module);
    if (module === "") return rootHasTensors && !name.includes(".");
    const [child] = name.slice(module.length + 1).split(".");
    const isLayerBeyond = /^\d+$/.test(child!) && modules.has(`${module}.0`);
    return !isLayerBeyond;
  });
}

/** The path without its last part; "" for the root. */
function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf(".")));
}

/** What to do about a stray tensor, in a few words. */
export function adviceFor(name: string): string {
  if (LORA.test(name)) return "merge the adapter, or give it as one";
  if (/scale|zero|absmax|quant|SCB|g_idx|nested|packed|bitmask/i.test(name)) {
    return "it belongs to a way of quantising weights that is not read";
  }
  if (name.endsWith(".bias"))
    return "a bias that config.json does not announce (attention_bias, mlp_bias, multimodal_projector_bias)";
  return "this family has no such part";
}
