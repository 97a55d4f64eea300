/** Names of activations and modules elsewhere, and the site that holds the same. N is the layer's number. */
const ELSEWHERE: readonly (readonly [RegExp, string])[] = [
  // TransformerLens
  [/^hook_embed$/, "embed"],
  [/^blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)$/, "$2.$1"],
  [/^blocks\.(\d+)\.attn\.hook_(q|k|v|z|pattern)$/, "$2.$1"],
  [/^blocks\.(\d+)\.attn\.hook_attn_scores$/, "scores.$1"],
  [/^blocks\.(\d+)\.ln1\.hook_normalized$/, "attn_in.$1"],
  [/^blocks\.(\d+)\.ln2\.hook_normalized$/, "mlp_in.$1"],
  [/^blocks\.(\d+)\.mlp\.hook_pre$/, "mlp_pre.$1"],
  [/^blocks\.(\d+)\.mlp\.hook_post$/, "mlp_act.$1"],
  [/^ln_final\.hook_normalized$/, "final_norm"],
  // Modules of Hugging Face, as nnsight names them: their output, or with .input what they read.
  [/^layers\.(\d+)\.input$/, "resid_pre.$1"],
  [/^layers\.(\d+)$/, "resid_post.$1"],
  [/^layers\.(\d+)\.self_attn$/, "attn_out.$1"],
  [/^layers\.(\d+)\.self_attn\.([qkv])_proj$/, "$2.$1"],
  [/^layers\.(\d+)\.self_attn\.(?:o|out)_proj\.input$/, "z.$1"],
  [/^layers\.(\d+)\.self_attn\.(?:o|out)_proj$/, "attn_out.$1"],
  [/^layers\.(\d+)\.(?:input_layernorm|self_attn\.input|layer_norm1)$/, "attn_in.$1"],
  [/^layers\.(\d+)\.(?:post_attention_layernorm|layer_norm2)\.input$/, "resid_mid.$1"],
  [/^layers\.(\d+)\.(?:post_attention_layernorm|mlp\.input|layer_norm2)$/, "mlp_in.$1"],
  [/^layers\.(\d+)\.mlp\.(?:gate_proj|fc1)$/, "mlp_pre.$1"],
  [/^layers\.(\d+)\.mlp\.(?:down_proj|fc2)\.input$/, "mlp_act.$1"],
  [/^layers\.(\d+)\.mlp(?:\.down_proj|\.fc2)?$/, "mlp_out.$1"],
  [/^(?:embed_tokens|inputs_embeds)$/, "embed"],
  [/^norm$/, "final_norm"],
  [/^lm_head$/, "logits"],
  [/^(?:multi_modal_projector)$/, "projector"],
  [/^hidden_states\[(\d+)\]$/, "resid_pre.$1"],
  [/^attentions\[(\d+)\]$/, "pattern.$1"],
];

/** What other libraries wrap a decoder's or a tower's modules in. */
const WRAPPERS = /^(?:(?:model|language_model|text_model|transformer|encoder|vision_model|vision_tower)\.)+/;

/** The site that holds what another library calls `name`, or undefined. */
export function siteFromElsewhere(name: string): string | undefined {
  const plain = name.replace(/\.output(\[0\])?$/, "").replace(/\.inputs?(\[0\])*$/, ".input");
  const inside = plain.replace(WRAPPERS, "").replace(/^h\.(?=\d)/, "layers.");
  for (const [pattern, site] of ELSEWHERE) {
    if (!pattern.test(inside)) continue;
    const found = inside.replace(pattern, site);
    return /\bvision_/.test(plain) && found !== "projector" ? `vision.${found}` : found;
  }
  return undefined;
}
