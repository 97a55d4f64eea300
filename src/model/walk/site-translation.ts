/** Where a block norms what attention or MLP adds to the residual stream, the site comes behind that norm. */
const ALSO_NORMED = " (behind its norm, where it has one, as in Gemma 2)";
const OUTPUT_PROJECTION = String.raw`(?:self_attn\.(?:o|out)_proj|attn\.c_proj|attention\.dense)`;

/**
 * Names of activations and modules elsewhere, and the site that holds the same; where that depends on the kind of block, also
 * what differs. $1 is the layer's number.
 */
const ELSEWHERE: readonly (readonly [name: RegExp, site: string, remark?: string])[] = [
  // TransformerLens
  [/^hook_embed$/, "embed", " (with the learned positions added, in GPT-2)"],
  [/^hook_pos_embed$/, "embed", " (positions and embeddings are one there)"],
  [/^blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)$/, "$2.$1"],
  [/^blocks\.(\d+)\.hook_mlp_in$/, "resid_mid.$1"],
  [/^blocks\.(\d+)\.attn\.hook_(q|k|v|z|pattern)$/, "$2.$1"],
  [/^blocks\.(\d+)\.attn\.hook_attn_scores$/, "scores.$1"],
  [/^blocks\.(\d+)\.attn\.([qk]_norm)\.hook_normalized$/, "$2.$1"],
  [/^blocks\.(\d+)\.ln1\.hook_normalized$/, "attn_in.$1"],
  [/^blocks\.(\d+)\.ln1_post\.hook_normalized$/, "attn_out.$1"],
  [/^blocks\.(\d+)\.ln2\.hook_normalized$/, "mlp_in.$1"],
  [/^blocks\.(\d+)\.ln2_post\.hook_normalized$/, "mlp_out.$1"],
  [/^blocks\.(\d+)\.mlp\.hook_pre$/, "mlp_pre.$1"],
  [/^blocks\.(\d+)\.mlp\.hook_post$/, "mlp_act.$1"],
  [/^ln_final\.hook_normalized$/, "final_norm"],
  // Modules of Hugging Face, as nnsight names them: their output, or with .input what they read.
  [/^layers\.(\d+)\.input$/, "resid_pre.$1"],
  [/^layers\.(\d+)$/, "resid_post.$1"],
  [/^layers\.(\d+)\.(?:self_attn|attn|attention)$/, "attn_out.$1", ALSO_NORMED],
  [/^layers\.(\d+)\.self_attn\.([qkv])_proj$/, "$2.$1"],
  [/^layers\.(\d+)\.self_attn\.([qk]_norm)$/, "$2.$1"],
  [/^layers\.(\d+)\.self_attn\.([qk])_norm\.input$/, "$2.$1"],
  [
    /^layers\.(\d+)\.(?:attn\.c_attn|attention\.query_key_value)$/,
    "q.$1",
    " for its queries, k and v for the rest",
  ],
  [new RegExp(`^layers\\.(\\d+)\\.${OUTPUT_PROJECTION}\\.input$`), "z.$1"],
  [new RegExp(`^layers\\.(\\d+)\\.${OUTPUT_PROJECTION}$`), "attn_out.$1", ALSO_NORMED],
  [
    /^layers\.(\d+)\.(?:input_layernorm|(?:self_attn|attn|attention)\.input|layer_norm1|ln_1|self_attn_layer_norm)$/,
    "attn_in.$1",
  ],
  [/^layers\.(\d+)\.(?:pre_feedforward_layernorm|layer_norm2|ln_2|final_layer_norm)\.input$/, "resid_mid.$1"],
  [
    /^layers\.(\d+)\.post_attention_layernorm\.input$/,
    "resid_mid.$1",
    " (resid_pre where attention and MLP run in parallel; no site where attention's output is normed)",
  ],
  [
    /^layers\.(\d+)\.post_attention_layernorm$/,
    "mlp_in.$1",
    " (attn_out where attention's output is normed, as in Gemma 2)",
  ],
  [/^layers\.(\d+)\.post_feedforward_layernorm$/, "mlp_out.$1"],
  [
    /^layers\.(\d+)\.(?:pre_feedforward_layernorm|mlp\.input|layer_norm2|ln_2|final_layer_norm)$/,
    "mlp_in.$1",
  ],
  [/^layers\.(\d+)\.(?:mlp\.(?:gate_proj|fc1|c_fc|dense_h_to_4h)|fc1)$/, "mlp_pre.$1"],
  [/^layers\.(\d+)\.(?:mlp\.(?:down_proj|fc2|c_proj|dense_4h_to_h)|fc2)\.input$/, "mlp_act.$1"],
  [/^layers\.(\d+)\.(?:mlp(?:\.(?:down_proj|fc2|c_proj|dense_4h_to_h))?|fc2)$/, "mlp_out.$1", ALSO_NORMED],
  [/^(?:embed_tokens|embed_in|inputs_embeds)$/, "embed"],
  [/^(?:wte|wpe)$/, "embed", " (positions and embeddings are one there)"],
  [/^(?:norm|ln_f|final_layer_norm)$/, "final_norm"],
  [/^(?:lm_head|embed_out)$/, "logits"],
  [/^(?:multi_modal_projector|language_projection)$/, "projector"],
  [/^perceiver_resampler$/, "resampler.out"],
  [/^perceiver_resampler\.blocks\.(\d+)\.0$/, "resampler.attn_out.$1"],
  [/^perceiver_resampler\.blocks\.(\d+)\.1$/, "resampler.mlp_out.$1"],
  [/^hidden_states\[(\d+)\]$/, "resid_pre.$1"],
  [/^attentions\[(\d+)\]$/, "pattern.$1"],
];

/** The same of encoder-decoders, behind `encoder.` or `decoder.`. */
const IN_STACKS: readonly (readonly [name: RegExp, site: string])[] = [
  // TransformerLens
  [/^(\d+)\.hook_resid_mid_cross$/, "xresid_mid.$1"],
  [/^(\d+)\.hook_cross_attn_out$/, "xattn_out.$1"],
  [/^(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)$/, "$2.$1"],
  [/^(\d+)\.attn\.hook_(q|k|v|z|pattern)$/, "$2.$1"],
  [/^(\d+)\.attn\.hook_attn_scores$/, "scores.$1"],
  [/^(\d+)\.cross_attn\.hook_(q|k|v|z|pattern)$/, "xattn_$2.$1"],
  [/^(\d+)\.cross_attn\.hook_attn_scores$/, "xattn_scores.$1"],
  [/^(\d+)\.mlp\.hook_pre$/, "mlp_pre.$1"],
  [/^(\d+)\.mlp\.hook_post$/, "mlp_act.$1"],
  // T5's modules
  [/^block\.(\d+)\.input$/, "resid_pre.$1"],
  [/^block\.(\d+)$/, "resid_post.$1"],
  [/^block\.(\d+)\.layer\.0$/, "resid_mid.$1"],
  [/^block\.(\d+)\.layer\.0\.layer_norm$/, "attn_in.$1"],
  [/^block\.(\d+)\.layer\.0\.SelfAttention(?:\.o)?$/, "attn_out.$1"],
  [/^block\.(\d+)\.layer\.0\.SelfAttention\.([qkv])$/, "$2.$1"],
  [/^block\.(\d+)\.layer\.0\.SelfAttention\.o\.input$/, "z.$1"],
  [/^block\.(\d+)\.layer\.1\.EncDecAttention(?:\.o)?$/, "xattn_out.$1"],
  [/^block\.(\d+)\.layer\.1\.EncDecAttention\.([qkv])$/, "xattn_$2.$1"],
  [/^block\.(\d+)\.layer\.1\.EncDecAttention\.o\.input$/, "xattn_z.$1"],
  [/^block\.(\d+)\.layer\.\d\.DenseReluDense(?:\.wo)?$/, "mlp_out.$1"],
  [/^block\.(\d+)\.layer\.\d\.DenseReluDense\.wi(?:_0)?$/, "mlp_pre.$1"],
  [/^block\.(\d+)\.layer\.\d\.DenseReluDense\.wo\.input$/, "mlp_act.$1"],
  [/^final_layer_norm$/, "final_norm"],
];

/** The same of a Q-Former's modules, behind `qformer.` (and `encoder.layer.` with a number). */
const IN_QFORMER: readonly (readonly [name: RegExp, site: string])[] = [
  [/^resid_attn\.(\d+)$/, "resid_mid.$1"],
  [/^resid_cross\.(\d+)$/, "xresid_mid.$1"],
  [/^encoder\.layer\.(\d+)\.input$/, "resid_pre.$1"],
  [/^encoder\.layer\.(\d+)$/, "resid_post.$1"],
  [/^encoder\.layer\.(\d+)\.attention$/, "resid_mid.$1"],
  [/^encoder\.layer\.(\d+)\.crossattention$/, "xresid_mid.$1"],
  [/^encoder\.layer\.(\d+)\.attention\.attention\.([qkv])(?:uery|ey|alue)$/, "$2.$1"],
  [/^encoder\.layer\.(\d+)\.crossattention\.attention\.([qkv])(?:uery|ey|alue)$/, "xattn_$2.$1"],
  [/^encoder\.layer\.(\d+)\.attention\.output\.dense\.input$/, "z.$1"],
  [/^encoder\.layer\.(\d+)\.crossattention\.output\.dense\.input$/, "xattn_z.$1"],
  [/^encoder\.layer\.(\d+)\.attention\.output\.dense$/, "attn_out.$1"],
  [/^encoder\.layer\.(\d+)\.crossattention\.output\.dense$/, "xattn_out.$1"],
  [/^encoder\.layer\.(\d+)\.intermediate(?:_query)?\.dense$/, "mlp_pre.$1"],
  [/^encoder\.layer\.(\d+)\.output(?:_query)?\.dense\.input$/, "mlp_act.$1"],
  [/^encoder\.layer\.(\d+)\.output(?:_query)?\.dense$/, "mlp_out.$1"],
];

/** What other libraries wrap a decoder's or a tower's modules in. */
const WRAPPERS =
  /^(?:(?:model|language_model|text_model|transformer|gpt_neox|encoder|vision_model|vision_tower)\.)+/;

/** The site that holds what another library calls `name`, quoted and with what may differ; or undefined. */
export function siteFromElsewhere(name: string): string | undefined {
  const plain = name.replace(/\.output(\[0\])?$/, "").replace(/\.inputs?(\[0\])*$/, ".input");
  const [, inQFormer] = /^(?:model\.)?qformer\.(.*)$/.exec(plain) ?? [];
  for (const [pattern, site] of inQFormer === undefined ? [] : IN_QFORMER) {
    if (pattern.test(inQFormer!)) return `"qformer.${inQFormer!.replace(pattern, site)}" here`;
  }
  const [, stack, behind] = /^(?:model\.)?(encoder|decoder)\.(.*)$/.exec(plain) ?? [];
  for (const [pattern, site] of behind === undefined ? [] : IN_STACKS) {
    if (pattern.test(behind!))
      return `"${stack === "encoder" ? "encoder." : ""}${behind!.replace(pattern, site)}" here`;
  }
  const inside = plain
    .replace(WRAPPERS, "")
    .replace(/^decoder\.(?=layers\.|embed_tokens$|final_layer_norm$)/, "") // OPT's
    .replace(/^h\.(?=\d)/, "layers.");
  for (const [pattern, site, remark = ""] of ELSEWHERE) {
    if (!pattern.test(inside)) continue;
    const found = inside.replace(pattern, site);
    return `"${/\bvision_/.test(plain) && found !== "projector" ? "vision." : ""}${found}" here${remark}`;
  }
  return undefined;
}
