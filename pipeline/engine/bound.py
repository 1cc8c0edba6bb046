"""A workflow bound to a run: keys, schema and the steps of a chunk, found once and used for every chunk."""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

from pipeline.engine.workflow import StageNode, Workflow, stage_keys
from pipeline.store.schema import ORIGIN, SCALE, Array, Schema


@dataclass(frozen=True)
class StageRef:
    """A configured stage by name; equal on every worker, so that it keys the cache of loaded stages."""

    name: str
    use: str
    options: str
    """JSON."""
    folder: str
    """Folder of the workflow file: modules beside it may be named in `use`."""
    key: str
    """Resume key."""


@dataclass(frozen=True)
class StageStep:
    """One stage as a step of a chunk."""

    ref: StageRef
    slot: Literal["cpu", "gpu"]
    needs_items: bool
    """True if it needs what the source loads (pixels)."""
    after: tuple[str, ...]
    """Earlier steps of the chunk whose arrays it may read, stages all of them."""
    outputs: tuple[Array, ...]


@dataclass(frozen=True)
class Recipe:
    """All steps that chunks with the same missing stages need. Pickled once, however many chunks it is sent with."""

    stages: tuple[StageStep, ...]
    """In workflow order."""
    needs_items: bool
    """True if the source must load the items."""
    stored: tuple[str, ...]
    """Arrays of finished stages that the missing ones need: read from the store."""
    schema: Schema
    """Items and axes of the workflow, and the arrays that these stages make."""
    places: Mapping[str, Array]
    """Arrays of the workflow that hold pixel coordinates."""
    found: tuple[Array, ...] = ()
    """Item arrays that the source finds while it loads the items."""
    loads: tuple[str, ...] = ()
    """Arrays that these stages need of what the source loads."""

    @property
    def placed_by_item(self) -> bool:
        """True if each picture has its own origin and scale."""
        return ORIGIN in self.found

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(step.ref.name for step in self.stages)

    @property
    def keys(self) -> dict[str, str]:
        """Resume keys of the stages, by name."""
        return {step.ref.name: step.ref.key for step in self.stages}

    @property
    def n_steps(self) -> int:
        """Steps of a chunk: decode, read, one per stage, write."""
        return len(self.stages) + self.needs_items + bool(self.stored) + 1

    @cached_property
    def _sealed(self) -> bytes:
        of_chunk = (self.stages, self.needs_items, self.stored, self.schema, self.places, self.found, self.loads)
        return pickle.dumps(of_chunk)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unsealed, (self._sealed,)


@lru_cache(maxsize=64)
def _unsealed(content: bytes) -> Recipe:
    return Recipe(*pickle.loads(content))


class BoundWorkflow:
    """A workflow and all that a run asks of it again and again. Nothing is hashed, and no stage is asked, per chunk."""

    def __init__(
        self,
        workflow: Workflow,
        stored: Mapping[str, Mapping[str, Any]] | None = None,
        keep_stale: Collection[str] = (),
    ) -> None:
        """`stored`: facts of each stage (`key`, `code`) in the store; `keep_stale`: stages whose stored key stays."""
        self.workflow = workflow
        self.schema = workflow.schema
        self.keys = stage_keys(workflow, stored, keep_stale)
        self.chunk_stages = workflow.chunk_stages
        self.wanted = tuple(node.name for node in self.chunk_stages)
        """Stages that run on chunks, in order."""
        self._nodes = {node.name: node for node in workflow.stages}
        self._recipes: dict[tuple[tuple[str, ...], bool], Recipe] = {}

    def recipe(self, stages: tuple[str, ...], is_first: bool = False) -> Recipe:
        """Return the steps of a chunk that misses these stages.

        `is_first`: the store has nothing of the chunk. Its items are then loaded even if no stage needs them. What can
        be read, and what the source finds (sizes), is stored once.
        """
        is_first = is_first and self.workflow.base is None  # what a further pass is made of, is known
        if (stages, is_first) not in self._recipes:
            self._recipes[stages, is_first] = self._make_recipe(stages, is_first)
        return self._recipes[stages, is_first]

    def _make_recipe(self, stages: tuple[str, ...], is_first: bool) -> Recipe:
        nodes = [self._nodes[name] for name in stages]
        loads, given = set(self.workflow.loads), set(self.workflow.given)
        made = {array.name for node in nodes for array in node.stage.outputs}
        needs = {need for node in nodes for need in node.stage.needs}
        places = {array.name: array for array in self.schema.arrays if array.place}
        along = {array.dims[0] for node in nodes for array in node.stage.outputs}
        placing: set[str] = set()
        if ORIGIN in self.workflow.found:  # to place a stored row its item must be known, and where the item was
            along |= {array.dims[0] for name, array in places.items() if name in needs}
            placing = {ORIGIN.name, SCALE.name} if places.keys() & (needs - made) else placing
        # The rows of a chunk are counted even if no stage asks for it.
        counts = {axis.count for axis in self.schema.axes if axis.name in along}
        stored = (needs | counts) - made - given | placing
        steps = tuple(
            StageStep(
                StageRef(
                    node.name, node.use, json.dumps(node.options, sort_keys=True), str(self.workflow.folder),
                    self.keys[node.name],
                ),
                node.stage.slot,
                bool(loads & set(node.stage.needs)),
                tuple(name for name in stages if name in self._upstream(node)),
                node.stage.outputs,
            )
            for node in nodes
        )  # fmt: skip
        found = self.workflow.found
        used = tuple(sorted(loads & needs))
        if is_first and not used:
            steps = tuple(replace(step, needs_items=True) for step in steps)
        return Recipe(steps, bool(used) or is_first, tuple(sorted(stored)), self.schema.of(made), places, found, used)

    def _upstream(self, node: StageNode) -> set[str]:
        """Return every stage before this one, directly or not."""
        found: set[str] = set()
        waiting = list(node.after)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._nodes[name].after
        return found
