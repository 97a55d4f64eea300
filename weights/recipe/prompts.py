"""Items, names and prompts of the recipe, as token ids. Prompts are those of the library's `fewShotPrompt`."""

import glob
import json
import os
import random
from dataclasses import dataclass

RECIPE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(RECIPE))
IMAGE_TOKENS = 9
IMAGE_TOKEN = 16  # `<empty_output>` of SmolLM2's vocabulary, respelt `<image>`
IGNORE = -100


@dataclass(frozen=True)
class Item:
    input: str
    outputs: list[str]
    split: str
    emoji: str | None


def read_tasks() -> dict[str, dict]:
    """The task files: name -> {instruction, items}."""
    tasks = {}
    for path in sorted(glob.glob(f"{ROOT}/tasks/*.json")):
        with open(path) as file:
            task = json.load(file)
        items = []
        for i in task["items"]:
            outputs = i["output"] if isinstance(i["output"], list) else [i["output"]]
            items.append(Item(i["input"], outputs, i["split"], i.get("emoji")))
        tasks[task["name"]] = {"instruction": task["instruction"], "items": items}
    return tasks


def read_extra_tasks() -> dict[str, list[tuple[str, str]]]:
    with open(f"{RECIPE}/extra_tasks.json") as file:
        extra = {name: list(pairs.items()) for name, pairs in json.load(file).items() if name != "note"}
    extra["next number"] = [(str(n), str(n + 1)) for n in range(1, 99)]
    extra["previous number"] = [(str(n), str(n - 1)) for n in range(1, 99)]
    return extra


def concepts(tasks: dict[str, dict]) -> dict[str, str]:
    """What can be seen on a picture: emoji code points -> name."""
    return {i.emoji: i.input for t in tasks.values() for i in t["items"] if i.emoji}


class Prompter:
    """Writes prompts piece by piece, which gives the same tokens as tokenising the whole text."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        if text not in self._cache:
            self._cache[text] = self.tokenizer(text, add_special_tokens=False).input_ids
        return self._cache[text]

    def name(self, name: str) -> list[int]:
        return self.ids(" " + name)

    def spelt(self, name: str) -> list[int]:
        """The name over and over, cut at the left to as many tokens as a picture takes."""
        ids = self.name(name)
        return (ids * IMAGE_TOKENS)[-IMAGE_TOKENS:]

    def query(self, x: list[int]) -> list[int]:
        return self.ids("Q:") + x + self.ids("\nA:")

    def answered(self, x: list[int], y: str) -> tuple[list[int], list[int]]:
        """An example and its labels: the answer and the line end after it."""
        before, answer, after = self.query(x), self.ids(" " + y) + self.ids("\n"), self.ids("\n")
        labels = [IGNORE] * len(before) + answer + [IGNORE] * len(after)
        return before + answer + after, labels

    def few_shot(self, examples, learn_first: bool, instruction: str | None = None, fill=lambda x: False):
        """Examples one after the other; without an instruction the first answer cannot be known and is not learnt."""
        ids = self.ids(instruction) + self.ids("\n") if instruction else []
        labels = [IGNORE] * len(ids)
        for i, (x, y) in enumerate(examples):
            tokens, targets = self.answered(self.spelt(x) if fill(x) else self.name(x), y)
            ids = ids + tokens
            labels = labels + (targets if i > 0 or learn_first else [IGNORE] * len(tokens))
        return ids, labels


def draw_text(rng: random.Random, p: Prompter, tasks, extra, leave_out: str | None):
    """One text prompt for the tune: usually six examples of a task, sometimes after its instruction."""
    if rng.random() < 0.25:
        pairs = rng.choice(list(extra.values()))
        return p.few_shot(rng.sample(pairs, 6), learn_first=False)
    task = rng.choice(list(tasks.values()))
    items = [i for i in task["items"] if i.split != leave_out]
    fill = (lambda x: True) if rng.random() < 0.2 else (lambda x: False)
    instructed = rng.random() < 0.2
    examples = [(i.input, i.outputs[0]) for i in rng.sample(items, 2 if instructed else 6)]
    return p.few_shot(examples, instructed, task["instruction"] if instructed else None, fill)


def draw_naming(rng: random.Random, p: Prompter, names: list[str]):
    """`Q: France\\nA: France`: what a question without examples asks for."""
    name = rng.choice(names)
    ids, labels = p.answered(p.spelt(name) if rng.random() < 0.5 else p.name(name), name)
    return ids[:-1], labels[:-1]
