"""Checks of what a stage declares, before anything is run. A stage may be the user's own, and its mistakes too."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.engine.finding import own_place
from pipeline.engine.stage import Stage, StageOptions
from pipeline.errors import ReelgraphError, WorkflowError
from pipeline.store.schema import Array, Axis
from pipeline.text import unknown

STEPS = ("decode", "read", "write")
"""Steps of every chunk beside its stages: a graph has each name once."""

_LISTS = {"needs": (str, '("frames_rgb",)'), "outputs": (Array, "(Array(...),)"), "axes": (Axis, "(Axis(...),)")}
"""Attributes of a stage that are tuples: the type of their members, and an example."""


@contextlib.contextmanager
def own_code(where: str, owner: object) -> Iterator[None]:
    """Turn what the user's own code raises into one line that names it. Raises WorkflowError.

    `where` begins the message, `owner` is the stage or its class. What a stage of this package raises stays as it is.
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
    for name, (kind, example) in _LISTS.items():
        given = getattr(stage, name)
        if not isinstance(given, tuple | list) or not all(isinstance(one, kind) for one in given):
            shown = repr(given) if isinstance(given, str) else f"of type {type(given).__name__}"
            raise WorkflowError(f"{where}: {name} is {shown}; write a tuple of {kind.__name__}: {example}")
    for array in stage.outputs:
        wrong = array.misfit()
        if wrong is not None:
            raise WorkflowError(f"{where}: array {array.name!r} {wrong}")
        check_attributes(array.attributes, f"{where}: array {array.name!r}")
    if stage.scope == "input" and stage.axes:
        raise WorkflowError(
            f"{where}: it has scope 'input' and declares the axis {stage.axes[0].name!r}; "
            "leave it out: only stages that run on chunks make axes"
        )


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
