"""Writes test/fixtures/tables: what pyarrow makes of one small table, by codec and by version of the data pages.

    pip install pyarrow
    python scripts/make-parquet-fixtures.py
"""
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path(__file__).parent.parent / "test/fixtures/tables"

COLUMNS = {
    "text": pa.array(["Greece", None, "日本", "Greece", ""], pa.string()),
    "large": pa.array(["a", "b", None, "d", "e"], pa.large_string()),
    "category": pa.array(["cat", "dog", "cat", None, "cat"]).dictionary_encode(),
    "int": pa.array([1, -2, None, 4, 2**31 - 1], pa.int32()),
    "big": pa.array([1, None, 2**53, -4, 5], pa.int64()),
    "real": pa.array([0.5, None, float("nan"), float("-inf"), -0.0], pa.float64()),
    "single": pa.array([0.5, 1.5, 2.5, 3.5, 4.5], pa.float32()),
    "flag": pa.array([True, False, None, True, True]),
    "names": pa.array([["x", "y"], [], None, ["z", None], ["w"]], pa.list_(pa.string())),
    "image": pa.array(
        [{"bytes": b"\x89PNG", "path": "a.png"}, None, {"bytes": None, "path": "b.png"}, {"bytes": b"\xff\xd8", "path": None}, {"bytes": b"", "path": ""}],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    ),
}


def plain(value):
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf")) or str(value) == "-0.0"):
        return {"number": str(value)}
    return value


OUT.mkdir(parents=True, exist_ok=True)
table = pa.table(COLUMNS).replace_schema_metadata({"greeting": "hello"})
for codec in ["none", "snappy", "gzip", "zstd", "brotli", "lz4"]:
    version = "2.0" if codec in ("gzip", "none") else "1.0"
    pq.write_table(table, OUT / f"{codec}.parquet", compression=codec, row_group_size=3, data_page_version=version)
expected = {name: [plain(value) for value in column.to_pylist()] for name, column in COLUMNS.items()}
(OUT / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")
