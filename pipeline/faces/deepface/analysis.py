"""The analysis of each frame: stages of the engine with `align: deepface`, run here or read from a store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster.options import ClusterOptions
from pipeline.cluster.starting import in_process_settings
from pipeline.engine.here import stages_here
from pipeline.engine.stage import Chunk
from pipeline.engine.workflow import Workflow, build_workflow
from pipeline.errors import StoreError
from pipeline.faces.deepface import frames as sources
from pipeline.media.inputs import expand, refuse_url
from pipeline.media.video.index import open_container
from pipeline.store.read import RunInput
from pipeline.store.read import open as open_store
from pipeline.text import plain

FRAMES_AT_ONCE = 1024
"""Number of frames whose stored results are read together."""


@dataclass(frozen=True)
class FrameFaces:
    """The faces of one frame, in DeepFace's order."""

    index: int
    name: str
    width: int
    """Pixels of the frame in its file."""
    height: int
    arrays: dict[str, np.ndarray]
    """One row per face: box, landmarks, confidence, and the other arrays that were computed."""
    frame_rgb: np.ndarray | None
    """Pixels of the frame, (height, width, 3); None for a frame from a store."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Pixels of the frame, in which the arrays count, in a pixel of the file, along x and y."""


Result = Callable[[FrameFaces], Any]


@dataclass(frozen=True)
class Analysis:
    """DeepFace's parameters as options of stages."""

    detector: str
    rotate: bool
    expand_percentage: int
    whole_frame: bool
    max_faces: int | None = None
    recogniser: str | None = None
    normalization: str = "base"
    attributes: tuple[str, ...] = ()
    anti_spoofing: bool = False
    eight_bit: bool = False

    def document(self) -> dict[str, Any]:
        """Return the stages in the form of a workflow file."""
        stages: dict[str, Any] = {
            "detect": {
                "model": self.detector,
                "align": "deepface",
                "rotate": self.rotate,
                "expand_percentage": max(0, self.expand_percentage),
                "max_faces": self.max_faces,
                "whole_frame": self.whole_frame,
            }
        }
        if self.attributes:
            names = [name for name in ("age", "gender", "emotion", "race") if name in self.attributes]
            stages["analyze"] = {"attributes": names, "align": "deepface", "rotate": self.rotate}
        else:
            stages["embed"] = {
                "model": self.recogniser,
                "align": "deepface",
                "rotate": self.rotate,
                "normalization": self.normalization,
                "eight_bit": self.eight_bit,
            }
        if self.anti_spoofing:
            stages["antispoof"] = {}
        return {"stages": stages}

    @cached_property
    def workflow(self) -> Workflow:
        return build_workflow("deepface", self.document(), Path.cwd())

    def over(
        self,
        source: sources.Source,
        result: Result,
        every: int,
        start: float | str | None,
        stop: float | str | None,
        out: str | Path | None,
        cluster: Mapping[str, Any],
    ) -> Iterator[tuple[int, Any]]:
        """Return an iterator of (index, result) of each frame, in order.

        Raises WorkflowError at once if a name or an option is wrong, and InputError if the video is not one.
        """
        if not isinstance(every, Integral) or every < 1:
            raise ValueError(f"every must be a whole number, at least 1, not {every!r}")
        if not sources.is_video(source):
            for name, value in (("out", out), ("start", start), ("stop", stop), *cluster.items()):
                if value is not None:
                    raise ValueError(f"{name} is for video files; these frames are pictures")
            return Results(self.here(self.workflow, sources.of_pictures(source, every)), result)
        refuse_url(str(source))
        path = Path(str(source)).expanduser()
        open_container(path).close()  # fails for a folder, list or text, which a run would accept as an input
        sampling = {"every": every, **{name: at for name, at in (("start", start), ("stop", stop)) if at is not None}}
        workflow = build_workflow("deepface", {**self.document(), "source": sampling}, Path.cwd())
        if out is not None:
            return Results(self.stored(path, workflow, Path(out), cluster), result)
        if cluster:
            raise ValueError(f"{', '.join(cluster)} need out=: without a store the work is done in this process")
        threads = in_process_settings().decode_threads
        return Results(self.here(workflow, sources.of_video(path, workflow, threads)), result)

    def here(
        self, workflow: Workflow, batches: Iterator[sources.Batch | Exception]
    ) -> Iterator[FrameFaces | Exception]:
        """Run the stages on batches of frames when the caller asks for them; yield exceptions in their place."""
        run = stages_here(workflow)
        for number, batch in enumerate(batches):
            if isinstance(batch, Exception):
                yield batch
                continue
            given: dict[str, Any] = {"frames_rgb": batch.frames_rgb}
            arrays = run(Chunk("frames", number, batch.index, batch.time_seconds, batch.decoded, given))
            n_faces = arrays.pop("n_faces")
            pixels = arrays.pop("frames_rgb")
            for k, faces in _faces_of_frames(batch.decoded, batch.names, n_faces, arrays):
                (height, width), (x, y) = pixels[k].shape[:2], batch.scale
                size = round(width / x), round(height / y)
                yield FrameFaces(int(batch.index[k]), batch.names[k], *size, faces, pixels[k], batch.scale)

    def stored(self, path: Path, workflow: Workflow, out: Path, cluster: Mapping[str, Any]) -> Iterator[FrameFaces]:
        """Run the missing part of the workflow into a store, and read it."""
        from pipeline.cluster.execute import execute
        from pipeline.engine.events import Silent
        from pipeline.engine.run import RunOptions

        (video,) = expand([str(path.absolute())])  # as the store spells it
        options = dict(cluster)
        executor, fresh = options.pop("executor", "dask"), options.pop("fresh", False)
        summary = execute(
            workflow, [str(video)], out, overrides=(), executor=executor, cluster=ClusterOptions.of(**options),
            options=RunOptions(fresh=fresh, retry_failed=True), listener=Silent(),
        )  # fmt: skip
        if summary.drained:
            raise StoreError(f"the run into {out} was stopped before its end; call again to continue")
        found = next(item for item in open_store(out).inputs.values() if item.attributes["path"] == str(video))
        yield from _stored_faces(path, found)


def _stored_faces(path: Path, found: RunInput) -> Iterator[FrameFaces]:
    """Yield the frames of an input in order, without those of failed chunks (a later call tries them again)."""
    facts = found.attributes
    names = [name for name, array in found.arrays.items() if array.dims[0] == "face" and name != "face_frame"]
    failed = {} if found.complete else {entry["chunk"]: entry["error"] for entry in found.failures}
    length = int(facts["chunk_frames"]) if failed else FRAMES_AT_ONCE
    for start in range(0, found.frames_total, length):
        if start // length in failed:
            warnings.warn(
                plain(
                    f"chunk {start // length} of {path} failed ({failed[start // length]}); its frames are left out, "
                    "and the next call tries it again"
                ),
                stacklevel=2,
            )
            continue
        stop = min(start + length, found.frames_total)
        rows = found.read_frames(["frame", "decoded", "n_faces", *names], start, stop)
        labels = [f"frame {rank} of {path}" for rank in rows["frame"]]
        arrays = {name: rows[name] for name in names}
        for k, faces in _faces_of_frames(rows["decoded"].astype(bool), labels, rows["n_faces"], arrays):
            yield FrameFaces(int(rows["frame"][k]), labels[k], facts["width"], facts["height"], faces, None)


class Results(Iterator[tuple[int, Any]]):
    """Continues after a frame whose result is an exception, which a generator could not."""

    def __init__(self, frames: Iterator[FrameFaces | Exception], result: Result) -> None:
        self._frames, self._result = frames, result

    def __next__(self) -> tuple[int, Any]:
        faces = next(self._frames)
        if isinstance(faces, Exception):
            raise faces
        return faces.index, self._result(faces)


def _faces_of_frames(
    decoded: np.ndarray, names: Sequence[str], n_faces: np.ndarray, arrays: dict[str, np.ndarray]
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield the index of each decoded frame and its faces, in DeepFace's order; warn of the other frames."""
    for lost in map(int, np.flatnonzero(~decoded)):
        warnings.warn(plain(f"{names[lost]} could not be decoded; it is left out"), stacklevel=2)
    stops = np.cumsum(n_faces)
    for k in map(int, np.flatnonzero(decoded)):
        faces = {name: array[stops[k] - n_faces[k] : stops[k]] for name, array in arrays.items()}
        order = np.argsort(faces["rank"], kind="stable")
        yield k, {name: array[order] for name, array in faces.items()}
