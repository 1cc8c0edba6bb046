"""Workflows: small YAML files, validated, into a DAG of stages. Knows no Dask and loads no model."""

from __future__ import annotations

import hashlib
import json
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.engine.finding import find_stage, source_class
from pipeline.engine.source import SourceOptions
from pipeline.engine.stage import Stage, StageOptions
from pipeline.errors import ModelError, WorkflowError
from pipeline.store.schema import Array
from pipeline.text import unknown

Model = TypeVar("Model", bound=BaseModel)

IMPLICIT = ("frames_rgb", "frame", "time_seconds", "decoded")
"""Arrays that the source gives to every stage."""

_SHORT = reprlib.Repr()
"""Shows a value in a message, however large it is."""
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 2

_RESERVED = {*IMPLICIT, "face_frame", "name", "chunks", "aside"}
_STAGE_KEYS = {"use", "after", "options"}


class _WorkflowFile(BaseModel):
    """The two sections of a workflow file."""

    model_config = ConfigDict(extra="forbid")
    source: dict[str, Any] = Field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = Field(min_length=1)


class _StageSection(BaseModel):
    """What every stage takes, whatever its own options are."""

    model_config = ConfigDict(extra="forbid")
    use: str
    after: tuple[str, ...] | None = None

    @field_validator("after", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value


@dataclass(frozen=True)
class StageNode:
    """One named stage of a workflow."""

    name: str
    use: str
    after: tuple[str, ...]
    """Names of the stages whose arrays it may read, direct ones only."""
    stage: Stage

    @property
    def options(self) -> dict[str, Any]:
        dumped: dict[str, Any] = self.stage.options.model_dump(mode="json")
        return dumped


@dataclass(frozen=True)
class Workflow:
    """A validated workflow; stages stand in an order in which each comes after those it needs."""

    name: str
    source_kind: str
    source_options: SourceOptions
    stages: tuple[StageNode, ...]
    folder: Path
    """Where the file lies; modules beside it can be named in `use:`."""

    def node(self, name: str) -> StageNode:
        return next(node for node in self.stages if node.name == name)

    @property
    def chunk_stages(self) -> tuple[StageNode, ...]:
        """Stages that run on each chunk, in order."""
        return tuple(node for node in self.stages if node.stage.scope == "chunk")

    @property
    def input_stages(self) -> tuple[StageNode, ...]:
        """Stages that run once all chunks of an input are there, in order."""
        return tuple(node for node in self.stages if node.stage.scope == "input")

    def resolved(self) -> dict[str, Any]:
        """The whole workflow with every default filled in; JSON values only."""
        source = {"kind": self.source_kind, **self.source_options.model_dump(mode="json", exclude={"kind"})}
        stages = {n.name: {"use": n.use, "after": list(n.after), **n.options} for n in self.stages}
        return {"source": source, "stages": stages}

    def models(self) -> list[dict[str, Any]]:
        """What the store records of every model in use: name, weights_sha256, licence, runtime."""
        infos = {info.name: info for node in self.stages for info in node.stage.models()}
        return [info.as_dict() for info in infos.values()]

    def keys(self) -> dict[str, str]:
        """The resume key of each stage: a hash of its options, weights, version and its upstream keys."""
        keys: dict[str, str] = {}
        source = {"kind": self.source_kind, **self.source_options.model_dump(mode="json", exclude={"decoder"})}
        if source.get("roi"):  # stores from before counted its pixels from the corner of the part
            source["pixels"] = "of the upright frame"
        for node in self.stages:
            content = node.stage.content()
            keys[node.name] = _digest(
                {
                    "use": node.use,
                    "options": node.stage.options.keyed(),
                    "version": node.stage.version,
                    "weights": [info.weights_sha256 for info in node.stage.models()],
                    "upstream": [keys[name] for name in node.after],
                    "source": source,
                    **({"content": content} if content else {}),
                }
            )
        return keys

    def specs(self) -> dict[str, Array]:
        """Every declared output array, by name."""
        return {array.name: array for node in self.stages for array in node.stage.outputs}


def load_workflow(path: str | Path, overrides: Sequence[str] = ()) -> Workflow:
    """Read and validate a workflow file.

    `overrides` are `section.option=value` texts (`source.every=3`, `detect.min_face=40`); the value is YAML.
    Raises WorkflowError, one line, naming the nearest valid name where one is unknown.
    """
    path = Path(path)
    document = _read(path)
    try:
        return build_workflow(path.stem, document, path.resolve().parent, overrides)
    except WorkflowError as err:
        raise WorkflowError(f"{path}: {err}") from err


def build_workflow(name: str, document: Any, folder: Path, overrides: Sequence[str] = ()) -> Workflow:
    """The workflow of a document, as a file would hold it; `folder` is where its own stages lie.

    Raises WorkflowError, one line, naming the nearest valid name where one is unknown.
    """
    try:
        file = _WorkflowFile.model_validate(document)
    except ValidationError as err:
        raise WorkflowError(explain(err, _WorkflowFile)) from err
    for override in overrides:
        _apply_override(file, override)
    make_importable(folder)
    kind = str(file.source.get("kind", "video"))
    options = _validate(source_class(kind).Options, {"kind": kind, **file.source}, "source")
    nodes = _wire({name: _node(name, section) for name, section in file.stages.items()})
    return Workflow(name, kind, options, _ordered(nodes), folder)


def _read(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        beside = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise WorkflowError(unknown("workflow file", str(path), beside)) from err
    except (OSError, UnicodeDecodeError) as err:
        raise WorkflowError(f"cannot read workflow {path}: {getattr(err, 'strerror', None) or err}") from err
    try:
        document = _parse(text)
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise WorkflowError(f"{where}: not valid YAML: {getattr(err, 'problem', None) or err}") from err
    if not isinstance(document, dict):
        raise WorkflowError(f"{path}: a workflow has the sections 'source' and 'stages'; this file has neither")
    return document


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses, with its line, a key written twice, which plain YAML silently overwrites, and a value
    that is not what it is written as (`!!int abc`, the 45th of March), which it leaves to int() and date()."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} is written twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as err:
            problem = f"{_SHORT.repr(node.value)} is no {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from err


def _parse(text: str) -> Any:
    """The value of one YAML document. Raises yaml.YAMLError."""
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError as err:
        raise yaml.YAMLError("lists or mappings lie too deep within each other") from err


def _apply_override(file: _WorkflowFile, text: str) -> None:
    target, equals, value = text.partition("=")
    section, dot, option = target.strip().partition(".")
    if not (equals and dot and option):
        raise WorkflowError(f"--set {text!r}: write it as stage.option=value, for example detect.min_face=40")
    try:
        parsed = _parse(value)
    except yaml.YAMLError as err:
        raise WorkflowError(f"--set {text!r}: {value!r} is not a YAML value") from err
    if section == "source":
        file.source[option] = parsed
    elif section in file.stages:
        stage = file.stages[section]
        nested = stage.get("options")
        (nested if isinstance(nested, dict) and option not in stage else stage)[option] = parsed
    else:
        raise WorkflowError(f"--set {text!r}: " + unknown("section", section, ["source", *file.stages]))


def make_importable(folder: Path) -> None:
    """Let `use:` name modules that lie beside the workflow file; installed packages win over them."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _node(name: str, section: dict[str, Any]) -> StageNode:
    if not name.isidentifier():
        raise WorkflowError(f"stages.{name}: a stage's name is letters, digits and _, not {name!r}")
    general: dict[str, Any] = {key: section[key] for key in ("use", "after") if key in section}
    general.setdefault("use", name)
    head = _validate(_StageSection, general, f"stages.{name}")
    stage_type = find_stage(head.use)
    nested = section.get("options", {}) or {}
    if not isinstance(nested, dict):
        raise WorkflowError(f"stages.{name}.options: a mapping of option to value, not {nested!r}")
    own = {key: value for key, value in section.items() if key not in _STAGE_KEYS}
    twice = sorted(own.keys() & nested.keys())
    if twice:
        raise WorkflowError(f"stages.{name}: {twice[0]} is written twice, here and below options; keep one")
    try:
        stage = stage_type(_validate(stage_type.Options, {**own, **nested}, f"stages.{name}"))
    except ModelError as err:
        raise WorkflowError(f"stages.{name}: {err}") from err
    return StageNode(name, head.use, head.after or (), stage)


def _wire(nodes: dict[str, StageNode]) -> dict[str, StageNode]:
    """Check `after`, fill it in where it is left out, and see that every needed array is made upstream."""
    makers: dict[str, str] = {}
    for node in nodes.values():
        for array in node.stage.outputs:
            if array.name in _RESERVED:
                raise WorkflowError(f"stages.{node.name}: output array {array.name!r} is a name of the store's own")
            if array.name in makers:
                raise WorkflowError(f"stages {makers[array.name]!r} and {node.name!r} both make array {array.name!r}")
            makers[array.name] = node.name
    wired = {}
    for node in nodes.values():
        for name in node.after:
            if name not in nodes:
                raise WorkflowError(f"stages.{node.name}.after: " + unknown("stage", name, nodes))
        implied = [makers[need] for need in node.stage.needs if need in makers]
        after = tuple(dict.fromkeys([*node.after, *implied]))
        for need in node.stage.needs:
            if need not in IMPLICIT and need not in makers:
                raise WorkflowError(
                    f"stages.{node.name}: it needs the array {need!r}, which no stage of this workflow makes; "
                    f"made here: {', '.join(sorted(makers)) or 'none'}"
                )
        wired[node.name] = StageNode(node.name, node.use, after, node.stage)
    for node in wired.values():
        for name in node.after if node.stage.scope == "chunk" else ():
            if wired[name].stage.scope == "input":
                raise WorkflowError(
                    f"stages.{node.name}: it runs on chunks and cannot come after {name!r}, which needs the whole input"
                )
    return wired


def _ordered(nodes: Mapping[str, StageNode]) -> tuple[StageNode, ...]:
    try:
        names = list(TopologicalSorter({name: node.after for name, node in nodes.items()}).static_order())
    except CycleError as err:
        raise WorkflowError(f"stages wait for each other in a circle: {' -> '.join(err.args[1])}") from err
    return tuple(nodes[name] for name in names)


def _validate(model: type[Model], values: dict[str, Any], where: str) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as err:
        raise WorkflowError(explain(err, model, where)) from err


def explain(err: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """The first problem of a validation error in one line."""
    problem = err.errors()[0]
    path = ".".join(part for part in [where, *(str(p) for p in problem["loc"])] if part)
    if problem["type"] == "extra_forbidden":
        valid = list(model.model_fields)
        if issubclass(model, StageOptions):
            valid += ["after", "use"]
        message = f"{where + ': ' if where else ''}" + unknown(
            "option" if where else "section", str(problem["loc"][-1]), valid
        )
        return message
    if problem["type"] == "missing":
        return f"{path}: this is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = _SHORT.repr(problem["input"])
    # A rule over several options gets them all as its input, and names in its message those that matter.
    shown = "" if isinstance(problem["input"], dict) or given in message else f" (got {given})"
    return f"{path}: {message[0].lower()}{message[1:]}{shown}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Readable differences of two resolved workflows: ``detect.min_face: 20 -> 40``."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in {**old, **new}:
            name = f"{path}.{key}" if path else str(key)
            lines += differences(old.get(key), new.get(key), name)
        return lines
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]
