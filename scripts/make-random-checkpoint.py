"""Writes a checkpoint of a published model's shape with random weights, for measuring; its answers mean nothing.

    python scripts/make-random-checkpoint.py smolvlm-256m --out DIR [--layers N]

Configs, tokenizer and processor are those of a tiny fixture of the family (test/fixtures), with the sizes of SHAPES in them; --layers
keeps the language model to fewer. Shards of a gigabyte in float16, under the names that transformers has for its modules.
"""

import argparse
import json
import os
import shutil

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import AutoConfig, AutoModelForImageTextToText

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "test", "fixtures")
SHARD = 10**9

# Sizes as published: HuggingFaceTB/SmolVLM-256M-Instruct, Qwen/Qwen2-VL-2B-Instruct, HuggingFaceM4/idefics2-8b.
SHAPES = {
    "smolvlm-256m": ("smolvlm", {
        "scale_factor": 4, "tie_word_embeddings": False,
        "text_config": {"tie_word_embeddings": False, "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64,
                        "intermediate_size": 1536, "vocab_size": 49280, "max_position_embeddings": 8192},
        "vision_config": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
                          "image_size": 512, "patch_size": 16},
    }),
    "qwen2-vl-2b": ("qwen2_vl", {
        "text_config": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
                        "intermediate_size": 8960, "vocab_size": 151936, "max_position_embeddings": 32768,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [16, 24, 24]}},
        "vision_config": {"depth": 32, "embed_dim": 1280, "num_heads": 16, "hidden_size": 1536, "mlp_ratio": 4, "patch_size": 14},
    }),
    "idefics2-8b": ("idefics2", {
        "text_config": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
                        "intermediate_size": 14336, "vocab_size": 32003, "max_position_embeddings": 32768},
        "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304,
                          "image_size": 980, "patch_size": 14},
        "perceiver_config": {"hidden_size": 4096, "resampler_n_latents": 64, "resampler_depth": 3, "resampler_n_heads": 16,
                             "resampler_head_dim": 96, "num_key_value_heads": 4},
    }),
}
PROCESSORS = {
    "smolvlm": {"size": {"longest_edge": 2048}, "max_image_size": {"longest_edge": 512}},
    "idefics2": {"size": {"longest_edge": 980, "shortest_edge": 378}},
    "qwen2_vl": {"patch_size": 14, "min_pixels": 3136, "max_pixels": 12845056},
}


def merge(into: dict, changes: dict):
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict) and key != "rope_parameters":
            merge(into[key], value)
        else:
            into[key] = value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--out", required=True)
    parser.add_argument("--layers", type=int)
    args = parser.parse_args()
    family, sizes = SHAPES[args.shape]
    fixture = os.path.join(FIXTURES, family, "model")
    os.makedirs(args.out, exist_ok=True)
    for name in os.listdir(fixture):
        if not name.startswith("model") and name != "config.json":
            shutil.copyfile(os.path.join(fixture, name), os.path.join(args.out, name))
    with open(os.path.join(fixture, "config.json")) as file:
        config = json.load(file)
    config["text_config"].pop("layer_types", None)  # one a layer
    merge(config, sizes)
    if args.layers:
        config["text_config"]["num_hidden_layers"] = args.layers
    write_json(args.out, "config.json", config)
    with open(os.path.join(fixture, "preprocessor_config.json")) as file:
        processor = json.load(file)
    merge(processor, PROCESSORS[family])
    write_json(args.out, "preprocessor_config.json", processor)
    if os.path.exists(os.path.join(fixture, "processor_config.json")):
        with open(os.path.join(fixture, "processor_config.json")) as file:
            write_json(args.out, "processor_config.json", json.load(file) | {"image_seq_len": 64})

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(args.out))
    tied = set(getattr(model, "_tied_weights_keys", None) or []) if model.config.tie_word_embeddings else set()
    pool = np.random.default_rng(0).uniform(-1 / 32, 1 / 32, 2**20).astype(np.float16)
    shard, size, shards = {}, 0, []
    for name, tensor in model.state_dict().items():
        if name in tied:
            continue
        count = tensor.numel()
        is_norm = name.endswith("norm.weight") or "layer_norm" in name or ".norm" in name and name.endswith("weight")
        values = np.ones(count, np.float16) if is_norm else np.resize(np.roll(pool, -len(shards) * 977 - len(shard) * 31), count)
        if size + 2 * count > SHARD and shard:
            shards.append(shard_file(args.out, len(shards), shard))
            shard, size = {}, 0
        shard[name] = values.reshape(tuple(tensor.shape))
        size += 2 * count
    shards.append(shard_file(args.out, len(shards), shard))
    index = {name: file for file, names in shards for name in names}
    write_json(args.out, "model.safetensors.index.json", {"metadata": {}, "weight_map": index})


def shard_file(out: str, number: int, tensors: dict):
    name = f"model-{number + 1:05d}.safetensors"
    save_file(tensors, os.path.join(out, name))
    return name, list(tensors)


def write_json(out: str, name: str, content: dict):
    with open(os.path.join(out, name), "w") as file:
        json.dump(content, file, indent=2)


if __name__ == "__main__":
    main()
