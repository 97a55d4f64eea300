"""
Whether versions of transformers make the same of folders that `xpatch export` wrote. Run it with each version (4.46 and
5, say); each run keeps its last logits beside the model, and all but the first are compared with the others'.

    python scripts/compare-versions.py FOLDER...
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers import AutoModelForCausalLM, AutoProcessor, AutoTokenizer, LlavaForConditionalGeneration

from goldens import FIXTURES

TEXT = "Q: Greece\nA: Athens\n\nQ: Peru\nA:"
TOLERANCE = 1e-4


def logits(folder):
    config = json.loads((folder / "config.json").read_text())
    kind = LlavaForConditionalGeneration if config["model_type"] == "llava" else AutoModelForCausalLM
    model, info = kind.from_pretrained(folder, torch_dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXT, return_tensors="pt")
    inputs = {k: inputs[k] for k in ("input_ids", "attention_mask")}
    if config["model_type"] == "llava":
        processor = AutoProcessor.from_pretrained(folder)
        picture = Image.open(FIXTURES / "images" / "photo.png").convert("RGB")
        inputs = dict(processor(text="Q:<image>\n" + TEXT, images=picture, return_tensors="pt"))
        # How pictures are resized is a matter of the version; the model is what is compared.
        pixels = torch.sin(torch.arange(inputs["pixel_values"].numel(), dtype=torch.float64) * 0.37).float()
        inputs["pixel_values"] = pixels.reshape(inputs["pixel_values"].shape)
    with torch.no_grad():
        found = model.eval()(**inputs).logits[0, -1]
    return {"ids": inputs["input_ids"][0].tolist(), "logits": found.tolist()}


def main():
    failed = False
    for folder in map(Path, sys.argv[1:]):
        found = logits(folder)
        for other in folder.glob("logits-*.json"):
            theirs = json.loads(other.read_text())
            off = max(abs(a - b) for a, b in zip(found["logits"], theirs["logits"]))
            same = found["ids"] == theirs["ids"] and off < TOLERANCE
            failed |= not same
            print(f"{folder.name}: {transformers.__version__} and {other.stem}: {'agree' if same else 'DIFFER'}, {off:.2g}")
        (folder / f"logits-{transformers.__version__}.json").write_text(json.dumps(found))
    sys.exit(failed)


main()
