"""What scripts that make parity fixtures share: running a model of transformers, and writing what came out."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "test" / "fixtures"
IMAGE_TOKENS = 9


def write_whole(path, write):
    """Has `write` write a file beside `path`, then puts it there."""
    incoming = path.with_name(path.name + ".incoming")
    try:
        write(incoming)
        incoming.chmod(0o644)
        incoming.replace(path)
    finally:
        incoming.unlink(missing_ok=True)


def save(tensors, path):
    write_whole(path, lambda file: save_file(tensors, file, {"format": "pt"}))


def write_json(path, value):
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_whole(path, lambda file: file.write_text(text))


def run(model, inputs, text_model, head_norm, vision=None, projector=None):
    """Activations of one prompt, by the names of the goldens."""
    found = {}
    hooks = []

    def keep(module, name, what=lambda args, output: output):
        def hook(_, args, kwargs, output):
            first = args if args else tuple(kwargs.values())
            value = what(first, output)
            value = value[0] if isinstance(value, tuple) else value
            found[name] = value.detach().float().contiguous().clone()

        hooks.append(module.register_forward_hook(hook, with_kwargs=True))

    keep(text_model.layers[0], "resid_pre.0", lambda args, _: args[0])
    for i, layer in enumerate(text_model.layers):
        keep(layer, f"resid_post.{i}")
    keep(head_norm, "final_norm")
    if vision is not None:
        layers = vision.encoder.layers
        keep(layers[0], "vision.resid_pre.0", lambda args, _: args[0])
        for i, layer in enumerate(layers):
            keep(layer, f"vision.resid_post.{i}")
        keep(projector, "projector.in", lambda args, _: args[0])
        keep(projector, "projector.out")
    with torch.no_grad():
        logits = model(**inputs).logits
    for hook in hooks:
        hook.remove()
    for name in ["projector.in", "projector.out"]:
        if name in found:
            found[name] = found[name].reshape(1, IMAGE_TOKENS, -1)
    found["logits"] = logits.float().contiguous()
    with torch.no_grad():
        answer = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    found["generate.ids"] = answer[:, inputs["input_ids"].shape[1] :].int().contiguous()
    return found


def write_case(name, checkpoint, text, images, inputs, found):
    folder = FIXTURES / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    case = {"text": text, **({"images": images} if images else {})}
    write_json(
        folder / "case.json",
        {"checkpoint": checkpoint, "tolerance": {"rtol": 1e-4, "atol": 1e-4}, "cases": [case]},
    )
    goldens = {f"case0/{key}": value for key, value in found.items()}
    goldens["case0/in.input_ids"] = inputs["input_ids"].int()
    goldens["case0/in.attention_mask"] = inputs["attention_mask"].to(torch.uint8)
    if "pixel_values" in inputs:
        goldens["case0/in.pixel_values"] = inputs["pixel_values"].float()
    save(goldens, folder / "golden.safetensors")
