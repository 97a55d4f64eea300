"""Writes what SAELens computes with tiny sparse autoencoders: python scripts/make-sae-goldens.py test/fixtures/sae

Needs `pip install sae-lens==6.54.12` (which writes v6.safetensors and the folders topk-6 and for-llama) or `pip install sae-lens==5.11.0` (v5.safetensors).
Weights and activations are those of a rule that the test has too; the files hold the configs as SAELens writes them, and its results.
"""
import json
import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
import sae_lens

WIDTH, LATENTS, ROWS = 16, 32, 4
# What hooks may change: a latent is set, another multiplied.
EDITED, VALUE, SCALED, FACTOR = 3, 2.5, 7, -1.5


def numbers(shape, seed, scale=1.0):
    """Multiples of 1/4096, which f32 and f16 hold exactly."""
    count = torch.Size(shape).numel()
    i = torch.arange(count, dtype=torch.int64)
    return (((i + 1) * 7919 + seed * 104729) % 2003 - 1001).double().div(4096).mul(scale).reshape(shape)


NAMES = ["W_enc", "W_dec", "b_enc", "b_dec", "b_gate", "b_mag", "r_mag", "threshold", "finetuning_scaling_factor"]
SEEDS = {name: i + 1 for i, name in enumerate(NAMES)}


def fill(sae):
    state = sae.state_dict()
    for name, tensor in state.items():
        values = numbers(tensor.shape, SEEDS[name])
        if name == "threshold":
            values = values.abs()
        if name == "finetuning_scaling_factor":
            values = values + 1
        state[name] = values.to(tensor.dtype)
    sae.load_state_dict(state)


def inputs():
    return numbers((ROWS, WIDTH), 20, 8).float()


def results(sae, heads=None):
    x = inputs()
    shaped = x if heads is None else x.reshape(ROWS, heads, WIDTH // heads)
    with torch.no_grad():
        latents = sae.encode(shaped)
        out = sae.decode(latents)
        sae.use_error_term = True

        def change(f, hook):
            f = f.clone()
            f[..., EDITED] = VALUE
            f[..., SCALED] *= FACTOR
            return f

        # The error is of the latents as they are: SAELens takes hooks away for it.
        with sae.hooks(fwd_hooks=[("hook_sae_acts_post", change)]):
            edited = sae(shaped)
    flat = lambda t: t.reshape(ROWS, -1).float().contiguous()
    return {"latents": flat(latents), "out": flat(out), "edited": flat(edited)}


def version6(folder):
    from sae_lens.saes import gated_sae, jumprelu_sae, standard_sae, topk_sae
    from sae_lens.saes.sae import SAEMetadata

    kinds = {
        "standard": (standard_sae.StandardSAE, standard_sae.StandardSAEConfig),
        "gated": (gated_sae.GatedSAE, gated_sae.GatedSAEConfig),
        "jumprelu": (jumprelu_sae.JumpReLUSAE, jumprelu_sae.JumpReLUSAEConfig),
        "topk": (topk_sae.TopKSAE, topk_sae.TopKSAEConfig),
    }
    cases = [
        ("standard", {}, "blocks.1.hook_resid_post", {}),
        ("standard", {"dtype": "float16", "apply_b_dec_to_input": False}, "blocks.0.hook_mlp_out", {}),
        ("standard", {"reshape_activations": "hook_z"}, "blocks.1.attn.hook_z", {"heads": 4}),
        ("standard", {"normalize_activations": "expected_average_only_in"}, "blocks.2.hook_resid_pre", {"fold": 0.75}),
        ("gated", {"normalize_activations": "layer_norm"}, "blocks.1.hook_resid_mid", {}),
        ("gated", {"apply_b_dec_to_input": False}, "blocks.1.hook_attn_out", {}),
        ("jumprelu", {"apply_b_dec_to_input": False}, "blocks.2.hook_resid_post", {}),
        ("jumprelu", {"normalize_activations": "constant_norm_rescale"}, "blocks.1.mlp.hook_post", {}),
        ("topk", {"k": 5}, "blocks.0.hook_resid_post", {}),
        ("topk", {"k": 4, "rescale_acts_by_decoder_norm": True, "normalize_activations": "layer_norm"}, "blocks.1.hook_resid_post", {}),
        ("topk", {"k": 4, "rescale_acts_by_decoder_norm": True, "normalize_activations": "expected_average_only_in"}, "blocks.1.hook_resid_post", {"fold": 1.5}),
    ]
    tensors, configs = {}, {}
    for i, (kind, options, hook, also) in enumerate(cases):
        name = f"{i}-{kind}"
        sae_class, config_class = kinds[kind]
        cfg = config_class(d_in=WIDTH, d_sae=LATENTS, **options)
        cfg.metadata = SAEMetadata(model_name="tiny", hook_name=hook, prepend_bos=True, context_size=128)
        sae = sae_class(cfg)
        fill(sae)
        if name == "8-topk":
            sae.save_model(Path(folder) / "topk-6")
        written = cfg.to_dict()
        if "fold" in also:
            sae.fold_activation_norm_scaling_factor(also["fold"])
        configs[name] = {"cfg": written, **also}
        for key, value in results(sae, also.get("heads")).items():
            tensors[f"{name}.{key}"] = value
    # One for the stream of test/fixtures/llama, to look at.
    options = {"k": 4, "dtype": "float16"}
    cfg = topk_sae.TopKSAEConfig(d_in=48, d_sae=32, **options)
    cfg.metadata = SAEMetadata(model_name="tiny", hook_name="blocks.1.hook_resid_post", prepend_bos=True, context_size=64)
    sae = topk_sae.TopKSAE(cfg)
    fill(sae)
    sae.save_model(Path(folder) / "for-llama")
    return tensors, configs


def version5(folder):
    base = dict(
        d_in=WIDTH, d_sae=LATENTS, model_name="tiny", hook_layer=1, hook_head_index=None, prepend_bos=True,
        context_size=128, dataset_path="none", dataset_trust_remote_code=True, dtype="float32", device="cpu",
        sae_lens_training_version="5.11.0",
    )
    cases = [
        dict(architecture="standard", activation_fn_str="relu", finetuning_scaling_factor=True, apply_b_dec_to_input=True, normalize_activations="none"),
        dict(architecture="standard", activation_fn_str="tanh-relu", finetuning_scaling_factor=False, apply_b_dec_to_input=False, normalize_activations="layer_norm"),
        dict(architecture="topk", activation_fn_str="topk", activation_fn_kwargs={"k": 6}, finetuning_scaling_factor=False, apply_b_dec_to_input=True, normalize_activations="constant_norm_rescale"),
        dict(architecture="gated", activation_fn_str="relu", finetuning_scaling_factor=False, apply_b_dec_to_input=True, normalize_activations="none"),
        dict(architecture="jumprelu", activation_fn_str="relu", finetuning_scaling_factor=True, apply_b_dec_to_input=True, normalize_activations="none"),
        dict(architecture="standard", activation_fn_str="relu", finetuning_scaling_factor=False, apply_b_dec_to_input=True, normalize_activations="none", dtype="torch.bfloat16"),
    ]
    tensors, configs = {}, {}
    for i, own in enumerate(cases):
        name = f"{i}-{own['architecture']}"
        cfg = sae_lens.SAEConfig(**{**base, **own}, hook_name="blocks.1.hook_resid_post")
        sae = sae_lens.SAE(cfg)
        fill(sae)
        configs[name] = {"cfg": cfg.to_dict()}
        for key, value in results(sae).items():
            tensors[f"{name}.{key}"] = value
    return tensors, configs


folder = sys.argv[1]
major = int(sae_lens.__version__.split(".")[0])
tensors, configs = (version6 if major == 6 else version5)(folder)
setting = {"edited": EDITED, "value": VALUE, "scaled": SCALED, "factor": FACTOR}
Path(folder).mkdir(parents=True, exist_ok=True)
metadata = {"version": sae_lens.__version__, "cases": json.dumps(configs), "edit": json.dumps(setting)}
save_file(tensors, Path(folder) / f"v{major}.safetensors", metadata)
