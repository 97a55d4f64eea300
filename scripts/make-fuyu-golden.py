"""
Makes test/fixtures/fuyu-prompts.json: what Fuyu's processor and Mantis' make of texts and pictures, and Fuyu's grids of patches.

    python scripts/make-fuyu-golden.py fuyu            (transformers 5.24)
    python scripts/make-fuyu-golden.py mantis CLONE    (transformers 4.46 and a clone of github.com/TIGER-AI-Lab/Mantis)

Each writes its own parts of the file; the tokenizer and the sizes are those of test/fixtures/fuyu.
"""

import importlib.util
import json
import random
import sys
from pathlib import Path

import numpy
import torch
import transformers
from PIL import Image

FIXTURES = Path(__file__).parent.parent / "test" / "fixtures"
MODEL = FIXTURES / "fuyu" / "model"
OUT = FIXTURES / "fuyu-prompts.json"
PICTURES = {name: Image.open(FIXTURES / "images" / name).convert("RGB") for name in ["photo.png", "tall.png"]}
PHOTO, TALL = PICTURES

FUYU = [
    ("Describe it.\n", [PHOTO]),
    ("", [TALL]),
    (" two blanks", [TALL]),
    ("Q: red |SPEAKER| A:", [TALL, PHOTO]),
    ("|SPEAKER||SPEAKER|compare", [TALL, TALL, PHOTO]),
]
MANTIS = [
    ("<image>What is it?", [PHOTO]),
    ("Q: <image> A: red\nQ: <image>", [PHOTO, TALL]),
    ("<image><image> and <image>compare", [TALL, PHOTO, TALL]),
    ("what color?", [TALL]),
    ("Be brief.\nUSER: compare<0x04>ASSISTANT:", [TALL, PHOTO]),
    ("Human: USER:<image> it", [TALL, TALL]),
    ("HUMAN: it", [TALL]),
]
# Height and width that pictures have to fit into, and the side of a patch.
SETTINGS = [((60, 80), 10), ((1080, 1920), 30), ((100, 90), 7)]


def image_settings():
    settings = json.loads((MODEL / "preprocessor_config.json").read_text())
    settings.pop("image_processor_type")
    return settings


def fuyu():
    from transformers import FuyuImageProcessorPil, FuyuProcessor, PreTrainedTokenizerFast

    def processor_of(settings):
        images = FuyuImageProcessorPil(**settings)
        cut = images.patchify_image  # it returns numpy where the processor hands over torch
        images.patchify_image = lambda image, patch_size: torch.from_numpy(cut(numpy.asarray(image), patch_size))
        return FuyuProcessor(images, PreTrainedTokenizerFast.from_pretrained(MODEL))

    processor = processor_of(image_settings())
    prompts = []
    for text, names in FUYU:
        made = processor(text=[text], images=[[PICTURES[name] for name in names]], return_legacy_image_output=False)
        prompts.append({"text": text, "images": names, "ids": made["input_ids"][0].tolist()})
        sample = made["pixel_values"].flatten()[::97].tolist()
        prompts[-1]["pixels"] = [round(value, 6) for value in sample]
    draw = random.Random(0)
    grids = []
    for (height, width), patch in SETTINGS:
        size = {"height": height, "width": width}
        own = processor_of({**image_settings(), "size": size, "patch_size": {"height": patch, "width": patch}})
        for _ in range(25):
            w, h = (max(1, int(side * draw.uniform(0.02, 2.5))) for side in (width, height))
            try:
                made = own(text=[""], images=[Image.new("RGB", (w, h))], return_legacy_image_output=False)
            except ValueError:  # patches that the room does not hold whole
                grids.append({"size": [height, width, patch], "picture": [w, h], "grid": None})
                continue
            rows = made["input_ids"][0].tolist().count(processor.image_newline_id)
            grids.append({"size": [height, width, patch], "picture": [w, h], "grid": [rows, len(made["pixel_values"]) // rows]})
    return {"fuyu": prompts, "grids": grids}


def mantis(clone):
    from transformers import FuyuImageProcessor, LlamaTokenizerFast

    spec = importlib.util.spec_from_file_location("mfuyu", Path(clone) / "mantis" / "models" / "mfuyu" / "processor.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = json.loads((MODEL / "tokenizer_config.json").read_text())
    tokens = {key: names[key] for key in ["bos_token", "eos_token", "unk_token", "pad_token"]}
    tokenizer = LlamaTokenizerFast(tokenizer_file=str(MODEL / "tokenizer.json"), add_bos_token=False, **tokens)
    processor = module.MFuyuProcessor(FuyuImageProcessor(**image_settings()), tokenizer)
    prompts = []
    for text, names in MANTIS:
        made = processor(text=text, images=[PICTURES[name] for name in names], return_tensors="pt")
        prompts.append({"text": text, "images": names, "ids": made["input_ids"][0].tolist()})
    text = "hello"
    prompts.append({"text": text, "images": [], "ids": processor(text=text)["input_ids"]})
    added = {token: tokenizer.convert_tokens_to_ids(token) for token in ["|IMAGE|", "|ENDOFIMAGE|"]}
    return {"mantis": prompts, "added": added}


def main():
    made = fuyu() if sys.argv[1] == "fuyu" else mantis(sys.argv[2])
    old = json.loads(OUT.read_text()) if OUT.exists() else {}
    old |= {**made, f"transformers of {sys.argv[1]}": transformers.__version__}
    OUT.write_text(json.dumps(old, separators=(",", ":")).replace('},{', '},\n{') + "\n")


main()
