"""
Makes test/fixtures/adapters: adapters of many kinds as PEFT saves them, and what PEFT makes of them and of damaged or
edited copies (cases.json). The same versions of torch, transformers and PEFT give the same files.

    python scripts/make-adapters.py           (torch, transformers 5.24, peft 0.21, safetensors)
    python scripts/make-adapters.py families  only test/fixtures/family-adapters: those of families with other modules, unedited

What a model's weights have become is told by probes: u·Wv of every matrix (of an embedding, its rows), w·v of every vector,
with u_i = sin(i + 1) and v_j = cos(j + 1), in f64. cases.json has those that differ from the base's; of edited adapters those
that differ from the unedited one's, null where the base's value is back.
"""

import copy
import functools
import json
import random
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM, LlavaForConditionalGeneration

from goldens import FIXTURES, save, write_json

OUT = FIXTURES / "adapters"
PREFIX = "base_model.model."
IDS = [3, 41, 5, 92, 65, 35, 101, 7]
BASES = {
    "llama-gqa-tied": LlamaForCausalLM,
    "llama": LlamaForCausalLM,
    "llava": LlavaForConditionalGeneration,
}
ADAPTERS = {
    "embedding-tied": ("llama-gqa-tied", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
    "embedding-ensured": (
        "llama-gqa-tied",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ),
    "head-tied": ("llama-gqa-tied", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
    "lora-head-tied": ("llama-gqa-tied", {"target_modules": ["q_proj", "lm_head"]}),
    "lora-head": ("llama", {"target_modules": ["q_proj", "lm_head"]}),
    "norm": ("llama", {"target_modules": ["q_proj", "k_proj"], "modules_to_save": ["norm"]}),
    "projector": ("llava", {"target_modules": ["v_proj"], "modules_to_save": ["multi_modal_projector"]}),
    "biases": ("llava", {"target_modules": ["fc1", "q_proj"], "bias": "all"}),
    "lora-biases": ("llava", {"target_modules": ["fc1", "q_proj"], "bias": "lora_only"}),
    "rules": (
        "llama",
        {
            "target_modules": r".*\.(layers\.\d\.self_attn\.[qkv]_proj|mlp\.up_proj)",
            "exclude_modules": ["layers.1.self_attn.v_proj"],
            "rank_pattern": {r"layers\.[02]\.self_attn\.q_proj": 3, "up_proj": 1},
            "alpha_pattern": {"^model.*k_proj": 16, "q_proj": -3},
            "use_rslora": True,
        },
    ),
    "layers": (
        "llama",
        {
            "target_modules": ["gate_proj", "model.layers.0.self_attn.o_proj"],
            "layers_to_transform": [1, 2],
            "layers_pattern": "layers",
        },
    ),
    "all-linear": ("llama", {"target_modules": "all-linear"}),
}

FAMILY_ADAPTERS = {
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "conv1d-square": ("gpt2", {"target_modules": ["attn.c_proj"], "modules_to_save": ["h.1.mlp.c_fc"]}),
    "conv1d-all-linear": ("gpt2", {"target_modules": "all-linear", "bias": "all"}),
    "wte": ("gpt2", {"target_modules": ["c_attn"], "modules_to_save": ["wte"]}),
    "wte-head": ("gpt2", {"target_modules": ["c_attn", "lm_head"]}),
    "fused": ("gpt_neox", {"target_modules": ["query_key_value", "dense", "dense_4h_to_h"], "bias": "all"}),
    "fused-all-linear": ("gpt_neox", {"target_modules": "all-linear", "layers_to_transform": None}),
    "fused-head": ("gpt_neox", {"target_modules": ["query_key_value"], "modules_to_save": ["lm_head"]}),
    "fused-embedding-tied": ("gpt_neox-sequential", {"target_modules": ["query_key_value"], "modules_to_save": ["embed_in"]}),
    "biases": ("qwen2", {"target_modules": ["q_proj", "k_proj", "v_proj"], "bias": "all"}),
    "q-norm": ("qwen3", {"target_modules": ["k_proj", "gate_proj"], "modules_to_save": ["q_norm"]}),
    "post-norm": (
        "gemma2",
        {"target_modules": ["o_proj", "down_proj"], "modules_to_save": ["post_feedforward_layernorm", "embed_tokens"]},
    ),
    "lora-head-tied": ("gemma2", {"target_modules": ["lm_head"]}),
}

# What else a config may say. Fields of variants that need more than a config (Arrow, megatron) fail in PEFT.
CONFIGS = [
    ("target_modules", [None, [], ["q_proj"], ["v_proj"], "all-linear", "ALL-LINEAR", r".*q_proj", r"q_proj", r".*(q|k)_proj",
                        ["self_attn.q_proj"], ["proj"], ["q_proj", "k_proj", "lm_head"], ["model.layers.1.self_attn.q_proj"]]),
    ("exclude_modules", [["q_proj"], r".*layers\.0\..*", ["layers.1.self_attn.q_proj"], [], ["lm_head"], "q_proj"]),
    ("layers_to_transform", [0, 1, [0, 1, 2], [0], [], [7]]),
    ("modules_to_save", [None, [], ["norm"], ["embed_tokens"], ["lm_head"], ["tokens"], ["embed_tokens", "lm_head"], ["q_proj"],
                         ["multi_modal_projector"], ["linear_1"], ["score"], ["model.embed_tokens"], ["projector"], ["head"]]),
    ("r", [1, 3, 0]),
    ("lora_alpha", [1, 0, -4, 2.5, None]),
    ("use_rslora", [True]),
    ("rank_pattern", [{}, {"q_proj": 1}, {"proj": 1}, {".*proj": 3}]),
    ("alpha_pattern", [{}, {"q_proj": 7}, {"proj": 7}, {r"layers.0.*_proj": 9}, {r"model\.layers\.1\..*": 0}, {"lm_head": 1}]),
    ("fan_in_fan_out", [True]),
    ("bias", ["none", "all", "lora_only"]),
    ("init_lora_weights", [False, "gaussian", "eva", "olora", "pissa", "mica", "twist", None]),
    ("use_dora", [True]),
    ("lora_bias", [True]),
    ("ensure_weight_tying", [True, False]),
    ("trainable_token_indices", [[1, 2], []]),
    ("kasa_config", [{}]),
    ("use_qalora", [True]),
    ("layer_replication", [[[0, 2], [1, 3]]]),
    ("loftq_config", [{"loftq_bits": 4}]),
    ("target_parameters", [[], ["q_proj.weight"]]),
    ("alora_invocation_tokens", [[], [3]]),
    ("lora_dropout", [0.5]),
    ("inference_mode", [False]),
    ("twist", [None, False, "", 2]),
    ("peft_type", ["IA3", "ADALORA"]),
]


@functools.cache
def base_model(name):
    path = FIXTURES / name / "model"
    return BASES.get(name, AutoModelForCausalLM).from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def make_adapter(base, options, out):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(copy.deepcopy(base_model(base)), LoraConfig(r=2, lora_alpha=4, **options))
        for key, weight in sorted(model.named_parameters()):
            if ".lora_" in key:
                torch.nn.init.normal_(weight, std=0.2)
            elif ".modules_to_save." in key or (weight.requires_grad and key.endswith("bias")):
                weight.data += 0.2 * torch.randn_like(weight)
        model.peft_config["default"].base_model_name_or_path = f"../../{base}/model"
        model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    path = out / "adapter_config.json"
    config = json.loads(path.read_text())
    for field in ["target_modules", "exclude_modules"]:  # sets, in any order
        if isinstance(config[field], list):
            config[field].sort()
    write_json(path, config)
    path = out / "adapter_model.safetensors"
    save({key: value.half() for key, value in load_file(path).items()}, path)


def child(model, path):
    return functools.reduce(getattr, path.split("."), model)


def probes(base, model):
    """By the names of the base's parameters."""
    found = {}
    u = lambda n: torch.sin(torch.arange(1, n + 1, dtype=torch.float64))
    v = lambda n: torch.cos(torch.arange(1, n + 1, dtype=torch.float64))
    for path, module in base.named_modules():
        here = child(model, path) if path else model
        if isinstance(module, torch.nn.Linear):
            shape = module.weight.shape
            zero = here(torch.zeros(shape[1], dtype=torch.float64))
            found[f"{path}.weight"] = u(shape[0]) @ (here(v(shape[1])) - zero)
            if module.bias is not None:
                found[f"{path}.bias"] = zero @ v(shape[0])
        elif isinstance(module, torch.nn.Embedding):
            rows = here(torch.arange(module.weight.shape[0]))
            found[f"{path}.weight"] = u(rows.shape[0]) @ rows @ v(rows.shape[1])
        else:
            for name, weight in module.named_parameters(recurse=False):
                if weight.dim() == 1:
                    found[f"{path}.{name}"] = getattr(here, name) @ v(weight.shape[0])
    return {name: float(f"{value.item():.9g}") for name, value in found.items()}


@functools.cache
def base_probes(name):
    model = copy.deepcopy(base_model(name)).double()
    return probes(model, model)


def edit(tensors, config, op):
    kind, *args = op
    if kind == "drop":
        del tensors[args[0]]
    elif kind == "rename":
        tensors[args[1]] = tensors.pop(args[0])
    elif kind == "rows":
        tensors[args[0]] = tensors[args[0]][: args[1]]
    elif kind == "transpose":
        tensors[args[0]] = tensors[args[0]].T
    elif kind == "dtype":
        tensors[args[0]] = tensors[args[0]].to({"I32": torch.int32, "BF16": torch.bfloat16, "F64": torch.float64}[args[1]])
    elif kind == "poke":
        tensors[args[0]].view(-1)[args[1]] = float(args[2])
    elif kind == "fill":
        tensors[args[0]] = torch.full(args[1], args[2])
    elif kind == "set":
        config[args[0]] = args[1]
    elif kind == "unset":
        config.pop(args[0], None)


def inputs(base):
    """Tokens; for a LLaVA those of its first golden, with the picture."""
    if base != "llava":
        return {"input_ids": torch.tensor([IDS])}
    golden = load_file(FIXTURES / base / "golden.safetensors")
    return {"input_ids": golden["case0/in.input_ids"].long(), "pixel_values": golden["case0/in.pixel_values"]}


def outcome(name, ops, with_logits=False):
    """What PEFT makes of an adapter with edits."""
    base = ADAPTERS[name][0]
    tensors = dict(load_file(OUT / name / "adapter_model.safetensors"))
    config = json.loads((OUT / name / "adapter_config.json").read_text())
    for op in ops:
        edit(tensors, config, op)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_json(Path(folder) / "adapter_config.json", config)
        save({key: value.contiguous().clone() for key, value in tensors.items()}, Path(folder) / "adapter_model.safetensors")
        try:
            model = PeftModel.from_pretrained(copy.deepcopy(base_model(base)), folder).eval()
            unexpected = set_peft_model_state_dict(model, load_file(Path(folder) / "adapter_model.safetensors")).unexpected_keys
            inner = model.base_model.model
            result = {}
            if with_logits:
                with torch.no_grad():
                    result["logits"] = [round(x, 5) for x in model(**inputs(base)).logits[0, -1].tolist()]
            with torch.no_grad():
                found = probes(base_model(base), inner.double())
        except Exception as error:
            return {"error": type(error).__name__}
    if len(caught) and any("missing adapter keys" in str(w.message) for w in caught):
        result["missing"] = True
    if unexpected:
        result["ignored"] = True
    before = base_probes(base)
    changed = {key: value for key, value in found.items() if value != before[key]}
    if any(value != value or abs(value) == float("inf") for value in changed.values()):
        return {"error": "not finite"}
    return {**result, "probes": changed}


def key_edits(name, tensors, pick):
    """Every kind of damage to tensors, at places that `pick` chooses."""
    key = lambda part="": pick([k for k in tensors if part in k] or list(tensors))
    a, b = key("lora_A"), key("lora_B")
    some = key()
    base = ADAPTERS[name][0]
    weights = dict(base_model(base).named_parameters())
    plain = pick(["norm.weight", "embed_tokens.weight", "q_proj.weight", "o_proj.weight", "lm_head.weight"])
    plain = pick([k for k in [*weights, "lm_head.weight"] if k.endswith(plain)] or list(weights))
    shape = list((weights.get(plain) if plain in weights else weights[next(k for k in weights if "embed_tokens" in k)]).shape)
    module, parameter = plain.rsplit(".", 1)
    yield [["drop", some]]
    yield [["drop", a], ["drop", a.replace("lora_A", "lora_B")]]
    yield [["drop", k] for k in dict.fromkeys([key(), b])]
    yield [["rename", a, a.replace("lora_A", "lora_C")]]
    yield [["rename", some, some.replace("layers.0", "layers.9").replace("model.", "modle.", 1)]]
    for old, new in [("layers.1", "layers.7"), ("q_proj", "k_proj"), ("lora_", "lore_"), (PREFIX, ""), (PREFIX, "base_model."),
                     ("self_attn", "attn"), ("q_proj", "mlp")]:
        # A LLaVA's tower has that name in published files; PEFT with transformers 5 does not find it, but it is read here.
        if old in a and not (new == "base_model." and "model.vision_tower" in a):
            yield [["rename", k, k.replace(old, new)] for k in [a, a.replace("lora_A", "lora_B")]]
    yield [["rename", k, k.replace(".weight", ".default.weight")] for k in tensors if ".lora_" in k]
    yield [["rename", k, k.replace(".weight", ".other.weight")] for k in tensors if ".lora_" in k]
    yield [["rename", a, "x"], ["rename", a.replace("lora_A", "lora_B"), a], ["rename", "x", a.replace("lora_A", "lora_B")]]
    yield [["rows", some, 1]]
    yield [["rows", a, 1], ["set", "r", 1]]
    yield [["transpose", a]]
    for dtype in ["I32", "BF16", "F64"]:
        yield [["dtype", some, dtype]]
    for value in ["nan", "inf", "-inf"]:
        yield [["poke", key(), 0, value]]
    yield [["fill", PREFIX + plain, shape, 0.5]]
    yield [["fill", f"{PREFIX}{module}.base_layer.{parameter}", shape, 0.5]]
    yield [["fill", PREFIX + plain, shape[:-1] + [shape[-1] + 1], 0.5]]
    yield [["fill", PREFIX + "model.nothing.weight", [2], 0.5]]
    k_proj = next(k for k in weights if k.endswith("layers.1.self_attn.k_proj.weight"))
    out, width = weights[k_proj].shape
    stem = PREFIX + k_proj.removesuffix(".weight")
    yield [["fill", f"{stem}.lora_A.weight", [2, width], 0.5], ["fill", f"{stem}.lora_B.weight", [out, 2], 0.5]]
    embedding = next(k for k in weights if k.endswith("embed_tokens.weight"))
    both = [["fill", PREFIX + embedding, [448, 48], 0.5], ["fill", f"{PREFIX}lm_head.weight", [448, 48], 0.25]]
    yield both
    yield [*both, ["set", "modules_to_save", ["lm_head"]]]
    yield [*both, ["set", "modules_to_save", ["embed_tokens"]], ["set", "ensure_weight_tying", True]]
    yield [*both, ["set", "modules_to_save", ["tokens"]], ["set", "ensure_weight_tying", True]]


def last_logits(model, base):
    with torch.no_grad():
        return [round(x, 5) for x in model(**inputs(base)).logits[0, -1].tolist()]


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def rounded(values):
    return {key: float(f"{value:.10g}") for key, value in values.items()}


def make_families():
    out = FIXTURES / "family-adapters"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    logits = {}
    for seed, (name, (base, options)) in enumerate(FAMILY_ADAPTERS.items()):
        torch.manual_seed(seed)
        make_adapter(base, options, out / name)
        model = PeftModel.from_pretrained(copy.deepcopy(base_model(base)), out / name).eval()
        beside = last_logits(model, base)
        # Merged, weights are rounded to the dtype that the file has them in. PEFT's own merging would write into tied ones.
        dtype = AutoConfig.from_pretrained(FIXTURES / base / "model").dtype
        for layer in [module for module in model.modules() if isinstance(module, LoraLayer)]:
            merged = layer.get_base_layer().weight + layer.get_delta_weight("default")
            layer.get_base_layer().weight = torch.nn.Parameter(merged.to(dtype).float())
            layer.lora_B["default"].weight.data.zero_()
        logits[name] = {"beside": beside, "merged": last_logits(model, base)}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in logits.items())
    bases = json.dumps({name: base for name, (base, _) in FAMILY_ADAPTERS.items()})
    (out / "cases.json").write_text(f'{{"bases": {bases}, "ids": {IDS}, "logits": {{\n{lines}\n}}}}\n')


def main():
    torch.manual_seed(0)
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    for name in ADAPTERS:
        make_adapter(*ADAPTERS[name], OUT / name)
    chosen = random.Random(0)
    intact = {name: outcome(name, [], with_logits=True) for name in ADAPTERS}
    edited = []
    changes = [[["set", field, value]] for field, values in CONFIGS for value in values]
    for pattern in ["layers", ["layers"], ["h"], []]:
        changes += [[["set", "layers_pattern", pattern], ["set", "layers_to_transform", layers]] for layers in [[0, 2], 1]]
    for name in ADAPTERS:
        tensors = sorted(load_file(OUT / name / "adapter_model.safetensors"))
        lists = list(key_edits(name, tensors, chosen.choice))
        lists += chosen.sample(changes, 24) + [sum(chosen.sample(changes, 2), []) for _ in range(6)]
        lists += [[["unset", chosen.choice(["lora_alpha", "target_modules", "rank_pattern"])]]]
        for ops in lists:
            result = outcome(name, ops)
            if "probes" in result:
                before, after = intact[name]["probes"], result["probes"]
                changed = {key: value for key, value in after.items() if before.get(key) != value}
                result["probes"] = rounded(changed) | {key: None for key in before if key not in after}
            edited.append([name, ops, result])
    lines = [compact(case) for case in edited]
    intact = {name: {**case, "probes": rounded(case["probes"])} for name, case in intact.items()}
    text = compact({"bases": {n: b for n, (b, _) in ADAPTERS.items()}, "ids": IDS, "intact": intact})
    (OUT / "cases.json").write_text(text[:-1] + ',"edited":[\n' + ",\n".join(lines) + "\n]}\n")


make_families() if sys.argv[1:] == ["families"] else main()
