"""The tasks of one chunk, as plain nodes; and the two ways to run them: in this process, or as `dask.delayed`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.engine import steps
from pipeline.engine.plan import ChunkTask

if TYPE_CHECKING:
    from dask.delayed import Delayed


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
    made = [*read, *(Need(name) for name in recipe.names or [node.name for node in nodes])]
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
    """A node as a function of the results that it needs, in the order of their placeholders."""

    def __init__(self, node: Node) -> None:
        self.function, self.arguments = node.function, node.arguments

    def __call__(self, *results: Any) -> Any:
        given = iter(results)
        return self.function(*(next(given) if isinstance(argument, Need) else argument for argument in self.arguments))


def to_delayed(nodes: Sequence[Node], task: ChunkTask, attempt: int, run: str) -> Delayed:
    """Return the last node as a `dask.delayed`, with the graph of all.

    `run` is a text that no other run has. Two runs may share a scheduler, which computes a key only once.

    The graph is written down. Calls of `dask.delayed` make tokens and a layer for each node, which took longer than
    all else that a client does for a chunk.

    Decode tasks of all inputs share one key prefix and carry no restriction. Only then does the scheduler see them as
    root tasks, and hold them back until a worker is free. GPU steps take the `GPU` resource.
    """
    from dask.delayed import Delayed
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    keys = {node.name: (node.name, task.input_name, task.index, attempt, run) for node in nodes}
    layers, dependencies = {}, {}
    for node in nodes:
        needed = [argument.name for argument in node.arguments if isinstance(argument, Need)]
        call = (_Call(node), *(keys[name] for name in needed))
        annotations = {"resources": {"GPU": 1}} if node.slot == "gpu" else None
        layers[node.name] = MaterializedLayer({keys[node.name]: call}, annotations)
        dependencies[node.name] = set(needed)
    last = nodes[-1].name
    return Delayed(keys[last], HighLevelGraph(layers, dependencies), layer=last)
