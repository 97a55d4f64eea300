"""Stage 2b: trains tower and projector without the language model: they learn to write names as its input embeddings.

    python tower.py --base DIR --data DIR --out DIR

Two losses. Naming: the nine image tokens should be the embeddings of the name's tokens (over and over, cut at the left),
as nearest neighbours among all tokens of names and in distance. Distillation: the mean of the tokens after the fourth
block predicts what EfficientNet-Lite0 sees, in its 256 leading principal components. Starts again from its last
checkpoint when it was stopped.
"""

import argparse
import os

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaForCausalLM

from prompts import Prompter
from training import Progress, checkpoint_path, device_and_autocast, load_state, save_state, schedule
from vision import build_vlm, jitter, vision_state

COMPONENTS, DISTILLED_BLOCK = 256, 4
FLAGS, NAMED, OTHERS = 20, 26, 18  # views in a batch
SHARPNESS = 2.0


class Names:
    """Targets: every concept as IMAGE_TOKENS rows of the embedding matrix, and the rows they are told apart from."""

    def __init__(self, names, embeddings: torch.Tensor, prompter: Prompter):
        spelt = [prompter.spelt(str(name)) for name in names]
        vocabulary = sorted({t for ids in spelt for t in ids})
        index = {t: i for i, t in enumerate(vocabulary)}
        self.targets = torch.tensor([[index[t] for t in ids] for ids in spelt])  # [concepts, 9]
        self.rows = embeddings[vocabulary]  # [vocabulary, width]
        self.lengths = torch.tensor([min(len(prompter.name(str(n))), self.targets.shape[1]) for n in names])

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Negative squared distances to the rows, up to a constant: [..., vocabulary]."""
        return SHARPNESS * (2 * tokens @ self.rows.T - self.rows.square().sum(1))

    def loss(self, tokens, labels):
        targets = self.targets[labels]  # [n, 9]
        nearest = F.cross_entropy(self.logits(tokens).flatten(0, 1), targets.flatten())
        distance = (tokens - self.rows[targets]).square().sum(-1).mean() / self.rows.square().sum(1).mean()
        return nearest + 0.5 * distance, nearest, distance

    def named(self, tokens) -> torch.Tensor:
        """The concept whose rows are nearest on the whole: [n]."""
        scores = self.logits(tokens).log_softmax(-1)  # [n, 9, vocabulary]
        return torch.stack([s.gather(-1, self.targets.T).sum(0) for s in scores]).argmax(1)


def principal_components(features: torch.Tensor):
    """Mean and projection [1280, COMPONENTS] of rows of features, scaled as a whole to unit variance."""
    mean = features.mean(0)
    _, values, vectors = torch.pca_lowrank(features - mean, COMPONENTS, center=False)
    scale = values.square().sum().div(len(features) * COMPONENTS).sqrt()
    return mean, vectors / scale


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=7400)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device, autocast = device_and_autocast()
    llm = LlamaForCausalLM.from_pretrained(args.base, dtype=torch.float32)
    prompter = Prompter(AutoTokenizer.from_pretrained(args.base))
    embeddings = llm.get_input_embeddings().weight.detach()
    vlm = build_vlm(llm)
    tower, projector = vlm.model.vision_tower.to(device), vlm.model.multi_modal_projector.to(device)
    head = torch.nn.Linear(192, COMPONENTS).to(device)
    model = torch.nn.ModuleDict({"tower": tower, "projector": projector, "head": head})
    with torch.no_grad():  # start with tokens of the size of embeddings
        projector.linear_2.weight.mul_(3)

    drawings = np.load(f"{args.data}/drawings.npz")
    views = np.load(f"{args.data}/views.npz")
    pictures = torch.from_numpy(views["pictures"])
    labels = torch.from_numpy(drawings["labels"][views["drawing"]])
    names = Names(drawings["names"], embeddings, prompter)
    flag_concept = torch.tensor([e.startswith("1f1") for e in drawings["emojis"]])
    is_flag = (labels >= 0) & flag_concept[labels]
    groups = [torch.where(is_flag)[0], torch.where((labels >= 0) & ~is_flag)[0], torch.where(labels < 0)[0]]
    features = torch.from_numpy(views["features"]).float()
    mean, projection = principal_components(features[~is_flag])
    seen = (features - mean) @ projection  # [views, COMPONENTS]
    del features
    names.targets, names.rows = names.targets.to(device), names.rows.to(device)

    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.05, betas=(0.9, 0.98))
    scheduler = schedule(optimizer, args.steps, warmup=300)
    state = checkpoint_path(args.out)
    first = load_state(state, model, optimizer, scheduler)
    progress = Progress("tower", args.steps, first, every=100)
    for step in range(first, args.steps):
        random = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        rows = torch.cat([g[torch.randint(len(g), (n,), generator=random)] for g, n in zip(groups, (FLAGS, NAMED, OTHERS))])
        x = jitter(pictures[rows], random).to(device)
        with autocast():
            hidden = tower(x, output_hidden_states=True).hidden_states
            tokens = projector(hidden[-1][: FLAGS + NAMED, 1:])  # [named views, 9, width]
            guess = head(hidden[DISTILLED_BLOCK][FLAGS:, 1:].mean(1))
        naming, nearest, distance = names.loss(tokens.float(), labels[rows[: FLAGS + NAMED]].to(device))
        distilled = F.mse_loss(guess.float(), seen[rows[FLAGS:]].to(device))
        (naming + distilled).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        progress.show(step, nearest=nearest.item(), distance=distance.item(), distilled=distilled.item())
        if (step + 1) % 500 == 0:
            save_state(state, step + 1, model, optimizer, scheduler)
            save_file({k: v.half().contiguous() for k, v in vision_state(vlm).items()}, f"{args.out}/model.safetensors")


if __name__ == "__main__":
    main()
