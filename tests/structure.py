"""The structure of the package, read from its imports: floors, upward imports, circles. `python -m tests.structure`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "pipeline"

FLOORS = (
    ("errors", "text", "version"),
    ("files", "installed", "machine"),
    ("store", "models"),
    ("engine",),
    ("cluster", "media"),
    ("views",),
    ("fleet", "commands"),
    ("faces", "images", "pairs", "objects", "loader"),
    ("api", "cli", "deepface", "distribution", "__init__", "__main__"),
)
"""Folders and loose files from the ground up. A module imports its own folder and those of lower floors only; what
stands on one floor does not know the others of that floor."""

BESIDE = {("store", "files"), ("models", "files"), ("models", "machine")}
"""Not upward: named here for the reader."""

ALLOWED_UPWARD: frozenset[tuple[str, str]] = frozenset()
"""(module, module) pairs that may break the rule, each with a reason in a comment."""


@dataclass(frozen=True)
class Import:
    """One import of ours by another module of ours."""

    source: str
    """Module that imports, without "pipeline."."""
    target: str
    at_start: bool
    """Whether it runs when the module is imported: not in a function, not for types alone."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports() -> Iterator[Import]:
    """Yield every import of one of our modules by another."""
    known = modules()
    for name, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        late = {id(node) for outer in ast.walk(tree) if _is_late(outer) for node in ast.walk(outer)}
        for node in ast.walk(tree):
            for target in _targets(node, known):
                if target != name:
                    yield Import(name, target, id(node) not in late)


def _is_late(node: ast.AST) -> bool:
    is_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or is_types


def _targets(node: ast.AST, known: dict[str, Path]) -> set[str]:
    if isinstance(node, ast.Import):
        full = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        full = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return set()
    found = set()
    for name in full:
        if name != "pipeline" and not name.startswith("pipeline."):
            continue
        inner = name.removeprefix("pipeline").removeprefix(".")
        parent = inner.rpartition(".")[0]
        found.add(inner if inner in known else parent if parent in known else "__init__")
    return found


def room(module: str) -> str:
    """Return the folder or loose file that a module belongs to."""
    return module.split(".")[0]


def floor(module: str) -> int:
    """Return the floor of a module, from 0. Raises KeyError for one that the table does not hold."""
    for number, rooms in enumerate(FLOORS):
        if room(module) in rooms:
            return number
    raise KeyError(f"pipeline/{room(module)} is on no floor of tests/structure.py")


def upward() -> list[Import]:
    """Return the imports that break the rule, late ones included."""
    return [
        one
        for one in imports()
        if room(one.source) != room(one.target)
        and floor(one.target) >= floor(one.source)
        and (one.source, one.target) not in ALLOWED_UPWARD
        and not (room(one.source) == "cli" and room(one.target) == "api")
        and floor(one.source) < len(FLOORS) - 1
    ]


def circle() -> list[str]:
    """Return a circle of modules that import each other, types and late imports left out; empty if there is none."""
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for one in imports():
        if one.at_start:
            graph[one.source].add(one.target)
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as err:
        return list(err.args[1])
    return []


def loose_files() -> list[str]:
    return sorted(path.name for path in PACKAGE.glob("*.py"))


def main() -> None:
    """Print the structure."""
    broken = upward()
    print(f"floors: {len(FLOORS)}; loose files: {len(loose_files())} ({', '.join(loose_files())})")
    print(f"modules: {len(modules())}; imports: {sum(1 for _ in imports())}")
    print(f"circle: {' -> '.join(circle()) or 'none'}")
    print(f"upward imports: {len(broken)}")
    for one in broken:
        print(f"  {one.source} -> {one.target}{'' if one.at_start else ' (late or for types)'}")


if __name__ == "__main__":
    main()
