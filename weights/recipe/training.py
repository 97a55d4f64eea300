"""What the stages share: batches, learning rate, checkpoints that resume, a line of progress."""

import contextlib
import math
import os
import time

import torch

IGNORE = -100


def device_and_autocast():
    """A CUDA GPU in bf16 where there is one, else the CPU in f32 (bf16 is slow on most CPUs)."""
    if torch.cuda.is_available():
        return torch.device("cuda"), lambda: torch.autocast("cuda", dtype=torch.bfloat16)
    return torch.device("cpu"), contextlib.nullcontext


def batch_text(prompts):
    """Pads (ids, labels) pairs on the right: ids, attention mask, labels, each [prompts, longest]."""
    longest = max(len(ids) for ids, _ in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    labels = torch.full((len(prompts), longest), IGNORE)
    for row, (tokens, targets) in enumerate(prompts):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
        labels[row, : len(targets)] = torch.tensor(targets)
    return ids, mask, labels


def answer_loss(llm, labels, **inputs):
    """Mean cross-entropy of the labelled tokens; logits are computed for those alone. llm: a LlamaForCausalLM."""
    hidden = llm.model(**inputs, use_cache=False).last_hidden_state[:, :-1]  # [prompts, tokens - 1, width]
    targets = labels[:, 1:]
    asked = targets != IGNORE
    return torch.nn.functional.cross_entropy(llm.lm_head(hidden[asked]).float(), targets[asked])


def schedule(optimizer, steps: int, warmup: int = 15):
    """Linear warm-up, then a cosine to zero."""
    rise = lambda step: min(1.0, (step + 1) / warmup)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rise(step) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    )


def checkpoint_path(out: str) -> str:
    os.makedirs(out, exist_ok=True)
    return os.path.join(out, "training-state.pt")


def save_state(path, step, model, optimizer, scheduler):
    """Keeps only what is trained. Written beside and renamed, so that a kill leaves the old one."""
    trained = {name for name, w in model.named_parameters() if w.requires_grad}
    weights = {name: w for name, w in model.state_dict().items() if name in trained}
    torch.save({"step": step, "model": weights, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, path + ".new")
    os.replace(path + ".new", path)


def load_state(path, model, optimizer, scheduler) -> int:
    """The step to go on with."""
    if not os.path.exists(path):
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    return state["step"]


class Progress:
    """A line every few steps: averages since the last line, and the time left."""

    def __init__(self, name: str, steps: int, first: int = 0, every: int = 10):
        self.name, self.steps, self.first, self.every = name, steps, first, every
        self.began = time.time()
        self.sums: dict[str, float] = {}
        self.count = 0

    def show(self, step: int, **values: float):
        for key, value in values.items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        self.count += 1
        if (step + 1) % self.every and step + 1 != self.steps:
            return
        done = step + 1 - self.first
        left = (time.time() - self.began) / done * (self.steps - step - 1)
        shown = "  ".join(f"{key} {value / self.count:.4f}" for key, value in self.sums.items())
        print(f"{self.name} {step + 1}/{self.steps}  {shown}  {left / 60:.1f} min left", flush=True)
        self.sums, self.count = {}, 0
