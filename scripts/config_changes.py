"""
What make-config-golden.py and make-picture-config-golden.py share: fields and values that are tried, what transformers makes of a
config, and how that is written. A file has for each fixture its numbers (`plain`); the changes that transformers refuses, and
those that leave the numbers the `same`, each by path; and the changes with the numbers that they give.
"""

import copy
import json
import logging
import math
import tempfile
import warnings
from pathlib import Path

import torch
import transformers

from goldens import FIXTURES

IDS = [20, 31, 42, 53, 64, 75, 86, 97, 108, 119, 130, 141]
TOLERANCE = 1e-6
# Outcomes are the first numbers of the last row, and the root mean square of it.
KEPT = 4


def pixels(height=56, width=None, count=1):
    """Numbers that JavaScript makes too."""
    size = [count, 3, height, width or height]
    values = [math.sin(i * 0.37) for i in range(math.prod(size))]
    return torch.tensor(values, dtype=torch.float64).float().reshape(size)


ACTIVATIONS = ["silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "relu2", "gelu_fast",
               "gelu_10", "mish", "tanh", "linear", "no_such"]  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPES = [
    None,
    {},
    {"rope_type": "default"},
    {"type": "default"},
    {"rope_type": "default", "rope_theta": 500.0},
    {"rope_type": "default", "factor": 4.0},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
    {"rope_type": "linear", "factor": 4.0},
    {"type": "linear", "factor": 4.0},
    {"type": "linear", "rope_type": "default", "factor": 4.0},
    {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
    {"rope_type": "linear", "factor": 4.0, "partial_rotary_factor": 0.5},
    {"rope_type": "linear"},
    {"rope_type": "dynamic", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 64,
     "short_factor": [2.0] * 6, "long_factor": [4.0] * 6},
    LLAMA3,
    {**LLAMA3, "original_max_position_embeddings": 16},
    {**LLAMA3, "original_max_position_embeddings": 16, "rope_theta": 500.0},
    {**LLAMA3, "original_max_position_embeddings": 16, "attention_factor": 2.0},
    {"rope_type": "su", "factor": 4.0},
    {"rope_type": "mrope", "mrope_section": [2, 2, 2]},
    {"full_attention": {"rope_type": "default", "rope_theta": 500.0}},
]  # fmt: skip
# Fields of other families' classes, and of this library's machinery, that a config may have too.
FOREIGN = {
    "attention_bias": [True, False, None],
    "mlp_bias": [True, False],
    "qkv_bias": [True],
    "bias": [True],
    "use_bias": [True],
    "sliding_window": [4, 0, None],
    "use_sliding_window": [True, False],
    "max_window_layers": [1],
    "layer_types": [["sliding_attention"] * 3, ["full_attention"] * 3, ["no_such"] * 3],
    "attention_chunk_size": [4],
    "no_rope_layers": [[0, 0, 0]],
    "is_causal": [False, True, None],
    "is_decoder": [False, True],
    "use_bidirectional_attention": [True],
    "add_cross_attention": [True],
    "partial_rotary_factor": [0.5, 1.0],
    "rotary_pct": [0.5],
    "rotary_dim": [6],
    "rope_theta": [500.0, 500, None],
    "rope_interleaved": [True],
    "original_max_position_embeddings": [16],
    "attn_logit_softcapping": [1.0],
    "final_logit_softcapping": [1.0],
    "query_pre_attn_scalar": [100],
    "attention_multiplier": [0.1],
    "embedding_multiplier": [12.0],
    "residual_multiplier": [0.1],
    "logits_scaling": [8.0],
    "logit_scale": [0.1],
    "scale_emb": [12.0],
    "scale_depth": [1.4],
    "dim_model_base": [256],
    "clip_qkv": [0.1],
    "use_qk_norm": [True],
    "qk_layernorm": [True],
    "parallel_attn": [True],
    "alibi": [True],
    "num_experts": [4],
    "num_local_experts": [4],
    "pretraining_tp": [2],
    "hidden_activation": ["relu"],
    "layer_norm_eps": [0.1],
    "norm_eps": [0.1],
    "norm_epsilon": [0.1],
    "attention_dropout": [0.5],
    "hidden_dropout": [0.5],
    "scale_attn_weights": [False],
    "scale_attention_softmax_in_fp32": [False],
    "attn_implementation": ["eager"],
    "_attn_implementation": ["eager"],
    "tie_last_hidden_states": [True, False],
    "chunk_size_feed_forward": [2],
    "pruned_heads": [{"0": [0]}],
    "tie_encoder_decoder": [True],
    "use_cache": [False],
    "output_hidden_states": [True],
    "output_attentions": [False],
    "num_labels": [1],
    "task_vector_layer": [1],
    "pad_token_id": [5, None],
    "bos_token_id": [5],
    "eos_token_id": [5],
    "torch_dtype": ["float16"],
    "dtype": ["float16"],
    "transformers_weights": ["other.safetensors"],
    "per_layer_config": [{"1": {"rms_norm_eps": 0.5}}, {"1": {"intermediate_size": 48}}, {}],
    "quantization_config": [
        None,
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
        {"bits": 4},
    ],
    "compression_config": [None, {"quant_method": "compressed-tensors", "format": "pack-quantized"}],
}


def variations(key, value):
    """Other values of a field that is there."""
    if key in ("hidden_act", "projector_hidden_act", "activation_function", "hidden_activation"):
        return [a for a in ACTIVATIONS if a != value]
    if key in ("rope_scaling", "rope_parameters"):
        return ROPES
    if isinstance(value, bool):
        return [not value, None, "no"]
    if isinstance(value, int):
        return [None, value + 1, 2 * value, max(value // 2, 1), 0, -1, "1"]
    if isinstance(value, float):
        return [None, value * 1000, 0.0, "x"]
    return [None]


def changed(config, values, removed):
    config = copy.deepcopy(config)
    for path, value in (values or {}).items():
        *outer, key = path.split(".")
        target = config[outer[0]] if outer else config
        target[key] = value
    if removed:
        *outer, key = removed.split(".")
        del (config[outer[0]] if outer else config)[key]
    return config


def outcome(fixture, config, kind, run):
    """The numbers, or why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        weights = FIXTURES / fixture / "model" / "model.safetensors"
        (Path(folder) / "model.safetensors").symlink_to(weights)
        try:
            model, info = kind.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
            )
            if info["missing_keys"] or info["mismatched_keys"]:
                return "tensors are missing"
            with torch.no_grad():
                row = run(model.eval()).double()
        except Exception as error:  # whatever it is that transformers stumbles over
            return f"{type(error).__name__}: {error}"
        if not torch.isfinite(row).all():
            return "not finite"
        return [*row[:KEPT].tolist(), row.square().mean().sqrt().item()]


def write(name, made, models, changes):
    """
    The file of this name, of which the fixtures that are not `made` stay as they are. `models`: their classes, and what is run, by
    fixture; `changes`: (set, remove) by fixture and config.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    path = FIXTURES / "configs" / f"{name}.json"
    for fixture, (kind, run) in models.items():
        if fixture not in made:
            continue
        found = of_fixture(fixture, kind, run, changes)
        old = json.loads(path.read_text())["fixtures"] if path.exists() else {}
        fixtures = {**old, fixture: found}
        written = {
            "transformers": transformers.__version__,
            "fixtures": {name: fixtures[name] for name in models if name in fixtures},
        }
        path.write_text(json.dumps(written, separators=(",", ":")) + "\n")


def of_fixture(fixture, kind, run, changes):
    config = json.loads((FIXTURES / fixture / "model" / "config.json").read_text())
    plain = outcome(fixture, config, kind, run)
    assert isinstance(plain, list), plain
    found = {
        "plain": rounded(plain),
        **{key: {"removed": [], "set": {}, "together": []} for key in ("refused", "same")},
        "numbers": [],
    }
    seen = set()
    for values, removed in changes(fixture, config):
        key = json.dumps([values, removed])
        # transformers 5.24 takes 0 for none there, and fails.
        if key in seen or values == {"vision_feature_layer": 0}:
            continue
        seen.add(key)
        numbers = outcome(fixture, changed(config, values, removed), kind, run)
        if isinstance(numbers, str):
            add(found["refused"], values, removed)
        elif all(abs(a - b) < TOLERANCE for a, b in zip(numbers, plain)):
            add(found["same"], values, removed)
        else:
            found["numbers"].append([values or removed, rounded(numbers)])
    print(fixture, len(seen), flush=True)
    return found


def add(group, values, removed):
    if removed:
        group["removed"].append(removed)
    elif len(values) == 1:
        [(path, value)] = values.items()
        group["set"].setdefault(path, []).append(value)
    else:
        group["together"].append(values)


def rounded(numbers):
    return [float(f"{x:.6g}") for x in numbers]
