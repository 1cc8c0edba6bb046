"""`reelgraph plan --cameras`: how many cameras this machine keeps up with, from a table that is measured on it.

The table is measured with a clip of the user, by short runs of the workflow over links to it. They have 1 worker, half
as many as cores, and as many. Frames are alone or in mosaics. The cache folder keeps the table by machine, workflow,
packages and clip.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.cluster.execute import execute
from pipeline.cluster.options import ClusterOptions
from pipeline.engine.events import ChunkDone, Event, Note
from pipeline.engine.run import RunOptions
from pipeline.engine.workflow import StageNode, Workflow, load_workflow
from pipeline.errors import UsageError, WorkflowError
from pipeline.files.whole import atomic_write, to_json
from pipeline.machine.cores import available_cores, cpu_name
from pipeline.machine.gpus import card_name, visible_gpus
from pipeline.machine.limits import memory_bytes
from pipeline.media.boxes import Floats, assigned, corners_of, overlap
from pipeline.models.weights import cache_folder
from pipeline.store.read import Run, RunInput
from pipeline.text import plural
from pipeline.version import versions

TILES = "2x2"
"""Mosaics that are tried if the workflow sets none."""
PER_GPU = (1, 2, 4)
"""Workers on each GPU that are tried: each gets an equal share of its memory."""
PACKAGES = ("av", "decord", "onnxruntime", "onnxruntime-gpu", "opencv-contrib-python-headless", "numpy")
"""Packages whose version changes how fast a workflow runs."""
SECONDS = 6.0
"""Rough length of each timed run."""
CHUNK_FRAMES = (8, 64)
"""Fewest frames of a link to the clip, a multiple of 4, which fills mosaics of 2 x 2; and most frames of a chunk."""
MATCH = 0.5
"""Least overlap (intersection over union) of two boxes of one object, as is usual."""


@dataclass
class Row:
    """One measured setting."""

    workers: int
    per_gpu: int | None
    """Workers on each GPU; None on a CPU."""
    tiles: str | None
    """Grid of the mosaics; None: each frame alone."""
    frames: int
    """Frames that were timed, after each worker had done its first chunk."""
    frames_per_second: float
    look_again: bool = False
    """True if frames of which a mosaic shows something are looked at alone, too."""

    @property
    def share(self) -> float | None:
        """Share of a GPU's memory that each worker has."""
        return 1 / self.per_gpu if self.per_gpu else None


@dataclass
class Recall:
    """Objects found alone and in mosaics, over the same frames."""

    frames: int
    alone: int
    """Objects that were found in single frames."""
    found: int
    """Those of them that were found in mosaics too."""
    more: int
    """Objects that were found in mosaics only."""
    apart: list[float] = field(default_factory=list)
    """Largest difference of the numbers of a box found both ways, pixels: for the median, 90% and all of them."""

    @property
    def recall(self) -> float | None:
        return self.found / self.alone if self.alone else None


@dataclass
class Table:
    """Figures that were measured on this machine."""

    workflow: str
    clip: str
    width: int
    height: int
    fps: float
    machine: dict[str, Any]
    rows: list[Row]
    recall: Recall | None
    """None if no stage of the workflow accepts mosaics."""
    measured: str
    """Date and time."""


def measured_table(
    workflow: str, clip: str, fps: float, overrides: Sequence[str], again: bool, say: Callable[[str], object]
) -> Table:
    """Return the table of this machine, workflow and clip: from the cache, or measured (always with `again`).

    Raises ReelgraphError for a workflow or a clip that cannot be used.
    """
    sampling = ["source.every=null", "source.keyframes=false", f"source.fps={fps:g}"]
    loaded = load_workflow(workflow, [*overrides, *sampling])
    if loaded.source_kind not in ("video", "default"):
        raise UsageError(f"--cameras needs a workflow over videos, and {workflow} is over {loaded.source_kind}")
    (ref, *others) = loaded.source.find([clip], loaded.source_options)
    if others:
        raise UsageError(f"--cameras needs one clip, and {clip} names {1 + len(others)}; name a video file")
    key = {
        "machine": _machine(), "workflow": loaded.keys(), "source": loaded.source_options.model_dump(mode="json"),
        "packages": {**versions(), **dict(_packages())}, "clip": loaded.source.fingerprint(ref),
    }  # fmt: skip
    place = cache_folder() / "cameras" / f"{hashlib.sha256(to_json(key)).hexdigest()[:32]}.json"
    if not again:
        with suppress(OSError, ValueError, TypeError, KeyError):
            values = json.loads(place.read_bytes())
            recall = Recall(**values["recall"]) if values["recall"] else None
            return Table(**{**values, "rows": [Row(**row) for row in values["rows"]], "recall": recall})
    say(f"measuring {loaded.name} on this machine with {Path(clip).name}; `plan` keeps the table in {place.parent}")
    with tempfile.TemporaryDirectory(prefix="reelgraph-cameras-") as folder:
        table = _Measuring(workflow, loaded, [*overrides, *sampling], ref.path, fps, Path(folder), say).table()
    with suppress(OSError):  # the next one measures again
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, to_json(asdict(table)))
    return table


def _machine() -> dict[str, Any]:
    gpus = visible_gpus()
    memory, names = round(memory_bytes() / 1e9), [card_name(gpu) for gpu in gpus]
    return {"cpu": cpu_name(), "cores": available_cores(), "memory_gb": memory, "gpus": names}


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            yield name, metadata.version(name)


class _Clock:
    """Listens to a run: when each chunk was done."""

    def __init__(self) -> None:
        self.done: list[tuple[float, int]] = []
        self.notes: list[str] = []

    def on(self, event: Event) -> None:
        if isinstance(event, ChunkDone) and not event.failed:
            self.done.append((event.elapsed_seconds, event.items))
        elif isinstance(event, Note):
            self.notes.append(event.text)

    def steady(self, workers: int) -> tuple[int, float]:
        """Return frames and seconds from when each worker can have done a chunk: models are loaded by then."""
        times = sorted(self.done)
        skipped = min(workers, len(times) - 1)
        began = times[skipped - 1][0] if skipped else 0.0
        return sum(items for _, items in times[skipped:]), max(times[-1][0] - began, 1e-6)


@dataclass
class _Measuring:
    path: str
    workflow: Workflow
    overrides: list[str]
    clip: str
    fps: float
    folder: Path
    say: Callable[[str], object]

    def table(self) -> Table:
        """Run the workflow in each setting, and compare what it finds alone and in mosaics."""
        first, facts = self._probe()
        cores, gpus = available_cores(), len(visible_gpus())
        counts = list(PER_GPU) if gpus else sorted({1, max(1, cores // 2), cores})
        tiles = self._tiles()
        rows = []
        for grid in (None, tiles) if tiles else (None,):
            for count in counts:
                rows.append(self._row(count, gpus, grid, first, facts["duration_seconds"] * self.fps))
                self.say(f"{_setting(rows[-1])}: {rows[-1].frames_per_second:.1f} frames/s")
        recall = self._recall(tiles, first) if tiles else None
        now = time.strftime("%Y-%m-%d %H:%M")
        size = int(facts.get("width", 0)), int(facts.get("height", 0))
        return Table(self.workflow.name, self.clip, *size, self.fps, _machine(), rows, recall, now)

    def _tiles(self) -> str | None:
        """Return the grid of the mosaics to try: the workflow's own, else TILES; None if its stages accept none."""
        own = [node.stage.options.tiles for node in self._tiled()]
        if not own:
            return None
        grid = next(("x".join(map(str, one)) for one in own if one), TILES)
        try:
            load_workflow(self.path, self._with(grid))
        except WorkflowError:  # as with align: deepface
            return None
        return grid

    def _tiled(self) -> list[StageNode]:
        return [node for node in self.workflow.stages if "tiles" in type(node.stage.options).model_fields]

    def _with(self, tiles: str | None) -> list[str]:
        """Return the overrides for mosaics, or for single frames."""
        stages = [node.name for node in self._tiled()]
        overrides = [*self.overrides, *(f"{name}.tiles={json.dumps(tiles)}" for name in stages)]
        for option in ("look_again=false", "size=null"):  # refused without tiles
            try:
                load_workflow(self.path, overrides)
            except WorkflowError:
                overrides += [f"{name}.{option}" for name in stages]
        return overrides

    def _probe(self) -> tuple[float, Mapping[str, Any]]:
        """Return seconds that a frame takes on one worker, roughly, and facts of the clip."""
        clock = _Clock()
        run = self._run("probe", ["probe"], CHUNK_FRAMES[0] * 2, None, {"workers": 1}, clock)
        item = run.inputs["probe"]
        seconds = sum(item.step_seconds.values())
        return max(seconds / max(1, item.frames_done), 1e-4), item.attributes

    def _row(self, count: int, gpus: int, tiles: str | None, per_frame: float, length: float) -> Row:
        """Time one setting. `length`: frames of the clip at this rate.

        Each worker has a link to the clip with 4 chunks or more; of a short clip, or for a slow workflow, several.
        """
        least, most = CHUNK_FRAMES
        wanted = round(SECONDS / per_frame)
        short = max(least, wanted // 16 * 4)  # a quarter of them
        frames = min(wanted if short > most else short, max(1, int(length)))
        each = 1 if frames >= 4 * most else min(8, max(4, wanted // frames))
        workers = count * gpus if gpus else count
        cluster = {"workers_per_gpu": count} if gpus else {"workers": count}
        clock = _Clock()
        links = [f"cam-{number}" for number in range(each * workers)]
        self._run(f"run-{count}-{tiles}", links, frames, tiles, cluster, clock)
        done, seconds = clock.steady(workers)
        again = tiles is not None and any(getattr(node.stage.options, "look_again", False) for node in self._tiled())
        return Row(workers, count if gpus else None, tiles, done, done / seconds, again)

    def _recall(self, tiles: str, per_frame: float) -> Recall:
        frames = max(CHUNK_FRAMES[1], round(2 * SECONDS / per_frame))
        runs = [self._run(f"recall-{grid}", ["clip"], frames, grid, {}, _Clock()) for grid in (None, tiles)]
        return agreement(*(run.inputs["clip"] for run in runs))

    def _run(
        self, name: str, links: Sequence[str], frames: int, tiles: str | None, cluster: dict[str, Any], clock: _Clock
    ) -> Run:
        """Run the workflow over the first frames of the clip, once for each link."""
        folder = self.folder / name
        folder.mkdir()
        suffix = Path(self.clip).suffix
        for link in links:
            (folder / f"{link}{suffix}").symlink_to(self.clip)
        begin = self.workflow.source_options.start or 0.0  # type: ignore[attr-defined]  # a video's
        ends = [self.workflow.source_options.stop, begin + frames / self.fps]  # type: ignore[attr-defined]
        stop = min(end for end in ends if end is not None)
        summary = execute(
            self.path, [str(folder / f"{link}{suffix}") for link in links], folder / "out.zarr",
            overrides=[*self._with(tiles), f"source.stop={stop}"], executor="dask",
            cluster=ClusterOptions.of(**cluster, dashboard_port=0, flush=False),
            options=RunOptions(together=len(links)), listener=clock,
        )  # fmt: skip
        if summary.exit_code != 0:
            why = [one["error"] for one in (*summary.failures, *summary.unusable)] or clock.notes
            raise UsageError(f"a run over {self.clip} failed: {'; '.join(why[:1])}; correct the workflow or the clip")
        return Run(folder / "out.zarr")


def agreement(alone: RunInput, other: RunInput) -> Recall:
    """Compare the boxes of two stored inputs with the same frames, along all axes that have boxes."""
    parts = []
    for axis in alone.axes:
        dims = {name: array.dims for name, array in alone.arrays.items()}
        boxes = [name for name in dims if dims[name] == (axis.name, "xywh")][:1]
        labels = ["class"] if dims.get("class") == (axis.name,) else []
        if boxes:
            parts.append(compared(*(one.read([axis.count, *boxes, *labels]) for one in (alone, other))))
    counts = {name: sum(getattr(one, name) for one in parts) for name in ("alone", "found", "more")}
    moved = [value for one in parts for value in one.apart]
    quantiles = [float(value) for value in np.quantile(moved, [0.5, 0.9, 1])] if moved else []
    return Recall(alone.frames_done, **counts, apart=quantiles)


def compared(left: Mapping[str, Any], right: Mapping[str, Any]) -> Recall:
    """Compare boxes: those of one object overlap by MATCH or more, and have the same class if there are classes.

    Both are, in this order, a count for each frame, boxes, and classes or nothing. `apart` has all differences.
    """
    sides = [list(side.values()) for side in (left, right)]
    result = Recall(len(sides[0][0]), 0, 0, 0)
    rows_of = [np.split(np.arange(counts.sum()), np.cumsum(counts)[:-1]) for counts, *_ in sides]
    for spans in zip(*rows_of, strict=True) if result.frames else ():
        parts = ([array[span] for array in side[1:]] for side, span in zip(sides, spans, strict=True))
        boxes, *labels = zip(*parts, strict=True)
        rows, others = _same(*boxes, *(one for pair in labels for one in pair))
        result.alone += len(boxes[0])
        result.found += len(rows)
        result.more += len(boxes[1]) - len(rows)
        result.apart += np.abs(boxes[0][rows] - boxes[1][others]).max(axis=1, initial=0).tolist()
    return result


def _same(left: Any, right: Any, *labels: Any) -> tuple[Any, Any]:
    """Return rows of both that are boxes of one object, each row once."""

    def cost(rows: Any, near: Any) -> Floats:
        shared = overlap(left[rows], right[near])
        if labels:
            shared = np.where(labels[0][rows][:, None] == labels[1][near][None], shared, 0)
        return np.where(shared >= MATCH, 1 - shared, 1.0)

    return assigned(corners_of(left), corners_of(right), cost, 1.0)


# -- the answer --------------------------------------------------------------------------------------------------


def best(table: Table, mosaics: bool) -> Row | None:
    """Return the fastest row, with the fewest workers among equals."""
    rows = [row for row in table.rows if (row.tiles is not None) == mosaics]
    return max(rows, key=lambda row: (row.frames_per_second, -row.workers), default=None)


def answer(table: Table, cameras: int) -> dict[str, Any]:
    """Return how many cameras this machine keeps up with, alone and in mosaics, and the machines for `cameras`."""
    found: dict[str, Any] = {}
    for name, mosaics in (("alone", False), ("mosaics", True)):
        row = best(table, mosaics)
        if row is None:
            continue
        most = math.floor(row.frames_per_second / table.fps)
        gpus = row.workers // row.per_gpu if row.per_gpu else 0
        found[name] = {
            **asdict(row), "cameras": most, "machines": math.ceil(cameras / most) if most else None,
            "gpu_share_of_a_camera": gpus * table.fps / row.frames_per_second if gpus else None,
        }  # fmt: skip
    return found


def as_dict(table: Table, cameras: int) -> dict[str, Any]:
    """Return JSON values: the table, and the answer for this number of cameras."""
    rows = [{**asdict(row), "gpu_memory_share": row.share} for row in table.rows]
    recall = {**asdict(table.recall), "recall": table.recall.recall} if table.recall else None
    return {**asdict(table), "rows": rows, "recall": recall, "cameras": cameras, "answer": answer(table, cameras)}


def lines(table: Table, cameras: int) -> list[str]:
    """Return the answer for a person, and the table that it is from."""
    shown = []
    for found in answer(table, cameras).values():
        most = found["cameras"]
        how = _setting(Row(*(found[key] for key in Row.__dataclass_fields__)))
        if most:
            need = "" if cameras <= most else f"; {cameras} need {plural(found['machines'], 'machine')} like this one"
            shown.append(f"{plural(most, 'camera')} at {table.fps:g} frames/s, with {how}{need}")
            if found["gpu_share_of_a_camera"]:
                shown[-1] += f"; a camera takes {found['gpu_share_of_a_camera']:.0%} of a GPU"
        else:
            rate = found["frames_per_second"]
            shown.append(
                f"no camera at {table.fps:g} frames/s: with {how}, this machine analyses {rate:.2g} frames/s; "
                f"choose --fps {rate:.1g} or less, or a faster model"
            )
    if table.recall is not None:
        shown.append(_recall_line(table.recall))
    size = f"{table.width}x{table.height}"
    shown += ["", f"measured {table.measured} with {Path(table.clip).name} ({size}); --measure measures again:"]
    shown += [f"  {_setting(row)}: {row.frames_per_second:.1f} frames/s" for row in table.rows]
    return shown


def _recall_line(recall: Recall) -> str:
    if recall.recall is None:
        return f"recall in mosaics is not known: nothing was found in {plural(recall.frames, 'frame')} of this clip"
    more = f", and {recall.more} that were not" if recall.more else ""
    return (
        f"mosaics find {recall.found} of {plural(recall.alone, 'object')} ({recall.recall:.0%}) that were found in "
        f"{plural(recall.frames, 'single frame')}{more}"
    )


def _setting(row: Row) -> str:
    share = f" ({row.share:.0%} of a GPU's memory each)" if row.share else ""
    mosaics = f"mosaics of {row.tiles}{' and a second look' if row.look_again else ''}"
    return f"{plural(row.workers, 'worker')}{share}, {mosaics if row.tiles else 'each frame alone'}"
