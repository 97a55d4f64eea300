"""Writes into the task files which picture stands for an item: of the test style for test items, else of the validation style.

    python link_pictures.py
"""

import glob
import os
import re

from prompts import ROOT
from render import HELD_OUT

ITEM = re.compile(r'^(    \{ "input": .*?"emoji": "([0-9a-f-]+)")(?:, "image": "[^"]*")?, "split": "(\w+)" \}(,?)$')


def main():
    for path in sorted(glob.glob(f"{ROOT}/tasks/*.json")):
        count = 0
        with open(path) as file:
            lines = file.read().split("\n")
        for n, line in enumerate(lines):
            match = ITEM.match(line)
            if not match:
                continue
            head, emoji, split, comma = match.groups()
            style = HELD_OUT["test" if split == "test" else "validation"]
            picture = f"pictures/{style}/{emoji}.png"
            has = os.path.exists(f"{ROOT}/tasks/{picture}")
            image = f', "image": "{picture}"' if has else ""
            lines[n] = f'{head}{image}, "split": "{split}" }}{comma}'
            count += has
        with open(path, "w") as file:
            file.write("\n".join(lines))
        print(f"{os.path.basename(path)}: {count} pictures")


if __name__ == "__main__":
    main()
