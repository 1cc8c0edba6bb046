"""Stored pictures as tar files, as WebDataset reads them: `name.png`, and `name.cls` with the label.

Names of classes lie in a member that WebDataset passes over, and `Loader` reads.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, ClassVar

import numpy as np

from pipeline.errors import UsageError
from pipeline.loader.items import in_one_numbering
from pipeline.media.images.collections import CLASS, CLASS_NAMES
from pipeline.text import plural
from pipeline.views.export import Export, StoredRows

_BLOCK = 64
"""Pictures that are read at once."""


class Tar(Export):
    """A tar file of the array `image`: PNG if it is uint8, else NPY, without loss either way."""

    suffixes: ClassVar[tuple[str, ...]] = (".tar",)
    axes: ClassVar[tuple[str, ...]] = ("frame",)
    to_standard_output: ClassVar[bool] = False

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        keys = _Keys()
        labels, class_names = _labels(stored)
        with tarfile.open(fileobj=file, mode="w") as tar:
            if class_names:
                _member(tar, CLASS_NAMES, json.dumps(class_names, ensure_ascii=False).encode())
            for one, numbers in zip(stored.inputs, labels, strict=True):
                known = one.item.arrays
                if "image" not in known:
                    raise UsageError(f"{one.name} has no array 'image'; make one by `reelgraph run augment`")
                names = [name for name in ("image", "name", "decoded") if name in known]
                for start, stop in one.item.spans(_BLOCK):
                    arrays = one.item.read_frames(names, start, stop)
                    stored.n_items += stop - start
                    stored.n_rows += int(arrays["decoded"].sum())
                    for row in range(stop - start):
                        number = None if numbers is None else next(numbers)
                        if not arrays["decoded"][row]:
                            continue
                        name = str(arrays["name"][row]) if "name" in arrays else f"{start + row:08d}"
                        key = keys.of(f"{one.name}/{name}" if len(stored.inputs) > 1 else name)
                        _add(tar, key, arrays["image"][row])
                        if number is not None:
                            _member(tar, f"{key}{CLASS}", str(number).encode())
        if lost := stored.n_items - stored.n_rows:
            stored.notes = [f"{plural(lost, 'picture')} left out: could not be read"]


def _labels(stored: StoredRows) -> tuple[list[Iterator[int] | None], tuple[str, ...]]:
    """Return the labels of the pictures of each input, None if it has none, in one numbering; and their names."""
    having = [one for one in stored.inputs if "label" in one.item.arrays]
    if not having:
        return [None] * len(stored.inputs), ()
    labels = [one.item.array("label") for one in having]
    tables = [one.item.arrays["label"].attributes.get("class_names") for one in having]
    found, class_names = in_one_numbering(list(zip(labels, tables, strict=True)))
    split = iter(np.split(found, np.cumsum([len(part) for part in labels])[:-1]))
    return [iter(next(split).tolist()) if one in having else None for one in stored.inputs], class_names


class _Keys:
    """Keys of samples: WebDataset takes all members with the same name up to its first dot as one sample."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, name: str) -> str:
        """Return a key that no other picture has, below the folder that the file is unpacked into."""
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..")]
        stem, dot, ending = (parts[-1] if parts else "picture").rpartition(".")
        folder, whole = parts[:-1], (stem or ending).replace(".", "_")
        key, number = "/".join([*folder, whole]), 1
        if key in self._taken and dot and stem:
            key = "/".join([*folder, f"{whole}_{ending}"])
        while key in self._taken:
            number += 1
            key = "/".join([*folder, f"{whole}_{number}"])
        self._taken.add(key)
        return key


def _add(tar: tarfile.TarFile, key: str, image: object) -> None:
    from PIL import Image

    pixels, content = np.asarray(image), io.BytesIO()
    if pixels.dtype == np.uint8:
        Image.fromarray(pixels).save(content, "PNG")
        _member(tar, f"{key}.png", content.getvalue())
    else:
        np.save(content, pixels)
        _member(tar, f"{key}.npy", content.getvalue())


def _member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
