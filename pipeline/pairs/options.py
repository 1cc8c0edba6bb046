"""Options of stages on pairs, some of which have an effect only with others."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

from pydantic import field_validator, model_validator

from pipeline.engine.stage import StageOptions


class WeightsOptions(StageOptions):
    """Options with the path of weights that only the user can have."""

    weights: Path | None = None

    @field_validator("weights")
    @classmethod
    def _from_any_folder(cls, value: Path | None) -> Path | None:
        """Return the whole path: workers may run in another folder."""
        return value and value.expanduser().absolute()

    def keyed(self) -> dict[str, Any]:
        """Leave out the path: the hash of the content enters the resume key anyway."""
        return {name: value for name, value in super().keyed().items() if name != "weights"}


class ChoiceOptions(StageOptions):
    """Options among which one is a choice that others belong to."""

    def choice(self) -> str:
        """Return the choice as a workflow has it: "matcher: nearest"."""
        raise NotImplementedError

    def unused(self) -> Collection[str]:
        """Return the options that have no effect with this choice."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _all_used(self) -> Self:
        for name in sorted(self.unused()):
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"option {name}: {value} has no effect with {self.choice()}; leave it out")
        return self

    def keyed(self) -> dict[str, Any]:
        """Leave out the options that have no effect."""
        unused = self.unused()
        return {name: value for name, value in super().keyed().items() if name not in unused}
