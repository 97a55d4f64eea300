"""
Makes test/fixtures/fp8: a Llama with weights in 8-bit floats, with a scale a tensor, a row or a block, and what
transformers computes with it once it has dequantised them (to bf16, as its config says).

    python scripts/make-fp8-golden.py
"""

import json
import shutil

import torch
from safetensors.torch import load_file
from transformers import FineGrainedFP8Config, LlamaForCausalLM

from goldens import FIXTURES, save, write_json

SOURCE = FIXTURES / "llama-gqa-tied" / "model"
FOLDER = FIXTURES / "fp8"
LAYERS = 2
BLOCK = (16, 24)
IDS = [20, 31, 42, 53, 64, 75, 86, 97]


def quantise(weight, shape, kind):
    """Values and scales; a scale for each of so many rows and columns."""
    rows, columns = shape
    down, across = -(-weight.shape[0] // rows), -(-weight.shape[1] // columns)
    blocks = weight.reshape(down, rows, across, columns)
    scale = blocks.abs().amax(dim=(1, 3)) / torch.finfo(kind).max
    return (blocks / scale[:, None, :, None]).reshape(weight.shape).to(kind), scale


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    model = FOLDER / "model"
    model.mkdir(parents=True)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copyfile(SOURCE / name, model / name)
    config = json.loads((SOURCE / "config.json").read_text())
    config |= {"num_hidden_layers": LAYERS, "torch_dtype": "bfloat16"}
    config["quantization_config"] = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": list(BLOCK),
    }
    write_json(model / "config.json", config)

    tensors = {}
    for name, weight in load_file(SOURCE / "model.safetensors").items():
        if "layers." in name and int(name.split(".")[2]) >= LAYERS:
            continue
        if not name.endswith("proj.weight"):
            tensors[name] = weight.bfloat16()
            continue
        kind = torch.float8_e5m2 if "down_proj" in name else torch.float8_e4m3fn
        shape = BLOCK
        if "q_proj" in name or "k_proj" in name:
            shape = tuple(weight.shape)
        if "v_proj" in name:
            shape = (1, weight.shape[1])
        tensors[name], scale = quantise(weight, shape, kind)
        if "k_proj" in name:
            scale = scale.reshape(())
        tensors[name + "_scale_inv"] = scale.bfloat16() if "up_proj" in name else scale
    save(tensors, model / "model.safetensors")

    loaded = LlamaForCausalLM.from_pretrained(
        model, dtype=torch.bfloat16, quantization_config=FineGrainedFP8Config(weight_block_size=BLOCK, dequantize=True)
    )
    assert loaded.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    loaded = loaded.float().eval()
    loaded.set_attn_implementation("eager")
    # RoPE's frequencies in f32, as they are computed.
    rope = loaded.model.rotary_emb
    rope.inv_freq = rope.compute_default_rope_parameters(loaded.config)[0]
    with torch.no_grad():
        logits = loaded(input_ids=torch.tensor([IDS])).logits[0, -1]
    write_json(FOLDER / "golden.json", {"ids": IDS, "logits": [float(f"{x:.7g}") for x in logits.tolist()]})


main()
