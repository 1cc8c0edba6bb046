"""`reelgraph plan`: what a run would do, before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.engine.finding import open_source
from pipeline.engine.plan import InputPlan, check_keys, plan_input
from pipeline.engine.workflow import Workflow
from pipeline.errors import InputError
from pipeline.store.run import RunStore
from pipeline.text import duration, size

FACES_PER_FRAME = 2.0
"""Assumed for the disk estimate where the store holds no frames to tell."""

SECONDS_PER_MEGAPIXEL = 0.055
SECONDS_PER_FACE = 0.006
SECONDS_PER_DECODED_MEGAPIXEL = 0.0012
"""Of detection (mtcnn, min_face 20) and of embedding, all cores of a 2-core machine, and of decoding: measured by
`make bench`. They only serve until the store holds records of this workflow, whose own times are better."""


@dataclass
class InputView:
    """One line of the plan."""

    name: str
    path: str
    frames: int
    """Sampled frames."""
    source_frames: int
    chunk_frames: int
    chunks: int
    chunks_done: int
    chunks_failed: int
    frames_to_do: int
    source_frames_to_decode: int
    decoder: str
    width: int
    height: int


@dataclass
class PlanView:
    """What a run would do."""

    workflow: str
    out: str
    inputs: list[InputView] = field(default_factory=list)
    unusable: list[dict[str, str]] = field(default_factory=list)
    estimated_seconds: float = 0.0
    estimated_disk_bytes: float = 0.0
    chunk_bytes: int = 0
    """Decoded frames of the largest chunk."""
    estimate_source: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def survey(workflow: Workflow, paths: Sequence[Path], out: Path) -> PlanView:
    """Probe every input and ask the store what is missing. Writes nothing.

    Raises StoreError where the store does not fit the workflow; unusable inputs are listed, not raised.
    """
    store = RunStore.open(out, mode="r") if out.exists() else None
    view = PlanView(workflow.name, str(out))
    for path in paths:
        try:
            _add(view, workflow, path, store)
        except InputError as err:
            view.unusable.append({"path": str(path), "error": str(err)})
    _estimate(view, workflow, store)
    return view


def _add(view: PlanView, workflow: Workflow, path: Path, store: RunStore | None) -> None:
    name = store.find_input(str(path)) if store is not None else None
    stored = store.input(name).attributes if store is not None and name is not None else None
    if stored is not None and store is not None:
        check_keys(workflow, store.attributes.get("workflow", {}), stored.get("stages", {}), str(name))
    decoder = stored["decoder"] if stored else None
    source = open_source(workflow.source_kind, path, workflow.source_options, decoder)
    records = store.input(name).records() if store is not None and name is not None else {}
    plan = plan_input(workflow, name or path.stem, source, stored, records)
    to_do = _frames_to_do(plan)
    cost = source.decode_cost(plan.chunk_frames)
    view.inputs.append(
        InputView(
            name=plan.name,
            path=str(path),
            frames=plan.n_frames,
            source_frames=int(source.facts["source_frames"]),
            chunk_frames=plan.chunk_frames,
            chunks=len(plan.boundaries),
            chunks_done=len(plan.done),
            chunks_failed=len(plan.failed),
            frames_to_do=to_do,
            source_frames_to_decode=round(cost * to_do / max(plan.n_frames, 1)),
            decoder=str(source.facts["decoder"]),
            width=int(source.facts["width"]),
            height=int(source.facts["height"]),
        )
    )
    view.chunk_bytes = max(view.chunk_bytes, source.frame_bytes * min(plan.chunk_frames, max(plan.n_frames, 1)))


def _frames_to_do(plan: InputPlan) -> int:
    return sum(stop - start for start, stop in map(plan.boundaries_of, plan.missing))


def _estimate(view: PlanView, workflow: Workflow, store: RunStore | None) -> None:
    per_frame, faces_per_frame = _measured(store)
    for line in view.inputs:
        megapixels = line.width * line.height / 1e6
        if per_frame is None:
            seconds = line.frames_to_do * (megapixels * SECONDS_PER_MEGAPIXEL + FACES_PER_FRAME * SECONDS_PER_FACE)
            seconds += line.source_frames_to_decode * megapixels * SECONDS_PER_DECODED_MEGAPIXEL
        else:
            seconds = line.frames_to_do * per_frame
        view.estimated_seconds += seconds
        view.estimated_disk_bytes += line.frames_to_do * _bytes_per_frame(workflow, faces_per_frame)
    view.estimate_source = "figures of a 2-core machine" if per_frame is None else "times of the chunks done so far"


def _measured(store: RunStore | None) -> tuple[float | None, float]:
    """Wall seconds per sampled frame and faces per frame of what the store holds; (None, default) where nothing."""
    speed = store.attributes.get("speed") if store is not None else None
    if not speed:
        return None, FACES_PER_FRAME
    return float(speed["seconds_per_frame"]), float(speed["faces_per_frame"])


def _bytes_per_frame(workflow: Workflow, faces_per_frame: float) -> float:
    """Uncompressed; embeddings hardly compress, the rest is small beside them."""
    import numpy as np

    per_frame, per_face = 8.0 + 8 + 1, 8.0
    for array in workflow.specs().values():
        size = float(np.dtype(array.dtype).itemsize * np.prod(array.shape, dtype=int))
        if array.dims[0] == "face":
            per_face += size
        else:
            per_frame += size
    return per_frame + faces_per_frame * per_face


def lines(view: PlanView) -> list[str]:
    """The plan for a person."""
    shown = [
        f"{line.name}: {line.frames} of {line.source_frames} frames ({line.width}×{line.height}, {line.decoder}), "
        f"{line.chunks} chunks of {line.chunk_frames}: {line.chunks_done} done, {line.chunks_failed} failed, "
        f"{line.chunks - line.chunks_done - line.chunks_failed} to do"
        for line in view.inputs
    ]
    shown += [f"not usable: {entry['error']}" for entry in view.unusable]
    to_do = sum(line.frames_to_do for line in view.inputs)
    decode = sum(line.source_frames_to_decode for line in view.inputs)
    shown.append(
        f"to do: {to_do} frames (decoding {decode}), about {duration(view.estimated_seconds)} here "
        f"(from {view.estimate_source}), {size(view.estimated_disk_bytes)} on disk, "
        f"{size(view.chunk_bytes)} of frames per chunk"
    )
    return shown


