"""Stage 2b: trains tower and projector without the language model: they learn to write names as its input embeddings.

    python tower.py --base DIR --data DIR --out DIR

Two losses. Naming: the nine image tokens should be the embeddings of the name's tokens (over and over, cut at the left),
as nearest neighbours among all tokens of names and in distance. Distillation: class token and mean of the image tokens
after the fourth block predict what EfficientNet-Lite0 sees, in its 256 leading principal components. Starts again from its last
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
FLAGS, NAMED, OTHERS = 14, 30, 20  # views in a batch
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
    centred = features - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(features))  # ascending
    return mean, vectors[:, -COMPONENTS:] / values[-COMPONENTS:].mean().sqrt()


def teacher_guess(head, hidden) -> torch.Tensor:
    """The components [n, COMPONENTS] from the hidden states of the tower."""
    tokens = hidden[DISTILLED_BLOCK]  # [n, 1 + 9, 192]
    return head(torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], 1))


class Lessons:
    """What the tower learns without the language model: batches of views and the two losses on them."""

    def __init__(self, data: str, embeddings: torch.Tensor, prompter: Prompter, device):
        drawings, views = np.load(f"{data}/drawings.npz"), np.load(f"{data}/views.npz")
        self.device = device
        self.prompter = prompter
        self.concepts = [str(name) for name in drawings["names"]]
        self.names = Names(self.concepts, embeddings, prompter)
        self.names.targets, self.names.rows = self.names.targets.to(device), self.names.rows.to(device)
        self.pictures = torch.from_numpy(views["pictures"])
        self.labels = torch.from_numpy(drawings["labels"][views["drawing"]])
        flag_concept = torch.tensor([e.startswith("1f1") for e in drawings["emojis"]])
        is_flag = (self.labels >= 0) & flag_concept[self.labels]
        self.flags, self.named, self.others = (
            torch.where(m)[0] for m in (is_flag, (self.labels >= 0) & ~is_flag, self.labels < 0))
        features = torch.from_numpy(views["features"]).float()
        mean, projection = principal_components(features[~is_flag])
        self.seen = (features - mean) @ projection  # [views, COMPONENTS]

    def draw(self, random: torch.Generator, *groups):
        """Pairs of (rows to draw from, how many) -> row numbers, pictures and concepts."""
        rows = torch.cat([g[torch.randint(len(g), (n,), generator=random)] for g, n in groups])
        return rows, jitter(self.pictures[rows], random).to(self.device), self.labels[rows].to(self.device)

    def losses(self, model, random: torch.Generator):
        """Naming with its two parts, and distillation. model: tower, projector and head."""
        rows, pictures, concepts = self.draw(random, (self.flags, FLAGS), (self.named, NAMED), (self.others, OTHERS))
        hidden = model["tower"](pictures, output_hidden_states=True).hidden_states
        tokens = model["projector"](hidden[-1][: FLAGS + NAMED, 1:])  # [named views, 9, width]
        guess = teacher_guess(model["head"], hidden)[FLAGS:]
        naming, nearest, distance = self.names.loss(tokens.float(), concepts[: FLAGS + NAMED])
        distilled = F.mse_loss(guess.float(), self.seen[rows[FLAGS:]].to(self.device))
        return naming, nearest, distance, distilled


def new_head() -> torch.nn.Module:
    return torch.nn.Linear(2 * 192, COMPONENTS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=13500)
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
    model = torch.nn.ModuleDict({"tower": tower, "projector": projector, "head": new_head().to(device)})
    with torch.no_grad():  # start with tokens of the size of embeddings
        projector.linear_2.weight.mul_(3)

    lessons = Lessons(args.data, embeddings, prompter, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.05, betas=(0.9, 0.98))
    scheduler = schedule(optimizer, args.steps, warmup=300)
    state = checkpoint_path(args.out)
    first = load_state(state, model, optimizer, scheduler)
    progress = Progress("tower", args.steps, first, every=100)
    for step in range(first, args.steps):
        random = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        with autocast():
            naming, nearest, distance, distilled = lessons.losses(model, random)
        (naming + distilled).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        progress.show(step, nearest=nearest.item(), distance=distance.item(), distilled=distilled.item())
        if (step + 1) % 500 == 0 or step + 1 == args.steps:
            save_state(state, step + 1, model, optimizer, scheduler)
            torch.save(model["head"].state_dict(), f"{args.out}/head.pt")
            save_file({k: v.half().contiguous() for k, v in vision_state(vlm).items()}, f"{args.out}/model.safetensors")


if __name__ == "__main__":
    main()
