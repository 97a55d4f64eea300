"""
What scripts that make parity fixtures share: running a model of transformers, and writing what came out. The versions
are in requirements.txt.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "test" / "fixtures"
IMAGE_TOKENS = 9
# Language model, vision tower and projector of a LLaVA, for `run`.
VLM_MODULES = ("model.language_model.", "model.vision_tower.", "model.multi_modal_projector")


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


def record(model, hooks, inputs, parts=None):
    """
    Runs a model and keeps what some of its modules compute: ({site: f32 tensor}, the model's output). `hooks` says for
    each site which module has it: "name" is the module's output (the first, if there are several), "<name" its first
    input, "@name" its second output, which is the attention pattern where attention is eager. What follows a "#" is a
    function of `parts`, which cuts the site out of a fused tensor. A module that is not there, or that does not run
    exactly once, is an error.
    """
    modules = dict(model.named_modules())
    found = {site: [] for site in hooks}
    handles = []

    def keep(site, hook):
        kind, name, part = re.fullmatch(r"([<@]?)([^#]*)#?(.*)", hook).groups()
        if name not in modules:
            raise SystemExit(f"{site}: the model has no module {name!r}")

        def hooked(_, args, kwargs, output):
            value = first((*args, *kwargs.values())) if kind == "<" else output[1] if kind == "@" else first(output)
            found[site].append((parts[part](value) if part else value).detach().float().contiguous().clone())

        handles.append(modules[name].register_forward_hook(hooked, with_kwargs=True))

    for site, hook in hooks.items():
        keep(site, hook)
    try:
        with torch.no_grad():
            output = model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    for site, values in found.items():
        if len(values) != 1:
            raise SystemExit(f"{site}: {hooks[site]} ran {len(values)} times in one pass instead of once")
    return {site: values[0] for site, values in found.items()}, output


def first(value):
    return value[0] if isinstance(value, tuple) else value


def run(model, inputs, text="model.", vision=None, projector=None):
    """Activations of one prompt, by the names of the goldens. The others are modules: what their names start with."""

    def blocks(site, layers, count):
        return {f"{site}resid_pre.0": f"<{layers}.0"} | {f"{site}resid_post.{i}": f"{layers}.{i}" for i in range(count)}

    config = model.config
    hooks = blocks("", f"{text}layers", config.get_text_config().num_hidden_layers) | {"final_norm": f"{text}norm"}
    if vision is not None:
        hooks |= blocks("vision.", f"{vision}encoder.layers", config.vision_config.num_hidden_layers)
        hooks |= {"projector.in": f"<{projector}", "projector.out": projector}
    found, output = record(model, hooks, inputs)
    for name in ["projector.in", "projector.out"]:
        if name in found:
            found[name] = found[name].reshape(1, IMAGE_TOKENS, -1)
    found["logits"] = output.logits.float().contiguous()
    with torch.no_grad():
        answer = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    found["generate.ids"] = answer[:, inputs["input_ids"].shape[1] :].int().contiguous()
    return found


def randomise(model, std, scale_std=0.05):
    """Random weights: matrices and biases around 0, scales of norms around what leaves the numbers alone."""
    for name, weight in sorted(model.named_parameters()):
        is_scale = weight.dim() == 1 and name.endswith("weight")
        mean = 1.0 if is_scale and (weight == 1).all() else 0.0  # Gemma's scales are added to 1
        torch.nn.init.normal_(weight, mean=mean, std=scale_std if is_scale else std)


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
