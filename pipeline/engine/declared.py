"""Checks of what a stage or a source declares, before anything is run: both may be the user's own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from pipeline.engine.finding import own_place
from pipeline.engine.source import InputRef, Source, SourceOptions
from pipeline.engine.stage import Stage, StageOptions
from pipeline.errors import InputError, ReelgraphError, WorkflowError
from pipeline.files.whole import to_json
from pipeline.store.schema import DECODED, Array, Axis
from pipeline.text import unknown

STEPS = ("decode", "read", "write")
"""Steps of every chunk beside its stages: a graph has each name once."""

_LISTS = {
    "needs": (str, '("frames_rgb",)'),
    "loads": (str, '("frames_rgb",)'),
    "outputs": (Array, "(Array(...),)"),
    "arrays": (Array, "(Array(...),)"),
    "axes": (Axis, "(Axis(...),)"),
}
"""Attributes of stages and sources that are tuples: the type of their members, and an example."""


@contextlib.contextmanager
def own_code(where: str, owner: object) -> Iterator[None]:
    """Turn what the user's own code raises into one line that names it. Raises WorkflowError.

    `where` begins the message, `owner` is the stage, the source, or its class. What those of this package raise stays
    as it is.
    """
    try:
        yield
    except ReelgraphError:
        raise
    except (Exception, SystemExit) as err:
        own = owner if isinstance(owner, type) else type(owner)
        if own.__module__.split(".")[0] == "pipeline":
            raise
        raise WorkflowError(f"{where}: {own.__name__} raised {type(err).__name__}: {err}{own_place(err)}") from err


@contextlib.contextmanager
def of_input(ref: InputRef, what: str) -> Iterator[None]:
    """Turn what a source raises over an input into one line that names it. Raises InputError.

    `what` goes on after the input: "cannot be opened".
    """
    try:
        yield
    except ReelgraphError:
        raise
    except (Exception, SystemExit) as err:
        raise InputError(f"{ref.path} {what}: {type(err).__name__}: {err}{own_place(err)}") from err


def check_class(own: type[Stage], where: str) -> None:
    """Check the class attributes of a stage. Raises WorkflowError."""
    if not (isinstance(own.Options, type) and issubclass(own.Options, StageOptions)):
        raise WorkflowError(f"{where}: {own.__name__}.Options is not a subclass of pipeline.StageOptions")
    for name, valid in {"scope": ("chunk", "input"), "slot": ("cpu", "gpu")}.items():
        if getattr(own, name) not in valid:
            raise WorkflowError(f"{where}: {unknown(name, str(getattr(own, name)), valid)}")
    most = own.most_items
    if most is not None and (not isinstance(most, int) or most < 1):
        raise WorkflowError(f"{where}: most_items is {most!r}; set a whole number above 0, or None")


def check_method(own: type[Stage], where: str) -> None:
    """Check that a stage has the method that its scope asks for. Raises WorkflowError."""
    method = "run" if own.scope == "chunk" else "run_input"
    if getattr(own, method) is getattr(Stage, method):
        raise WorkflowError(f"{where}: {own.__name__} has scope {own.scope!r} and no method {method}; write it")


def check_declared(stage: Stage, where: str) -> None:
    """Check the arrays and axes that a stage declares. Raises WorkflowError."""
    for name in ("needs", "outputs", "axes"):
        _check_list(stage, name, where)
    _check_arrays(stage.outputs, where)
    if stage.scope == "input" and stage.axes:
        raise WorkflowError(
            f"{where}: it has scope 'input' and declares the axis {stage.axes[0].name!r}; "
            "leave it out: only stages that run on chunks make axes"
        )


def check_source(own: type[Source], where: str) -> None:
    """Check what a source declares. Raises WorkflowError."""
    if not (isinstance(own.Options, type) and issubclass(own.Options, SourceOptions)):
        raise WorkflowError(f"{where}: {own.__name__}.Options is not a subclass of pipeline.SourceOptions")
    for name in ("arrays", "loads"):
        _check_list(own, name, where)
    _check_arrays(own.arrays, where)
    if any(array.name == DECODED.name for array in own.arrays):
        raise WorkflowError(f"{where}: array {DECODED.name!r} is one that jobs return; leave it out of arrays")


def check_opened(source: object) -> None:
    """Check what an opened source says of its input. Raises TypeError."""
    if not isinstance(source, Source):
        raise TypeError(f"open() returned {type(source).__name__}; return a Source")
    if not isinstance(source.item_bytes, int | np.integer):
        raise TypeError(f"item_bytes is {source.item_bytes!r}; set the bytes of one loaded item")
    to_json(dict(source.facts))
    if len(source) and not type(source).__module__.startswith("pipeline."):
        source.cost(1)


def check_times(source: Source, start: int, values: Mapping[str, np.ndarray], where: str) -> None:
    """Check that the times of items from `start` on do not fall: views take what lies between two as time on screen.

    `where` begins the message. Raises WorkflowError.
    """
    if "time_seconds" not in values or type(source).__module__.startswith("pipeline."):
        return
    times = np.asarray(values["time_seconds"], np.float64)
    before = np.asarray(source.values(start - 1, start)["time_seconds"], np.float64) if start else times[:1]
    wrong = np.flatnonzero(~(np.diff(np.concatenate([before, times])) >= 0))
    if len(wrong):
        at = int(wrong[0])
        earlier = f", after {(before[0] if at == 0 else times[at - 1]):g}" if start + at else ""
        raise WorkflowError(
            f"{where}: time_seconds of item {start + at} is {times[at]:g}{earlier}; sort the items by time in open()"
        )


def _check_list(owner: object, name: str, where: str) -> None:
    kind, example = _LISTS[name]
    given = getattr(owner, name)
    if not isinstance(given, tuple | list) or not all(isinstance(one, kind) for one in given):
        shown = repr(given) if isinstance(given, str) else f"of type {type(given).__name__}"
        raise WorkflowError(f"{where}: {name} is {shown}; write a tuple of {kind.__name__}: {example}")


def _check_arrays(arrays: Iterable[Array], where: str) -> None:
    for array in arrays:
        wrong = array.misfit()
        if wrong is not None:
            raise WorkflowError(f"{where}: array {array.name!r} {wrong}")
        check_attributes(array.attributes, f"{where}: array {array.name!r}")


def check_attributes(attributes: Mapping[str, Any], where: str) -> None:
    """Check that attributes of an array can be stored. Raises WorkflowError that names the first that cannot be."""
    for key, value in attributes.items():
        try:
            json.dumps({key: value})
        except (TypeError, ValueError) as err:
            raise WorkflowError(
                f"{where}: attribute {key!r} cannot be stored as JSON ({err}); "
                "use texts, Python's own numbers, lists and dicts"
            ) from err
