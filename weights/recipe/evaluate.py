"""The recipe's own evaluation, in PyTorch, by the protocol of the library (same prompts, same draws, same scoring).

    python evaluate.py --base DIR --tower DIR --pictures drawings --data DIR             (gate 1: naming by the tower)
    python evaluate.py --base DIR --llm DIR --vlm DIR --pictures drawings --data DIR     (gate 2: patching)
    python evaluate.py --base DIR --llm DIR --vlm DIR --pictures validation              (validation items and style)
    python evaluate.py --base DIR --llm DIR --vlm DIR --pictures test --layer L          (once, at the end)

Without --llm the language model is the untouched base; without --vlm there are no pictures. Vectors come from text
examples of validation items.
"""

import argparse
import json

import numpy as np
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaForCausalLM

from prompts import ROOT, Prompter, concepts, read_tasks
from render import HELD_OUT
from tower import Names
from vision import SIDE, build_vlm, load_vision

LAYERS = range(14, 26)
REPORTED_ONLY = "food-flavor"  # one answer is half of it: kept out of means


def hash_text(text: str) -> int:
    """FNV-1a over UTF-8, then MurmurHash3's finaliser: the library's `hashText`."""
    h = 0x811C9DC5
    for byte in text.encode():
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return h ^ h >> 16


def draw(pool, query, count=5, seed=0):
    others = [i for i in pool if i.input != query.input]
    return sorted(others, key=lambda i: (hash_text(f"{seed}\n{query.input}\n{i.input}"), i.input))[:count]


def correct(answer: str, outputs) -> bool:
    given = answer.strip().lower()
    return given != "" and any(given.startswith(o.strip().lower()) or o.strip().lower().startswith(given) for o in outputs)


def score(items, answers) -> dict:
    outputs = [o for i in items for out in i.outputs for o in (out, out.split()[0])]
    majority = max(sum(correct(o, i.outputs) for i in items) for o in set(outputs)) / len(items)
    right = sum(correct(a, i.outputs) for a, i in zip(answers, items))
    return {"correct": right, "total": len(items), "accuracy": right / len(items), "majority": majority,
            "distinct": len({a.strip().lower() for a in answers})}


class Vision:
    """Tower and projector of a folder of stage 2 or 3."""

    def __init__(self, folder: str, llm: LlamaForCausalLM):
        vlm = build_vlm(llm)
        load_vision(vlm, {k: v.float() for k, v in load_file(f"{folder}/model.safetensors").items()})
        self.tower, self.projector = vlm.model.vision_tower.eval(), vlm.model.multi_modal_projector

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures [n, 3, SIDE, SIDE] -> [n, 9, width]."""
        return torch.cat([self.projector(self.tower(x, output_hidden_states=True).hidden_states[-1][:, 1:]) for x in pixels.split(64)])


class Evaluator:
    def __init__(self, base: str, llm: str | None, vlm: str | None):
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.prompter = Prompter(self.tokenizer)
        model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
        if llm:
            model = PeftModel.from_pretrained(model, llm).merge_and_unload()
        if vlm and llm:
            model = PeftModel.from_pretrained(model, f"{vlm}/adapter").merge_and_unload()
        self.vision = Vision(vlm, model) if vlm else None
        self.model = model.eval()
        self.embed = model.get_input_embeddings()

    def picture_embeds(self, pixels: torch.Tensor) -> torch.Tensor:
        """`Q:<image>\\nA:` for pictures [n, 3, SIDE, SIDE]: [n, 14, width]."""
        tokens = self.vision.tokens(pixels)
        rows = lambda text: self.embed(torch.tensor(self.prompter.ids(text))).expand(len(pixels), -1, -1)
        return torch.cat([rows("Q:"), tokens, rows("\nA:")], 1)

    def text_embeds(self, ids: list[int]) -> torch.Tensor:
        return self.embed(torch.tensor([ids]))

    def examples(self, items) -> list[int]:
        return [t for i in items for t in self.prompter.answered(self.prompter.name(i.input), i.outputs[0])[0]]

    def vectors(self, items, prompts: int) -> torch.Tensor:
        """Mean residual stream after each layer at the last example's cue, over prompts for the first items: [layers, width]."""
        total = 0
        for item in items[:prompts]:
            shown = draw(items, item)
            ids = self.examples(shown[:-1]) + self.prompter.query(self.prompter.name(shown[-1].input))
            hidden = self.model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            total = total + torch.stack([h[0, -1] for h in hidden[1:]])
        return total / len(items[:prompts])

    def answers(self, embeds: torch.Tensor, vectors=None, layers=()) -> dict:
        """First tokens of answers to prompts of one length [n, tokens, width]: unpatched (None) and patched, by layer."""
        inner = self.model.model
        hidden = list(inner(inputs_embeds=embeds, output_hidden_states=True).hidden_states)
        positions = torch.arange(embeds.shape[1])[None]
        rotary = inner.rotary_emb(embeds, positions)
        top = lambda h: [self.tokenizer.decode(t) for t in self.model.lm_head(h[:, -1]).argmax(-1).tolist()]
        found = {None: top(hidden[-1])}
        for layer in layers:
            x = hidden[layer + 1].clone()
            x[:, -1] = vectors[layer]
            for block in inner.layers[layer + 1:]:
                x = block(x, position_embeddings=rotary, position_ids=positions, attention_mask=None)
                x = x[0] if isinstance(x, tuple) else x
            found[layer] = top(inner.norm(x))
        return found

    def names(self, embeds: torch.Tensor, tokens: int = 9) -> list[str]:
        """What zero-shot answers say up to the line end."""
        said, cache = [], None
        for _ in range(tokens):
            out = self.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            said.append(out.logits[:, -1].argmax(-1, keepdim=True))
            embeds = self.embed(said[-1])
        ids = torch.cat(said, 1)
        return [text.split("\n")[0].strip() for text in self.tokenizer.batch_decode(ids)]


def held_out_pictures(style: str) -> dict[str, torch.Tensor]:
    """Normalised pictures [3, SIDE, SIDE] of a style, by emoji."""
    found = {}
    for emoji in concepts(read_tasks()):
        try:
            picture = Image.open(f"{ROOT}/tasks/pictures/{style}/{emoji}.png").convert("RGB")
        except FileNotFoundError:
            continue
        small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        found[emoji] = torch.from_numpy(small.copy()).permute(2, 0, 1).float() / 127.5 - 1
    return found


def drawing_pictures(data: str) -> dict[str, torch.Tensor]:
    """One training drawing of each concept, undistorted."""
    file = np.load(f"{data}/drawings.npz")
    drawings, labels, emojis = file["drawings"], file["labels"], file["emojis"]
    found = {}
    for n in np.random.default_rng(0).permutation(np.where(labels >= 0)[0]):
        emoji = str(emojis[labels[n]])
        if emoji not in found:
            drawing = Image.fromarray(drawings[n])
            white = Image.new("RGBA", drawing.size, "white")
            white.alpha_composite(drawing)
            small = np.asarray(white.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            found[emoji] = torch.from_numpy(small.copy()).permute(2, 0, 1).float() / 127.5 - 1
    return found


def kind_of(emoji: str, tasks) -> str:
    """flag, animal or food."""
    if emoji.startswith("1f1"):
        return "flags"
    return "animals" if any(i.emoji == emoji for n in ("animal-latin", "animal-young", "animal-class") for i in tasks[n]["items"]) else "foods"


def share_named(said, emojis, tasks) -> dict:
    """Right names by kind of picture."""
    names = concepts(tasks)
    result = {}
    for kind in ("flags", "animals", "foods"):
        hits = [s.lower() == names[e].lower() for s, e in zip(said, emojis) if kind_of(e, tasks) == kind]
        result[kind] = {"correct": sum(hits), "total": len(hits), "accuracy": sum(hits) / max(1, len(hits))}
    return result


def name_pictures(evaluator: Evaluator, pictures, tasks) -> dict:
    embeds = evaluator.picture_embeds(torch.stack(list(pictures.values())))
    return share_named([n for part in embeds.split(64) for n in evaluator.names(part)], pictures, tasks)


def name_by_tower(base: str, folder: str, pictures, tasks) -> dict:
    """The names whose embeddings the image tokens are nearest to, without the language model."""
    llm = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    known = sorted(concepts(tasks).values())
    names = Names(known, llm.get_input_embeddings().weight, Prompter(AutoTokenizer.from_pretrained(base)))
    found = names.named(Vision(folder, llm).tokens(torch.stack(list(pictures.values()))))
    return share_named([known[i] for i in found.tolist()], pictures, tasks)


def evaluate_text(evaluator: Evaluator, pool, vectors, layers) -> dict:
    query = lambda item: evaluator.prompter.query(evaluator.prompter.name(item.input))
    found = [evaluator.answers(evaluator.text_embeds(query(i)), vectors, layers) for i in pool]
    shots = [evaluator.answers(evaluator.text_embeds(evaluator.examples(draw(pool, i)) + query(i)))[None][0] for i in pool]
    return {**{str(l): score(pool, [f[l][0] for f in found]) for l in (None, *layers)}, "prompt": score(pool, shots)}


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--llm")
    parser.add_argument("--vlm")
    parser.add_argument("--tower", help="name pictures by a tower of stage 2 alone, and nothing else")
    parser.add_argument("--pictures", choices=["drawings", "validation", "test"], default="validation")
    parser.add_argument("--data")
    parser.add_argument("--layer", type=int, help="instead of the best on these items")
    parser.add_argument("--prompts", type=int, default=12, help="that a task vector is the mean of")
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--queries", nargs="*", choices=["text", "image"], default=["text", "image"])
    parser.add_argument("--json")
    args = parser.parse_args()
    tasks = {n: t for n, t in read_tasks().items() if not args.tasks or n in args.tasks}
    pictures = {}
    if args.vlm or args.tower:
        pictures = drawing_pictures(args.data) if args.pictures == "drawings" else held_out_pictures(HELD_OUT[args.pictures])
    if args.tower:
        print(json.dumps(name_by_tower(args.base, args.tower, pictures, read_tasks())))
        return
    evaluator = Evaluator(args.base, args.llm, args.vlm)
    layers = [args.layer] if args.layer is not None else list(LAYERS)
    split = "validation" if args.pictures == "drawings" else args.pictures
    report = {"pictures": args.pictures, "naming": name_pictures(evaluator, pictures, read_tasks()) if pictures else None, "tasks": {}}
    print(json.dumps(report["naming"]), flush=True)
    for name, task in tasks.items():
        validation = [i for i in task["items"] if i.split == "validation"]
        vectors = evaluator.vectors(validation, args.prompts)
        pool = [i for i in task["items"] if i.split == split]
        result = {}
        if "text" in args.queries:
            result["text"] = evaluate_text(evaluator, pool, vectors, layers)
        seen = [i for i in (task["items"] if args.pictures == "drawings" else pool) if i.emoji in pictures]
        if seen and "image" in args.queries:
            embeds = evaluator.picture_embeds(torch.stack([pictures[i.emoji] for i in seen]))
            found = evaluator.answers(embeds, vectors, layers)
            result["image"] = {str(l): score(seen, a) for l, a in found.items()}
            if args.pictures != "drawings":
                queries = [torch.cat([evaluator.text_embeds(evaluator.examples(draw(pool, i))), e[None]], 1) for i, e in zip(seen, embeds)]
                result["image"]["prompt"] = score(seen, [evaluator.answers(q)[None][0] for q in queries])
        report["tasks"][name] = result
        best = lambda m: max(layers, key=lambda l: result[m][str(l)]["accuracy"])
        for m in [m for m in ("text", "image") if m in result]:
            cell = lambda k: f"{result[m][k]['accuracy']:.2f}" if k in result[m] else "–"
            b = str(best(m))
            print(f"{name:18} {m:5} n {result[m]['None']['total']:3}  majority {result[m]['None']['majority']:.2f}  no context {cell('None')}  prompt {cell('prompt')}  patch {cell(b)} (layer {b}, {result[m][b]['distinct']} distinct)", flush=True)
    counted = [r for n, r in report["tasks"].items() if n != REPORTED_ONLY]
    for m in ("text", "image"):
        shown = [r[m] for r in counted if m in r]
        if not shown:
            continue
        mean = {k: float(np.mean([r[k]["accuracy"] for r in shown])) for k in shown[0]}
        best = max(layers, key=lambda l: mean[str(l)])
        report[f"mean {m}"] = {"best": best, **mean, "majority": float(np.mean([r["None"]["majority"] for r in shown]))}
        print(f"mean of {len(shown)} tasks, {m} queries: majority {report[f'mean {m}']['majority']:.3f}  no context {mean['None']:.3f}  prompt {mean.get('prompt', float('nan')):.3f}  patch " + " ".join(f"{l}:{mean[str(l)]:.3f}" for l in layers) + f"  best {best}")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(report, file, indent=1)


if __name__ == "__main__":
    main()
