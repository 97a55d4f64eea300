"""
The families that make-family-golden.py knows, as data: a tiny config, and which module of transformers has which site.

Sites are those of docs/sites.md, `attn_pattern` for `pattern`; N is the layer. Of a module "name" is the output, "<name"
the input, "@name" the attention pattern, "#part" a piece of a fused tensor: see `record` in goldens.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    PersimmonConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)


@dataclass(frozen=True)
class Family:
    config: type[PreTrainedConfig]
    # Small sizes, and for everything else what is not the default: a reader who takes that is found out.
    values: dict
    sites: dict[str, str]
    # Changes of `values` that a wrong reader might compute. Each has to show in the goldens.
    mistakes: list[dict]
    # A folder of test/fixtures/tokenizers that has a tokenizer.json.
    tokenizer: str = "spm-bpe"
    parts: dict[str, Callable] = field(default_factory=dict)
    # How the checkpoint is stored: float32, float16 or bfloat16.
    dtype: str = "bfloat16"
    seed: int = 0
    # Of unequal length. The longest is longer than the window of the families that have one.
    texts: list[str] = field(default_factory=lambda: ["The sky is", "Q: Italy\nA:", "The capital of Japan is"])
    # Whether there is a batch of the last and the first; not where one prompt changes what transformers makes of the other.
    batch: bool = True


HEADS = 4
SIZES = {"vocab_size": 448, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": HEADS}
WINDOW = 6  # less than the longer prompts have tokens

ROPE = {"rope_type": "default", "rope_theta": 100.0}
HALF_ROPE = {**ROPE, "partial_rotary_factor": 0.5}

# Where each head has its q, k and v side by side.
HEADS_APART = {
    name: lambda x, i=i: x.unflatten(-1, (HEADS, 3, -1))[..., i, :].flatten(-2) for i, name in enumerate("qkv")
}

LLAMA = {
    **SIZES,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 0.01,
    "rope_parameters": ROPE,
}
LLAMA_SITES = {
    "embed": "model.embed_tokens",
    "resid_pre.N": "<model.layers.N",
    "attn_in.N": "model.layers.N.input_layernorm",
    "q.N": "model.layers.N.self_attn.q_proj",
    "k.N": "model.layers.N.self_attn.k_proj",
    "v.N": "model.layers.N.self_attn.v_proj",
    "attn_pattern.N": "@model.layers.N.self_attn",
    "z.N": "<model.layers.N.self_attn.o_proj",
    "attn_out.N": "model.layers.N.self_attn",
    "resid_mid.N": "<model.layers.N.post_attention_layernorm",
    "mlp_in.N": "model.layers.N.post_attention_layernorm",
    "mlp_pre.N": "model.layers.N.mlp.gate_proj",
    "mlp_act.N": "<model.layers.N.mlp.down_proj",
    "mlp_out.N": "model.layers.N.mlp",
    "resid_post.N": "model.layers.N",
    "final_norm": "model.norm",
}
GEMMA2_SITES = {
    **LLAMA_SITES,
    "attn_out.N": "model.layers.N.post_attention_layernorm",
    "resid_mid.N": "<model.layers.N.pre_feedforward_layernorm",
    "mlp_in.N": "model.layers.N.pre_feedforward_layernorm",
    "mlp_out.N": "model.layers.N.post_feedforward_layernorm",
}
TWO_ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
}
LLAMA_MISTAKES = [{"rms_norm_eps": 1e-6}, {"rope_parameters": None}, {"hidden_act": "gelu"}]
QWEN = {**LLAMA, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
QWEN_MISTAKES = [*LLAMA_MISTAKES, {"use_sliding_window": False}, {"max_window_layers": 0}, {"max_window_layers": 2}]

# q, k, v in one product, and gate, up in another.
PHI3 = {**LLAMA, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
PHI3_SITES = {
    **LLAMA_SITES,
    **{f"{site}.N": f"model.layers.N.self_attn.qkv_proj#{site}" for site in "qkv"},
    "mlp_pre.N": "model.layers.N.mlp.gate_up_proj#gate",
}
PHI3_PARTS = {
    "q": lambda x: x[..., :32],
    "k": lambda x: x[..., 32:48],
    "v": lambda x: x[..., 48:],
    "gate": lambda x: x.chunk(2, -1)[0],
}
BORDER = 9  # between two prompts, the shorter one with its new tokens
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 100.0,
    "short_factor": [1.0, 1.3, 1.6, 1.9],
    "long_factor": [1.0, 2.5, 4.0, 5.5],
}

FAMILIES = {
    "llama": Family(
        LlamaConfig,
        {**LLAMA, "attention_bias": True, "mlp_bias": True, "bos_token_id": 1, "eos_token_id": 2},
        LLAMA_SITES,
        LLAMA_MISTAKES,
        seed=1,
    ),
    "mistral": Family(
        MistralConfig,
        {**LLAMA, "head_dim": 12, "sliding_window": WINDOW, "bos_token_id": 1, "eos_token_id": 2},
        LLAMA_SITES,
        [*LLAMA_MISTAKES, {"sliding_window": None}, {"sliding_window": WINDOW + 1}],
    ),
    "qwen2": Family(
        Qwen2Config,
        {**QWEN, "tie_word_embeddings": True, "eos_token_id": 316},
        LLAMA_SITES,
        QWEN_MISTAKES,
        tokenizer="byte-qwen2",
    ),
    "qwen3": Family(
        Qwen3Config,
        {**QWEN, "head_dim": 12, "eos_token_id": 316},
        {
            **LLAMA_SITES,
            "q_norm.N": "model.layers.N.self_attn.q_norm",
            "k_norm.N": "model.layers.N.self_attn.k_norm",
        },
        QWEN_MISTAKES,
        tokenizer="byte-qwen2",
        seed=4,
    ),
    "gemma": Family(
        GemmaConfig,
        {**LLAMA, "head_dim": 12, "attention_bias": True},
        LLAMA_SITES,
        [
            {"rms_norm_eps": 1e-6},
            {"rope_parameters": None},
            {"hidden_act": "silu"},
        ],
        tokenizer="spm-gemma",
        seed=1,
    ),
    "gemma2": Family(
        Gemma2Config,
        {
            **LLAMA,
            "head_dim": 12,
            "query_pre_attn_scalar": 24,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 4.0,
            "sliding_window": WINDOW,
        },
        GEMMA2_SITES,
        [
            {"rms_norm_eps": 1e-6},
            {"rope_parameters": None},
            {"hidden_activation": "silu"},
            {"query_pre_attn_scalar": 12},
            {"attn_logit_softcapping": None},
            {"final_logit_softcapping": None},
            {"sliding_window": WINDOW + 1},
            {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        ],
        tokenizer="spm-gemma",
    ),
    "gemma3_text": Family(
        Gemma3TextConfig,
        {
            **LLAMA,
            "head_dim": 12,
            "query_pre_attn_scalar": 24,
            "final_logit_softcapping": 4.0,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "rope_parameters": TWO_ROPES,
        },
        {
            **GEMMA2_SITES,
            "q_norm.N": "model.layers.N.self_attn.q_norm#rows",
            "k_norm.N": "model.layers.N.self_attn.k_norm#rows",
        },
        [
            {"rms_norm_eps": 1e-6},
            {"rope_parameters": None},
            {"rope_parameters": {**TWO_ROPES, "sliding_attention": TWO_ROPES["full_attention"]}},
            {"rope_parameters": {**TWO_ROPES, "full_attention": TWO_ROPES["sliding_attention"]}},
            {"hidden_activation": "silu"},
            {"query_pre_attn_scalar": 12},
            {"final_logit_softcapping": None},
            {"sliding_window": WINDOW + 1},
            {"layer_types": ["sliding_attention"] * 3},
        ],
        tokenizer="spm-gemma",
        parts={"rows": lambda x: x.transpose(1, 2)},  # [batch, heads, T, dim]
    ),
    "gpt2": Family(
        GPT2Config,
        {
            **SIZES,
            "n_inner": 48,
            "n_positions": 64,
            "layer_norm_epsilon": 0.01,
            "bos_token_id": 316,
            "eos_token_id": 316,
        },
        {
            "embed": "transformer.drop",  # with the positions
            "resid_pre.N": "<transformer.h.N",
            "attn_in.N": "transformer.h.N.ln_1",
            "q.N": "transformer.h.N.attn.c_attn#q",
            "k.N": "transformer.h.N.attn.c_attn#k",
            "v.N": "transformer.h.N.attn.c_attn#v",
            "attn_pattern.N": "@transformer.h.N.attn",
            "z.N": "<transformer.h.N.attn.c_proj",
            "attn_out.N": "transformer.h.N.attn",
            "resid_mid.N": "<transformer.h.N.ln_2",
            "mlp_in.N": "transformer.h.N.ln_2",
            "mlp_pre.N": "transformer.h.N.mlp.c_fc",
            "mlp_act.N": "<transformer.h.N.mlp.c_proj",
            "mlp_out.N": "transformer.h.N.mlp",
            "resid_post.N": "transformer.h.N",
            "final_norm": "transformer.ln_f",
        },
        [
            {"layer_norm_epsilon": 1e-5},
            {"activation_function": "relu"},
            {"scale_attn_weights": False},
            {"scale_attn_by_inverse_layer_idx": True},
        ],
        tokenizer="byte-gpt2",
        parts={name: lambda x, i=i: x.chunk(3, -1)[i] for i, name in enumerate("qkv")},
    ),
    "gpt_neox": Family(
        GPTNeoXConfig,
        {
            **SIZES,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "layer_norm_eps": 0.01,
            "rope_parameters": HALF_ROPE,
            "bos_token_id": 316,
            "eos_token_id": 316,
        },
        {
            "embed": "gpt_neox.embed_in",
            "resid_pre.N": "<gpt_neox.layers.N",
            "attn_in.N": "gpt_neox.layers.N.input_layernorm",
            "q.N": "gpt_neox.layers.N.attention.query_key_value#q",
            "k.N": "gpt_neox.layers.N.attention.query_key_value#k",
            "v.N": "gpt_neox.layers.N.attention.query_key_value#v",
            "attn_pattern.N": "@gpt_neox.layers.N.attention",
            "z.N": "<gpt_neox.layers.N.attention.dense",
            "attn_out.N": "gpt_neox.layers.N.attention",
            "mlp_in.N": "gpt_neox.layers.N.post_attention_layernorm",
            "mlp_pre.N": "gpt_neox.layers.N.mlp.dense_h_to_4h",
            "mlp_act.N": "<gpt_neox.layers.N.mlp.dense_4h_to_h",
            "mlp_out.N": "gpt_neox.layers.N.mlp",
            "resid_post.N": "gpt_neox.layers.N",
            "final_norm": "gpt_neox.final_layer_norm",
        },
        [
            {"layer_norm_eps": 1e-5},
            {"hidden_act": "relu"},
            {"use_parallel_residual": False},
            {"rope_parameters": {**HALF_ROPE, "partial_rotary_factor": 1.0}},
            {"rope_parameters": {**HALF_ROPE, "rope_theta": 10000.0}},
        ],
        tokenizer="byte-gpt2",
        seed=2,
        parts=HEADS_APART,
    ),
    "persimmon": Family(
        PersimmonConfig,
        {
            **SIZES,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "layer_norm_eps": 0.01,
            "rope_parameters": {**ROPE, "partial_rotary_factor": 0.75},
        },
        {
            **{site: hook for site, hook in LLAMA_SITES.items() if not site.startswith("mlp_") and site != "final_norm"},
            **{f"{site}.N": f"model.layers.N.self_attn.query_key_value#{site}" for site in "qkv"},
            "q_norm.N": "model.layers.N.self_attn.q_layernorm",
            "k_norm.N": "model.layers.N.self_attn.k_layernorm",
            "z.N": "<model.layers.N.self_attn.dense",
            "mlp_in.N": "model.layers.N.post_attention_layernorm",
            "mlp_pre.N": "model.layers.N.mlp.dense_h_to_4h",
            "mlp_act.N": "<model.layers.N.mlp.dense_4h_to_h",
            "mlp_out.N": "model.layers.N.mlp",
            "final_norm": "model.final_layernorm",
        },
        [
            {"layer_norm_eps": 1e-5},
            {"hidden_act": "relu"},
            {"rope_parameters": ROPE | {"partial_rotary_factor": 0.5}},
            {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}},
        ],
        parts=HEADS_APART,
        texts=["The sky is", "Q: Italy\nA:"],
    ),
    "olmo2": Family(
        Olmo2Config,
        {**LLAMA, "attention_bias": True, "bos_token_id": None, "eos_token_id": 316, "pad_token_id": 316},
        {
            **{site: hook for site, hook in LLAMA_SITES.items() if site not in ("attn_in.N", "mlp_in.N")},
            "q_norm.N": "model.layers.N.self_attn.q_norm",
            "k_norm.N": "model.layers.N.self_attn.k_norm",
            "attn_out.N": "model.layers.N.post_attention_layernorm",
            "resid_mid.N": "<model.layers.N.mlp",
            "mlp_out.N": "model.layers.N.post_feedforward_layernorm",
        },
        LLAMA_MISTAKES,
        tokenizer="byte-qwen2",
    ),
    "phi3": Family(
        Phi3Config,
        {**PHI3, "rope_parameters": HALF_ROPE, "sliding_window": WINDOW},
        PHI3_SITES,
        [
            *LLAMA_MISTAKES[::2],
            {"rope_parameters": {**HALF_ROPE, "rope_theta": 10000.0}},
            {"rope_parameters": ROPE},
            {"sliding_window": None},
        ],
        parts=PHI3_PARTS,
        seed=1,
    ),
    "phi3-longrope": Family(
        Phi3Config,
        {**PHI3, "tie_word_embeddings": True, "original_max_position_embeddings": BORDER, "rope_parameters": LONGROPE},
        PHI3_SITES,
        [
            {"rope_parameters": {**LONGROPE, "long_factor": LONGROPE["short_factor"]}},
            {"rope_parameters": {**LONGROPE, "factor": 1.0}},
            {"max_position_embeddings": 4 * BORDER},
            {"original_max_position_embeddings": 64},
        ],
        parts=PHI3_PARTS,
        texts=["The capital of Japan is", "The sky is"],
        batch=False,
    ),
}
