"""Faces in the form of COCO's keypoint annotations (cocodataset.org, "Data format").

`videos` and `track_id` are as in the tracking data sets that grew out of COCO (TAO, YouTube-VIS).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UsageError
from pipeline.faces.views.columns import LANDMARK_COLUMNS, LANDMARKS
from pipeline.media.film.stills import Stills, film_for_stills
from pipeline.store.schema import DECODED
from pipeline.version import __version__
from pipeline.views.export import Export
from pipeline.views.tables import JSON_ROWS
from pipeline.views.tables.json_text import joined, lists, objects, texts
from pipeline.views.tables.rows import columns_of, item_arrays, record_batch, schema_of

if TYPE_CHECKING:
    from pipeline.views.export import InputRows, StoredRows
    from pipeline.views.tables.rows import Block

CATEGORY = {"id": 1, "name": "face", "supercategory": "person", "keypoints": list(LANDMARKS), "skeleton": []}
_VISIBLE = 2
"""COCO's visibility of a keypoint: 0 not labelled, 1 labelled and hidden, 2 labelled and visible."""
_APART = {
    *"xywh", "store", "input", "path", "frame", "time_seconds", "name", "face", "face_in_frame", "confidence",
    *LANDMARK_COLUMNS,
}  # fmt: skip
"""Columns that have their own place in COCO's annotations or images."""
_PEOPLE = ("person", "person_name", "identity", "identity_name")


class Coco(Export):
    """One image per sampled frame and one annotation per face.

    Ids of images, annotations, videos and tracks count from 1 over all inputs of all stores. Names of files are paths
    in the folder of `--images`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    axes: ClassVar[tuple[str, ...]] = ("face",)
    flags: ClassVar[tuple[str, ...]] = ("all_frames", "images")
    to_standard_output: ClassVar[bool] = False

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        head = {
            "info": {"description": "faces found in videos", "version": f"reelgraph {__version__}"},
            "licenses": [],
            "categories": [CATEGORY],
            "videos": [_video(number, one) for number, one in enumerate(stored.inputs, start=1)],
        }
        text = json.dumps(head, ensure_ascii=False).removesuffix("}")
        file.write(text.encode(errors="backslashreplace") + b', "images": [')
        # Annotations wait in a file of their own, because COCO's readers expect the images first.
        with tempfile.TemporaryFile(dir=Path(file.name).parent) as waiting:
            writer = _Writer(file, waiting, stored.all_frames, _stills(stored))
            for number, one in enumerate(stored.inputs, start=1):
                writer.write_input(number, one)
            file.write(b'], "annotations": [')
            waiting.seek(0)
            shutil.copyfileobj(waiting, file, 1 << 20)
        file.write(b"]}\n")


class _Writer:
    """Counts ids while images go to one file and annotations to another."""

    def __init__(self, images: IO[bytes], annotations: IO[bytes], all_frames: bool, stills: Stills | None) -> None:
        self.image_file, self.annotation_file, self.all_frames = images, annotations, all_frames
        self.stills = stills
        self.images = self.faces = self.tracks = self.tracks_before = 0

    def write_input(self, number: int, one: InputRows) -> None:
        facts = one.item.attributes
        self.name, self.video_id = one.name, number
        self.film = film_for_stills(one.item) if self.stills is not None else None
        on_items = {array.name: array for array in item_arrays(one.run, one.item, "face")}
        self.on_items = {name: made for array in on_items.values() for name, made in columns_of(array, False).items()}
        of_items = {name for name, column in one.columns.items() if on_items.keys() & column.needs}
        self.apart = {*_APART, *_PEOPLE, "track", *of_items}
        self.size = (facts.get("width"), facts.get("height"))
        self.tracks_before, self.tracks = self.tracks_before + self.tracks, 0
        schema = schema_of([one.run], "face", one.item.item, [one.columns])
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
            _extend(self.annotation_file, part, self.faces > 0)
            self.faces += len(part)

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
        fields += [(name, texts(column.arrow(images))) for name, column in self.on_items.items()]
        return objects(fields)

    def _annotations(self, rows: pa.RecordBatch, image_ids: pa.Array) -> pa.Array:
        """Return JSON of faces, given as rows of the table."""
        n, there = len(rows), set(rows.schema.names)
        sides = [rows[side] if side in there else pa.array(np.zeros(n, np.float32)) for side in "xywh"]
        fields = [
            ("id", texts(pa.array(np.arange(self.faces + 1, self.faces + 1 + n)))),
            ("image_id", texts(image_ids)),
            ("category_id", _same(CATEGORY["id"], n)),
            ("bbox", lists([texts(side) for side in sides])),
            ("area", texts(pc.round(pc.multiply(sides[2].cast(pa.float64()), sides[3].cast(pa.float64())), 3))),
            ("iscrowd", _same(0, n)),
            *((("score", texts(rows["confidence"])),) if "confidence" in there else ()),
            *(_keypoints(rows) if LANDMARK_COLUMNS[0] in there else ()),
        ]
        if "track" in there:
            self.tracks = max(self.tracks, (pc.max(rows["track"]).as_py() or 0) + 1)
            fields.append(("track_id", texts(pc.add(rows["track"].cast(pa.int64()), self.tracks_before + 1))))
        fields += [(name, texts(rows[name])) for name in _PEOPLE if name in there]
        more = [name for name in rows.schema.names if name not in self.apart]
        if more:
            fields.append(("attributes", objects([(name, texts(rows[name])) for name in more], spare_null=True)))
        return objects(fields, spare_null=True)


def _stills(stored: StoredRows) -> Stills | None:
    if stored.images is None:
        return None
    videos = {one.name: one.item for one in stored.all_inputs}
    if len(videos) < len(stored.all_inputs):
        raise UsageError("two inputs have the same name, and so would their pictures; export the stores one by one")
    return Stills(stored.images, videos)


def _keypoints(rows: pa.RecordBatch) -> list[tuple[str, pa.Array]]:
    """Return x, y and visibility of each landmark; three zeros if the detector gave none."""
    parts: list[pa.Array] = []
    counted = pa.array(np.zeros(len(rows), np.int64))
    for x, y in zip(LANDMARK_COLUMNS[::2], LANDMARK_COLUMNS[1::2], strict=True):
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
