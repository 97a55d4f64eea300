"""Writes the start of the joint stage and what its first steps draw, for a run of the same steps elsewhere.

DIR/steps.safetensors: `start/<parameter>` of tower and projector (named as in weights/vlm), of `head` and of the adapter
(`<module>.lora_A`, whose B is 0), and of each step `<step>/pictures` [images, 3, side, side], `<step>/lesson_pictures` and
`<step>/seen` (the teacher's components of the views that are no flags). DIR/steps.json: concepts, labels, token ids, losses, seconds.
"""

import json
import os

import torch
from safetensors.torch import save_file

from prompts import IGNORE
from tower import FLAGS, NAMED, OTHERS
from vision import vision_state


class JointRecord:
    def __init__(self, args, vlm, llm, head, lessons, captions):
        self.out, self.lessons = args.record, lessons
        os.makedirs(self.out, exist_ok=True)
        self.tensors = {f"start/{k}": v.detach().clone().contiguous() for k, v in vision_state(vlm).items()}
        self.tensors |= {f"start/head.{k}": v.detach().clone() for k, v in head.state_dict().items()}
        for name, weight in llm.named_parameters():
            if ".lora_A." in name:
                module = name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
                self.tensors[f"start/{module}.lora_A"] = weight.detach().clone()
        self.json = {
            "total_steps": args.steps,
            "rank": args.rank,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "concepts": lessons.concepts,
            "queries": [lessons.prompter.query(lessons.prompter.name(name)) for name in lessons.concepts],
            "captions": {"before": captions.before.tolist(), "after": [ids.tolist() for ids in captions.after], "cue": captions.cue},
            "spelt": [lessons.prompter.spelt(name) for name in lessons.concepts],
            "flags": FLAGS,
            "named": NAMED,
            "steps": [],
        }

    def step(self, pictures, concept, random_state, prompts, losses, seconds):
        n = len(self.json["steps"])
        again = torch.Generator()
        again.set_state(random_state)
        lessons = self.lessons
        rows, lesson_pictures, labels = lessons.draw(again, (lessons.flags, FLAGS), (lessons.named, NAMED), (lessons.others, OTHERS))
        self.tensors[f"{n}/pictures"] = pictures.clone()
        self.tensors[f"{n}/lesson_pictures"] = lesson_pictures.clone()
        self.tensors[f"{n}/seen"] = lessons.seen[rows[FLAGS:]].clone()
        self.json["steps"].append({
            "concepts": concept.tolist(),
            "lesson_concepts": labels[: FLAGS + NAMED].tolist(),
            "texts": [{"ids": ids, "learnt": [i for i, label in enumerate(labels) if label != IGNORE]} for ids, labels in prompts],
            "losses": {name: float(value) for name, value in losses.items()},
            "seconds": seconds,
        })

    def write(self):
        save_file(self.tensors, f"{self.out}/steps.safetensors")
        with open(f"{self.out}/steps.json", "w") as file:
            json.dump(self.json, file)
        print(f"wrote {self.out}: {len(self.json['steps'])} steps")

