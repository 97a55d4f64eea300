"""Stage 1: LoRA on SmolLM2, on text alone, so that it learns tasks from examples. Gives the base LLM.

    python text_tune.py --base DIR --out DIR [--leave-out test]

Starts again from its last checkpoint when it was stopped.
"""

import argparse
import os
import random

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaForCausalLM

from prompts import Prompter, draw_naming, draw_text, read_extra_tasks, read_tasks
from training import Progress, answer_loss, batch_text, checkpoint_path, device_and_autocast, load_state, save_state, schedule

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FROZEN_LAYERS = 6  # embeddings and the lowest layers stay SmolLM2's


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--out", required=True, help="folder for the adapter, in PEFT's layout")
    parser.add_argument("--leave-out", choices=["test"], help="control: without the facts of the test items")
    parser.add_argument("--steps", type=int, default=650)
    parser.add_argument("--rank", type=int, default=24)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device, autocast = device_and_autocast()
    tokenizer = AutoTokenizer.from_pretrained(args.base)
    model = LlamaForCausalLM.from_pretrained(args.base, dtype=torch.float32).to(device)
    layers = range(FROZEN_LAYERS, model.config.num_hidden_layers)
    config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=LINEARS, layers_to_transform=list(layers))
    model = get_peft_model(model, config)
    weights = [w for w in model.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.rate, weight_decay=0.0)
    scheduler = schedule(optimizer, args.steps)

    prompter, tasks, extra = Prompter(tokenizer), read_tasks(), read_extra_tasks()
    names = sorted({i.input for t in tasks.values() for i in t["items"]})
    state = checkpoint_path(args.out)
    first = load_state(state, model, optimizer, scheduler)
    progress = Progress("text tune", args.steps, first)
    for step in range(first, args.steps):
        rng = random.Random(f"{args.seed} {step}")
        prompts = [draw_text(rng, prompter, tasks, extra, args.leave_out) for _ in range(8)]
        prompts += [draw_naming(rng, prompter, names) for _ in range(8)]
        loss = 0.0
        for part in (prompts[:8], prompts[8:]):
            ids, mask, labels = (t.to(device) for t in batch_text(part))
            with autocast():
                out = answer_loss(model.get_base_model(), labels, input_ids=ids, attention_mask=mask)
            (out * 0.5).backward()
            loss += 0.5 * out.item()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        progress.show(step, loss=loss)
        if (step + 1) % 50 == 0:
            save_state(state, step + 1, model, optimizer, scheduler)
    model.half().save_pretrained(args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
