"""Stages of a whole input (tracks, identities): run once its arrays are there, again when what they rest on changed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.engine.bound import BoundWorkflow
from pipeline.engine.declared import check_attributes
from pipeline.engine.stage import Described
from pipeline.engine.steps import StageError, one_line
from pipeline.engine.workflow import StageNode
from pipeline.store.compact import add_arrays, require_rows
from pipeline.store.read import RunInput
from pipeline.store.run import RunStore
from pipeline.store.schema import Array


class DeriveError(Exception):
    """A stage of a whole input raised; `stage` names it."""

    def __init__(self, stage: str, error: BaseException) -> None:
        super().__init__(f"{stage}: {one_line(error)}")
        self.stage = stage


def stale(store: RunStore, name: str, bound: BoundWorkflow) -> list[StageNode]:
    """Return the stages of whole inputs that this one lacks, or has by other options, weights or files; in order."""
    if not bound.workflow.input_stages:
        return []
    group = store.input(name).group()
    stored = group.attributes.get("stages", {})
    return [
        node
        for node in bound.workflow.input_stages
        if stored.get(node.name, {}).get("key") != bound.keys[node.name]
        or any(array.name not in group.arrays for array in node.stage.outputs)
    ]


def derive(store: RunStore, name: str, bound: BoundWorkflow) -> dict[str, float]:
    """Run what is stale on a compacted input and add its arrays; return the seconds by stage.

    Raises DeriveError if a stage fails; what came before it is kept. Raises StoreError if the store cannot be read or
    written.
    """
    keys = bound.keys
    seconds = {}
    for node in stale(store, name, bound):
        began = time.perf_counter()
        try:
            made = node.stage.run_input(RunInput(store.path, name))
            specs, arrays = _described(node, made)
            require_rows(store, name, specs, arrays)
        except (Exception, SystemExit) as error:  # a stage may be the user's own: one that fails must not end the run
            raise DeriveError(node.name, error) from error
        add_arrays(store, name, specs, arrays, {node.name: keys[node.name]}, replace_existing=True)
        seconds[node.name] = time.perf_counter() - began
    return seconds


def _described(node: StageNode, made: Any) -> tuple[list[Array], dict[str, np.ndarray]]:
    """Return the declared arrays with the attributes that only now are known, and the values. Raises StageError."""
    declared = {array.name: array for array in node.stage.outputs}
    if not isinstance(made, Mapping) or made.keys() != declared.keys():
        returned = (", ".join(made) or "none") if isinstance(made, Mapping) else type(made).__name__
        raise StageError(f"it declares the arrays {', '.join(declared)} and returned {returned}")
    specs, arrays = [], {}
    for name, value in made.items():
        spec, values = declared[name], value
        if isinstance(value, Described):
            check_attributes(value.attributes, f"array {name!r}")
            spec, values = replace(spec, attributes={**spec.attributes, **value.attributes}), value.values
        arrays[name] = spec.fit(values, f"array {name!r}")
        specs.append(spec)
    return specs, arrays
