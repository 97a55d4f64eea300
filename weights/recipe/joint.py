"""Stage 3: tower, projector and a second LoRA together, with the language model in the loop. Gives the VLM.

    python joint.py --base DIR --llm DIR --tower DIR --data DIR --out DIR

Pictures come with their names alone, never with a task: `Q:<image>\\nA: France`. Two losses on them: the name's tokens;
and the residual stream from the last image token on, layer by layer, should be what the base LLM has after the written
name. A third of the tokens are text prompts of stage 1, and the tower goes on with the batches of stage 2, so that nothing
is forgotten. Starts again from its last checkpoint when it was stopped.

With --record DIR it writes what `npm run bench -- joint --joint DIR` needs to run the same steps in xpatch: the start, what each of the
first --record-steps draws, and its losses; then it ends.
"""

import argparse
import os
import random as python_random
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaForCausalLM

from joint_record import JointRecord
from prompts import IGNORE, IMAGE_TOKENS, Prompter, draw_text, read_extra_tasks, read_tasks
from text_tune import FROZEN_LAYERS, LINEARS
from tower import Lessons, new_head
from training import Progress, answer_loss, batch_text, checkpoint_path, device_and_autocast, load_state, save_state, schedule
from vision import build_vlm, load_vision, vision_state

ALIGNED = range(5, 27)  # indices of hidden_states: after decoder layers 4 to 25
TAIL = 4  # positions compared: the last of the name, then "\n", "A", ":"


def written_states(llm, prompter: Prompter, names, device) -> torch.Tensor:
    """What the base LLM holds after each written name: f16 [concepts, layers, TAIL, width]."""
    states = []
    with torch.inference_mode():
        for name in names:
            ids = torch.tensor([prompter.query(prompter.name(str(name)))], device=device)
            hidden = llm.model(ids, output_hidden_states=True).hidden_states
            states.append(torch.stack([hidden[i][0, -TAIL:] for i in ALIGNED]).half())
    return torch.stack(states)


class Captions:
    """Embeds `Q:<image>\\nA: name` around image tokens."""

    def __init__(self, prompter: Prompter, names, embedding):
        self.before = torch.tensor(prompter.ids("Q:"))
        self.after = [torch.tensor(prompter.ids("\nA:") + prompter.ids(f" {n}") + prompter.ids("\n")) for n in names]
        self.cue = len(prompter.ids("\nA:"))
        self.embedding = embedding

    def batch(self, tokens: torch.Tensor, labels: torch.Tensor):
        """tokens [n, 9, width] -> inputs_embeds, attention_mask, labels, and the position of the cue's end."""
        n, device = len(labels), tokens.device
        rows = [self.after[label] for label in labels.tolist()]
        longest = max(len(r) for r in rows)
        ids = torch.zeros(n, longest, dtype=torch.long)
        mask = torch.ones(n, len(self.before) + IMAGE_TOKENS + longest, dtype=torch.long)
        targets = torch.full(mask.shape, IGNORE)
        start = len(self.before) + IMAGE_TOKENS
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, start + len(row):] = 0
            targets[i, start + self.cue: start + len(row)] = row[self.cue:]
        before = self.embedding(self.before.to(device)).expand(n, -1, -1)
        embeds = torch.cat([before, tokens, self.embedding(ids.to(device))], 1)
        return embeds, mask.to(device), targets.to(device), start + self.cue - 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--llm", required=True, help="adapter of the text tune")
    parser.add_argument("--tower", required=True, help="folder of stage 2")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=420)
    parser.add_argument("--images", type=int, default=16, help="pictures in a step")
    parser.add_argument("--texts", type=int, default=2, help="text prompts in a step")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", help="folder for the start, the first steps and their losses")
    parser.add_argument("--record-steps", type=int, default=20)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    device, autocast = device_and_autocast()
    prompter = Prompter(AutoTokenizer.from_pretrained(args.base))
    base = LlamaForCausalLM.from_pretrained(args.base, dtype=torch.float32)
    llm = PeftModel.from_pretrained(base, args.llm).merge_and_unload().to(device)
    llm.requires_grad_(False)
    vlm = build_vlm(llm)
    load_vision(vlm, {k: v.float() for k, v in load_file(f"{args.tower}/model.safetensors").items()})
    tower, projector = vlm.model.vision_tower.to(device), vlm.model.multi_modal_projector.to(device)

    embedding = llm.get_input_embeddings()
    lessons = Lessons(args.data, embedding.weight.detach().cpu(), prompter, device)
    head = new_head().to(device)
    if os.path.exists(f"{args.tower}/head.pt") or not args.record:  # weights/vlm has none: a new one records as well
        head.load_state_dict(torch.load(f"{args.tower}/head.pt", weights_only=True))
    written = written_states(llm, prompter, lessons.concepts, device)
    size = written.float().square().sum(-1).mean((0, 2))  # [layers]
    captions = Captions(prompter, lessons.concepts, embedding)

    layers = range(FROZEN_LAYERS, llm.config.num_hidden_layers)
    llm = get_peft_model(llm, LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=LINEARS, layers_to_transform=list(layers)))
    model = torch.nn.ModuleDict({"llm": llm, "tower": tower, "projector": projector, "head": head})
    adapter = [w for w in llm.parameters() if w.requires_grad]
    optimizer = torch.optim.AdamW([
        {"params": adapter, "lr": 3e-4, "weight_decay": 0.0},
        {"params": [*tower.parameters(), *head.parameters()], "lr": 1.5e-4, "weight_decay": 0.05},
        {"params": projector.parameters(), "lr": 3e-4, "weight_decay": 0.05},
    ])
    scheduler = schedule(optimizer, args.steps, warmup=30)
    tasks, extra = read_tasks(), read_extra_tasks()
    state = checkpoint_path(args.out)
    first = load_state(state, model, optimizer, scheduler)
    record = JointRecord(args, vlm, llm, head, lessons, captions) if args.record else None
    progress = Progress("joint", args.steps, first, every=20)
    for step in range(first, args.steps):
        random = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        half = args.images // 2
        began = time.time()
        _, pictures, concept = lessons.draw(random, (lessons.flags, half), (lessons.named, half))
        with autocast():
            tokens = projector(tower(pictures, output_hidden_states=True).hidden_states[-1][:, 1:])
            embeds, mask, targets, cue = captions.batch(tokens, concept)
            inner = llm.get_base_model()
            hidden = inner.model(inputs_embeds=embeds, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
            asked = targets[:, 1:] != IGNORE
            logits = inner.lm_head(hidden[-1][:, :-1][asked]).float()
        caption = torch.nn.functional.cross_entropy(logits, targets[:, 1:][asked])
        tail = torch.stack([hidden[i][:, cue - TAIL + 1: cue + 1] for i in ALIGNED], 1).float()  # [n, layers, TAIL, width]
        aligned = ((tail - written[concept.to(written.device)].float()).square().sum(-1).mean((0, 2)) / size).mean()
        (0.5 * caption + aligned).backward()

        drawn_before = random.get_state()
        with autocast():
            naming, _, distance, distilled = lessons.losses(model, random)
        (0.5 * (naming + distilled)).backward()

        rng = python_random.Random(f"{args.seed} {step}")
        prompts = [draw_text(rng, prompter, tasks, extra, None) for _ in range(args.texts)]
        ids, mask, targets = (t.to(device) for t in batch_text(prompts))
        with autocast():
            text = answer_loss(llm.get_base_model(), targets, input_ids=ids, attention_mask=mask)
        (0.5 * text).backward()
        norm = torch.nn.utils.clip_grad_norm_([w for g in optimizer.param_groups for w in g["params"]], 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        progress.show(step, caption=caption.item(), aligned=aligned.item(), naming=naming.item(), distance=distance.item(),
                      distilled=distilled.item(), text=text.item())
        if record:
            losses = dict(caption=caption, aligned=aligned, naming=naming, distilled=distilled, text=text, norm=norm)
            record.step(pictures, concept, drawn_before, prompts, losses, time.time() - began)
            if step + 1 == args.record_steps:
                return record.write()
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            save_state(state, step + 1, model, optimizer, scheduler)
            save_file({k: v.half().contiguous() for k, v in vision_state(vlm).items()}, f"{args.out}/model.safetensors")
            llm.save_pretrained(f"{args.out}/adapter")


if __name__ == "__main__":
    main()
