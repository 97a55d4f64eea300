"""Packed matrices as bitsandbytes and gguf-py make them: test/fixtures/packed/golden.safetensors.

    pip install torch bitsandbytes gguf safetensors
    python scripts/make-packed-golden.py test/fixtures/packed/golden.safetensors

Weights are small and drawn with a seed; some groups are all zero, some have one large number. What bitsandbytes makes on a
CPU has the same bits as what it makes on a GPU, but for ties and zeros, of which there are none here.
"""
import sys
import numpy as np
import torch
import bitsandbytes.functional as bnb
import gguf
from safetensors.torch import save_file

torch.manual_seed(7)
out = {}
for name, shape, dtype in [("even", (8, 128), torch.float32), ("odd", (7, 50), torch.bfloat16), ("long", (140, 128), torch.float16)]:
    weight = torch.randn(shape) * 0.05
    weight[1] *= 20
    if name != "even":
        weight[2, 3] = 4
    weight = weight.to(dtype)
    keep = name != "long"
    if keep:
        out[f"{name}.weight"] = weight
    else:
        # Recomputed by the test.
        i = torch.arange(shape[0] * shape[1], dtype=torch.float64)
        weight = (((i * 7919) % 2003 - 1001) / 8192 * (1 + i // 640 % 5)).to(torch.float16).reshape(shape)
    for kind in ["nf4", "fp4"]:
        for nested in [False, True]:
            packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
            key = f"{name}.{kind}{'.nested' if nested else ''}"
            state = state.as_dict(packed=True)
            if keep and not nested:
                out[key] = packed
                out[f"{key}.dequantised"] = bnb.dequantize_4bit(packed, bnb.QuantState.from_dict(dict(state), torch.device("cpu"))).float() if name == "even" else torch.zeros(1)
            for part, value in state.items():
                if part == "quant_map" or (part == "nested_quant_map" and key != "even.nf4.nested"):
                    continue
                if not nested or part != "quant_map":
                    out[f"{key}.{part}"] = value.clone()
    if name == "even":
        for kind in ["Q8_0", "Q4_0", "Q4_1"]:
            raw = gguf.quants.quantize(weight.numpy(), getattr(gguf.GGMLQuantizationType, kind))
            out[f"{name}.{kind}"] = torch.from_numpy(raw.copy())

# K-quants: random bytes with sensible factors, and what gguf-py reads of them.
rng = np.random.default_rng(3)
for kind, size, factors in [("Q4_K", 144, [0, 2]), ("Q6_K", 210, [208])]:
    raw = rng.integers(0, 256, (3, size), dtype=np.uint8)
    for at in factors:
        raw[:, at : at + 2] = rng.uniform(-0.01, 0.01, 3).astype(np.float16).view(np.uint8).reshape(3, 2)
    out[kind] = torch.from_numpy(raw.copy())
    values = gguf.quants.dequantize(raw, getattr(gguf.GGMLQuantizationType, kind))
    out[f"{kind}.dequantised"] = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32)))
save_file(out, sys.argv[1])
