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
        """Return the part of the options that enters the resume key, as JSON values: here all of them.

        A stage that gets a new option later leaves it out while it changes nothing, so that older stores still resume.
        """
        dumped: dict[str, Any] = self.model_dump(mode="json")
        return dumped


@dataclass(frozen=True)
class Chunk:
    """The input of a stage: the sampled frames of one chunk and the arrays made of them so far."""

    input_name: str
    index: int
    frame: np.ndarray
    """int64 (n,): rank of each sampled frame in presentation order, from 0."""
    time_seconds: np.ndarray
    """float64 (n,): presentation time of each sampled frame."""
    decoded: np.ndarray
    """bool (n,): false if the frame could not be read; its pixels are then zero."""
    arrays: dict[str, np.ndarray]
    """Arrays by name: those that the stage named in `needs`, and others that are available."""

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    @property
    def frames_rgb(self) -> np.ndarray:
        """Upright frames, uint8 (n, height, width, 3). Only for stages that list it in `needs`."""
        return self.arrays["frames_rgb"]

    @property
    def face_frame(self) -> np.ndarray:
        """Index of each face's frame within this chunk, int64 (n_faces,)."""
        return np.repeat(np.arange(len(self.frame)), self.arrays["n_faces"])


@dataclass(frozen=True)
class Described:
    """An array of a whole input with attributes that are known only once it is made (names, for example)."""

    values: np.ndarray
    attributes: dict[str, Any]


class Stage:
    """One operation. Subclass it in your own module and name it in YAML as `package.module:Class`.

    `needs` names arrays that other stages make, or "frames_rgb". If `needs` and `outputs` depend on options, set them
    in `__init__`. `version` enters the resume key: raise it when results change.
    """

    needs: tuple[str, ...] = ()
    slot: ClassVar[Literal["cpu", "gpu"]] = "cpu"
    scope: ClassVar[Literal["chunk", "input"]] = "chunk"
    """"chunk", or "input": `run_input` is called once, on the complete arrays of an input; a change redoes only it."""
    version: ClassVar[int] = 1
    Options: ClassVar[type[StageOptions]] = StageOptions
    outputs: tuple[Array, ...] = ()

    def __init__(self, options: StageOptions) -> None:
        self.options: Any = options

    def models(self) -> tuple[ModelInfo, ...]:
        """Return the models of this stage; their weights' hashes enter the resume key. Creates no session."""
        return ()

    def content(self) -> str:
        """Return a hash of other things that results depend on (files that an option names), for the resume key."""
        return ""

    def load(self, device: Device) -> None:
        """Load the models; called once per worker, under a lock, before the first `run`."""

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        """Return every declared output array, one row per frame or face of the chunk, in order."""
        raise NotImplementedError

    def run_input(self, item: RunInput) -> dict[str, np.ndarray | Described]:
        """Return every declared array, one row per frame or face of the whole input; for scope `input`.

        `item` reads its arrays: `item.read(["box", "embedding"])`, or `item.read_frames(...)` for a part.
        """
        raise NotImplementedError
