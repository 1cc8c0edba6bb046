"""Fingerprints of files: cheap, for files of any length."""

from __future__ import annotations

import hashlib
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
