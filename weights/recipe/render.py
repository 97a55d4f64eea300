"""Renders the icon sets: training styles to one file of drawings, held-out styles to PNG files.

    npm install && python render.py --out DIR

Writes DIR/drawings.npz (RGBA [drawings, 128, 128, 4], their concepts and styles) and tasks/pictures/<style>/<emoji>.png.
"""

import argparse
import io
import json
import os
import re

import numpy as np
import resvg_py
from PIL import Image

from prompts import RECIPE, ROOT, concepts, read_tasks

SIDE = 128
TRAINING = ["noto", "noto-v1", "fxemoji", "fluent-emoji", "fluent-emoji-flat", "streamline-emojis",
            "fluent-emoji-3d", "openmoji", "flag", "circle-flags", "flagpack", "cif"]
PICTURE_SETS = {"fluent-emoji-3d"}
HELD_OUT = {"validation": "twemoji", "test": "emojione"}
FLAG_SETS = {"flag": ["{}-4x3", "{}-1x1"], "circle-flags": ["{}"], "flagpack": ["{}"], "cif": ["{}"]}
VARIANT = re.compile(r"skin-tone|-tone\d|(^|-)(light|medium|dark)(-|$)|^(keycap|clock)|-\d$")
VARIANT_CODE = re.compile(r"1f3f[b-f]|20e3|^1f55|^1f56[0-7]|-.*-")  # the same, and sequences, by code point


class IconSet:
    def __init__(self, name: str):
        folder = f"{RECIPE}/node_modules/@iconify-json/{name}"
        self.name = name
        self.json = json.load(open(f"{folder}/icons.json"))
        chars = json.load(open(f"{folder}/chars.json"))
        self.chars = {plain(code): slug for code, slug in chars.items()}

    def has(self, slug: str) -> bool:
        return slug in self.json["icons"] or slug in self.json.get("aliases", {})

    def resolve(self, slug: str) -> str:
        while slug not in self.json["icons"]:
            slug = self.json["aliases"][slug]["parent"]
        return slug

    def icons_of(self, emoji: str, dictionaries: list["IconSet"]) -> list[str]:
        code = country_code(emoji)
        if self.name in FLAG_SETS:
            return [t.format(code) for t in FLAG_SETS[self.name] if code and self.has(t.format(code))]
        if emoji in self.chars:
            return [self.chars[emoji]]
        return [slug for slug in slugs(emoji, dictionaries) if self.has(slug)][:1]

    def others(self) -> list[str]:
        """Icons that show no concept; variants and flags are left out."""
        if self.name in FLAG_SETS:
            return []
        return [slug for slug in self.json["icons"] if not VARIANT.search(slug) and not slug.startswith("flag")]

    def draw(self, slug: str) -> np.ndarray:
        """RGBA [SIDE, SIDE, 4], the icon in the middle."""
        icon = self.json["icons"][self.resolve(slug)]
        width = icon.get("width", self.json.get("width", 16))
        height = icon.get("height", self.json.get("height", 16))
        left, top = icon.get("left", 0), icon.get("top", 0)
        side = max(width, height)
        box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{SIDE}" height="{SIDE}" viewBox="{box}">{icon["body"]}</svg>'
        png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE)
        return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


class PictureSet:
    """A set of picture files named by code point."""

    def __init__(self, name: str):
        folder = f"{RECIPE}/node_modules/@lobehub/{name}/assets"
        self.name = name
        self.files = {plain(f.removesuffix(".webp")): f"{folder}/{f}" for f in sorted(os.listdir(folder))}

    def icons_of(self, emoji: str, _dictionaries) -> list[str]:
        return [emoji] if emoji in self.files else []

    def resolve(self, emoji: str) -> str:
        return emoji

    def others(self) -> list[str]:
        return [e for e in self.files if not VARIANT_CODE.search(e)]

    def draw(self, emoji: str) -> np.ndarray:
        return np.asarray(Image.open(self.files[emoji]).convert("RGBA").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def plain(code: str) -> str:
    return code.lower().replace("-fe0f", "").replace("-200d", "")


def country_code(emoji: str) -> str | None:
    letters = [int(c, 16) - 0x1F1E6 for c in emoji.split("-")]
    return "".join(chr(97 + l) for l in letters) if len(letters) == 2 and all(0 <= l < 26 for l in letters) else None


def slugs(emoji: str, dictionaries: list[IconSet]) -> list[str]:
    """What sets without a table of code points may call an emoji."""
    found = [s.chars[emoji] for s in dictionaries if emoji in s.chars]
    countries = [f.removeprefix("flag-") for f in found if f.startswith("flag-")]
    found += [f"{f}-face" for f in found] + [f.removesuffix("-face") for f in found]
    found += [f.replace("-", "") for f in found]
    return list(dict.fromkeys([f"flag-for-{c}" for c in countries] + [f"flag-for-flag-{c}" for c in countries] + found + countries))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    names = concepts(read_tasks())
    emojis = sorted(names)
    dictionaries = [IconSet(n) for n in ("noto", "twemoji", "fluent-emoji-flat")]

    for split, style in HELD_OUT.items():
        s = IconSet(style)
        folder = f"{ROOT}/tasks/pictures/{style}"
        os.makedirs(folder, exist_ok=True)
        count = 0
        for emoji in emojis:
            for slug in s.icons_of(emoji, dictionaries):
                picture = Image.fromarray(s.draw(slug))
                white = Image.new("RGBA", picture.size, "white")
                white.alpha_composite(picture)
                white.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(f"{folder}/{emoji}.png", optimize=True)
                count += 1
        print(f"{split}: {style}, {count} pictures of {len(emojis)} concepts")

    drawings, labels, styles, seen = [], [], [], set()
    for style in TRAINING:
        s = PictureSet(style) if style in PICTURE_SETS else IconSet(style)
        before = len(drawings)
        for label, emoji in enumerate(emojis):
            for slug in s.icons_of(emoji, dictionaries):
                seen.add((style, s.resolve(slug)))
                drawings.append(s.draw(slug))
                labels.append(label)
                styles.append(style)
        named = len(drawings) - before
        for slug in s.others():
            if (style, slug) not in seen:
                drawings.append(s.draw(slug))
                labels.append(-1)  # no concept of a task: only for features
                styles.append(style)
        print(f"training: {style}, {named} drawings of concepts, {len(drawings) - before - named} others")
    np.savez(f"{args.out}/drawings.npz", drawings=np.stack(drawings), labels=np.array(labels), styles=np.array(styles),
             emojis=np.array(emojis), names=np.array([names[e] for e in emojis]))


if __name__ == "__main__":
    main()
