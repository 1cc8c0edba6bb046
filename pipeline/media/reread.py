"""The pixels of a stored input's items, read again: of frames of a film, or of pictures."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.engine.source import INVENTORY, InputRef
from pipeline.errors import InputError
from pipeline.media.images.copies import LISTED
from pipeline.media.picture import UnreadableError
from pipeline.store.nodes import read_group
from pipeline.store.read import RunInput

Pixels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

BATCH_BYTES = 128 << 20
"""Bytes of decoded frames in memory at a time."""


class Reread(ABC):
    """The items of a stored input, whole and upright."""

    @abstractmethod
    def pixels(self, numbers: Ints) -> Iterator[tuple[int, Pixels]]:
        """Yield number and pixels, uint8 (height, width, 3) RGB, of the items of these numbers (ascending).

        A frame's number is its rank in the file, a picture's its place in the input. Items that cannot be read again
        are left out.
        """

    def on_pixels(self, boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return stored boxes (..., 4: x, y, w, h) in pixels of `pixels`."""
        return boxes

    def one(self, number: int) -> Pixels | None:
        """Return the pixels of one item; None if it cannot be read again."""
        return next((found for _, found in self.pixels(np.array([number], np.int64))), None)


def reread(item: RunInput) -> Reread:
    """Open what an input was made from. Raises InputError if it is missing, cannot be read, or has changed."""
    root = read_group(item.store_path)
    workflow = root.attributes.get("workflow") if root is not None else None
    source = workflow.get("source", {}) if isinstance(workflow, dict) else {}
    kind = str(source.get("kind", ""))
    if kind == "images":
        return RereadPictures(item, source)
    from pipeline.media.video.source import is_of_video

    try:
        return RereadFilm(item)
    except InputError as err:
        if is_of_video(item.attributes):
            raise
        told = f"the pixels of {item.name!r} cannot be read again: they are those of source {kind!r}, not of a video"
        raise InputError(f"{item.store_path}: {told}") from err


class RereadFilm(Reread):
    """The frames of a film, in square pixels."""

    def __init__(self, item: RunInput) -> None:
        from pipeline.media.video.source import open_as_stored

        self.source = open_as_stored(item.attributes)

    def pixels(self, numbers: Ints) -> Iterator[tuple[int, Pixels]]:
        from pipeline.media.video.readers import close_readers

        size = max(1, BATCH_BYTES // max(1, self.source.item_bytes))
        try:
            for start in range(0, len(numbers), size):
                some = numbers[start : start + size]
                found = self.source.job_of_ranks(some, "pyav").decode()
                yield from ((int(some[k]), found.frames_rgb[k]) for k in np.flatnonzero(found.decoded).tolist())
        finally:
            close_readers()

    def on_pixels(self, boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return self.source.on_frames(boxes)


class RereadPictures(Reread):
    """Pictures, whatever part and size of them the run looked at: stored boxes are in pixels of the whole."""

    def __init__(self, item: RunInput, source: Mapping[str, Any]) -> None:
        """Open the pictures of an input; `source`: the section of its workflow. Raises InputError."""
        from pipeline.media.images.source import ImagesOptions, ImagesSource

        self.item = item
        facts, inventory = item.attributes, item.inventory()
        ref = InputRef(str(facts["path"]), item.name)
        where = str(facts.get("folder", ref.path))
        if not os.path.exists(where):
            raise InputError(f"{where}: the pictures are missing")
        if inventory is None and not ImagesSource.is_stored(ref, facts):
            raise InputError(f"{where}: the file has changed since it was analysed")
        options = ImagesOptions(**{name: source[name] for name in ("array", "names") if name in source})
        stored = facts if inventory is None else {**facts, INVENTORY: inventory}
        self.collection = ImagesSource.open(ref, options, stored).collection
        self.is_cropped = source.get("crop") is not None
        """True if the run looked at the middle of each picture only."""
        self.container, self.folder = str(facts["container"]), where

    def pixels(self, numbers: Ints) -> Iterator[tuple[int, Pixels]]:
        for number in numbers.tolist():
            try:
                found = self._picture(number)
            except (UnreadableError, OSError):
                continue
            # Another size is another picture: it was replaced since.
            size = (*found.shape[1::-1], self.collection.shelf(number, number + 1).state(0)[0])
            if self._sizes.get(number, size) == size:
                yield number, found

    @cached_property
    def _sizes(self) -> dict[int, tuple[int, int, int]]:
        """Width, height and bytes of each picture that the run could read, by number."""
        sizes = self.item.read(["width", "height", "file_bytes"])
        known = np.concatenate([np.arange(start, stop) for start, stop in self.item.spans(1 << 40)])
        values = zip(known.tolist(), *(values.tolist() for values in sizes.values()), strict=True)
        return {number: (width, height, size) for number, width, height, size in values if width > 0}

    def name(self, number: int) -> bytes:
        """Return a picture's name within its input, as its folder, list or container has it."""
        name: bytes = self.collection.names[number]
        return name

    def files(self) -> frozenset[bytes]:
        """Return the real paths of all files that the pictures lie in."""
        folder = os.fsencode(self.folder)
        if self.container not in LISTED:
            return frozenset([os.path.realpath(folder)])
        return frozenset(os.path.realpath(os.path.join(folder, name)) for name in self.collection.names)

    def _picture(self, number: int) -> Pixels:
        from pipeline.media.images.reading import Geometry, fitted, read

        content = self.collection.shelf(number, number + 1).content(0)
        found = read(content, Geometry()) if isinstance(content, bytes) else fitted(content, Geometry())
        return found.pixels
