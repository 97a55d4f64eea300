"""Writes test/fixtures/control-vectors/llama.gguf with gguf-py, in the calls that repeng's ControlVector.export_gguf makes: directions
of layers 1 and 2 for the tiny Llama of test/fixtures/llama.

    pip install gguf numpy
    python scripts/make-control-vector.py
"""
from pathlib import Path

import gguf
import numpy as np

ROOT = Path(__file__).parent.parent
WIDTH = 48

path = ROOT / "test/fixtures/control-vectors/llama.gguf"
writer = gguf.GGUFWriter(path, "controlvector")
writer.add_string("controlvector.model_hint", "llama")
writer.add_uint32("controlvector.layer_count", 2)
for layer in (2, 1):
    writer.add_tensor(f"direction.{layer}", ((np.arange(WIDTH) % 7 - 3) * layer / 8).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
