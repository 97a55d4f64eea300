"""
Makes weights/nano, a model of the shipped one's layout (a base, an adapter, a tower with another adapter) with random
weights, and what transformers and PEFT compute with it (test/fixtures/nano-llm, nano-vlm). It is for tests of speed and
plumbing and knows nothing. The same versions of torch, transformers and PEFT give the same files.

    python scripts/make-nano.py        (torch, transformers 5.24, peft 0.21, safetensors, pillow)
"""

import hashlib
import json
import shutil

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from goldens import FIXTURES, IMAGE_TOKENS, ROOT, VLM_MODULES, randomise, run, save, write_case, write_json, write_whole

NANO = ROOT / "weights" / "nano"
IMAGE_TOKEN_ID = 431
BLOCK_BYTES = 8 * 2**20
TEXT = "Q: Norway\nA: Oslo\n\nQ: Italy\nA:"
PICTURE = "photo.png"


def tensors_sha256(path):
    """The digest of a base's tensors: docs/checkpoints.md."""
    whole = hashlib.sha256()
    header_bytes = int.from_bytes(path.read_bytes()[:8], "little")
    data = path.read_bytes()[8 + header_bytes :]
    header = json.loads(path.read_bytes()[8 : 8 + header_bytes])
    header.pop("__metadata__", None)
    for name in sorted(header):
        begin, end = header[name]["data_offsets"]
        for at in range(begin, end, BLOCK_BYTES):
            whole.update(hashlib.sha256(data[at : min(at + BLOCK_BYTES, end)]).digest())
    return whole.hexdigest()


def text_config():
    return LlamaConfig(
        vocab_size=448,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )


def make_base():
    folder = NANO / "base"
    folder.mkdir(parents=True)
    model = LlamaForCausalLM(text_config())
    randomise(model, 0.1)
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    save(weights, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": "float16",
        "vocab_size": 448,
    }
    write_json(folder / "config.json", config)
    source = FIXTURES / "llava" / "model"
    tokenizer = (source / "tokenizer.json").read_text().replace('"<image>"', '"<empty_output>"')
    write_whole(folder / "tokenizer.json", lambda file: file.write_text(tokenizer))
    shutil.copy(source / "tokenizer_config.json", folder / "tokenizer_config.json")
    return config


def load_base():
    return LlamaForCausalLM.from_pretrained(NANO / "base", dtype=torch.float32, attn_implementation="eager").eval()


def make_adapter(model, folder, config, dtype):
    """Puts a random adapter on the model and saves it; returns the model with it, not merged."""
    adapted = get_peft_model(model, config)
    for name, weight in sorted(adapted.named_parameters()):
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.1)
            weight.data = weight.data.to(dtype).float()
    adapted.peft_config["default"].base_model_name_or_path = "../base"
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    saved = json.loads(path.read_text())
    write_json(path, {**saved, "target_modules": sorted(saved["target_modules"])})  # a set, in any order
    path = folder / "adapter_model.safetensors"
    save({k: v.to(dtype) for k, v in load_file(path).items()}, path)
    return adapted.eval()


def vision_state(config):
    model = LlavaForConditionalGeneration(config)
    randomise(model, 0.1)
    vision = "model.vision_tower."
    projector = "model.multi_modal_projector."
    state = {}
    for name, weight in model.state_dict().items():
        if name.startswith(vision):
            inner = name[len(vision) :].removeprefix("vision_model.")
            state["vision_tower.vision_model." + inner] = weight
        elif name.startswith(projector):
            state["multi_modal_projector." + name[len(projector) :]] = weight
    return {k: v.half().contiguous() for k, v in state.items() if not k.endswith("position_ids")}


def as_stored(model):
    """Merged weights are kept in the weight's dtype. Buffers are left alone: half() would round RoPE's frequencies."""
    for weight in model.parameters():
        weight.data = weight.data.half().float()


def main():
    torch.manual_seed(0)
    shutil.rmtree(NANO, ignore_errors=True)
    base_config = make_base()
    base = {"name": "nano", "folder": "../base", "sha256": tensors_sha256(NANO / "base" / "model.safetensors")}
    manifest = {"format": "xpatch-assembly", "version": 1, "base": base}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(NANO / "base")

    linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    text_lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        lora_alpha=8,
        target_modules=linears,
        layers_to_transform=[1, 2, 3],
        rank_pattern={"layers.3.mlp.down_proj": 2},
    )
    llm = make_adapter(load_base(), NANO / "llm", text_lora, torch.float32)
    write_json(NANO / "llm" / "assembly.json", {**manifest, "adapters": ["."]})

    inputs = tokenizer(TEXT, return_tensors="pt")
    inputs = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    unmerged = run(llm, inputs, "base_model.model.model.")
    llm = llm.merge_and_unload()
    merged_text = {k: v.clone() for k, v in llm.state_dict().items()}
    as_stored(llm)
    write_case("nano-llm", "../../../weights/nano/llm", TEXT, [], inputs, run(llm, inputs))
    save({k: unmerged[k] for k in ["resid_post.3", "logits"]}, FIXTURES / "nano-llm" / "unmerged.safetensors")

    llm.load_state_dict(merged_text)
    joint_lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=2,
        lora_alpha=4,
        use_rslora=True,
        target_modules=["q_proj", "v_proj", "down_proj"],
        alpha_pattern={"v_proj": 2},
    )
    joint = make_adapter(llm, NANO / "vlm" / "adapter", joint_lora, torch.float16).merge_and_unload()

    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 96,
        "patch_size": 32,
        "num_channels": 3,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }
    vlm_json = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": IMAGE_TOKEN_ID,
        "image_seq_length": IMAGE_TOKENS,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "text_config": {k: v for k, v in base_config.items() if k not in ("architectures", "torch_dtype")},
        "vision_config": vision,
    }
    write_json(NANO / "vlm" / "config.json", vlm_json)
    processor = CLIPImageProcessor(size={"shortest_edge": 96}, crop_size={"height": 96, "width": 96})
    processor.save_pretrained(NANO / "vlm")
    config = LlavaConfig.from_pretrained(NANO / "vlm")
    state = vision_state(config)
    save(state, NANO / "vlm" / "model.safetensors")
    write_json(
        NANO / "vlm" / "assembly.json",
        {
            **manifest,
            "prefix": "language_model.",
            "adapters": ["../llm", "adapter"],
            "tokens": {str(IMAGE_TOKEN_ID): "<image>"},
        },
    )

    vlm = LlavaForConditionalGeneration(config)
    inner = vlm.model
    inner.language_model.load_state_dict(joint.model.state_dict())
    tower = {k.removeprefix("vision_tower.vision_model."): v for k, v in state.items() if k.startswith("vision_tower")}
    inner.vision_tower.load_state_dict(tower, strict=False)
    projector = {k.removeprefix("multi_modal_projector."): v for k, v in state.items() if k.startswith("multi")}
    inner.multi_modal_projector.load_state_dict(projector)
    vlm.tie_weights()
    as_stored(vlm.eval())
    vlm.set_attn_implementation("eager")
    pixels = processor(Image.open(FIXTURES / "images" / PICTURE).convert("RGB"), return_tensors="pt")["pixel_values"]
    before, after = "Q:", "\nA: red\n\nQ:"
    text = f"{before}<image>{after}"
    spelt = f"{before}{'<empty_output>' * IMAGE_TOKENS}{after}"
    inputs = tokenizer(spelt, return_tensors="pt")
    inputs = {
        "input_ids": inputs["input_ids"],
        "attention_mask": inputs["attention_mask"],
        "pixel_values": pixels.float(),
    }
    found = run(vlm, inputs, *VLM_MODULES)
    write_case("nano-vlm", "../../../weights/nano/vlm", text, [PICTURE], inputs, found)


main()
