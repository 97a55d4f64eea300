"""Stage 4: puts what was trained where the library loads it from: weights/llm and weights/vlm.

    python assemble.py --base DIR --llm DIR --vlm DIR [--layer L] [--untouched DIR]

--layer is the layer of task vectors, chosen on validation items; it is written into the config as the default.
--untouched writes a control: the same tower on SmolLM2 as it is.
"""

import argparse
import hashlib
import json
import os
import shutil

from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from prompts import IMAGE_TOKEN, ROOT
from vision import PROCESSOR, vlm_config

BASE_NAME = "smollm2-135m-instruct"
BLOCK = 2**23


def tensors_sha256(path: str) -> str:
    """The digest of a base's tensors: docs/checkpoints.md."""
    with open(path, "rb") as file:
        data = file.read()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    whole = hashlib.sha256()
    for name in sorted(header):
        begin, end = header[name]["data_offsets"]
        for at in range(begin, end, BLOCK):
            whole.update(hashlib.sha256(data[start + at: start + min(at + BLOCK, end)]).digest())
    return whole.hexdigest()


def write_json(path: str, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=2)
        file.write("\n")


def copy_adapter(source: str, target: str):
    """The adapter in f16, with the base's name in place of its folder on this machine."""
    os.makedirs(target, exist_ok=True)
    weights = load_file(f"{source}/adapter_model.safetensors")
    save_file({k: v.half() for k, v in weights.items()}, f"{target}/adapter_model.safetensors", {"format": "pt"})
    with open(f"{source}/adapter_config.json") as file:
        config = json.load(file)
    config["base_model_name_or_path"] = BASE_NAME
    config["target_modules"] = sorted(config["target_modules"])
    write_json(f"{target}/adapter_config.json", {k: v for k, v in config.items() if v not in (None, {}, [])})


def write_vlm(folder: str, vision: str, config: dict, assembly: dict):
    os.makedirs(folder, exist_ok=True)
    shutil.copy(f"{vision}/model.safetensors", folder)
    write_json(f"{folder}/config.json", {**config, "architectures": ["LlavaForConditionalGeneration"], "dtype": "float16"})
    write_json(f"{folder}/preprocessor_config.json", PROCESSOR)
    write_json(f"{folder}/assembly.json", assembly)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--llm", required=True)
    parser.add_argument("--vlm", required=True)
    parser.add_argument("--layer", type=int)
    parser.add_argument("--untouched")
    args = parser.parse_args()
    base = {"name": BASE_NAME, "sha256": tensors_sha256(f"{args.base}/model.safetensors"), "command": "npm run setup -- model"}
    assembly = {"format": "xpatch-assembly", "version": 1, "base": base}

    copy_adapter(args.llm, f"{ROOT}/weights/llm")
    write_json(f"{ROOT}/weights/llm/assembly.json", {**assembly, "adapters": ["."]})

    config = vlm_config(LlamaConfig.from_pretrained(args.base)).to_dict()
    if args.layer is not None:
        config["text_config"]["task_vector_layer"] = args.layer
    vlm = {**assembly, "prefix": "language_model.", "tokens": {str(IMAGE_TOKEN): "<image>"}}
    copy_adapter(f"{args.vlm}/adapter", f"{ROOT}/weights/vlm/adapter")
    write_vlm(f"{ROOT}/weights/vlm", args.vlm, config, {**vlm, "adapters": ["../llm", "adapter"]})
    if args.untouched:
        write_vlm(args.untouched, args.vlm, config, vlm)
    print("wrote weights/llm and weights/vlm")


if __name__ == "__main__":
    main()
