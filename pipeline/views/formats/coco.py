"""Boxes in the form of COCO's annotations of objects or keypoints (cocodataset.org, "Data format").

`videos` and `track_id` are as in the tracking data sets that grew out of COCO (TAO, YouTube-VIS).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StoreError, UsageError
from pipeline.media.film.film import film_of
from pipeline.media.film.stills import Stills, refuse_pictures
from pipeline.store.read import RunInput
from pipeline.store.schema import DECODED
from pipeline.text import plural_of
from pipeline.version import __version__
from pipeline.views.export import Export, InputRows, StoredRows
from pipeline.views.tables import JSON_ROWS
from pipeline.views.tables.json_text import joined, lists, objects, texts
from pipeline.views.tables.rows import Block, item_columns, known_of, record_batch, schema_of

CLASS = "class"
"""Array of numbers of classes, whose names are the categories."""
_VISIBLE = 2
"""COCO's visibility of a keypoint: 0 not labelled, 1 labelled and hidden, 2 labelled and visible."""
_APART = {*"xywh", "store", "input", "path", "frame", "time_seconds", "name", "track"}
"""Columns that have their own place in COCO's annotations or images."""


class Coco(Export):
    """One image per sampled frame and one annotation per face or object.

    Ids of images, annotations, videos and tracks count from 1 over all inputs of all stores. Names of files are paths
    in the folder of `--images`. Names of classes are categories, over all inputs.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    needs: ClassVar[tuple[str, ...]] = ("box",)
    flags: ClassVar[tuple[str, ...]] = ("all_frames", "images")
    to_standard_output: ClassVar[bool] = False

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        categories = Categories(stored)
        head = {
            "info": {"description": f"{plural_of(stored.axis)} found in videos", "version": f"reelgraph {__version__}"},
            "licenses": [],
            "categories": categories.all,
            "videos": [_video(number, one) for number, one in enumerate(stored.inputs, start=1)],
        }
        text = json.dumps(head, ensure_ascii=False).removesuffix("}")
        file.write(text.encode(errors="backslashreplace") + b', "images": [')
        # Annotations wait in a file of their own, because COCO's readers expect the images first.
        with tempfile.TemporaryFile(dir=Path(file.name).parent) as waiting:
            writer = _Writer(file, waiting, stored, categories)
            for number, one in enumerate(stored.inputs, start=1):
                writer.write_input(number, one)
            file.write(b'], "annotations": [')
            waiting.seek(0)
            shutil.copyfileobj(waiting, file, 1 << 20)
        file.write(b"]}\n")


class _Writer:
    """Counts ids while images go to one file and annotations to another."""

    def __init__(self, images: IO[bytes], annotations: IO[bytes], stored: StoredRows, categories: Categories) -> None:
        self.image_file, self.annotation_file, self.all_frames = images, annotations, stored.all_frames
        self.stills, self.axis, self.known = _stills(stored), stored.axis, known_of(stored.axis)
        self.categories = categories
        self.images = self.rows = self.tracks = self.tracks_before = 0

    def write_input(self, number: int, one: InputRows) -> None:
        facts = one.item.attributes
        self.name, self.video_id, self.item = one.name, number, one.item
        self.film = film_of(one.item) if self.stills is not None else None
        self.on_items = item_columns(one.run, one.item, self.axis, flat=False)
        needed = {name for column in self.on_items.values() for name in column.needs}
        of_items = {name for name, column in one.columns.items() if needed & set(column.needs)}
        points = {f"{point}_{side}" for point in self.known.points for side in "xy"}
        rows = {self.axis, f"{self.axis}_in_{one.item.item}", self.known.score}
        self.apart = {*_APART, *rows, *points, *self.known.identities, *of_items}
        self.apart |= {CLASS, f"{CLASS}_name"} if self.categories.names(one.item) else set()
        self.size = (facts.get("width"), facts.get("height"))
        self.tracks_before, self.tracks = self.tracks_before + self.tracks, 0
        schema = schema_of([one.run], self.axis, one.item.item, [one.columns])
        for block in one.blocks([DECODED.name] if DECODED.name in one.item.arrays else []):
            self._write(block, record_batch(block, one.columns, schema))

    def _write(self, block: Block, rows: pa.RecordBatch) -> None:
        kept = np.arange(block.n_items) if self.all_frames else np.flatnonzero(np.asarray(block.counts))
        if self.stills is not None and self.film is not None:  # only what has a picture
            kept = kept[block.arrays.get(DECODED.name, np.ones(block.n_items, bool))[kept]]
            self.stills.write(self.name, self.film, block.arrays["frame"][kept])
        ids = np.zeros(block.n_items, np.int64)
        ids[kept] = self.images + 1 + np.arange(len(kept))
        _extend(self.image_file, self._images(block, kept, ids[kept]), self.images > 0)
        self.images += len(kept)
        image_ids = pa.array(ids[block.item_of_row])
        for start in range(0, len(rows), JSON_ROWS):
            part = self._annotations(rows.slice(start, JSON_ROWS), image_ids.slice(start, JSON_ROWS))
            _extend(self.annotation_file, part, self.rows > 0)
            self.rows += len(part)

    def _images(self, block: Block, kept: np.ndarray, ids: np.ndarray) -> pa.Array:
        """Return JSON of the block's frames `kept`, which have these ids."""
        width, height = self.size
        needs = {name for column in self.on_items.values() for name in column.needs}
        fields = [("id", texts(pa.array(ids))), ("video_id", _same(self.video_id, len(ids)))]
        if "name" in block.arrays:  # an image has a file of its own
            names = pa.array(block.arrays["name"][kept].astype(object), pa.string())
        else:
            numbers = block.arrays["frame"][kept].tolist()
            names = pa.array([Stills.file_name(self.name, rank) for rank in numbers], pa.string())
        fields += [("file_name", texts(names)), ("width", _same(width, len(ids))), ("height", _same(height, len(ids)))]
        for name in ("width", "height", "frame", "time_seconds"):
            if name in block.arrays:
                fields = [one for one in fields if one[0] != name]
                fields.append((name, texts(pa.array(block.arrays[name][kept]))))
        images = replace(
            block, arrays={name: block.arrays[name][kept] for name in needs}, n_items=len(kept), counts=None
        )
        known = {name for name, _ in fields}  # JSON's readers refuse a key that is there twice, or take either value
        fields += [(name, texts(column.arrow(images))) for name, column in self.on_items.items() if name not in known]
        return objects(fields)

    def _annotations(self, rows: pa.RecordBatch, image_ids: pa.Array) -> pa.Array:
        """Return JSON of rows of the table."""
        n, there = len(rows), set(rows.schema.names)
        sides = [rows[side] if side in there else pa.array(np.zeros(n, np.float32)) for side in "xywh"]
        fields = [
            ("id", texts(pa.array(np.arange(self.rows + 1, self.rows + 1 + n)))),
            ("image_id", texts(image_ids)),
            ("category_id", texts(pa.array(self.categories.ids(self.item, n, self._classes(rows))))),
            ("bbox", lists([texts(side) for side in sides])),
            ("area", texts(pc.round(pc.multiply(sides[2].cast(pa.float64()), sides[3].cast(pa.float64())), 3))),
            ("iscrowd", _same(0, n)),
            *((("score", texts(rows[self.known.score])),) if self.known.score in there else ()),
            *(_keypoints(rows, self.known.points) if {f"{one}_x" for one in self.known.points} & there else ()),
        ]
        if "track" in there:
            self.tracks = max(self.tracks, (pc.max(rows["track"]).as_py() or 0) + 1)
            fields.append(("track_id", texts(pc.add(rows["track"].cast(pa.int64()), self.tracks_before + 1))))
        fields += [(name, texts(rows[name])) for name in self.known.identities if name in there]
        more = [name for name in rows.schema.names if name not in self.apart]
        if more:
            fields.append(("attributes", objects([(name, texts(rows[name])) for name in more], spare_null=True)))
        return objects(fields, spare_null=True)

    def _classes(self, rows: pa.RecordBatch) -> np.ndarray | None:
        return rows[CLASS].to_numpy() if self.categories.names(self.item) else None


class Categories:
    """Categories of COCO: the classes of all inputs, each once; without classes one of all rows."""

    def __init__(self, stored: StoredRows) -> None:
        self._axis = stored.axis
        classes = dict.fromkeys(name for one in stored.all_inputs for name in self.names(one.item))
        self.all = known_of(stored.axis).categories(stored.axis, list(classes))
        self._ids = {str(one["name"]): int(one["id"]) for one in self.all}

    def names(self, item: RunInput) -> list[str]:
        """Return the names of the classes of an input's rows; none if it has no classes."""
        array = item.arrays.get(CLASS)
        there = array is not None and array.dims == (self._axis,)
        return [str(name) for name in array.attributes.get("class_names", ())] if array is not None and there else []

    def ids(self, item: RunInput, n_rows: int, numbers: np.ndarray | None) -> np.ndarray:
        """Return the category's id of each row, by numbers of classes. Raises StoreError for one without a name."""
        first = int(self.all[0]["id"])
        if numbers is None:
            return np.full(n_rows, first)
        names = self.names(item)
        wrong = numbers[(numbers < 0) | (numbers >= len(names))]
        if len(wrong):
            raise StoreError(f"array {CLASS!r} of {item.name!r} holds {wrong[0]}, and its class_names are {len(names)}")
        ids = np.array([self._ids.get(name, first) for name in names])
        return np.asarray(ids[numbers])


def _stills(stored: StoredRows) -> Stills | None:
    if stored.images is None:
        return None
    videos = {one.name: one.item for one in stored.all_inputs}
    if len(videos) < len(stored.all_inputs):
        raise UsageError("two inputs have the same name, and so would their pictures; export the stores one by one")
    for item in videos.values():
        refuse_pictures(item)
    return Stills(stored.images, videos)


def _keypoints(rows: pa.RecordBatch, points: Sequence[str]) -> list[tuple[str, pa.Array]]:
    """Return x, y and visibility of each point; three zeros if the detector gave none."""
    parts: list[pa.Array] = []
    counted = pa.array(np.zeros(len(rows), np.int64))
    for x, y in ((f"{point}_x", f"{point}_y") for point in points):
        known = pc.and_(rows[x].is_valid(), rows[y].is_valid())
        parts += [texts(pc.if_else(known, rows[axis], pa.scalar(0, pa.float32()))) for axis in (x, y)]
        parts.append(texts(pc.if_else(known, _VISIBLE, 0)))
        counted = pc.add(counted, known.cast(pa.int64()))
    return [("keypoints", lists(parts)), ("num_keypoints", texts(counted))]


def _video(number: int, one: InputRows) -> dict[str, Any]:
    facts = one.item.attributes
    kept = ("path", "width", "height", "fps", "duration_seconds", "every")
    return {"id": number, "name": one.item.name, "store": str(one.run.path), **{name: facts.get(name) for name in kept}}


def _same(value: Any, n: int) -> pa.Array:
    """Return one JSON value n times."""
    return pa.repeat(pa.scalar(json.dumps(value), pa.string()), n)


def _extend(file: IO[bytes], entries: pa.Array, follows: bool) -> None:
    """Add entries to a JSON list that is being written; `follows` if it has some already."""
    if len(entries):
        file.write((b",\n" if follows else b"\n") + joined(entries, ",\n"))
