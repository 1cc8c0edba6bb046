"""Chunks as earlier versions stored them: a folder each, a file or two for each array, the record written last.

Written by hand from that layout, with none of the package's code, so that what it reads stays what users have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd

from pipeline.store.schema import Array

CODEC = Zstd(level=0, checksum=True)


def write_folder(
    out: Path, name: str, index: int, arrays: Mapping[str, np.ndarray], specs: Sequence[Array],
    record: Mapping[str, Any],
) -> Path:  # fmt: skip
    """Write `NAME/chunks/000123`, in a folder that may hold arrays of stages before."""
    folder = out / name / "chunks" / f"{index:06d}"
    described = dict(record.get("arrays", {}))
    for spec in specs:
        array = np.asarray(arrays[spec.name])
        dtype = "string" if spec.dtype == "str" else spec.dtype
        place = folder / spec.name
        place.mkdir(parents=True)
        described[spec.name] = {"dims": list(spec.dims), "shape": list(array.shape), "dtype": dtype}
        serializer = {"name": "bytes", "configuration": {"endian": "little"}}
        node = {
            "zarr_format": 3, "node_type": "array", "shape": array.shape, "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, n) for n in array.shape]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": "" if dtype == "string" else np.zeros((), dtype).item(),
            "codecs": [
                {"name": "vlen-utf8", "configuration": {}} if dtype == "string" else serializer,
                {"name": "zstd", "configuration": {"level": 0, "checksum": True}},
            ],
            "attributes": spec.attributes, "dimension_names": spec.dims, "storage_transformers": [],
        }  # fmt: skip
        (place / "zarr.json").write_text(json.dumps(node))
        if math.prod(array.shape):
            plain = VLenUTF8().encode(array.astype(object)) if dtype == "string" else array.astype(dtype)
            (place / ".".join(["c", *["0"] * array.ndim])).write_bytes(CODEC.encode(plain))
    write_record(folder, {**record, "arrays": described})
    return folder


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Commit a folder; alone, it is the record of a failure."""
    full = {
        "attempts": 1, "seconds": {"decode": 0.5}, "worker": "tcp://127.0.0.1:1", "error": None, "missing": [],
        "stages": {}, "arrays": {}, **record,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": full}))
    parent = folder.parent / "zarr.json"
    parent.write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {}}))
