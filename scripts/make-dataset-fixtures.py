"""Writes test/fixtures/datasets: a small data set as the `datasets` library writes it to Parquet, with pictures and class labels.

    pip install datasets pillow
    python scripts/make-dataset-fixtures.py
"""
import io
from pathlib import Path

import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture

OUT = Path(__file__).parent.parent / "test/fixtures/datasets/animals"

FEATURES = Features(
    {
        "image": Image(),
        "label": ClassLabel(names=["cat", "dog", "owl"]),
        "sounds": List(Value("string")),
        "answers": {"text": List(Value("string")), "start": List(Value("int32"))},
        "title": Value("large_string"),
        "tags": List(ClassLabel(names=["wild", "tame"])),
    }
)


def png(red, green, blue):
    file = io.BytesIO()
    Picture.new("RGB", (4, 3), (red, green, blue)).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": "where/it/was.png"}


def split(first, count):
    rows = range(first, first + count)
    return Dataset.from_dict(
        {
            "image": [None if i == 5 else png(i * 20, 0, 255 - i * 20) for i in rows],
            "label": [-1 if i == 4 else i % 3 for i in rows],
            "sounds": [None if i == 2 else [["miaow", "purr"], ["woof"], ["hoot"]][i % 3] for i in rows],
            "answers": [{"text": [f"a {i}", f"the {i}"], "start": [0, 1]} for i in rows],
            "title": [f"animal {i}" for i in rows],
            "tags": [[i % 2] for i in rows],
        },
        features=FEATURES,
    )


OUT.mkdir(parents=True, exist_ok=True)
(OUT / "data").mkdir(exist_ok=True)
split(0, 6).to_parquet(OUT / "data/train-00000-of-00001.parquet", batch_size=3)
for name, first, count, codec in [("validation", 6, 3, "zstd"), ("test", 9, 2, "gzip")]:
    path = OUT / f"data/{name}-00000-of-00001.parquet"
    split(first, count).to_parquet(path)
    pq.write_table(pq.read_table(path), path, compression=codec)
