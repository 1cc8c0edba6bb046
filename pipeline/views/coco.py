"""Faces in the form of COCO's keypoint annotations (cocodataset.org, "Data format"), with `videos` and `track_id` as
the data sets for tracking that grew out of it have them (TAO, YouTube-VIS)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.store.read import LANDMARKS
from pipeline.store.run import version
from pipeline.views import face_rows

if TYPE_CHECKING:
    from pipeline.store.read import Run, RunInput
    from pipeline.views.face_rows import Block

CATEGORY = {"id": 1, "name": "face", "supercategory": "person", "keypoints": list(LANDMARKS), "skeleton": []}
_VISIBLE = 2
"""COCO's visibility of a keypoint: 0 not labelled, 1 labelled and hidden, 2 labelled and visible."""
_POINTS = tuple(f"{part}_{axis}" for part in LANDMARKS for axis in "xy")
_APART = {*"xywh", "store", "input", "path", "frame", "time_seconds", "face", "face_in_frame", "confidence", *_POINTS}
"""Columns that COCO has places of its own for, or that its images say."""
_PEOPLE = ("person", "person_name", "identity", "identity_name")


class CocoWriter:
    """One image per sampled frame, one annotation per face; ids of either, of videos and of tracks count from 1 over
    all inputs of all stores. Annotations wait in a file of their own, for COCO's readers expect the images first."""

    def __init__(self, file: IO[bytes], runs: Sequence[Run], all_frames: bool) -> None:
        self.columns: list[str] = []
        self.file, self.all_frames = file, all_frames
        self.waiting = tempfile.TemporaryFile(dir=Path(file.name).parent)  # noqa: SIM115 - `close` does
        self.images = self.faces = self.tracks = self.tracks_before = 0
        inputs = [(run, item) for run in runs for item in run.inputs.values()]
        videos = [_video(number, run, item) for number, (run, item) in enumerate(inputs, start=1)]
        self.video_ids = {(video["store"], video["name"]): int(video["id"]) for video in videos}
        head = {
            "info": {"description": "faces found in videos", "version": f"reelgraph {version()}"},
            "licenses": [],
            "categories": [CATEGORY],
            "videos": videos,
        }
        file.write(_json(head).removesuffix(b"}") + b', "images": [')

    def start_input(self, run: Run, item: RunInput) -> list[str]:
        self.item, facts = item, item.attributes
        # Boxes count from the corner of the part that was looked at.
        self.size = facts["roi"][2:] if facts.get("roi") else (facts.get("width"), facts.get("height"))
        self.video_id = self.video_ids[str(run.path), item.name]
        self.tracks_before, self.tracks = self.tracks_before + self.tracks, 0
        self.made = face_rows.columns(run, item, wide=False, flat=False)
        self.schema = face_rows.schema_of([self.made])
        return face_rows.arrays_of(item, wide=False)

    def write(self, block: Block) -> None:
        kept = np.flatnonzero(np.ones(block.n_frames, bool) if self.all_frames else block.arrays["n_faces"] > 0)
        ids = np.zeros(block.n_frames, np.int64)
        ids[kept] = self.images + 1 + np.arange(len(kept))
        _extend(self.file, [self._image(block, k, int(ids[k])) for k in kept.tolist()], self.images > 0)
        self.images += len(kept)
        rows = face_rows.json_rows(pa.Table.from_batches([face_rows.table(block, self.made, self.schema)]))
        image_ids = ids[block.frame_of_face].tolist()
        annotations = [
            self._annotation(row, image, self.faces + 1 + k)
            for k, (row, image) in enumerate(zip(rows, image_ids, strict=True))
        ]
        _extend(self.waiting, annotations, self.faces > 0)
        self.faces += block.n_faces

    def finish(self) -> None:
        self.file.write(b'], "annotations": [')
        self.waiting.seek(0)
        while part := self.waiting.read(1 << 20):
            self.file.write(part)
        self.file.write(b"]}\n")

    def close(self) -> None:
        self.waiting.close()

    def _image(self, block: Block, k: int, image_id: int) -> dict[str, Any]:
        frame = int(block.arrays["frame"][k])
        return {
            "id": image_id,
            "video_id": self.video_id,
            "file_name": f"{self.item.name}/{frame:08d}.jpg",
            "width": self.size[0],
            "height": self.size[1],
            "frame": frame,
            "time_seconds": float(block.arrays["time_seconds"][k]),
        }

    def _annotation(self, row: dict[str, Any], image_id: int, annotation_id: int) -> dict[str, Any]:
        x, y, w, h = (row.get(side) or 0.0 for side in "xywh")
        made = {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": CATEGORY["id"],
            "bbox": [x, y, w, h],
            "area": round(w * h, 3),
            "iscrowd": 0,
            "score": row.get("confidence"),
            **_keypoints(row),
        }
        if row.get("track") is not None:
            self.tracks = max(self.tracks, row["track"] + 1)
            made["track_id"] = self.tracks_before + row["track"] + 1
        made |= {name: row[name] for name in _PEOPLE if row.get(name) is not None}
        attributes = {
            name: value for name, value in row.items() if value is not None and name not in {*_APART, *_PEOPLE, "track"}
        }
        return made | ({"attributes": attributes} if attributes else {})


def _keypoints(row: dict[str, Any]) -> dict[str, Any]:
    """x, y and visibility of each landmark; three zeros where the detector gave none."""
    if _POINTS[0] not in row:
        return {}
    points: list[float] = []
    for x, y in zip(_POINTS[::2], _POINTS[1::2], strict=True):
        known = row[x] is not None and row[y] is not None
        points += [row[x], row[y], _VISIBLE] if known else [0, 0, 0]
    return {"keypoints": points, "num_keypoints": sum(value > 0 for value in points[2::3])}


def _video(number: int, run: Run, item: RunInput) -> dict[str, Any]:
    facts = item.attributes
    kept = ("path", "width", "height", "fps", "duration_seconds", "every")
    return {"id": number, "name": item.name, "store": str(run.path), **{name: facts.get(name) for name in kept}}


def _extend(file: IO[bytes], entries: Sequence[dict[str, Any]], follows: bool) -> None:
    """Add entries to a JSON list that is being written; `follows` where it has some already."""
    if entries:
        file.write((b",\n" if follows else b"\n") + b",\n".join(map(_json, entries)))


def _json(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False).encode()
