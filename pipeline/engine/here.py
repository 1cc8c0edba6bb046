"""Stages of a stored workflow, run in this process: on items in memory, or on one input, without a store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine import steps
from pipeline.engine.bound import BoundWorkflow
from pipeline.engine.finding import DEFAULT_SOURCE, SOURCES, STAGES, is_known
from pipeline.engine.graph import chunk_nodes, run_in_process
from pipeline.engine.plan import open_source, plan_input
from pipeline.engine.stage import Chunk
from pipeline.engine.workflow import Workflow, build_workflow
from pipeline.errors import InputError, ReelgraphError, StoreError
from pipeline.machine.cores import available_cores
from pipeline.machine.device import Device
from pipeline.store.facts import stage_sections
from pipeline.text import plural


def workflow_making(
    array: str, attributes: Mapping[str, Any], missing: tuple[str, str], *, without: Collection[str] = (),
    with_source: bool = True,
) -> Workflow:  # fmt: skip
    """Return the stages of a store's workflow that lead to an array, from the store's root attributes.

    `without` names options of stages to leave out; without `with_source` the source is the default one. Raises
    StoreError if no stage makes the array: its names come between the two texts of `missing`.
    """
    document = attributes.get("workflow")
    stages = stage_sections(document)
    reasons = []
    for name in stages:
        try:
            source = document.get("source") if with_source and isinstance(document, dict) else None
            workflow = _built(stages, name, source if isinstance(source, dict) else {}, without)
        except ReelgraphError as err:  # a user's own stage that is not installed here: perhaps the one that is wanted
            reasons.append(f"; {err}")
            continue
        if array in {made.name for made in workflow.node(name).stage.outputs}:
            return workflow
    raise StoreError(f"{missing[0]} (its stages: {', '.join(stages) or 'none'}); {missing[1]}{''.join(reasons[:1])}")


def stages_here(workflow: Workflow) -> Callable[[Chunk], dict[str, Any]]:
    """Return a function that runs all stages of a workflow on one chunk here, and returns all arrays."""
    recipe = BoundWorkflow(workflow).recipe(tuple(node.name for node in workflow.stages))
    device = Device("cpu", threads=available_cores())
    stages = [steps.loaded_stage(step.ref, device) for step in recipe.stages]

    def run(chunk: Chunk) -> dict[str, Any]:
        arrays: dict[str, Any] = dict(chunk.arrays)
        for stage in stages:
            arrays |= stage.run(
                Chunk(chunk.input_name, chunk.index, chunk.frame, chunk.time_seconds, chunk.decoded, arrays)
            )
        return arrays

    return run


_ERROR = "error"
"""Item array of a source that says why an item could not be read."""


def array_of(path: str, array: str, workflow: Workflow) -> np.ndarray:
    """Return the rows of an array that a workflow makes of an input with one item, loaded by its own source.

    Raises InputError if the input cannot be loaded, if it has more items, or if a stage fails.
    """
    ref = next(iter(workflow.source.find([path], workflow.source_options)), None)
    if ref is None:
        raise InputError(f"source {workflow.source_kind!r} finds nothing in {path}; check the path")
    source = open_source(workflow, ref, None)
    if len(source) != 1:
        raise InputError(f"{path} holds {plural(len(source), workflow.noun)}; name a file with one")
    task = plan_input(BoundWorkflow(workflow), ref.name, source, None, None).task(0)
    settings = steps.WorkerSettings(Device("cpu", threads=available_cores()), available_cores())
    made = run_in_process(chunk_nodes(task, "", settings)[:-1])  # all but the one that writes
    if isinstance(made, steps.Failure):
        raise InputError(f"{path}: {made.error}")
    if made.decoded is not None and not made.decoded.all():
        why = made.error or str(made.found[_ERROR][0] if _ERROR in made.found else "it could not be read")
        raise InputError(f"{path}: {why}")
    found: np.ndarray = made.arrays[array]
    return found


def leading_to(stages: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Return the sections of a stage and of all stages before it, of those that a store's workflow has."""
    wanted, waiting = {name}, [name]
    while waiting:
        after = stages[waiting.pop()].get("after") or ()
        for other in map(str, after if isinstance(after, list | tuple) else [after]):
            if other in stages and other not in wanted:
                wanted.add(other)
                waiting.append(other)
    return {key: dict(section) for key, section in stages.items() if key in wanted}


def _built(stages: Mapping[str, Any], name: str, source: Mapping[str, Any], without: Collection[str]) -> Workflow:
    """Return a workflow of one stage and those before it; that stage comes last."""
    _require_known(str(source.get("kind", DEFAULT_SOURCE)), "source", SOURCES)
    sections = leading_to(stages, name)
    for section in sections.values():
        _require_known(str(section.get("use", "")), "stage", STAGES)
        for option in without:
            section.pop(option, None)
    # Only installed modules, or those on PYTHONPATH: a store from elsewhere must not import files of this folder.
    return build_workflow("stored", {"source": dict(source), "stages": sections}, Path(__file__).parents[2])


def _require_known(use: str, what: str, group: str) -> None:
    if not is_known(use, group):
        raise StoreError(
            f"{what} {use!r}: a store's word alone cannot import {use.partition(':')[0]!r}; install it with "
            f"an entry point in the group {group}, or import it first"
        )
