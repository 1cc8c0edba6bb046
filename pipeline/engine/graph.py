"""The tasks of one chunk, as plain nodes; and the two ways to run them: in this process, or as `dask.delayed`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pipeline.engine import steps
from pipeline.engine.plan import ChunkTask


@dataclass(frozen=True)
class Need:
    """Placeholder of an earlier node's result among a node's arguments."""

    name: str


@dataclass(frozen=True)
class Node:
    """One task: `function(*arguments)`, with each `Need` replaced by that node's result."""

    name: str
    """The step's name, as the dashboard shows it: decode, detect, embed, write."""
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    slot: Literal["cpu", "gpu"] = "cpu"


def chunk_nodes(task: ChunkTask, store_path: Path | str, settings: steps.WorkerSettings) -> list[Node]:
    """Return the nodes of one chunk, each after those it needs; the last one writes and commits."""
    recipe, path = task.recipe, str(store_path)
    nodes: list[Node] = []
    if recipe.needs_items:
        nodes.append(Node("decode", steps.decode, (task, "decode", settings)))
    if recipe.stored:
        nodes.append(Node("read", steps.read, (task, "read", settings, path)))
    read = [Need("read")] if recipe.stored else []
    for step in recipe.stages:
        items = Need("decode") if step.needs_items else None
        made = [*read, *(Need(other) for other in step.after)]
        nodes.append(Node(step.ref.name, steps.stage, (task, step.ref.name, settings, items, *made), step.slot))
    made = [*read, *(Need(name) for name in recipe.names)]
    nodes.append(Node("write", steps.write, (task, "write", settings, path, *made)))
    return nodes


def run_in_process(nodes: Sequence[Node], starting: Callable[[int, Node], None] = lambda *_: None) -> Any:
    """Run the nodes one after the other, here; return the last one's result. `starting` gets number and node."""
    results: dict[str, Any] = {}
    for number, node in enumerate(nodes):
        starting(number, node)
        arguments = [results[a.name] if isinstance(a, Need) else a for a in node.arguments]
        results[node.name] = node.function(*arguments)
    return results[nodes[-1].name]


class _Call:
    """A node without its results.

    Not a dataclass: Dask would look into it, and into all that it holds, for collections. That took ten times as long
    as everything else that is done for a chunk.
    """

    def __init__(self, node: Node) -> None:
        self.function, self.arguments = node.function, node.arguments

    def __call__(self, results: Sequence[Any]) -> Any:
        given = iter(results)
        return self.function(*(next(given) if isinstance(argument, Need) else argument for argument in self.arguments))


def _run(call: _Call, *results: Any) -> Any:
    return call(results)


@cache
def _delayed() -> Any:
    import dask

    return dask.delayed(_run, pure=False, traverse=False)


def to_delayed(nodes: Sequence[Node], task: ChunkTask, attempt: int) -> Any:
    """Return the last node as a `dask.delayed`.

    Decode tasks of all inputs share one key prefix and carry no restriction. Only then does the scheduler see them as
    root tasks, and hold them back until a worker is free. GPU steps take the `GPU` resource.
    """
    import dask

    results: dict[str, Any] = {}
    for node in nodes:
        needed = [results[argument.name] for argument in node.arguments if isinstance(argument, Need)]
        annotations = {"resources": {"GPU": 1}} if node.slot == "gpu" else {}
        with dask.annotate(**annotations):
            key = (node.name, task.input_name, task.index, attempt)
            results[node.name] = _delayed()(_Call(node), *needed, dask_key_name=key)
    return results[nodes[-1].name]
