"""The stage interface: one operation on one chunk. A stage never knows where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from pipeline.engine.values import Options, json_values
from pipeline.errors import WorkflowError
from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo
from pipeline.store.schema import Array, Axis, default_count

if TYPE_CHECKING:
    from pipeline.store.read import RunInput


class StageOptions(Options):
    """Base of a stage's options: the one source of validation, flags, help and defaults."""

    def keyed(self) -> dict[str, Any]:
        """Return the options that enter the resume key, as JSON values: all of them by default.

        If a stage gets an option later, leave it out while it changes nothing, so that older stores go on.
        """
        return json_values(self)


@dataclass(frozen=True)
class Chunk:
    """Input of a stage: the items of one chunk and the arrays made of them so far. Arrays are read-only."""

    input_name: str
    index: int
    frame: np.ndarray
    """int64 (n,): number of each item within its input, from 0; of a video, its rank in presentation order."""
    time_seconds: np.ndarray | None
    """float64 (n,): presentation time of each frame; None if the source has no times."""
    decoded: np.ndarray
    """bool (n,): false for an item that could not be read; its pixels are then zero."""
    arrays: Mapping[str, np.ndarray]
    """The arrays that the stage named in `needs`, and others at hand, by name."""
    axes: Mapping[str, Axis] = field(default_factory=dict)
    """Ragged axes of the workflow, by name."""

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.decoded)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def rows(self, axis: str) -> np.ndarray:
        """Return int64 (rows,): for each row along a ragged axis, the index of its item within this chunk.

        The stage must name the axis's count array in `needs` ("n_faces" for "face"), else WorkflowError is raised.
        """
        count = self.axes[axis].count if axis in self.axes else default_count(axis)
        if count not in self.arrays:
            raise WorkflowError(f"rows({axis!r}) needs the array {count!r}; add it to the stage's needs")
        return np.repeat(np.arange(len(self)), self.arrays[count])

    @property
    def frames_rgb(self) -> np.ndarray:
        """uint8 (n, height, width, 3): upright pictures. Only for stages that list it in `needs`.

        A source whose pictures differ in size gives a sequence of (height, width, 3) arrays instead.
        """
        return self.arrays["frames_rgb"]

    def __getattr__(self, name: str) -> np.ndarray:
        """Return `rows("thing")` for `thing_frame`."""
        axis, found, rest = name.rpartition("_frame")
        if found and not rest and axis and not axis.startswith("_") and (axis in self.axes or self._counts(axis)):
            return self.rows(axis)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _counts(self, axis: str) -> bool:
        return default_count(axis) in self.__dict__.get("arrays", {})


@dataclass(frozen=True)
class Described:
    """An array of a whole input with attributes that are known only once it is made (names, for example)."""

    values: np.ndarray
    attributes: dict[str, Any]


class Stage:
    """One operation. Subclass it in your own module and name it in YAML as `package.module:Class`.

    `needs` names arrays that other stages make, or arrays that the source loads ("frames_rgb"). `needs`, `outputs` and
    `axes` may be set in `__init__` if they depend on options. `version` enters the resume key: raise it if results
    change. The source text of a stage that is not part of this package enters the key as well.
    """

    needs: tuple[str, ...] = ()
    advice: ClassVar[Mapping[str, str]] = {}
    """For messages: what to do if a needed array is not there, by its name."""
    slot: ClassVar[Literal["cpu", "gpu"]] = "cpu"
    scope: ClassVar[Literal["chunk", "input"]] = "chunk"
    """input: `run_input` is called once, when the arrays of the whole input are there; a change redoes only it."""
    item: ClassVar[str] = "frame"
    """Item axis that the stage runs on."""
    axes: tuple[Axis, ...] = ()
    """Ragged axes whose rows this stage makes; it must make each count array too."""
    version: ClassVar[int] = 1
    most_items: ClassVar[int | None] = None
    """Most items in a chunk, for a stage that takes long for each: a small input then keeps several workers busy."""
    seconds_per_megapixel: ClassVar[float] = 0.0
    """Rough seconds per megapixel of each item, on all cores of a 2-core machine: an estimate for `plan` alone, until a
    store has measured times."""
    seconds_per_row: ClassVar[float] = 0.0
    """Rough seconds for each row along the stage's axis."""
    usual_rows: float = 2.0
    """Rough rows of each item along the axes that it makes: an estimate for `plan` alone, until a store has some."""
    Options: ClassVar[type[StageOptions]] = StageOptions
    outputs: tuple[Array, ...] = ()

    def __init__(self, options: StageOptions) -> None:
        self.options: Any = options

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the models this stage uses; their weights' hashes enter the resume key. Makes no session."""
        return ()

    def content(self) -> str:
        """Return a hash of other files that results depend on, "" for none; it enters the resume key."""
        return ""

    def check(self, arrays: Mapping[str, Array]) -> None:
        """Check the options against the arrays that stages of the workflow make, by name.

        For pairs, arrays of the pictures are among them: `a_box`, `b_box`. Raises WorkflowError before a run starts.
        """

    def check_input(self, facts: Mapping[str, Any]) -> None:
        """Check the options against the facts of an input (width, height). Raises InputError before its first chunk."""

    def load(self, device: Device) -> None:
        """Load the models; called once per worker, under a lock, before the first `run`."""

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Return every declared output array, one row per item or per row of its axis, in order."""
        raise NotImplementedError

    def run_input(self, item: RunInput) -> dict[str, np.ndarray | Described]:
        """Return every declared array of a whole input; called in place of `run` for scope `input`.

        `item` reads the input's arrays: `item.read(["box", "embedding"])`, `item.read_frames(...)` for a part.
        """
        raise NotImplementedError
