"""Stored faces near given vectors: the way through stores and inputs that `find --gallery` and `find --face` share."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipeline.errors import InputError, StoreError, UsageError
from pipeline.faces.people.matching import Metric
from pipeline.faces.people.pictures import Recipe
from pipeline.faces.people.space import thresholds_of
from pipeline.store.read import Run, RunInput
from pipeline.store.read import open as open_store
from pipeline.store.run import each_once

Written = Literal["written", "unchanged", "incomplete", "locked", "not asked"]


@dataclass(frozen=True)
class Searched:
    """One input of a store, as far as it is done. The last fields are of one kind of search each."""

    out: str
    input: str
    faces: int
    share: float
    """Share of its sampled frames, 0 to 1, that are done and could be searched."""
    threshold: float | None = None
    """Largest distance that counts; None if nothing is done yet, or if it differs from track to track."""
    unknown_faces: int | None = None
    """Number of faces that match no person of the gallery."""
    written: Written | None = None
    """State of the arrays `identity` and `distance`: `incomplete` inputs and `locked` stores get none.

    `not asked`: the user wants an answer only."""
    how: Literal["exact", "index"] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(kw_only=True)
class NearSearch(ABC):
    """One search and its result. If a store or an input cannot be used, the reason is kept; the others are searched."""

    half_done: ClassVar[str] = ""
    """End of the note that an input is half done."""
    unstarted: ClassVar[dict[str, Any]]
    """Fields of `Searched` for an input of which nothing is done yet."""
    metric: Metric
    threshold: float | None
    """None: the model's own (`thresholds` of the array `embedding`)."""
    model: str | None
    """Stores of another model are refused."""
    looked: Callable[[int], None]
    """Gets the number of faces looked at so far."""
    note: Callable[[str], None]
    """Gets lines for the user as they come."""
    faces: int = 0
    inputs: list[Searched] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    """Stores and inputs that could not be searched, or written, with the reason."""

    @abstractmethod
    def search(self, out: str, item: RunInput, recipe: Recipe) -> tuple[int, dict[str, Any]]:
        """Search one input, complete or half done; return its number of faces, and the last fields of `Searched`."""

    @contextlib.contextmanager
    def opened(self, out: str, run: Run, recipe: Recipe) -> Iterator[None]:
        """Do what a store needs before its inputs are searched, and after."""
        yield

    def through(self, outs: Sequence[str | Path]) -> None:
        """Search all inputs of some stores, each store once. Raises UsageError if a store is of another model."""
        for out in map(str, each_once(outs)):
            try:
                run = open_store(out)
                if not run.inputs:
                    raise StoreError(f"{out} is empty: it has no input yet; run a workflow into it first")
                recipe = Recipe.of_store(run.attributes, out)
            except StoreError as err:
                self.unusable.append(str(err))
                continue
            if self.model is not None and self.model.lower() != recipe.model.lower():
                raise UsageError(f"the faces of {out} are embedded with {recipe.model}, not with {self.model}")
            with self.opened(out, run, recipe):
                for item in run.inputs.values():
                    try:
                        self.inputs.append(self._input(out, item, recipe))
                    except StoreError as err:  # damage to one film is no reason to say nothing of the others
                        self.unusable.append(str(err))

    def _input(self, out: str, item: RunInput, recipe: Recipe) -> Searched:
        if "embedding" not in item.arrays:
            self.tell(f"{out}, {item.name}: nothing is done yet, nothing was searched")
            return Searched(out, item.name, 0, 0.0, **self.unstarted)

        def searched() -> Searched:
            share = 1.0 if item.complete else len(item.array("decoded")) / max(1, item.frames_total)
            faces, facts = self.search(out, item, recipe)
            return Searched(out, item.name, faces, share, **facts)

        done = item.retried(searched)
        if done.share < 1 or done.written == "incomplete":
            self.tell(f"{out}, {item.name}: {done.share:.0%} is done and was searched{self.half_done}")
        return done

    def require_some(self) -> None:
        """Raise InputError if nothing could be searched; else note the stores and inputs that could not be."""
        if not self.inputs:
            raise InputError(self.unusable[0] if self.unusable else "no store is named")
        for text in self.unusable:
            self.note(text)

    @property
    def exit_code(self) -> int:
        return 1 if self.unusable else 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "metric": self.metric,
            "inputs": [one.as_dict() for one in self.inputs],
            "notes": self.notes,
            "unusable": self.unusable,
        }

    def tell(self, text: str) -> None:
        """Give the user a line, once."""
        if text not in self.notes:
            self.notes.append(text)
            self.note(text)

    def look(self, faces: int) -> None:
        """Count faces that were looked at."""
        self.faces += faces
        self.looked(self.faces)


def threshold_of(item: RunInput, metric: Metric, given: float | None) -> float:
    """Return the threshold to use for an input. Raises UsageError if none is given and the model has none."""
    if given is not None:
        return given
    attributes = item.arrays["embedding"].attributes
    known = thresholds_of(attributes)
    if metric not in known:
        raise UsageError(f"{attributes.get('model', 'the model')} has no threshold for {metric}; give one: --threshold")
    return known[metric]
