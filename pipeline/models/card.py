"""Facts about models: where their weights come from, what licence they have, what a store records of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Packaged:
    """A file that a pip package carries."""

    package: str
    """Its import name."""
    path: str
    """Below the package's folder."""
    requirement: str
    """What pip is asked for."""

    @property
    def project(self) -> str:
        """The name in the requirement: `"opencv-contrib-python-headless<5"` -> opencv-contrib-python-headless."""
        return re.split(r"[<>=!~;\s]", self.requirement.strip('"'))[0]


@dataclass(frozen=True)
class WeightsFile:
    """One file of weights, in a package or published, or both."""

    name: str
    """Path below DeepFace's folder of weights."""
    urls: tuple[str, ...] = ()
    """Where it is published, best first; empty for what only a package carries."""
    packaged: Packaged | None = None
    """Where to look before the folder of weights."""
    sha256: str = ""
    """Of the file as it lies on disk; empty where nobody has published it."""
    size_bytes: int = 0
    """0 where it is not known."""
    compression: Literal["", "bz2"] = ""
    """How the published file is packed."""


@dataclass(frozen=True)
class ModelCard:
    """Facts about one model."""

    name: str
    kind: str
    """What it does, for example detector or recogniser: a domain's own word."""
    licence: str
    """Of the weights: SPDX identifier, or what their publisher says."""
    weights: tuple[WeightsFile, ...] = ()
    engine: str = "onnxruntime"
    """The library that runs it here."""
    requires: tuple[str, ...] = ()
    """pip packages beyond the base install that it needs."""
    input_size: tuple[int, int] | None = None
    """Width and height of what the network sees, in pixels; None: frames of any size."""
    dimension: int = 0
    """Components of an embedding; 0 for other kinds."""
    classes: tuple[str, ...] = ()
    """What the values of an attribute stand for; empty for a single number."""
    one_at_a_time: str = ""
    """Why it cannot be batched; empty where it is."""
    licence_source: str = ""
    """Who says what `licence` says, and what else they say about use."""


@dataclass(frozen=True)
class ModelInfo:
    """What a run store records of a model. Cheap to get: nothing is read for it."""

    name: str
    licence: str
    runtime: str
    """For example "onnxruntime 1.23.0"."""
    hash_weights: Callable[[], str]
    """Reads the weights, once per process, and returns their sha256 (hex)."""
    licence_source: str = ""
    """Who says what `licence` says, and what else they say about use."""

    @property
    def weights_sha256(self) -> str:
        """Raises ModelError where the weights are missing."""
        return self.hash_weights()

    def as_dict(self) -> dict[str, str]:
        return {
            "name": self.name,
            "weights_sha256": self.weights_sha256,
            "licence": self.licence,
            "licence_source": self.licence_source,
            "runtime": self.runtime,
        }
