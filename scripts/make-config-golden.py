"""
Makes test/fixtures/configs/<name>.json: what transformers makes of a fixture's config with one field changed, added or
removed (config_changes.py). test/model/checkpoint/config/config-fuzz.test.ts holds xpatch to it.

    python scripts/make-config-golden.py              all fixtures
    python scripts/make-config-golden.py gpt2 gemma2  these; the other cases stay
"""

import math
import sys

import torch
from transformers import (
    CLIPModel,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    GPT2LMHeadModel,
    GPTNeoXForCausalLM,
    Idefics2ForConditionalGeneration,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    MistralForCausalLM,
    Olmo2ForCausalLM,
    Phi3ForCausalLM,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
    SiglipModel,
    T5ForConditionalGeneration,
)

from config_changes import ACTIVATIONS, FOREIGN, IDS, LLAMA3, ROPES, pixels, variations, write

IMAGE_TOKENS = 16


def run_text(model):
    return model(input_ids=torch.tensor([IDS])).logits[0, -1]


def run_llava(model):
    ids = IDS[:4] + [431] * IMAGE_TOKENS + IDS[4:]
    return model(input_ids=torch.tensor([ids]), pixel_values=pixels()).logits[0, -1]


def run_qwen(model):
    """A picture of 3 x 4 features, each of 2 x 2 patches of 2 x 14 x 14 pixels."""
    ids = IDS[:4] + [321] * 12 + IDS[4:]
    values = [math.sin(i * 0.37) for i in range(3 * 84 * 112)]
    planes = torch.tensor(values, dtype=torch.float64).float().reshape(3, 3, 2, 14, 4, 2, 14)
    patches = planes.permute(1, 4, 2, 5, 0, 3, 6).unsqueeze(5).expand(-1, -1, -1, -1, -1, 2, -1, -1)
    return model(
        input_ids=torch.tensor([ids]),
        mm_token_type_ids=torch.tensor([[int(i == 321) for i in ids]]),
        pixel_values=patches.reshape(48, 3 * 2 * 14 * 14),
        image_grid_thw=torch.tensor([[1, 6, 8]]),
    ).logits[0, -1]


def run_idefics2(model):
    ids = IDS[:4] + [432] * 5 + IDS[4:]
    return model(input_ids=torch.tensor([ids]), pixel_values=pixels().unsqueeze(0)).logits[0, -1]


def run_t5(model):
    start = model.config.decoder_start_token_id
    return model(input_ids=torch.tensor([IDS]), decoder_input_ids=torch.tensor([[start, *IDS[:2]]])).logits[0, -1]


def run_dual(ids):
    def run(model):
        found = model(input_ids=torch.tensor([ids]), pixel_values=pixels())
        return torch.cat([found.logits_per_image[0], found.text_embeds[0, :3], found.image_embeds[0, :3]])

    return run


MODELS = {
    "llama": ("llama", LlamaForCausalLM, run_text),
    "llama-gqa-tied": ("llama", LlamaForCausalLM, run_text),
    "llama-rope-llama3": ("llama", LlamaForCausalLM, run_text),
    "mistral": ("mistral", MistralForCausalLM, run_text),
    "gpt2": ("gpt2", GPT2LMHeadModel, run_text),
    "gpt_neox": ("gpt_neox", GPTNeoXForCausalLM, run_text),
    "gpt_neox-sequential": ("gpt_neox", GPTNeoXForCausalLM, run_text),
    "qwen2": ("qwen2", Qwen2ForCausalLM, run_text),
    "qwen3": ("qwen3", Qwen3ForCausalLM, run_text),
    "gemma2": ("gemma2", Gemma2ForCausalLM, run_text),
    "gemma3_text": ("gemma3_text", Gemma3ForCausalLM, run_text),
    "olmo2": ("olmo2", Olmo2ForCausalLM, run_text),
    "phi3": ("phi3", Phi3ForCausalLM, run_text),
    "phi3-longrope": ("phi3", Phi3ForCausalLM, run_text),
    "llava": ("llava", LlavaForConditionalGeneration, run_llava),
    "t5": ("t5", T5ForConditionalGeneration, run_t5),
    "t5-relu-tied": ("t5", T5ForConditionalGeneration, run_t5),
    "clip": ("clip", CLIPModel, run_dual([572, *IDS, 573])),
    "siglip": ("siglip", SiglipModel, run_dual([*IDS, 1, 1, 1, 1])),
    "qwen2_vl": ("qwen2_vl", Qwen2VLForConditionalGeneration, run_qwen),
    "qwen2_5_vl": ("qwen2_5_vl", Qwen2_5_VLForConditionalGeneration, run_qwen),
    "idefics2": ("idefics2", Idefics2ForConditionalGeneration, run_idefics2),
}
# Which of them are in a file; golden.json has the others.
FILES = {"qwen-vl": ["qwen2_vl", "qwen2_5_vl"], "t5": ["t5", "t5-relu-tied"], "gemma3": ["gemma3_text"],
         "olmo2": ["olmo2"], "phi3": ["phi3", "phi3-longrope"], "idefics2": ["idefics2"]}  # fmt: skip
FILES["golden"] = [name for name in MODELS if not any(name in names for names in FILES.values())]

# What the classes of the other text models read beside what their fixtures' configs have, and what goes together.
WINDOWS = [["full_attention", "sliding_attention", "full_attention"], ["sliding_attention"] * 2, "sliding_attention"]
OWN = {
    "gpt2": {
        "n_inner": [192, 96, "192", 0],
        "reorder_and_upcast_attn": [True],
        "n_ctx": [64],
        "hidden_size": [48, 24, None],
        "max_position_embeddings": [128, 64, None],
        "num_attention_heads": [4, 2, 3, None],
        "num_hidden_layers": [3, 2, None],
        "intermediate_size": [96],
        "num_key_value_heads": [2],
        "head_dim": [6],
        "hidden_act": ["relu"],
        "layer_norm_eps": [0.1],
        "embd_pdrop": [0.5],
        "rope_scaling": [None, {"rope_type": "linear", "factor": 4.0}],
        "rope_parameters": [{"rope_type": "yarn", "factor": 4.0}],
    },
    "gpt_neox": {
        "rotary_pct": [0.5, 1.0, 1, 0.3, 0.4, 0.1, 0, 1.5, None, "0.5"],
        "rotary_emb_base": [500, 500.0, None, 0, -1, "x"],
        "head_dim": [16, 8, 32, None],
        "num_key_value_heads": [2, 4],
        "rms_norm_eps": [0.1],
        "gpt_j_residual": [True],
    },
    "qwen2": {"head_dim": [12, 24, None], "layer_types": WINDOWS, "no_bias": [True], "attn_bias": [False]},
    "qwen3": {"layer_types": WINDOWS, "attention_bias": [True, None], "qkv_bias": [True], "use_qk_norm": [False]},
    "gemma2": {
        "layer_types": WINDOWS,
        "use_bidirectional_attention": [True, False],
        "hidden_act": ["relu", None],
        "query_pre_attn_scalar": [24.0, 16, 0, -4],
        "attn_logit_softcapping": [0, 0.0, -3.0, 3, 1e9],
        "final_logit_softcapping": [0, 0.0, -6.0, 6, 1e9],
        "sliding_window": [0, 1, 27, 4096],
        "attention_dropout": [None],
        "query_scale": [2.0],
    },
}  # fmt: skip
SLIDING = {"use_sliding_window": True}
TOGETHER = {
    "gpt2": [
        {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True},
        {"hidden_size": 48, "n_embd": 24},
        {"n_head": 2, "num_attention_heads": 4},
    ],
    "gpt_neox": [
        {"rotary_pct": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rotary_pct": 0.5, "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.0}},
        {"rotary_emb_base": 77, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rotary_emb_base": 77, "rope_theta": 500.0},
        {"rotary_pct": 0.5, "partial_rotary_factor": 1.0},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0}, "rope_parameters": {"rope_type": "default"}},
    ],
    "qwen2": [
        SLIDING,
        *({**SLIDING, "max_window_layers": n} for n in [0, 2, 3, 28, -1, None]),
        *({**SLIDING, "sliding_window": n} for n in [None, 0, 1, 64]),
        *({**SLIDING, "layer_types": types} for types in [*WINDOWS, ["full_attention"] * 3, ["sliding_attention"] * 3]),
        {**SLIDING, "sliding_window": None, "layer_types": ["full_attention"] * 3},
        {**SLIDING, "sliding_window": None, "layer_types": ["sliding_attention"] * 3},
    ],
    "gemma2": [
        {"attn_logit_softcapping": None, "final_logit_softcapping": None},
        {"sliding_window": None, "layer_types": ["full_attention"] * 3},
        {"hidden_act": "relu", "hidden_activation": None},
        {"hidden_act": "gelu", "hidden_activation": "relu"},
    ],
}
# What Gemma 3 reads; what is foreign to all text models is tried with others.
THETA = {"rope_type": "default", "rope_theta": 500.0}
LINEAR = {"rope_type": "linear", "factor": 4.0}
KINDS = [
    {},
    THETA,
    LINEAR,
    {"full_attention": THETA},
    {"full_attention": LINEAR},
    {"full_attention": None, "sliding_attention": THETA},
    {"sliding_attention": THETA},
    {"sliding_attention": LINEAR, "full_attention": {"type": "linear", "factor": 2.0}},
    {"sliding_attention": {"partial_rotary_factor": 0.5}},
    {"full_attention": {**LINEAR, "partial_rotary_factor": 0.5}},
    {"full_attention": LLAMA3},
    {"full_attention": {"rope_type": "yarn", "factor": 4.0}},
]
GEMMA3 = {
    **{key: FOREIGN[key] for key in (
        "is_causal", "is_decoder", "partial_rotary_factor", "per_layer_config", "mlp_bias", "use_sliding_window", "rotary_pct",
        "max_window_layers", "no_rope_layers", "original_max_position_embeddings", "embedding_multiplier", "logits_scaling",
        "logit_scale", "use_qk_norm", "parallel_attn", "norm_eps", "layer_norm_eps", "tie_last_hidden_states", "qkv_bias",
    )},
    "hidden_activation": [a for a in ACTIVATIONS if a != "gelu_pytorch_tanh"],
    "rope_scaling": [None, {}, THETA, {"type": "linear", "factor": 4.0}, LLAMA3, {"rope_type": "dynamic", "factor": 4.0}],
    "rope_parameters": KINDS,
    "rope_theta": [500.0, None],
    "rope_local_base_freq": [500.0, None],
    "layer_types": WINDOWS,
    "sliding_window_pattern": [1, 3, 6, 0, None],
    "use_bidirectional_attention": [True, False],
    "hidden_act": ["relu"],
    "query_pre_attn_scalar": [16, 0],
    "attn_logit_softcapping": [3.0],
    "final_logit_softcapping": [1.0, 0],
    "sliding_window": [0, 1, 64],
}
GEMMA3_TOGETHER = [
    {"rope_scaling": None, "rope_theta": 77.0, "rope_parameters": {"full_attention": THETA}},
    {"rope_scaling": None, "rope_theta": 77.0, "rope_parameters": {"sliding_attention": LINEAR}},
    {"rope_local_base_freq": 77.0, "rope_parameters": {"sliding_attention": THETA}},
    {"rope_scaling": THETA, "rope_parameters": {"full_attention": LINEAR}},
    {"rope_scaling": LINEAR, "rope_parameters": {"full_attention": THETA}},
    {"rope_scaling": LINEAR, "rope_parameters": THETA},
    {"partial_rotary_factor": 0.5, "rope_scaling": None, "rope_parameters": {"full_attention": LINEAR}},
    {"sliding_window_pattern": 1, "sliding_window": None},
    {"hidden_act": "relu", "hidden_activation": None},
]
# What OLMo 2 and Phi-3 read, with some of what they do not.
OLMO2 = {
    **{key: FOREIGN[key] for key in (
        "is_causal", "mlp_bias", "sliding_window", "layer_types", "partial_rotary_factor", "rope_theta", "clip_qkv",
        "use_qk_norm", "layer_norm_eps", "tie_last_hidden_states", "transformers_weights",
    )},
    "per_layer_config": [{"1": {"rms_norm_eps": 0.5}}, {}],
    "attention_bias": [False, None],
    "head_dim": [8, 16, None],
    "rope_scaling": [ROPES[4], ROPES[7], ROPES[8], ROPES[10], ROPES[12], ROPES[14], ROPES[17], ROPES[19], ROPES[20]],
    "rope_parameters": [None, {}, *ROPES[4:8], ROPES[15], ROPES[21]],
}
OLMO2_TOGETHER = [{"num_key_value_heads": None, "head_dim": None}, {"rope_scaling": LINEAR, "rope_parameters": THETA}]
LONG = {"short_factor": [1.0, 1.3, 1.6, 1.9], "long_factor": [1.0, 2.5, 4.0, 5.5]}
HALF = {name: values[:2] for name, values in LONG.items()}
LONGROPE = {"rope_type": "longrope", "rope_theta": 100.0, **LONG}
PHI3 = {
    **{key: FOREIGN[key] for key in ("is_causal", "attention_bias", "layer_types", "rope_theta")},
    "per_layer_config": [{"1": {"rms_norm_eps": 0.5}}, {}],
    "head_dim": [8, 16, None],
    "sliding_window": [None, 3, 64, 0, -1],
    "partial_rotary_factor": [0.25, 1.0, 0.3, 0, None],
    "original_max_position_embeddings": [4, 12, None],
    "rope_scaling": [None, {}, THETA, LINEAR, {"type": "longrope", **HALF}],
    "rope_parameters": [None, {}, {**THETA, "partial_rotary_factor": 1.0}, {**THETA, "partial_rotary_factor": 1.5}],
}
LONGROPES = [
    {**LONGROPE, "factor": 2.0},
    {**LONGROPE, "factor": 0.5},
    {**LONGROPE, "factor": "x"},
    {**LONGROPE, "attention_factor": 2.0},
    {**LONGROPE, "attention_factor": 2.0, "factor": 4.0},
    {**LONGROPE, "original_max_position_embeddings": 40},
    {**LONGROPE, "partial_rotary_factor": 0.5, **HALF},
    {**LONGROPE, "partial_rotary_factor": 0.5},
    {**LONGROPE, "long_factor": LONG["short_factor"]},
    {**LONGROPE, "long_factor": LONG["long_factor"][:3]},
    {**LONGROPE, "short_factor": "x"},
    {key: value for key, value in LONGROPE.items() if key != "short_factor"},
    # With that field transformers 5.24 takes it for longrope, and without fails; published files are without.
    {"type": "su", **LONG, "original_max_position_embeddings": 9},
    {"type": "yarn", **LONG},
    {"type": "longrope", **LONG, "rope_theta": 500.0},
    {**LONGROPE, "rope_type": "llama3"},
    {"rope_type": "default", "rope_theta": 100.0},
]
PHI3_LONG = {
    "original_max_position_embeddings": [4, 12, 11, 64, 0, None, "9"],
    "max_position_embeddings": [128, 32],
    "partial_rotary_factor": [0.5],
    "rope_theta": [500.0],
    "rope_scaling": [None, {}, *LONGROPES[8:11], *LONGROPES[12:15]],
    "rope_parameters": LONGROPES,
    "rms_norm_eps": [0.5],
}
# What to try of fixtures whose golden is to be small: values by field, and fields together.
SMALL = {
    "idefics2": (
        {**{k: FOREIGN[k] for k in ("is_causal", "per_layer_config", "rope_theta", "transformers_weights")},
         "image_token_id": [431], "image_token_index": [431], "tie_word_embeddings": [True], "use_resampler": [False],
         "perceiver_config": [None, {}], "hidden_size": [9]},
        [{"perceiver_config.hidden_size": 4096, "text_config.rms_norm_eps": 0.5},
         {"perceiver_config.rms_norm_eps": 0.5, "perceiver_config.hidden_size": 4096}],
    ),
    "gemma3_text": (GEMMA3, GEMMA3_TOGETHER),
    "olmo2": (OLMO2, OLMO2_TOGETHER),
    "phi3": (PHI3, [{"num_key_value_heads": None}]),
    "phi3-longrope": (PHI3_LONG, [{"original_max_position_embeddings": 12, "rope_scaling": LONGROPES[0]}]),
}
# The parts of those that have some, with fields that are tried in each.
PARTS = {
    "idefics2": {
        "text_config": {k: FOREIGN[k] for k in (
            "attention_bias", "is_causal", "sliding_window", "layer_types", "rope_theta", "use_bidirectional_attention")}
        | {"model_type": ["llama", "qwen2", None], "tie_word_embeddings": [True], "rope_scaling": ROPES[4:9]},
        "vision_config": {"model_type": ["idefics2", "siglip_vision_model"], "image_size": [70, [56, 56]], "is_causal": [True],
                          "qkv_bias": [False], "vision_use_head": [True], "per_layer_config": [{"1": {"layer_norm_eps": 0.5}}]},
        "perceiver_config": {"model_type": ["idefics2"], "qk_layer_norms_perceiver": [True], "intermediate_size": [9],
                             "is_causal": [True], "use_resampler": [False], "rms_norm_eps": [0.5]},
    },
}  # fmt: skip
TOGETHER["qwen3"] = [{**values, "sliding_window": values.get("sliding_window", 4)} for values in TOGETHER["qwen2"]]
VISION_FOREIGN = {k: FOREIGN[k] for k in [
    "attention_bias", "qkv_bias", "is_causal", "logit_scale", "layer_types", "tie_last_hidden_states", "pruned_heads",
    "per_layer_config", "quantization_config", "partial_rotary_factor", "use_qk_norm", "hidden_activation",
    "norm_eps", "sliding_window",
]}  # fmt: skip
VISION_FOREIGN["vision_use_head"] = [False, True]
VISION_FOREIGN["use_mean_pooling"] = [True]
VISION_FOREIGN["vision_feature_layer"] = [-1]
DUAL_TEXT_FOREIGN = {k: FOREIGN[k] for k in [
    "attention_bias", "is_causal", "layer_types", "sliding_window", "tie_last_hidden_states", "per_layer_config",
    "quantization_config", "partial_rotary_factor", "rope_theta",
]}  # fmt: skip


def changes(fixture, config):
    """(set, remove) of one field each, by path."""

    def section(prefix, values, foreign):
        for key, value in values.items():
            if isinstance(value, dict) and key.endswith("_config"):
                continue
            yield None, prefix + key
            for other in variations(key, value):
                yield {prefix + key: other}, None
        for key, others in foreign.items():
            for other in others:
                if key not in values or other not in variations(key, values[key]):
                    yield {prefix + key: other}, None

    family = config["model_type"]
    if fixture in SMALL:
        own, together = SMALL[fixture]
        ignored = ("architectures", "transformers_version", "torch_dtype", "initializer_range", "use_cache",
                   "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "model_type")  # fmt: skip
        # Of sizes no more than one that the tensors do not have; of the same family's second fixture none.
        fields = {} if fixture == "phi3-longrope" else {k: v for k, v in config.items() if k not in ignored}
        for values, removed in section("", fields, {}):
            if removed or next(iter(values)) not in own and list(values.values()) not in ([0], [-1], ["1"], [None]):
                yield values, removed
        yield from section("", {}, own)
        for values in together:
            yield values, None
        for name, foreign in PARTS.get(fixture, {}).items():
            values = {k: v for k, v in config[name].items() if k not in ignored}
            for values, removed in section(f"{name}.", values, foreign):
                if removed or list(values.values()) not in ([0], [-1], ["1"], ["x"]):
                    yield values, removed
        return
    if family in OWN:
        ropes = {} if family == "gpt2" else {k: ROPES for k in ("rope_scaling", "rope_parameters")}
        if fixture != family:
            yield from section("", config, {})
            return
        foreign = {**FOREIGN, **ropes}
        own = {key: [*foreign.get(key, []), *values] for key, values in OWN[family].items()}
        yield from section("", config, {**foreign, **own})
        for values in TOGETHER[family]:
            yield values, None
        return
    if family in ("llama", "mistral"):
        ropes = {k: ROPES for k in ("rope_scaling", "rope_parameters")}
        if fixture != family:  # other sizes of a family: what they have in common is tried once
            yield from section("", config, {"rope_parameters": ROPES[-3:]})
            return
        yield from section("", config, {**FOREIGN, **ropes})
        yield {"rope_scaling": {"rope_type": "linear", "factor": 4.0},
               "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, None  # fmt: skip
        yield {"rope_scaling": {}, "rope_theta": 77.0, "rope_parameters": {"rope_type": "default"}}, None
        yield {"rope_scaling": None, "rope_theta": 77.0, "rope_parameters": {"rope_theta": 500.0}}, None
        yield {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 64},
               "original_max_position_embeddings": 16}, None  # fmt: skip
        yield {"num_key_value_heads": None, "head_dim": None}, None
        if "max_window_layers" in config:  # read where layer_types is silent, as it is in published files
            for key, value in [("max_window_layers", 0), ("max_window_layers", 2), ("max_window_layers", 28),
                               ("use_sliding_window", False), ("sliding_window", None), ("sliding_window", 4)]:  # fmt: skip
                yield {"layer_types": None, key: value}, None
        return
    if family == "t5":
        yield from section("", config, {
            **FOREIGN,
            "feed_forward_proj": ["relu", "gated-gelu", "gated-silu", "gelu", "gated-relu", "gelu-x", "gated-no_such"],
            "dense_act_fn": ACTIVATIONS,
            "scale_decoder_outputs": [True, False],
            "hidden_size": [48, 64],
            "num_attention_heads": [2, 4],
            "num_hidden_layers": [1, 3],
            "head_dim": [8, 12],
        })  # fmt: skip
        return
    top = {k: FOREIGN[k] for k in ["quantization_config", "is_causal", "per_layer_config", "rope_theta", "logit_scale",
                                   "transformers_weights", "attention_bias", "compression_config"]}  # fmt: skip
    if family == "llava":
        top |= {
            "image_token_id": [431, 430],
            "image_token_index": [430],
            "vision_feature_layer": [-1, -2, -3, -4, -5, 1, 3, 4, [-1, -2], None],
            "vision_feature_select_strategy": ["full", "default", "other"],
            "tie_word_embeddings": [True],
            "image_seq_length": [576],
            "hidden_size": [9],
            "vocab_size": [9],
            "ignore_index": [-100],
            "image_grid_pinpoints": [[[336, 672]]],
        }
    if family in FILES["qwen-vl"]:
        top |= {
            "image_token_id": [320],
            "video_token_id": [320],
            "vision_start_token_id": [4],
            "tie_word_embeddings": [True, False],
            "hidden_size": [9],
            "rms_norm_eps": [0.5],
            "rope_scaling": [{"type": "mrope", "mrope_section": [3, 3, 2]}],
        }
        mropes = [{**r, "mrope_section": [3, 3, 2]} if r else r for r in ROPES]
        bad = [[2, 3, 2], [8], [2, 3, 2, 1], "x", None, [2.0, 3.0, 3.0]]
        ropes = [*ROPES[:4], *mropes, *({"rope_type": "default", "mrope_section": s} for s in bad)]
        text = {**FOREIGN, "rope_scaling": ropes, "rope_parameters": ropes, "head_dim": [16, 8, None],
                "mrope_section": [[3, 3, 2]], "use_sliding_window": [True], "embed_dim": [9]}  # fmt: skip
        vision = {**VISION_FOREIGN, "head_dim": [16, 8], "num_hidden_layers": [3, 2], "num_attention_heads": [2, 4],
                  "in_chans": [1], "channels": [1], "spatial_patch_size": [7], "rope_theta": [500.0], "mlp_ratio": [2, 4],
                  "window_size": [28, 84, 112, 1], "fullatt_block_indexes": [[], [0, 1, 2], [7], 1, [-1], None],
                  "rope_scaling": [{"rope_type": "linear", "factor": 2.0}, None], "patch_size": [[14, 14]],
                  "rope_parameters": [None, {}, {"rope_theta": 500.0}, {"rope_type": "default", "rope_theta": 500.0},
                                      {"rope_type": "axial"}, {"rope_type": "linear", "factor": 2.0}],
                  "model_type": ["qwen2_vl", "qwen2_5_vl", "clip_vision_model"], "layer_norm_eps": [0.1],
                  "rms_norm_eps": [0.1], "embed_dim": [32], "out_hidden_size": [64], "tokens_per_second": [2]}  # fmt: skip
        yield from section("vision_config.", config["vision_config"], vision)
        if family == "qwen2_5_vl":  # the rest is the same code
            return
        yield from section("", config, top)
        yield from section("text_config.", config["text_config"], text)
        # As published: without a text_config.
        flat = {k: v for k, v in config["text_config"].items() if k not in ("model_type", "rope_parameters")}
        mrope = {"type": "mrope", "mrope_section": [2, 3, 3]}
        yield {"text_config": None, **flat, "rope_theta": 1000000.0, "rope_scaling": mrope}, None
        yield {"text_config": None, **flat, "rope_theta": 1000000.0, "rope_scaling": {**mrope, "mrope_section": [3, 3, 2]}}, None
        yield {"text_config": None, **flat, "rope_theta": 500.0, "rope_scaling": mrope}, None
        yield {"text_config": None, **flat, "rope_scaling": mrope, "rms_norm_eps": 0.5}, None
        yield {"text_config.use_sliding_window": True, "text_config.sliding_window": 4, "text_config.layer_types": None,
               "text_config.max_window_layers": 1}, None  # fmt: skip
        return
    if family == "clip":
        text, vision = config["text_config"], config["vision_config"]
        top |= {
            "text_config_dict": [None, text, {**text, "hidden_act": "relu"}, {"hidden_act": "relu"}, {}],
            "vision_config_dict": [None, vision, {**vision, "layer_norm_eps": 0.5}, {"layer_norm_eps": 0.5}],
            "logit_scale_init_value": [1.0],
        }
    yield from section("", config, top)
    ropes = {k: ROPES[:10] for k in ("rope_scaling", "rope_parameters")} if family == "llava" else {}
    text = {**FOREIGN, **ropes} if family == "llava" else DUAL_TEXT_FOREIGN
    yield from section("text_config.", config["text_config"], text)
    yield from section("vision_config.", config["vision_config"], VISION_FOREIGN)


def main():
    made = sys.argv[1:] or list(MODELS)
    for name, fixtures in FILES.items():
        if any(fixture in made for fixture in fixtures):
            write(name, made, {fixture: MODELS[fixture][1:] for fixture in fixtures}, changes)


main()
