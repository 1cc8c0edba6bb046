"""The tasks of one chunk, as plain nodes; and the two ways to run them: in this process, or as `dask.delayed`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.engine import steps
from pipeline.engine.plan import ChunkTask
from pipeline.engine.workflow import Workflow


@dataclass(frozen=True)
class Need:
    """Stands for the result of an earlier node among a node's arguments."""

    name: str


@dataclass(frozen=True)
class Node:
    """One task: `function(*arguments)`, with each `Need` replaced by that node's result."""

    name: str
    """The step's name, as the dashboard shows it: decode, detect, embed, write."""
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    slot: Literal["cpu", "gpu"] = "cpu"


def stage_refs(workflow: Workflow) -> dict[str, steps.StageRef]:
    """Each stage as workers know it."""
    keys = workflow.keys()
    return {
        node.name: steps.StageRef(
            node.name, node.use, json.dumps(node.options, sort_keys=True), str(workflow.folder), keys[node.name]
        )
        for node in workflow.chunk_stages
    }


def chunk_nodes(task: ChunkTask, workflow: Workflow, store_path: Path, settings: steps.WorkerSettings) -> list[Node]:
    """The nodes of one chunk, each after those it needs; the last one writes and commits."""
    refs = stage_refs(workflow)
    head = (task,)
    nodes: list[Node] = []
    if task.job is not None:
        nodes.append(Node("decode", steps.decode, (*head, "decode", settings)))
    if task.stored:
        nodes.append(Node("read", steps.read, (*head, "read", settings, str(store_path))))
    for name in task.stages:
        stage = workflow.node(name).stage
        frames = Need("decode") if "frames_rgb" in stage.needs else None
        made = [Need("read")] if task.stored else []
        made += [Need(other) for other in task.stages if other in _upstream(workflow, name)]
        arguments = (*head, name, settings, refs[name], frames, *made)
        nodes.append(Node(name, steps.stage, arguments, stage.slot))
    specs = tuple(array for name in task.stages for array in workflow.node(name).stage.outputs)
    keys = {name: refs[name].key for name in task.stages}
    made = [Need(name) for name in task.stages]
    nodes.append(Node("write", steps.write, (*head, "write", settings, str(store_path), specs, keys, *made)))
    return nodes


def _upstream(workflow: Workflow, name: str) -> set[str]:
    """Every stage before this one, directly or not."""
    found: set[str] = set()
    waiting = list(workflow.node(name).after)
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += workflow.node(other).after
    return found


def run_in_process(nodes: Sequence[Node]) -> Any:
    """Run the nodes one after the other, here; the last one's result."""
    results: dict[str, Any] = {}
    for node in nodes:
        arguments = [results[a.name] if isinstance(a, Need) else a for a in node.arguments]
        results[node.name] = node.function(*arguments)
    return results[nodes[-1].name]


def to_delayed(nodes: Sequence[Node], task: ChunkTask, attempt: int) -> Any:
    """The nodes as `dask.delayed`; the last one's Delayed.

    Decode tasks of all inputs share one key prefix and carry no restriction: only so does the scheduler see
    them as root tasks and hold them back until a worker has room. GPU steps take the `GPU` resource.
    """
    import dask

    results: dict[str, Any] = {}
    for node in nodes:
        arguments = [results[a.name] if isinstance(a, Need) else a for a in node.arguments]
        annotations = {"resources": {"GPU": 1}} if node.slot == "gpu" else {}
        with dask.annotate(**annotations):
            call = dask.delayed(node.function, pure=False, traverse=False)
            key = (node.name, task.input_name, task.index, attempt)
            results[node.name] = call(*arguments, dask_key_name=key)
    return results[nodes[-1].name]
