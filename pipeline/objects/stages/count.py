"""Count objects that cross lines, and objects inside zones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from pipeline.engine.stage import Described, Stage, StageOptions
from pipeline.errors import InputError, WorkflowError
from pipeline.objects.crossing import crossings, inside
from pipeline.store.read import RunInput
from pipeline.store.schema import Array
from pipeline.text import unknown

FRAMES_AT_ONCE = 2048
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Points = tuple[tuple[Number, Number], ...]


class CountOptions(StageOptions):
    """Options of `count`."""

    lines: dict[str, Points] = Field(
        {}, description="points of each line by its name, [[x, y], [x, y], ...]. To cross it from left to right, as it "
        "is walked from the first point to the last, is in; the other way is out",
    )  # fmt: skip
    zones: dict[str, Points] = Field({}, description="corners of each polygon by its name, [[x, y], ...]")
    unit: Literal["pixels", "parts"] | None = Field(
        None, description="pixels of the whole picture, or parts of its width and height (0 to 1). Default: parts if "
        "no number is above 1",
    )  # fmt: skip
    classes: tuple[str, ...] | None = Field(None, description="names of the classes to count; default: all")
    point: Literal["bottom", "centre"] = Field(
        "bottom", description="point of a box that counts: the middle of its lower side (the feet), or its centre"
    )
    margin: float = Field(
        0.03, ge=0, allow_inf_nan=False, description="distance, in heights of the box, that an object must reach on "
        "both sides of a line; one that trembles on it is counted once",
    )  # fmt: skip

    @field_validator("classes", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("lines")
    @classmethod
    def _are_lines(cls, lines: dict[str, Points]) -> dict[str, Points]:
        for name, points in lines.items():
            if len(points) < 2 or any(first == last for first, last in pairwise(points)):
                raise ValueError(f"line {name!r} needs two different points or more, each unlike the one before")
        return lines

    @field_validator("zones")
    @classmethod
    def _are_zones(cls, zones: dict[str, Points]) -> dict[str, Points]:
        for name, points in zones.items():
            if len(set(points)) < 3:
                raise ValueError(f"zone {name!r} needs three different points or more")
            x, y = np.array(points).T
            if np.linalg.matrix_rank(np.stack([x - x[0], y - y[0]])) < 2:
                raise ValueError(f"zone {name!r} has no area: all its points lie on one line")
        return zones

    @model_validator(mode="after")
    def _fit(self) -> CountOptions:
        if not (self.lines or self.zones):
            raise ValueError("there is nothing to count; set lines or zones")
        numbers = [(kind, name, n) for kind, name, points in self.shapes for point in points for n in point]
        above = next((one for one in numbers if one[2] > 1), None)
        broken = next((one for one in numbers if 0 < one[2] < 1), None)
        if self.unit == "parts" and above:
            raise ValueError(f"{above[0]} {above[1]!r}: {above[2]:g} is outside of the picture; parts are 0 to 1")
        if self.unit is None and above and broken:
            raise ValueError(
                f"{broken[0]} {broken[1]!r} has {broken[2]:g} and {above[0]} {above[1]!r} has {above[2]:g}; "
                "set unit to pixels or parts"
            )
        return self

    @property
    def shapes(self) -> list[tuple[str, str, Points]]:
        """Lines and zones: kind, name, points."""
        kinds = {"line": self.lines, "zone": self.zones}
        return [(kind, name, points) for kind, named in kinds.items() for name, points in named.items()]

    @property
    def in_parts(self) -> bool:
        return self.unit == "parts" or (
            self.unit is None and all(n <= 1 for _, _, points in self.shapes for point in points for n in point)
        )


class Count(Stage):
    """Crossings of lines, and objects inside zones, for each frame."""

    needs = ("n_objects", "box", "class", "track", "time_seconds")
    advice: ClassVar[Mapping[str, str]] = {
        "track": "add a stage that makes it: track: {use: track_objects}",
        "time_seconds": "count objects in videos",
    }
    scope = "input"
    version = 1
    Options = CountOptions

    def __init__(self, options: StageOptions) -> None:
        super().__init__(options)
        lines, zones = list(self.options.lines), list(self.options.zones)
        crossed = Array("crossings", ("frame", "line", "direction"), "int32", (len(lines), 2), {
            "line_names": lines, "directions": ["in", "out"],
            "description": "objects that have crossed each line since the frame before",
        })  # fmt: skip
        counted = Array("counts", ("frame", "zone"), "int32", (len(zones),), {
            "zone_names": zones, "description": "objects with a track inside each zone",
        })  # fmt: skip
        self.outputs = (*[crossed] * bool(lines), *[counted] * bool(zones))

    def check(self, arrays: Mapping[str, Array]) -> None:
        names = arrays["class"].attributes.get("class_names", [])
        wrong = next((name for name in self.options.classes or () if name not in names), None)
        if wrong is not None:
            raise WorkflowError(f"classes: {unknown('class', wrong, names)}")

    def check_input(self, facts: Mapping[str, Any]) -> None:
        self._pixels(facts)

    def _pixels(self, facts: Mapping[str, Any]) -> dict[tuple[str, str], np.ndarray]:
        """Return the points of lines and zones in pixels, by kind and name. Raises InputError if one is outside."""
        size = np.array([facts.get("width") or np.inf, facts.get("height") or np.inf])
        if self.options.in_parts and np.isinf(size).any():
            raise InputError("the size of its pictures is not known; give points in pixels (unit: pixels)")
        found = {}
        for kind, name, points in self.options.shapes:
            place = np.array(points, np.float64) * (size if self.options.in_parts else 1)
            outside = np.flatnonzero((place > size).any(axis=1))
            if len(outside):
                x, y = place[outside[0]]
                raise InputError(
                    f"{kind} {name!r} has the point {x:g}, {y:g}, outside of the {size[0]:g}x{size[1]:g} picture; "
                    "move it, or set unit to parts"
                )
            found[kind, name] = place
        return found

    def run_input(self, item: RunInput) -> dict[str, np.ndarray | Described]:
        pixels = self._pixels(item.attributes)
        lines, zones = ([place for (kind, _), place in pixels.items() if kind == wanted] for wanted in ("line", "zone"))
        frames = len(item.array("n_objects"))
        counts = np.zeros((frames, len(zones)), np.int32)
        tracked: list[tuple[np.ndarray, ...]] = [tuple(np.empty(shape) for shape in (0, 0, (0, 2), 0))]
        for frame, track, point, height in self._rows(item):
            for number, zone in enumerate(zones):
                counts[:, number] += np.bincount(frame[inside(point, zone)], minlength=frames).astype(np.int32)
            if lines:
                tracked.append((frame, track, point, height))
        made: dict[str, np.ndarray | Described] = {}
        if lines:
            crossed = np.zeros((frames, len(lines), 2), np.int32)
            frame, track, point, height = (np.concatenate(parts) for parts in zip(*tracked, strict=True))
            order = np.argsort(track, kind="stable")
            for number, line in enumerate(lines):
                row, way = crossings(track[order], point[order], self.options.margin * height[order], line)
                np.add.at(crossed[:, number], (frame[order][row].astype(np.int64), way), 1)
            made["crossings"] = Described(crossed, {"lines": [line.round(3).tolist() for line in lines]})
        if zones:
            made["counts"] = Described(counts, {"zones": [zone.round(3).tolist() for zone in zones]})
        return made

    def _rows(self, item: RunInput) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield tracked objects of the classes to count: frame, track, point that counts, height of the box."""
        names = item.arrays["class"].attributes.get("class_names", [])
        wanted = None if self.options.classes is None else [names.index(name) for name in self.options.classes]
        share = np.array([0.5, 1.0 if self.options.point == "bottom" else 0.5])
        done = 0
        for start, stop in item.spans(FRAMES_AT_ONCE):
            part = item.read_frames(["n_objects", "box", "class", "track"], start, stop)
            frame = done + np.repeat(np.arange(stop - start), part["n_objects"])
            done += stop - start
            kept = part["track"] >= 0
            if wanted is not None:
                kept &= np.isin(part["class"], wanted)
            box = part["box"][kept].astype(np.float64)
            yield frame[kept], part["track"][kept], box[:, :2] + share * box[:, 2:], box[:, 3]
