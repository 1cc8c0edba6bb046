"""The facts that the groups of a store have as attributes, and their types: checked whenever they are read.

A store may be damaged, or come from a stranger. Everybody who reads these facts may rely on what is declared here.
Other facts, those of a source or a program of the user's own, are not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.store.schema import DECODED, axes_of

LARGEST_COUNT = 2**40
"""Most items, rows or bytes that a number of a store may claim."""
MOST_CHUNKS = 10**7
"""Most chunks of one input. Plans and lists hold some bytes for each."""

Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Positive = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]


class _Facts(BaseModel):
    """Types without conversion; NaN and infinite numbers are refused, other keys let pass."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="ignore")


class _Stage(_Facts):
    key: str | None = None
    state: str | None = None
    code: str | None = None
    arrays: list[str] | None = None


class _ChunkCounts(_Facts):
    total: Count
    done: Count
    failed: Count


class _Failure(_Facts):
    chunk: Count | None = None
    frames: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    time_seconds: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    error: str | None = None


class _Unreadable(_Facts):
    chunk: Count
    frames: list[Count]
    error: str | None = None


class _Input(_Facts):
    path: str = ""
    fingerprint: str = ""
    order: Count = 0
    frames: Count = 0
    chunk_frames: Positive | None = None
    source_frames: Count | None = None
    every: Positive | None = None
    width: Count | None = None
    height: Count | None = None
    fps: Annotated[float, Field(ge=0)] | None = None
    duration_seconds: float | None = None
    start_seconds: float | None = None
    sample_fps: float | None = None
    decoder: str | None = None
    complete: bool = False
    inventory_file: str | None = None
    items_digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    stages: dict[str, _Stage] = Field(default_factory=dict)
    chunks: _ChunkCounts | None = None
    failures: list[_Failure] = Field(default_factory=list)
    unreadable: list[_Unreadable] = Field(default_factory=list)
    forgotten: list[dict[str, Any]] = Field(default_factory=list)


class _Model(_Facts):
    name: str
    licence: str | None = None
    runtime: str | None = None
    weights_sha256: str | None = None


class _Unusable(_Facts):
    path: str = ""
    error: str


class _Speed(_Facts):
    seconds_per_frame: float | None = None
    rows_per_frame: dict[str, float] | None = None
    step_seconds: dict[str, float] | None = None
    frames: Count | None = None
    model_share: float | None = None
    bottleneck: str | None = None


class _Root(_Facts):
    reelgraph: str = ""
    store_format: int = 1
    created: str | None = None
    models: list[_Model] = Field(default_factory=list)
    devices: list[str] = Field(default_factory=list)
    unusable: list[_Unusable] = Field(default_factory=list)
    speed: _Speed | None = None
    moving: dict[str, Annotated[tuple[str, dict[str, Any]], Field(strict=False)]] | None = None


def flaw_of_root(attributes: Mapping[str, Any]) -> str:
    """Return the reason why the attributes of a store's root are not ours; "" if there is none."""
    return _flaw(_Root, attributes)


def flaw_of_input(
    attributes: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Any]], is_sealed: bool = True
) -> str:
    """Return the reason why the attributes and the committed arrays of an input do not fit; "" if there is none.

    Each array has passed `nodes.check_array`. Without a checksum (`is_sealed`) none may have been lost.
    """
    if "stages" not in attributes:
        return "no stages"
    flaw = _flaw(_Input, attributes)
    if flaw:
        return flaw
    chunks = -(-attributes.get("frames", 0) // (attributes.get("chunk_frames") or LARGEST_COUNT))
    if chunks > MOST_CHUNKS:
        return f"frames: {attributes['frames']} in chunks of {attributes['chunk_frames']}"
    if bool(arrays) != bool(attributes.get("complete")):
        return "complete, without arrays" if not arrays else "arrays, but not complete"
    if attributes.get("complete") and "chunks" not in attributes:
        return "complete, without the number of chunks"
    if DECODED.name not in arrays:  # it may be being replaced
        return f"no array {DECODED.name!r}" if arrays and not is_sealed else ""
    # Arrays that have an axis in common must have the same number of rows.
    decoded = arrays[DECODED.name]
    rows = {decoded["dimension_names"][0]: (decoded["shape"][0], DECODED.name)}
    if attributes.get("frames", decoded["shape"][0]) != decoded["shape"][0]:
        return f"frames: {attributes['frames']}, but array {DECODED.name!r} has {decoded['shape'][0]}"
    for axis in axes_of(arrays):
        if axis.index not in arrays:
            return f"no array {axis.index!r}"
        rows[axis.name] = arrays[axis.index]["shape"][0], axis.index
    for name, node in arrays.items():
        expected, other = rows.get(node["dimension_names"][0], (node["shape"][0], name))
        if node["shape"][0] != expected:
            return f"array {name!r} has {node['shape'][0]} rows, but {other!r} has {expected}"
    return ""


def stage_sections(workflow: Any) -> dict[str, dict[str, Any]]:
    """Return the sections of the stages in a stored workflow, by name, without those that are not sections."""
    stages = workflow.get("stages") if isinstance(workflow, dict) else None
    found = stages.items() if isinstance(stages, dict) else ()
    return {name: section for name, section in found if isinstance(section, dict)}


def _flaw(kind: type[BaseModel], attributes: Mapping[str, Any]) -> str:
    try:
        kind.model_validate(attributes)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        value = repr(first["input"])
        shown = value if len(value) < 80 else f"{value[:77]}..."
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}, not {shown}"
    return ""
