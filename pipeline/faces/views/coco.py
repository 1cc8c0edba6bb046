"""Faces in the form of COCO's keypoint annotations (cocodataset.org, "Data format").

`videos` and `track_id` are as in the tracking data sets that grew out of COCO (TAO, YouTube-VIS).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.faces.table import LANDMARKS
from pipeline.faces.views import face_rows
from pipeline.version import __version__
from pipeline.views.tables import JSON_ROWS
from pipeline.views.tables.json_text import joined, lists, objects, texts

if TYPE_CHECKING:
    from pipeline.faces.views.face_rows import Block
    from pipeline.store.read import Run, RunInput

CATEGORY = {"id": 1, "name": "face", "supercategory": "person", "keypoints": list(LANDMARKS), "skeleton": []}
_VISIBLE = 2
"""COCO's visibility of a keypoint: 0 not labelled, 1 labelled and hidden, 2 labelled and visible."""
_POINTS = tuple(f"{part}_{axis}" for part in LANDMARKS for axis in "xy")
_APART = {*"xywh", "store", "input", "path", "frame", "time_seconds", "face", "face_in_frame", "confidence", *_POINTS}
"""Columns that have their own place in COCO's annotations or images."""
_PEOPLE = ("person", "person_name", "identity", "identity_name")


class CocoWriter:
    """Writes one image per sampled frame and one annotation per face.

    Ids of images, annotations, videos and tracks count from 1 over all inputs of all stores. Annotations wait in a file
    of their own, because COCO's readers expect the images first.
    """

    def __init__(self, file: IO[bytes], runs: Sequence[Run], all_frames: bool) -> None:
        self.columns: list[str] = []
        self.file, self.all_frames = file, all_frames
        self.waiting = tempfile.TemporaryFile(dir=Path(file.name).parent)  # noqa: SIM115 - `close` does
        self.images = self.faces = self.tracks = self.tracks_before = 0
        inputs = [(run, item) for run in runs for item in run.inputs.values()]
        videos = [_video(number, run, item) for number, (run, item) in enumerate(inputs, start=1)]
        self.video_ids = {(video["store"], video["name"]): int(video["id"]) for video in videos}
        head = {
            "info": {"description": "faces found in videos", "version": f"reelgraph {__version__}"},
            "licenses": [],
            "categories": [CATEGORY],
            "videos": videos,
        }
        file.write(json.dumps(head, ensure_ascii=False).removesuffix("}").encode() + b', "images": [')

    def start_input(self, run: Run, item: RunInput) -> list[str]:
        self.item, facts = item, item.attributes
        self.size = (facts.get("width"), facts.get("height"))
        self.video_id = self.video_ids[str(run.path), item.name]
        self.tracks_before, self.tracks = self.tracks_before + self.tracks, 0
        self.made = face_rows.columns(run, item, wide=False, flat=False)
        self.schema = face_rows.schema_of([self.made])
        return face_rows.arrays_of(item, wide=False)

    def write(self, block: Block) -> None:
        kept = np.flatnonzero(np.ones(block.n_frames, bool) if self.all_frames else block.arrays["n_faces"] > 0)
        ids = np.zeros(block.n_frames, np.int64)
        ids[kept] = self.images + 1 + np.arange(len(kept))
        _extend(self.file, self._images(block, kept, ids[kept]), self.images > 0)
        self.images += len(kept)
        rows = face_rows.table(block, self.made, self.schema)
        image_ids = pa.array(ids[block.frame_of_face])
        for start in range(0, len(rows), JSON_ROWS):
            part = self._annotations(rows.slice(start, JSON_ROWS), image_ids.slice(start, JSON_ROWS))
            _extend(self.waiting, part, self.faces > 0)
            self.faces += len(part)

    def finish(self) -> None:
        self.file.write(b'], "annotations": [')
        self.waiting.seek(0)
        while part := self.waiting.read(1 << 20):
            self.file.write(part)
        self.file.write(b"]}\n")

    def close(self) -> None:
        self.waiting.close()

    def _images(self, block: Block, kept: np.ndarray, ids: np.ndarray) -> pa.Array:
        """Return JSON of the block's frames `kept`, which have these ids."""
        frame = block.arrays["frame"][kept]
        names = pa.array([f"{self.item.name}/{rank:08d}.jpg" for rank in frame.tolist()], pa.string())
        width, height = self.size
        fields = [
            ("id", texts(pa.array(ids))),
            ("video_id", _same(self.video_id, len(ids))),
            ("file_name", texts(names)),
            ("width", _same(width, len(ids))),
            ("height", _same(height, len(ids))),
            ("frame", texts(pa.array(frame))),
            ("time_seconds", texts(pa.array(block.arrays["time_seconds"][kept]))),
        ]
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
            *(_keypoints(rows) if _POINTS[0] in there else ()),
        ]
        if "track" in there:
            self.tracks = max(self.tracks, (pc.max(rows["track"]).as_py() or 0) + 1)
            fields.append(("track_id", texts(pc.add(rows["track"].cast(pa.int64()), self.tracks_before + 1))))
        fields += [(name, texts(rows[name])) for name in _PEOPLE if name in there]
        more = [name for name in rows.schema.names if name not in {*_APART, *_PEOPLE, "track"}]
        if more:
            fields.append(("attributes", objects([(name, texts(rows[name])) for name in more], spare_null=True)))
        return objects(fields, spare_null=True)


def _keypoints(rows: pa.RecordBatch) -> list[tuple[str, pa.Array]]:
    """Return x, y and visibility of each landmark; three zeros if the detector gave none."""
    parts: list[pa.Array] = []
    counted = pa.array(np.zeros(len(rows), np.int64))
    for x, y in zip(_POINTS[::2], _POINTS[1::2], strict=True):
        known = pc.and_(rows[x].is_valid(), rows[y].is_valid())
        parts += [texts(pc.if_else(known, rows[axis], pa.scalar(0, pa.float32()))) for axis in (x, y)]
        parts.append(texts(pc.if_else(known, _VISIBLE, 0)))
        counted = pc.add(counted, known.cast(pa.int64()))
    return [("keypoints", lists(parts)), ("num_keypoints", texts(counted))]


def _video(number: int, run: Run, item: RunInput) -> dict[str, Any]:
    facts = item.attributes
    kept = ("path", "width", "height", "fps", "duration_seconds", "every")
    return {"id": number, "name": item.name, "store": str(run.path), **{name: facts.get(name) for name in kept}}


def _same(value: Any, n: int) -> pa.Array:
    """Return one JSON value n times."""
    return pa.repeat(pa.scalar(json.dumps(value), pa.string()), n)


def _extend(file: IO[bytes], entries: pa.Array, follows: bool) -> None:
    """Add entries to a JSON list that is being written; `follows` if it has some already."""
    if len(entries):
        file.write((b",\n" if follows else b"\n") + joined(entries, ",\n"))
