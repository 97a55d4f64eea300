"""
Makes a tiny checkpoint of a family with random weights, and goldens: what transformers computes with it, at every site,
in patched runs, in a batch, and the tokens that it goes on with. docs/adding-a-family.md says what for.

    python scripts/make-family-golden.py qwen2 --out test/fixtures/qwen2

The family is an entry of golden_families.py. The same versions (requirements.txt) on the same kind of CPU give the same
bytes. Nothing is written unless the goldens stand the checks of golden_checks.py; the folder is replaced as a whole.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy
import safetensors
import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import golden_checks as checks
from golden_families import FAMILIES
from goldens import FIXTURES, first, randomise, record, save, write_json

NEW_TOKENS = 5
LOGIT_ROWS = 4


def write_checkpoint(family, folder):
    """As transformers itself saves a model, in its layout and with its spelling of the config."""
    model = AutoModelForCausalLM.from_config(family.config(**family.values))
    randomise(model, std=0.2, scale_std=0.2)
    model.to(getattr(torch, family.dtype)).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    shutil.copyfile(FIXTURES / "tokenizers" / family.tokenizer / "tokenizer.json", folder / "tokenizer.json")


def read_checkpoint(folder, dtype):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", output_loading_info=True
    )
    wrong = {key: names for key, names in info.items() if names}
    checks.require(not wrong, f"the checkpoint does not fit its own config: {wrong}")
    model.generation_config.eos_token_id = None  # five tokens, whatever they are
    return model.eval()


def inputs_of(ids, mask):
    """Positions count the tokens that are not padding, as `generate` does."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def prompt(tokenizer, texts):
    """Ids of texts, with padding in front of the shorter ones."""
    each = [tokenizer(text)["input_ids"] for text in texts]
    longest = max(map(len, each))
    ids = torch.tensor([[0] * (longest - len(own)) + own for own in each])
    mask = torch.tensor([[0] * (longest - len(own)) + [1] * len(own) for own in each])
    return inputs_of(ids, mask)


def continue_greedily(model, inputs):
    """The likeliest tokens, each from a pass over everything before it, and how close the closest call was."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    gap = float("inf")
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            top = model(**inputs_of(ids, mask)).logits[:, -1].topk(2)
        gap = min(gap, (top.values[:, 0] - top.values[:, 1]).min().item())
        ids = torch.cat([ids, top.indices[:, :1]], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    new = ids[:, -NEW_TOKENS:]
    cached = model.generate(
        inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=NEW_TOKENS, do_sample=False,
        pad_token_id=0,
    )  # fmt: skip
    checks.require(torch.equal(cached[:, -NEW_TOKENS:], new), "with its cache, transformers goes on differently")
    checks.require(gap > checks.VISIBLE, f"the closest call of a new token is {gap:.2g}: give the family another seed")
    return new, gap


def patched(model, hooks, layer, position, change, inputs, rows):
    """Goldens of a run whose residual stream is another after a layer, at one position."""

    def patch(_, __, output):
        stream = first(output).clone()
        stream[:, position] = change(stream[:, position])
        return (stream, *output[1:]) if isinstance(output, tuple) else stream

    handle = model.get_submodule(hooks[f"resid_post.{layer}"]).register_forward_hook(patch)
    try:
        found, output = record(model, {f"resid_post.{rows}": hooks[f"resid_post.{rows}"]}, inputs)
    finally:
        handle.remove()
    return {**found, "logits_last": output.logits[:, -1].contiguous()}


def run_case(model, family, hooks, inputs):
    """Activations at every site, and logits at the last positions."""
    found, output = record(model, hooks, inputs, family.parts)
    return {**found, "logits": output.logits[:, -LOGIT_ROWS:].float().contiguous()}


def check_case(model, exact, family, hooks, inputs, found):
    layers = model.config.num_hidden_layers
    sites = {name: value for name, value in found.items() if name != "logits"}

    def run(some):
        return run_case(some, family, hooks, inputs)

    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    checks.check_shapes(sites, inputs["input_ids"].shape[1])
    checks.check_hidden_states(sites, states, layers)
    checks.check_identities(sites, layers)
    checks.check_queries_and_keys(model, run, hooks, family.parts, sites, layers)
    checks.check_distinct(sites, layers)
    checks.check_precision(found, run(exact))


def inputs_as_stored(inputs):
    kinds = {"input_ids": torch.int32, "attention_mask": torch.uint8, "position_ids": torch.int32}
    return {f"in.{name}": value.to(kinds[name]) for name, value in inputs.items()}


def compute_case(model, exact, family, hooks, tokenizer, text):
    """One prompt: its goldens, and its entry in case.json."""
    inputs = prompt(tokenizer, [text])
    length = inputs["input_ids"].shape[1]
    layers = model.config.num_hidden_layers
    layer, last = layers // 2, layers - 1
    found = run_case(model, family, hooks, inputs)
    check_case(model, exact, family, hooks, inputs, found)

    where = {"layer": layer, "replace_position": length - 1, "add_position": length - 3}  # in the window
    stream = found[f"resid_post.{layer}"][0]
    vector = torch.randn_like(stream[0]) * stream.std()
    goldens = {**inputs_as_stored(inputs), **found}
    for name, change in [("replace", lambda _: vector), ("add", lambda row: row + vector)]:
        result = patched(model, hooks, layer, where[f"{name}_position"], change, inputs, last)
        off = checks.distance(result["logits_last"], found["logits"][:, -1])
        checks.require(off > checks.VISIBLE, f"patch.{name}: the logits hardly move ({off:.2g})")
        if name == "replace":  # at the last position: the logits say it all
            result = {"logits_last": result["logits_last"]}
        goldens |= {f"patch.{name}.vector": vector.clone()} | {f"patch.{name}.{k}": v for k, v in result.items()}
    new, gap = continue_greedily(model, inputs)
    goldens["generate.ids"] = new.int()
    return goldens, {"text": text, "patch": where, "generate": {"min_top2_gap": round(gap, 5)}}


def compute_batch(model, family, hooks, tokenizer):
    texts = [family.texts[-1], family.texts[0]]
    inputs = prompt(tokenizer, texts)
    streams = {site: hook for site, hook in hooks.items() if site.startswith(("resid_pre.0", "resid_post."))}
    found, output = record(model, streams, inputs)
    new, gap = continue_greedily(model, inputs)
    goldens = {**inputs_as_stored(inputs), **found, "logits_last": output.logits[:, -1].contiguous()}
    case = {"items": [{"text": text} for text in texts], "generate": {"min_top2_gap": round(gap, 5)}}
    return {**goldens, "generate.ids": new.int()}, case


def make(family, name, folder):
    write_checkpoint(family, folder / "model")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "model" / "tokenizer.json"))
    model, exact = (read_checkpoint(folder / "model", dtype) for dtype in [torch.float32, torch.float64])
    layers = model.config.num_hidden_layers
    hooks = {}
    for site, hook in family.sites.items():
        for i in range(layers) if site.endswith(".N") else [None]:
            hooks[site.replace(".N", f".{i}")] = hook.replace(".N", f".{i}")

    goldens, cases = {}, []
    for i, text in enumerate(family.texts):
        found, case = compute_case(model, exact, family, hooks, tokenizer, text)
        goldens |= {f"case{i}/{key}": value for key, value in found.items()}
        cases.append(case)
    batch = {}
    if family.batch:
        found, case = compute_batch(model, family, hooks, tokenizer)
        goldens |= {f"batch/{key}": value for key, value in found.items()}
        batch = {"batch": case}

    inputs = prompt(tokenizer, [max(family.texts, key=len)])
    plain = run_case(model, family, hooks, inputs)
    checks.check_weights_matter(model, lambda some: run_case(some, family, hooks, inputs), plain)
    checks.check_mistakes(model, lambda some: run_case(some, family, hooks, inputs), plain, family)

    save(goldens, folder / "golden.safetensors")
    packages = [torch, transformers, tokenizers, safetensors, numpy]
    write_json(
        folder / "case.json",
        {
            "family": name,
            "kind": "text",
            "architecture": model.config.architectures[0],
            "checkpoint": "model",
            "storage_dtype": family.dtype,
            "compute": "float32, attn_implementation=eager",
            "seed": family.seed,
            "tolerance": checks.TOLERANCE,
            "cases": cases,
            **batch,
            "hook_modules": hooks,
            "versions": {package.__name__: package.__version__.split("+")[0] for package in packages},
        },
    )
    return len(goldens)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--out", type=Path, required=True, help="folder to make; one with a case.json is replaced")
    args = parser.parse_args()
    out = args.out.resolve()
    replaceable = not out.exists() or (out / "case.json").exists() or not any(out.iterdir())
    checks.require(replaceable, f"{args.out} is there already and holds no case.json: it is not a fixture")
    out.parent.mkdir(parents=True, exist_ok=True)

    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)  # sums in one order
    torch.manual_seed(FAMILIES[args.family].seed)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary) / "fixture"
        folder.mkdir()
        count = make(FAMILIES[args.family], args.family, folder)
        if out.exists():
            shutil.rmtree(out)
        folder.rename(out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{args.out}: {count} goldens, {size / 1e3:.0f} kB")


main()
