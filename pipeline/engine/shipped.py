"""Workflows that come with the package: found by name, wherever the command runs, and copied to be edited."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UsageError, WorkflowError
from pipeline.files.regular import read_file
from pipeline.files.whole import written_whole
from pipeline.text import unknown

SUFFIXES = (".yaml", ".yml")
"""Endings that make a name the path of a file."""


@dataclass(frozen=True)
class ShippedWorkflow:
    """One workflow of the package."""

    name: str
    path: Path
    about: str
    """First line of the file's comment."""


def shipped_folder() -> Path:
    """Return the folder of the workflows: inside an installed package, beside the package in a clone."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "workflows"
    return inside if inside.is_dir() else package.parent / "workflows"


def shipped_names() -> list[str]:
    """Return the names of all shipped workflows, sorted."""
    return sorted(path.stem for path in shipped_folder().glob("*.yaml"))


def shipped_workflows() -> list[ShippedWorkflow]:
    """Describe every shipped workflow, in the order of their names."""
    paths = [shipped_folder() / f"{name}.yaml" for name in shipped_names()]
    return [ShippedWorkflow(path.stem, path, _first_comment(path)) for path in paths]


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def find_workflow(named: str | Path) -> Path:
    """Return the file of a workflow that is given by path or by the name of a shipped one.

    A text with a separator or with the suffix .yaml is a path, and so is the name of any file that exists. Raises
    WorkflowError, with the nearest name and the list, for a name that is neither.
    """
    path = Path(named)
    if is_path(named):
        return path
    names = shipped_names()
    if str(named) not in names:
        raise WorkflowError(unknown("workflow", str(named), names) + "; or give the path of a YAML file")
    return shipped_folder() / f"{named}.yaml"


def is_path(named: str | Path) -> bool:
    """Return whether a workflow is given by path."""
    text = os.fspath(named)
    separators = [os.sep, *([os.altsep] if os.altsep else [])]
    return text.endswith(SUFFIXES) or any(mark in text for mark in separators) or os.path.isfile(text)


def copy_workflow(name: str, to: str | Path | None = None, *, force: bool = False) -> list[Path]:
    """Copy a shipped workflow, and the modules beside it that its stages name, to be edited.

    Returns the files at their new places, the workflow first; `to` is its path, by default NAME.yaml in the working
    folder. Raises WorkflowError for an unknown name, UsageError if a file is in the way and `force` is not given.
    """
    if name not in shipped_names():
        raise WorkflowError(unknown("workflow", name, shipped_names()))
    source = shipped_folder() / f"{name}.yaml"
    target = Path(source.name if to is None else to).expanduser()
    if target.is_dir():
        raise UsageError(f"--to {to} is a folder; name a file: --to {target / source.name}")
    if target.suffix not in SUFFIXES:
        raise UsageError(f"--to {to}: end the name of a workflow file in .yaml: --to {target}.yaml")
    # The Python files beside a workflow that its stages name as `module:Class` go with it.
    stages: dict[str, dict[str, Any]] = yaml.safe_load(source.read_text(encoding="utf-8"))["stages"]
    named = [str(section.get("use", "")).partition(":") for section in stages.values()]
    files = [source.with_name(f"{module}.py") for module, colon, _ in named if colon]
    modules = list(dict.fromkeys(file for file in files if file.is_file()))
    copies = {target: source, **{target.parent / module.name: module for module in modules}}
    contents = {place: original.read_bytes() for place, original in copies.items()}
    if not force:
        for place, content in contents.items():
            if place.exists() and (place == target or not _holds(place, content)):
                raise UsageError(f"{place} exists already; use --force to replace it, or --to for another place")
    for place, content in contents.items():
        with written_whole(place, "the copy ") as file:
            file.write(content)
    return list(contents)


def _holds(place: Path, content: bytes) -> bool:
    try:
        return read_file(place) == content
    except OSError:
        return False
