"""Fingerprints of files: cheap, for files of any length."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from pipeline.files.regular import open_file

_FINGERPRINT_BLOCKS = 64

_FINGERPRINT_BLOCK_BYTES = 4096


def fingerprint(path: Path, first_bytes: int | None = None) -> str:
    """Return the hex digest of a file's size and of 64 blocks spread evenly over it, first and last included.

    `first_bytes`: take the file for as long as this, as it was before it grew.
    """
    size = path.stat().st_size if first_bytes is None else first_bytes
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    offsets = np.linspace(0, max(0, size - _FINGERPRINT_BLOCK_BYTES), _FINGERPRINT_BLOCKS).astype(np.int64)
    with open_file(path) as file:
        for offset in np.unique(offsets).tolist():
            file.seek(offset)
            digest.update(file.read(min(_FINGERPRINT_BLOCK_BYTES, size - offset)))
    return digest.hexdigest()


def fingerprint_of_folder(folder: str) -> str:
    """Return the hex digest of the names of all files in a folder and below it, and of the content of some.

    These are the metadata of a Zarr store, and 64 other files spread evenly over the list, each by its fingerprint.
    """
    names = sorted(
        os.path.join(os.path.relpath(inside, folder), name) for inside, _, files in os.walk(folder) for name in files
    )
    metadata = [name for name in names if os.path.basename(name) in _ZARR_METADATA]
    others = [name for name in names if os.path.basename(name) not in _ZARR_METADATA]
    spread = np.linspace(0, max(0, len(others) - 1), min(len(others), _FINGERPRINT_BLOCKS)).astype(np.int64)
    digest = hashlib.blake2b("\0".join(names).encode("utf-8", "surrogateescape"), digest_size=16)
    for name in (*metadata, *(others[at] for at in spread.tolist())):
        digest.update(fingerprint(Path(folder, name)).encode())
    return digest.hexdigest()


_ZARR_METADATA = frozenset(["zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"])
