"""The tower and projector, in Hugging Face's LLaVA classes, and the pictures they are fed."""

import torch
import torch.nn.functional as F
from transformers import CLIPVisionConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

from prompts import IMAGE_TOKEN

SIDE, PATCH = 96, 32
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True,
    "do_resize": True, "resample": 3, "size": {"shortest_edge": SIDE},
    "do_center_crop": True, "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}


def vlm_config(text_config) -> LlavaConfig:
    """3.3 million parameters of tower; 9 image tokens; features of the last block."""
    tower = CLIPVisionConfig(hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=3,
                             image_size=SIDE, patch_size=PATCH, projection_dim=192)
    return LlavaConfig(vision_config=tower, text_config=text_config, image_token_index=IMAGE_TOKEN,
                       vision_feature_layer=-1, vision_feature_select_strategy="default",
                       image_seq_length=(SIDE // PATCH) ** 2, tie_word_embeddings=True)


def build_vlm(llm: LlamaForCausalLM) -> LlavaForConditionalGeneration:
    """LLaVA with a fresh tower and projector around a language model."""
    with torch.device("meta"):
        vlm = LlavaForConditionalGeneration(vlm_config(llm.config))
    vlm.model.vision_tower = type(vlm.model.vision_tower)(vlm.config.vision_config)
    vlm.model.multi_modal_projector = type(vlm.model.multi_modal_projector)(vlm.config)
    vlm.model.language_model = llm.model
    vlm.lm_head = llm.lm_head
    return vlm


def vision_state(vlm) -> dict[str, torch.Tensor]:
    """Tower and projector under the keys of published LLaVA checkpoints."""
    state = {f"vision_tower.vision_model.{k}": v for k, v in vlm.model.vision_tower.state_dict().items()
             if not k.endswith("position_ids")}
    state |= {f"multi_modal_projector.{k}": v for k, v in vlm.model.multi_modal_projector.state_dict().items()}
    return {k.replace("vision_model.vision_model.", "vision_model."): v for k, v in state.items()}


def load_vision(vlm, state):
    tower, projector = "vision_tower.vision_model.", "multi_modal_projector."
    vlm.model.vision_tower.load_state_dict({k.removeprefix(tower): v for k, v in state.items() if k.startswith(tower)})
    vlm.model.multi_modal_projector.load_state_dict(
        {k.removeprefix(projector): v for k, v in state.items() if k.startswith(projector)})


def jitter(pictures: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """uint8 [n, 3, side, side] -> normalised f32 [n, 3, SIDE, SIDE], moved, turned and lit a little."""
    n = len(pictures)
    rand = lambda *shape: torch.rand(*shape, generator=random) * 2 - 1
    angle, scale = 0.12 * rand(n), 1 + 0.1 * rand(n)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([torch.stack([cos, sin, 0.07 * rand(n)], 1), torch.stack([-sin, cos, 0.07 * rand(n)], 1)], 1)
    grid = F.affine_grid(theta, [n, 3, SIDE, SIDE], align_corners=False)
    x = F.grid_sample(pictures.float() / 127.5 - 1, grid, align_corners=False, padding_mode="border")
    return (x * (1 + 0.15 * rand(n, 1, 1, 1)) + 0.1 * rand(n, 1, 1, 1)).clamp(-1, 1)
