"""
Makes test/fixtures/vlm: what transformers computes with weights/vlm as `xpatch export` wrote it.

    npx xpatch export ./weights/vlm --out DIR && python scripts/make-vlm-golden.py DIR
"""

import sys

import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from goldens import ROOT, VLM_MODULES, run, write_case

PICTURE = "tasks/pictures/twemoji/1f1ec-1f1f7.png"
TEXT = "Q:<image>\nA:"
# Not the last one: there the first token's thousands cancel, and what is left is rounding. What follows it is checked.
LAYERS = (0, 5, 10, 15, 20, 25)


def main():
    folder = sys.argv[1]
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    inputs = processor(text=TEXT, images=Image.open(ROOT / PICTURE).convert("RGB"), return_tensors="pt")
    found = run(model, inputs, *VLM_MODULES)
    # Logits at the last token alone, and of some layers: the file is kept small.
    kept = {f"resid_post.{layer}" for layer in LAYERS}
    found = {k: v for k, v in found.items() if not k.startswith(("resid_post", "vision.resid_post")) or k in kept}
    found["logits_last"] = found.pop("logits")[:, -1].contiguous()
    write_case("vlm", "../../../weights/vlm", TEXT, [f"../../../{PICTURE}"], inputs, found)


main()
