"""Goldens of texts that are padded beyond the longest of a batch, for CLIP and SigLIP, as transformers computes them:

    python scripts/make-padded-goldens.py

Needs torch and transformers 5. CLIP's case0 has the mask of its tokenizer, its case1 none; SigLIP's have none, as published
checkpoints are run: padded to the longest, and to the context.
"""

import torch
from goldens import FIXTURES, record, save, write_json
from transformers import AutoModel, AutoTokenizer

TEXTS = ["a photo of a dog", "gray"]
CASES = {
    "clip": [({"padding": "max_length", "max_length": 24}, True), ({"padding": "max_length", "max_length": 24}, False)],
    "siglip": [({"padding": "longest"}, False), ({"padding": "max_length", "max_length": 16}, False)],
}


def run(model, inputs):
    layers = "encoder.layers"
    last = len(model.text_model.encoder.layers) - 1
    hooks = {"text.attn_pattern.1": f"@{layers}.1.self_attn", f"text.resid_post.{last}": f"{layers}.{last}"}
    found, output = record(model.text_model, hooks, {**inputs, "output_attentions": True})
    with torch.no_grad():
        projection = getattr(model, "text_projection", None)
        embeds = projection(output.pooler_output) if projection is not None else output.pooler_output
    found["text_embeds"] = (embeds / embeds.norm(dim=-1, keepdim=True)).contiguous()
    return found


for name, cases in CASES.items():
    folder = FIXTURES / f"{name}-padded"
    folder.mkdir(exist_ok=True)
    checkpoint = FIXTURES / name / "model"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
    goldens = {}
    for i, (padding, masked) in enumerate(cases):
        inputs = tokenizer(TEXTS, return_tensors="pt", **padding)
        if not masked:
            del inputs["attention_mask"]
        for key, value in run(model, inputs).items():
            goldens[f"case{i}/{key}"] = value
        goldens[f"case{i}/in.input_ids"] = inputs["input_ids"].int()
        if masked:
            goldens[f"case{i}/in.attention_mask"] = inputs["attention_mask"].to(torch.uint8)
    case = {"texts": TEXTS, "images": []}
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    write_json(
        folder / "case.json",
        {"checkpoint": f"../{name}/model", "tolerance": tolerance, "cases": [case for _ in cases]},
    )
    save(goldens, folder / "golden.safetensors")
