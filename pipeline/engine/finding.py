"""Stages, sources, exports and panels are found by the same two ways: an entry point's name, or `package.module:Class`.

Built-in ones use the entry points too: groups `reelgraph.stages`, `.sources`, `.passes`, `.exports`, `.panels`,
`.columns`.
"""

from __future__ import annotations

import ast
import inspect
import io
import os
import sys
import tokenize
import traceback
from functools import cache
from importlib import import_module, reload
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from pipeline.engine.source import Source, StoredSource
from pipeline.engine.stage import Stage
from pipeline.errors import ReelgraphError, UsageError, WorkflowError
from pipeline.installed import OURS, by_name
from pipeline.text import plain, unknown

STAGES = "reelgraph.stages"
SOURCES = "reelgraph.sources"
PASSES = "reelgraph.passes"
EXPORTS = "reelgraph.exports"
PANELS = "reelgraph.panels"
COLUMNS = "reelgraph.columns"
DEFAULT_SOURCE = "default"

PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"
"""Folder of this package: an error is the user's own if it was raised by code outside."""

T = TypeVar("T")


def own_place(err: BaseException) -> str:
    """Return " (file, line N)" of the innermost frame that is neither of this package nor of an installed one."""
    own = [
        frame
        for frame in traceback.extract_tb(err.__traceback__)
        if not frame.filename.startswith((PACKAGE, sys.prefix, sys.base_prefix, "<"))
        and "site-packages" not in frame.filename
    ]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""


@cache
def claims(group: str) -> dict[str, list[str]]:
    """Return the names of an entry point group, with each `package.module:Class` that a package has given that name."""
    return {name: [point.value for point in points] for name, points in by_name(group).items()}


def names(group: str) -> dict[str, str]:
    """Return the names of an entry point group, with the `package.module:Class` behind each."""
    return {name: values[0] for name, values in claims(group).items()}


def is_known(use: str, group: str = STAGES) -> bool:
    """Return whether `use` names a class that was installed in a group, or whose module is imported already.

    A store's word for a module is a stranger's: it must not get that module to run.
    """
    target = _moved(use, group)
    return ":" not in use or target in names(group).values() or use.partition(":")[0] in sys.modules


def find_stage(use: str) -> type[Stage]:
    """Return the stage class behind `use`. Raises WorkflowError if there is none, or if it is not a Stage."""
    return find("stage", use, STAGES, Stage, WorkflowError, "put it beside the workflow file")


def find_source(kind: str) -> type[Source]:
    """Return the source class behind `source.kind`. Raises WorkflowError if there is none, or if it is not a Source."""
    if kind == "mosaic":
        raise WorkflowError(
            "source 'mosaic' does not exist: mosaics are made by stages that find things in pictures; leave kind out, "
            "and set tiles: 2x2 in that stage"
        )
    advice = "put it beside the workflow file"
    return find("source", kind, SOURCES, Source, WorkflowError, advice)  # type: ignore[type-abstract]


def find_pass(section: str) -> type[StoredSource]:
    """Return the source behind a further section of a workflow. Raises WorkflowError if there is none."""
    target = names(PASSES).get(section)
    if target is None:
        raise WorkflowError(unknown("section", section, ["source", *names(PASSES), "stages"]))
    return find("section", target, PASSES, StoredSource, WorkflowError)  # type: ignore[type-abstract]


def find(
    what: str,
    use: str,
    group: str,
    base: type[T],
    error: type[ReelgraphError] = UsageError,
    advice: str = "start the command in its folder",
) -> type[T]:
    """Return the subclass of `base` behind `use`: a name of an entry point group, or `package.module:Class`.

    `what` is the noun of messages ("export"); `advice` says what else than installing makes a module importable.
    Raises `error`, in one line, if there is no such name, module or class, or if it is not a subclass.
    """
    target = use if ":" in use else names(group).get(use)
    if target is None:
        raise error(unknown(what, use, names(group)) + ", or your own as 'package.module:Class'")
    if use != target and len(values := claims(group)[use]) > 1:
        raise error(f"{what} {use!r} is the name of {' and of '.join(values)}; write the one that you mean")
    target = _moved(target, group)
    module_name, _, class_name = target.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), class_name]):
        raise error(f"{what} {use!r}: write a {what} of your own as 'package.module:Class'")
    try:
        module = imported(module_name)
        bases = reversed(_own_bases(getattr(module, class_name, None)))
        others = [name for name in dict.fromkeys(one.__module__ for one in bases) if name != module_name]
        if any([_is_edited(name) for name in others]):
            for name in [*others, module_name]:
                module = imported(name, again=True)
    except ImportError as err:
        raise error(f"{what} {use!r}: cannot import {module_name!r} ({err}); install it, or {advice}") from err
    except (Exception, SystemExit) as err:  # a mistake in the user's own module, or in its name
        frames = traceback.extract_tb(err.__traceback__)
        where = next((one for one in reversed(frames) if not one.filename.startswith(PACKAGE)), frames[-1])
        raise error(
            f"{what} {use!r}: importing {module_name!r} ends in {type(err).__name__}: {err} "
            f"({where.filename}, line {where.lineno}); fix it"
        ) from err
    found = getattr(module, class_name, None)
    if found is None:
        classes = [name for name, value in vars(module).items() if _is(value, base)]
        raise error(f"{what} {use!r}: {unknown('class', class_name, classes)}")
    if not _is(found, base):
        raise error(f"{what} {use!r}: {class_name} is not a subclass of pipeline.{base.__name__}")
    return found  # type: ignore[no-any-return]  # checked above


def find_each(what: str, group: str, base: type[T]) -> dict[str, type[T]]:
    """Return the classes of an entry point group, by name.

    If one of another package cannot be loaded, it is reported on standard error and left out: the others must work.
    """
    found = {}
    for name, target in names(group).items():
        try:
            found[name] = find(what, name, group, base)
        except ReelgraphError as err:
            if target.startswith(OURS):
                raise
            if (group, name) not in _reported:
                _reported.add((group, name))
                print(plain(f"reelgraph: {err}"), file=sys.stderr)
    return found


_reported: set[tuple[str, str]] = set()
"""Group and name of what could not be loaded: reported once."""

_imported: dict[str, tuple[int, int] | None] = {}


def imported(name: str, again: bool = False) -> ModuleType:
    """Import a module, or import it again if its file was edited since: a notebook or a worker lives longer than that.

    Resume keys are made of the file's text. Old code would write its values under the new text's key.
    """
    module = import_module(name)
    if again or _is_edited(name):
        now = _state(module)
        module = reload(module)
        _imported[name] = now
    return module


def text_of(name: str) -> tuple[int, int] | None:
    """Return what names the text of a module that was imported: time of change and size of its file then."""
    return _imported.get(name)


def imported_as(name: str, text: tuple[int, int] | None) -> None:
    """Import a module for a run that was set up with a text of it (`text_of`).

    It is looked at again for another text only: an edit during a run is for the next one.
    """
    if name not in _wanted or _wanted[name] != text:
        imported(name)
        _wanted[name] = text


_wanted: dict[str, tuple[int, int] | None] = {}


def _is_edited(name: str) -> bool:
    """Return whether the file of an imported module is another than when it was first asked for."""
    if name.split(".")[0] == "pipeline":
        return False
    now = _state(sys.modules[name])
    return _imported.setdefault(name, now) != now


def _state(module: ModuleType) -> tuple[int, int] | None:
    """Return the time of last change and the size of a module's file; None if there is no file."""
    try:
        found = os.stat(getattr(module, "__file__", None) or "")
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _moved(target: str, group: str) -> str:
    """Return where a built-in class is now, if a workflow names the place that it had in an earlier version."""
    tail = target.removeprefix("pipeline")
    if tail == target:
        return target
    return next((now for now in names(group).values() if now.startswith(OURS) and now.endswith(tail)), target)


def _is(value: object, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base) and value is not base


def source_text(own: type) -> str:
    """Return the source text that the results of a stage or a source depend on; "" for one of this package.

    It holds the class, its base classes outside this package, and what these use of their own modules: functions,
    classes and constants, directly or not. What they import from elsewhere is left out.
    """
    return "\n".join(_used_text(one) for one in _own_bases(own))


def _own_bases(own: object) -> list[type]:
    """Return a stage or source and its base classes, without those of this package; [] for another object."""
    bases = own.__mro__ if isinstance(own, type) else ()
    stages = [one for one in bases if _is(one, Stage) or _is(one, Source)]
    return [one for one in stages if one.__module__.split(".")[0] != "pipeline"]


def _used_text(one: type) -> str:
    """Return the text of a class and of all it uses of its module, without comments; "" if there is no source file."""
    try:
        text = inspect.getsource(sys.modules[one.__module__])
        module, lines = ast.parse(text), _without_comments(text)
    except (OSError, KeyError, TypeError, SyntaxError):
        return ""
    defined: dict[str, list[ast.stmt]] = {}
    for node in module.body:
        for name in _names_of(node):
            defined.setdefault(name, []).append(node)
    wanted, waiting = set(), [one.__name__]
    while waiting:
        name = waiting.pop()
        if name in wanted or name not in defined:
            continue
        wanted.add(name)
        for node in defined[name]:
            waiting += [used.id for used in ast.walk(node) if isinstance(used, ast.Name)]
    kept = [node for node in module.body if wanted & set(_names_of(node))]
    return "\n".join(line for node in kept for line in lines[_first_line(node) - 1 : node.end_lineno] if line)


def _without_comments(text: str) -> list[str]:
    """Return the lines of a module without comments and without blanks at their ends."""
    lines = text.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    return [line.rstrip() for line in lines]


def _first_line(node: ast.stmt) -> int:
    """Return the number of a statement's first line, or of its first decorator's."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(one.lineno for one in decorators)])


def _names_of(node: ast.stmt) -> list[str]:
    """Return the names that a statement of a module defines or changes: TABLE["a"] = 1 and TABLE.update(b=2) too."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return []
    names = []
    for one in ast.walk(node):
        changed: ast.expr
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Call):
            changed = one.value.func
        elif isinstance(one, ast.Name | ast.Subscript | ast.Attribute) and isinstance(one.ctx, ast.Store):
            changed = one
        else:
            continue
        while isinstance(changed, ast.Subscript | ast.Attribute):
            changed = changed.value
        if isinstance(changed, ast.Name):
            names.append(changed.id)
    return names
