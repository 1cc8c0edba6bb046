"""Declarations of stored arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Array:
    """An output array that a stage declares."""

    name: str
    dims: tuple[str, ...]
    """First "frame" or "face" (one row per item of the chunk), then names for the trailing dimensions."""
    dtype: str
    shape: tuple[int, ...] = ()
    """Sizes of the trailing dimensions; len(shape) == len(dims) - 1."""
    attributes: dict[str, Any] = field(default_factory=dict)
    """Units, class names, description: stored as attributes of the array."""

    def __post_init__(self) -> None:
        if not self.dims or len(self.shape) != len(self.dims) - 1:
            raise ValueError(f"array {self.name!r}: dims {self.dims} need {len(self.dims) - 1} sizes, not {self.shape}")
