"""The stage interface: one operation on one chunk. A stage never knows where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.machine.device import Device
from pipeline.models.card import ModelInfo
from pipeline.store.schema import Array

if TYPE_CHECKING:
    from pipeline.store.read import RunInput


class StageOptions(BaseModel):
    """Base of a stage's options: the one source of validation, flags, help and defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def keyed(self) -> dict[str, Any]:
        """What of them enters the resume key, as JSON values: all. An option that comes to a stage later is left out
        where it changes nothing, so that older stores go on."""
        dumped: dict[str, Any] = self.model_dump(mode="json")
        return dumped


@dataclass(frozen=True)
class Chunk:
    """What a stage sees: the sampled frames of one chunk and the arrays made of them so far."""

    input_name: str
    index: int
    frame: np.ndarray
    """int64 (n,): rank of each sampled frame in presentation order, from 0."""
    time_seconds: np.ndarray
    """float64 (n,): presentation time of each sampled frame."""
    decoded: np.ndarray
    """bool (n,): false where the frame could not be read; its pixels are then zero."""
    arrays: dict[str, np.ndarray]
    """What the stage named in `needs`, and what else is at hand, by array name."""

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def frames_rgb(self) -> np.ndarray:
        """uint8 (n, height, width, 3): upright frames. Only for stages that list it in `needs`."""
        return self.arrays["frames_rgb"]

    @property
    def face_frame(self) -> np.ndarray:
        """int64 (n_faces,): index of each face's frame within this chunk."""
        return np.repeat(np.arange(len(self.frame)), self.arrays["n_faces"])


@dataclass(frozen=True)
class Described:
    """An array of a whole input with attributes that are known only once it is made (names, for example)."""

    values: np.ndarray
    attributes: dict[str, Any]


class Stage:
    """One operation. Subclass it in your own module and name it in YAML as `package.module:Class`.

    `needs` names arrays that other stages make, or "frames_rgb". `needs` and `outputs` may be set in `__init__` where
    they depend on options. `version` enters the resume key: raise it when results change.
    """

    needs: tuple[str, ...] = ()
    slot: ClassVar[Literal["cpu", "gpu"]] = "cpu"
    scope: ClassVar[Literal["chunk", "input"]] = "chunk"
    """input: `run_input` is called once, when the arrays of the whole input are there; a change redoes only it."""
    version: ClassVar[int] = 1
    Options: ClassVar[type[StageOptions]] = StageOptions
    outputs: tuple[Array, ...] = ()

    def __init__(self, options: StageOptions) -> None:
        self.options: Any = options

    def models(self) -> tuple[ModelInfo, ...]:
        """The models this stage uses; their weights' hashes enter the resume key. Makes no session."""
        return ()

    def content(self) -> str:
        """A hash of what else results depend on (files that an option names); enters the resume key. Empty: nothing."""
        return ""

    def load(self, device: Device) -> None:
        """Make models ready; called once per worker, under a lock, before the first `run`."""

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Return every declared output array, one row per frame or face of the chunk, in order."""
        raise NotImplementedError

    def run_input(self, item: RunInput) -> dict[str, np.ndarray | Described]:
        """For scope `input`, in place of `run`: every declared array, one row per frame or face of the whole input.
        `item` reads its arrays (`item.read(["box", "embedding"])`, `item.read_frames(...)` for a part)."""
        raise NotImplementedError
