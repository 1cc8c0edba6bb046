"""Options of stages on pairs, some of which have an effect only with others."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Self

from pydantic import model_validator

from pipeline.engine.stage import StageOptions


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
