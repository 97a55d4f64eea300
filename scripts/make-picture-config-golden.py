"""
Makes test/fixtures/configs/pictures.json: what transformers makes of the config of a model that takes pictures with one field
changed, added or removed (config_changes.py), in each of its parts. Tried are the fields of the fixture's config, those that the
config classes of transformers have beside, and some of other families'. test/model/checkpoint/config/picture-config-fuzz.test.ts
holds xpatch to it.

    python scripts/make-picture-config-golden.py             all fixtures
    python scripts/make-picture-config-golden.py fuyu mllama these; the others stay
"""

import copy
import dataclasses
import sys

import torch
import transformers
from config_changes import ACTIVATIONS, FOREIGN, IDS, LLAMA3, pixels, write

TEXT_AFTER = 4  # IDs in front of the picture


def around(token, places):
    """The prompt, with the picture's places behind the first ids; and where they are."""
    ids = IDS[:TEXT_AFTER] + [token] * places + IDS[TEXT_AFTER:]
    return {"input_ids": torch.tensor([ids])}, torch.tensor([[int(i == token) for i in ids]])


def run(token, places, inputs=lambda places: {}):
    def run(model):
        prompt, at = around(token, places)
        return model(**prompt, **inputs(at)).logits[0, -1]

    return run


def patches(rows, columns, side, merge, frames):
    """As Qwen-VL's processor has them: blocks of merge x merge patches, all frames alike."""
    planes = pixels(rows * side, columns * side)[0]
    blocks = planes.reshape(3, rows // merge, merge, side, columns // merge, merge, side).permute(1, 4, 2, 5, 0, 3, 6)
    return blocks.unsqueeze(5).expand(-1, -1, -1, -1, -1, frames, -1, -1).reshape(rows * columns, -1)


def plain_patches(height, width, side):
    """Row by row; of each its rows, columns and channels."""
    planes = pixels(height, width)[0].reshape(3, height // side, side, width // side, side)
    return planes.permute(1, 3, 2, 4, 0).reshape(1, -1, 3 * side * side)


def idefics(at):
    seen = (at.cumsum(1) > 0).long().unsqueeze(2)
    return {"pixel_values": pixels(28).unsqueeze(0), "image_attention_mask": seen}


def mllama(at):
    """One tile of four."""
    values = torch.zeros(1, 1, 4, 3, 28, 28)
    values[0, 0, 0] = pixels(28)[0]
    seen = torch.zeros(1, at.shape[1], 1, 4, dtype=torch.long)
    seen[0, :, 0, 0] = at.cumsum(1)[0] > 0
    return {
        "pixel_values": values,
        "aspect_ratio_ids": torch.tensor([[1]]),
        "aspect_ratio_mask": torch.tensor([[[1, 0, 0, 0]]]),
        "cross_attention_mask": seen,
    }


# What instructblip's Q-Former reads of the prompt, in the ids of its own tokenizer.
INSTRUCTION = [2, 6, 17, 28, 40, 138, 32, 41, 139, 3]


def blip2_t5(model):
    prompt, _ = around(155, 6)
    start = torch.tensor([[model.config.text_config.decoder_start_token_id, *IDS[:2]]])
    return model(**prompt, pixel_values=pixels(28), decoder_input_ids=start).logits[0, -1]


def siglip2(model):
    found = model(
        input_ids=torch.tensor([[*IDS, 1, *[0] * 7]]),
        pixel_values=plain_patches(24, 32, 8),
        pixel_attention_mask=torch.ones(1, 12, dtype=torch.long),
        spatial_shapes=torch.tensor([[3, 4]]),
    )
    return torch.cat([found.logits_per_image[0], found.text_embeds[0, :3], found.image_embeds[0, :3]])


def tiles(size, side, count):
    return lambda at: {
        "pixel_values": pixels(side, count=count).unsqueeze(0),
        "image_sizes": torch.tensor([size]),
    }


MODELS = {
    "idefics": ("IdeficsForVisionText2Text", run(432, 1, idefics)),
    "smolvlm": ("SmolVLMForConditionalGeneration", run(318, 4, lambda at: {"pixel_values": pixels(32).unsqueeze(0)})),
    # Two tiles beside each other, and the whole: 16 + 4 * (8 + 1) places.
    "llava_next": ("LlavaNextForConditionalGeneration", run(431, 52, tiles([56, 112], 56, 3))),
    # The same shrunk; a map of 4 x 8 has not more than 2 x 16.
    "llava_onevision": ("LlavaOnevisionForConditionalGeneration", run(319, 52, tiles([28, 56], 28, 3))),
    "paligemma": (
        "PaliGemmaForConditionalGeneration",
        run(432, 16, lambda at: {"pixel_values": pixels(28), "token_type_ids": torch.zeros_like(at)}),
    ),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        run(434, 16, lambda at: {"pixel_values": pixels(56), "token_type_ids": at}),
    ),
    "qwen3_vl": (
        "Qwen3VLForConditionalGeneration",
        run(
            321,
            6,
            lambda at: {
                "pixel_values": patches(4, 6, 8, 2, 2),
                "image_grid_thw": torch.tensor([[1, 4, 6]]),
                "mm_token_type_ids": at,
            },
        ),
    ),
    "fuyu": ("FuyuForCausalLM", run(410, 6, lambda at: {"pixel_values": plain_patches(20, 30, 10)})),
    "llava-pixtral": (
        "LlavaForConditionalGeneration",
        run(431, 6, lambda at: {"pixel_values": pixels(16, 24), "image_sizes": torch.tensor([[16, 24]])}),
    ),
    "blip2-opt": ("Blip2ForConditionalGeneration", run(320, 6, lambda at: {"pixel_values": pixels(28)})),
    "blip2-t5": ("Blip2ForConditionalGeneration", blip2_t5),
    "instructblip-llama": (
        "InstructBlipForConditionalGeneration",
        run(432, 6, lambda at: {"pixel_values": pixels(28), "qformer_input_ids": torch.tensor([INSTRUCTION])}),
    ),
    "mllama": ("MllamaForConditionalGeneration", run(320, 1, mllama)),
    "internvl": ("InternVLForConditionalGeneration", run(321, 4, lambda at: {"pixel_values": pixels(28)})),
    "internvl-qk-norm": ("InternVLForConditionalGeneration", run(321, 4, lambda at: {"pixel_values": pixels(28)})),
    "siglip2": ("Siglip2Model", siglip2),
}  # fmt: skip

# Which no loader reads, or only generation.
IGNORED = {
    "architectures", "transformers_version", "torch_dtype", "dtype", "initializer_range", "initializer_factor", "init_std",
    "alpha_initializer", "alphas_initializer_range", "freeze_lm_head", "freeze_text_layers", "freeze_vision_layers",
    "freeze_text_module_exceptions", "freeze_vision_module_exceptions", "use_cache", "return_dict", "id2label", "label2id",
    "problem_type", "output_hidden_states", "chunk_size_feed_forward", "layerdrop", "classifier_dropout",
    "bos_token_id", "eos_token_id", "pad_token_id", "_pad_token_id", "model_type",
}  # fmt: skip

# Without them a part is as wide as published ones, which no small file fits.
WIDTHS = {"hidden_size", "embed_dim", "d_model"}


def is_dropout(key):
    return "dropout" in key or key == "projection_dropout"


# Fields of other classes than a part's own.
TEXT = {k: FOREIGN[k][:1] for k in (
    "attention_bias", "mlp_bias", "sliding_window", "layer_types", "is_causal", "use_bidirectional_attention",
    "final_logit_softcapping", "attn_logit_softcapping", "query_pre_attn_scalar", "use_sliding_window", "qk_layernorm",
    "partial_rotary_factor", "rope_theta", "per_layer_config", "logits_scaling", "embedding_multiplier",
)} | {
    "rope_scaling": [{"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 4.0},
                     {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
                     {**LLAMA3, "original_max_position_embeddings": 16}],
    "rope_parameters": [{"rope_type": "default", "rope_theta": 500.0}, {"rope_type": "linear", "factor": 4.0}],
    "tie_word_embeddings": [True, False],
    "model_type": ["no_such"],
    "head_dim": [12, 8],
    "num_key_value_heads": [1],
    "add_cross_attention": [True],
}  # fmt: skip
VISION = {
    "attention_bias": [True, False], "qkv_bias": [False, True], "is_causal": [True], "use_qk_norm": [True],
    "hidden_activation": ["relu"], "norm_eps": [0.1], "rms_norm_eps": [0.1], "vision_use_head": [True, False],
    "use_mean_pooling": [False], "per_layer_config": [{"1": {"layer_norm_eps": 0.5}}], "pruned_heads": [{"0": [0]}],
    "tie_last_hidden_states": [True], "model_type": ["no_such", "clip_vision_model", "siglip_vision_model"],
    "rope_theta": [500.0], "rope_parameters": [{"rope_type": "default", "rope_theta": 500.0}], "head_dim": [4],
    "use_absolute_position_embeddings": [False], "layer_scale_init_value": [1.0], "use_mask_token": [True],
    "sliding_window": [4], "vision_feature_layer": [0], "mlp_ratio": [2.0], "num_key_value_heads": [1],
    "position_embedding_type": ["relative_key"], "embed_dim": [16],
}  # fmt: skip
TOP = {
    "is_causal": [False], "per_layer_config": [{"1": {"rms_norm_eps": 0.5}}], "logit_scale": [0.1], "rope_theta": [500.0],
    "transformers_weights": ["other.safetensors"], "image_token_id": [7], "image_token_index": [7],
    "image_seq_length": [576], "vision_feature_layer": [-1, -2, 0, 1, [-1, -2], None], "multimodal_projector_bias": [False],
    "vision_feature_select_strategy": ["full", "default", "other", None], "hidden_size": [9], "vocab_size": [9],
    "image_grid_pinpoints": [[[336, 672]]], "use_image_newline_parameter": [False], "mm_patch_merge_type": ["flat"],
    "tie_word_embeddings": [True, False], "use_resampler": [False], "pixel_shuffle_factor": [3], "scale_factor": [2],
    "mm_tokens_per_image": [4], "is_encoder_decoder": [True, False], "use_qformer_text_input": [True],
    "position_embedding_type": ["relative_key"], "rms_norm_eps": [0.5], "hidden_act": ["relu"], "spatial_merge_size": [2],
    "image_text_hidden_size": [16], "tie_last_hidden_states": [True], "use_decoder_only_language_model": [True, False],
    "use_bidirectional_attention": [False], "projection_dim": [9], "logit_scale_init_value": [1.0],
}  # fmt: skip
OTHER = {
    "is_causal": [True, False], "per_layer_config": [{"1": {"layer_norm_eps": 0.5}}], "use_resampler": [False],
    "position_embedding_type": ["relative_key"], "use_qformer_text_input": [True], "rms_norm_eps": [0.5],
    "layer_norm_eps": [0.5], "model_type": ["no_such"], "is_decoder": [True], "num_key_value_heads": [1],
    "qk_layer_norms_perceiver": [False], "cross_attention_frequency": [1], "is_encoder_decoder": [True],
}  # fmt: skip
FOREIGN_OF = {"": TOP, "text_config": TEXT, "vision_config": VISION}
DUAL_TEXT = {k: TEXT[k] for k in ("attention_bias", "is_causal", "layer_types", "per_layer_config", "rope_theta", "sliding_window",
                                  "partial_rotary_factor", "model_type")} | {"projection_size": [16], "hidden_act": ["relu"]}  # fmt: skip
# Parts that the same code reads as in another of these fixtures, or in one of make-config-golden.py.
READ_ELSEWHERE = {
    "llava-pixtral": ["text_config"],
    "blip2-t5": ["vision_config", "qformer_config"],
    "instructblip-llama": ["vision_config", "text_config"],
    "internvl-qk-norm": ["", "text_config"],
}
LISTS = {
    "vision_feature_layer": [],
    "image_grid_pinpoints": [[[56, 112]]],
    "cross_attention_layers": [[1], [1, 4], [], [0, 1, 3], [3, 1], [9], "x"],
    "intermediate_layers_indices": [[0, 2], [1, 0], [0], [], [0, 1, 2], [-1, 0], [9]],
    "supported_aspect_ratios": [[[1, 1], [1, 2]]],
    "deepstack_visual_indexes": [[0, 1], [2, 0], [0], [], [0, 1, 2], [9]],
    "layer_types": [["sliding_attention"] * 3, ["full_attention"] * 3],
    "image_size": [[56, 28], [28, 28], 28, 56, 35],
    "patch_size": [[7, 14], 7, [14, 14], 14],
    "vision_aspect_ratio": ["anyres_max_1", "anyres_max_9", "anyres", "pad", "square"],
    "alpha_type": ["vector", "other"],
    "norm_type": ["rms_norm", "other"],
    "feed_forward_proj": ["relu", "gated-gelu", "gated-silu"],
    "model_type": [],
}


def variations(key, value):
    """A few values that a field which is there, or has a default, does not have."""
    if key in ("hidden_act", "projector_hidden_act", "activation_function", "hidden_activation", "dense_act_fn"):
        return [a for a in ("relu", "silu", "gelu", "gelu_pytorch_tanh", "no_such") if a != value]
    if key in LISTS:
        return [*LISTS[key], None]
    if isinstance(value, bool):
        return [not value, None]
    if isinstance(value, int):
        return [None, value + 1, 2 * value, max(value // 2, 1)]
    if isinstance(value, float):
        return [None, max(value * 1000, 0.1)]
    return [None] if value is not None else []


def changes(fixture, config):
    """(set, remove) of one field each, by path."""
    # A copy, in which the class may write.
    given = {k: v for k, v in copy.deepcopy(config).items() if k != "model_type"}
    whole = MODELS[fixture][0].config_class(**given)
    sections = ["", *(key for key, value in config.items() if isinstance(value, dict) and key.endswith("_config"))]
    for section in sections:
        if section in READ_ELSEWHERE.get(fixture, []):
            continue
        values = config[section] if section else config
        own = getattr(whole, section) if section else whole
        foreign = FOREIGN_OF.get(section, OTHER)
        if fixture == "siglip2" and section == "text_config":
            foreign = DUAL_TEXT
        base = {field.name for field in dataclasses.fields(transformers.PreTrainedConfig)}
        by_class = {f.name: getattr(own, f.name, None) for f in dataclasses.fields(own) if f.name not in base}
        prefix = section and f"{section}."
        for key in dict.fromkeys([*values, *by_class, *foreign]):
            if key in IGNORED and key != "model_type" or key.endswith("_config") or is_dropout(key):
                continue
            if key in values and key not in WIDTHS:
                yield None, prefix + key
            tried = variations(key, values.get(key, by_class.get(key))) if key in values or key in by_class else []
            for other in [*tried, *foreign.get(key, [])]:
                if key not in values or other != values[key]:
                    yield {prefix + key: other}, None
    if "perceiver_config" in sections:  # what the other parts are without a config takes gigabytes
        yield None, "perceiver_config"
        yield {"perceiver_config": None}, None


def main():
    global MODELS
    MODELS = {name: (getattr(transformers, kind), run) for name, (kind, run) in MODELS.items()}
    write("pictures", sys.argv[1:] or list(MODELS), MODELS, changes)


main()
