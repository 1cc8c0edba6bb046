"""Workflows: small YAML files, validated, into a DAG of stages. Knows no Dask and loads no model."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pipeline.engine.declared import STEPS, check_class, check_declared, check_method, check_source, own_code
from pipeline.engine.finding import DEFAULT_SOURCE, PASSES, find_pass, find_source, find_stage, names, source_text
from pipeline.engine.shipped import find_workflow, shipped_names
from pipeline.engine.source import Source, SourceOptions, StoredSource
from pipeline.engine.stage import Stage, StageOptions
from pipeline.engine.values import json_values
from pipeline.errors import ModelError, WorkflowError
from pipeline.files.regular import open_file
from pipeline.models.card import ModelInfo
from pipeline.store.schema import Array, Axis, Schema, decoded_of, default_count, implied_axes
from pipeline.text import says, unknown

Model = TypeVar("Model", bound=BaseModel)

_SHORT = reprlib.Repr()
"""Shows a value in a message, however large it is."""
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 2

LARGEST_FILE = 10_000_000
"""Most bytes of a workflow file. Ten times less than that already takes seconds to parse; films are larger."""

_RESERVED = {"name", "chunks", "aside", "zarr.json"}
"""Names below an input's group that no array may take, beside those of the source."""
_STAGE_KEYS = {"use", "after", "options"}
_FIRST = "put the workflow first: reelgraph run WORKFLOW INPUT..."


class _WorkflowFile(BaseModel):
    """The sections of a workflow file: source, stages, and one for each further pass."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]] = Field(init=False)
    source: dict[str, Any] = Field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = Field(min_length=1)

    @property
    def further(self) -> dict[str, dict[str, Any]]:
        """Sections of passes over what the store holds, by name."""
        return self.__pydantic_extra__ or {}


class _StageSection(BaseModel):
    """Keys that every stage takes, whatever its own options are."""

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
    before: tuple[str, ...] = ()
    """Names of stages of the pass before whose stored arrays it reads."""

    @cached_property
    def code(self) -> str:
        """Source text of a stage that is not part of this package; "" for one that is."""
        return source_text(type(self.stage))

    @property
    def options(self) -> dict[str, Any]:
        return json_values(self.stage.options)


@dataclass(frozen=True)
class Workflow:
    """A validated workflow; stages stand in an order in which each comes after those it needs."""

    name: str
    source_kind: str
    """Name of the source, as in `source.kind`."""
    source: type[Source]
    source_options: SourceOptions
    stages: tuple[StageNode, ...]
    folder: Path
    """Folder of the file; modules beside it can be named in `use:`."""
    base: Workflow | None = None
    """The pass that makes what this one is made of; None for the first."""
    further: tuple[Workflow, ...] = field(default=(), repr=False)
    """Passes over what the store then holds, in order: each has items, stages and inputs of its own."""

    @property
    def passes(self) -> tuple[Workflow, ...]:
        """This pass, and those that follow it."""
        return (self, *self.further)

    @property
    def loads(self) -> tuple[str, ...]:
        """Arrays that a job loads for stages that need them."""
        return _loads(self.source, self.base)

    @property
    def given(self) -> tuple[str, ...]:
        """Arrays that the source gives to every stage: loaded ones, item arrays, and which items could be read."""
        return _given(self.source, self.source_options, self.base)

    @property
    def noun(self) -> str:
        """Name of one item for people."""
        return self.source.noun or self.source.item

    @cached_property
    def found(self) -> tuple[Array, ...]:
        """Arrays that the source finds while it loads the items."""
        return self.source.found(self.source_options)

    @cached_property
    def schema(self) -> Schema:
        """Items, axes and arrays of an input that this workflow made."""
        arrays = (*self.found, *(array for node in self.chunk_stages for array in node.stage.outputs))
        declared = [axis for node in self.stages for axis in node.stage.axes]
        item = self.source.item
        return Schema(item, (*self.source.arrays, decoded_of(item)), implied_axes(arrays, item, declared), arrays)

    def code_of(self, stage: str) -> str:
        """Return the source text that a stage's results depend on: its own, and that of a user's own source."""
        return "\n".join(text for text in (self.node(stage).code, source_text(self.source)) if text)

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
        """The whole workflow with every default filled in, further passes too; JSON values only."""
        source = {"kind": self.source_kind, **json_values(self.source_options)}
        sections = {one.section: json_values(one.source_options) for one in self.further}
        nodes = [node for one in self.passes for node in one.stages]
        stages = {n.name: {"use": n.use, "after": [*n.before, *n.after], **n.options} for n in nodes}
        return {"source": source, **sections, "stages": stages}

    @property
    def section(self) -> str:
        """Section of the file that says what the items are."""
        return "source" if self.base is None else self.source_kind

    def models(self) -> list[dict[str, Any]]:
        """Return the facts that the store records of every model in use: name, weights_sha256, licence, runtime."""
        nodes = [node for one in self.passes for node in one.stages]
        infos: dict[str, ModelInfo] = {}
        for node in nodes:
            with own_code(f"stages.{node.name}", node.stage):
                infos |= {info.name: info for info in node.stage.models()}
        return [info.as_dict() for info in infos.values()]

    def keys(self) -> dict[str, str]:
        """Return the resume key of each stage: a hash of its options, weights, version, code and upstream keys."""
        return stage_keys(self)

    def specs(self) -> dict[str, Array]:
        """Every declared output array, by name."""
        return {array.name: array for node in self.stages for array in node.stage.outputs}


def load_workflow(path: str | Path, overrides: Sequence[str] = ()) -> Workflow:
    """Read and validate a workflow: a file, or a shipped one by its name.

    `overrides` are `section.option=value` texts (`source.every=3`, `detect.min_face=40`); the value is YAML.
    Raises WorkflowError, one line, naming the nearest valid name where one is unknown.
    """
    path = find_workflow(path)
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
    kind = str(file.source.get("kind", DEFAULT_SOURCE))
    source = find_source(kind)
    check_source(source, f"source {kind!r}")
    given = {option: value for option, value in file.source.items() if option != "kind"}
    options = _validate(source.Options, given, "source")
    sections = {kind: find_pass(kind) for kind in file.further}
    nodes = {name: _node(name, section) for name, section in file.stages.items()}
    items = _by_item(nodes, source, sections)
    shown = source.kind if kind == DEFAULT_SOURCE else kind
    first = Workflow(name, shown, source, options, _ordered(_wire(items.pop(source.item), source, options)), folder)
    further = []
    for kind, over in sections.items():
        chosen = _validate(over.Options, file.further[kind] or {}, kind)
        wired = _wire(items[over.item], over, chosen, first)
        further.append(Workflow(name, kind, over, chosen, _ordered(wired), folder, first))
    return replace(first, further=tuple(further))


def _read(path: Path) -> Any:
    try:
        with open_file(path) as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError as err:
        beside = [str(p) for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        shipped = f"; the shipped one goes by its name: {path.stem}" if path.stem in shipped_names() else ""
        raise WorkflowError(unknown("workflow file", str(path), beside) + shipped) from err
    except OSError as err:
        raise WorkflowError(f"cannot read workflow {path}: {err.strerror or err}") from err
    if len(content) > LARGEST_FILE:
        raise WorkflowError(f"{path} is not a workflow: it is larger than {LARGEST_FILE / 1e6:.0f} MB; {_FIRST}")
    try:
        text = content.decode()
    except UnicodeDecodeError as err:
        problem = f"it is not text in UTF-8; save it as UTF-8, or {_FIRST}"
        raise WorkflowError(f"{path} is not a workflow: {problem}") from err
    try:
        document = _parse(text)
    except yaml.reader.ReaderError as err:
        line = text.count("\n", 0, err.position) + 1
        raise WorkflowError(f"{path}:{line}: not valid YAML: character {chr(err.character)!r} is not allowed") from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise WorkflowError(f"{where}: not valid YAML: {getattr(err, 'problem', None) or err}") from err
    if not isinstance(document, dict):
        raise WorkflowError(f"{path}: a workflow has the sections 'source' and 'stages'; this file has neither")
    return document


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key written twice, and a value that does not fit its type, each with its line.

    Plain YAML silently takes the second key, and leaves `!!int abc` or the 45th of March to int() and date().
    """

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
            problem = f"{_SHORT.repr(node.value)} is not of type {node.tag.rpartition(':')[2]}"
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
        raise WorkflowError(f"--set {text!r}: write it as stage.option=value, for example embed.flip=true")
    try:
        parsed = _parse(value)
    except yaml.YAMLError as err:
        raise WorkflowError(f"--set {text!r}: {value!r} is not a YAML value") from err
    if section == "source":
        if option == "kind" and parsed != file.source.get("kind", DEFAULT_SOURCE):
            file.source.clear()  # another kind of source has other options
        file.source[option] = parsed
    elif section in file.stages:
        stage = file.stages[section]
        nested = stage.get("options")
        (nested if isinstance(nested, dict) and option not in stage else stage)[option] = parsed
    elif section in file.further:
        file.further[section][option] = parsed
    else:
        known = ["source", *file.further, *file.stages]
        raise WorkflowError(f"--set {text!r}: " + unknown("section", section, known))


def as_override(option: str, value: Any) -> str:
    """Return `option=value` as `--set` reads it."""
    try:
        plain = isinstance(value, str) and _parse(value) == value
    except yaml.YAMLError:
        plain = False
    return f"{option}={value if plain else json.dumps(value)}"


def make_importable(folder: Path) -> None:
    """Let `use:` name modules that lie beside the workflow file; installed packages win over them."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _node(name: str, section: dict[str, Any]) -> StageNode:
    if not name.isidentifier():
        raise WorkflowError(f"stages.{name}: a stage's name is letters, digits and _, not {name!r}")
    if name in STEPS:
        raise WorkflowError(f"stages.{name}: {name!r} is a step of every chunk; give the stage another name")
    general: dict[str, Any] = {key: section[key] for key in ("use", "after") if key in section}
    general.setdefault("use", name)
    head = _validate(_StageSection, general, f"stages.{name}")
    stage_type = find_stage(head.use)
    check_class(stage_type, f"stages.{name}")
    nested = section.get("options", {}) or {}
    if not isinstance(nested, dict):
        raise WorkflowError(f"stages.{name}.options: a mapping of option to value, not {nested!r}")
    own = {key: value for key, value in section.items() if key not in _STAGE_KEYS}
    twice = sorted(own.keys() & nested.keys())
    if twice:
        raise WorkflowError(f"stages.{name}: {twice[0]} is written twice, here and below options; keep one")
    try:
        with own_code(f"stages.{name}", stage_type):
            stage = stage_type(_validate(stage_type.Options, {**own, **nested}, f"stages.{name}"))
    except ModelError as err:
        raise WorkflowError(f"stages.{name}: {err}") from err
    check_declared(stage, f"stages.{name}")
    return StageNode(name, head.use, head.after or (), stage)


def _by_item(
    nodes: dict[str, StageNode], source: type[Source], sections: Mapping[str, type[StoredSource]]
) -> dict[str, dict[str, StageNode]]:
    """Return the stages of each pass, by its item axis. Raises WorkflowError if a pass has none, or a stage no pass."""
    found: dict[str, dict[str, StageNode]] = {source.item: {}, **{over.item: {} for over in sections.values()}}
    for name, node in nodes.items():
        item = node.stage.item
        if item not in found:
            maker = [f"; a section {kind}: makes some" for kind in names(PASSES) if find_pass(kind).item == item]
            gives = f"source {source.kind!r} gives {source.item}s"
            raise WorkflowError(f"stages.{name}: it runs on {item}s and {gives}{''.join(maker)}")
        found[item][name] = node
    for kind, over in {"source": source, **sections}.items():
        if not found[over.item]:
            raise WorkflowError(f"{kind}: no stage runs on {over.item}s; add one, or leave this section out")
    return found


def _loads(source: type[Source], base: Workflow | None) -> tuple[str, ...]:
    if base is None or not issubclass(source, StoredSource):
        return source.loads
    return tuple(name for given in source.loads_of(base.schema).values() for name in given)


def _given(source: type[Source], options: SourceOptions, base: Workflow | None) -> tuple[str, ...]:
    arrays = (*source.arrays, decoded_of(source.item), *source.found(options))
    return (*_loads(source, base), *(array.name for array in arrays))


def _before(node: StageNode, source: type[Source], base: Workflow | None) -> tuple[str, ...]:
    """Return the stages of the pass before whose arrays a stage needs, or names in `after`."""
    if base is None or not issubclass(source, StoredSource):
        return ()
    loads = source.loads_of(base.schema)
    read = {array for array, given in loads.items() if set(given) & set(node.stage.needs)}
    makers = [one.name for one in base.stages if one.name in node.after or read & {a.name for a in one.stage.outputs}]
    return tuple(makers)


def _wire(
    nodes: dict[str, StageNode], source: type[Source], options: SourceOptions, base: Workflow | None = None
) -> dict[str, StageNode]:
    """Check `after`, fill it in if it is left out, and check that every needed array is made upstream."""
    given, loaded = set(_given(source, options, base)), set(_loads(source, base))
    earlier = {node.name for node in base.stages} if base is not None else set()
    makers: dict[str, str] = {}
    for node in nodes.values():
        for array in node.stage.outputs:
            if array.name in _RESERVED or array.name in given or not _is_plain(array.name):
                raise WorkflowError(f"stages.{node.name}: output array {array.name!r} is a name of the store's own")
            if array.name in makers:
                raise WorkflowError(f"stages {makers[array.name]!r} and {node.name!r} both make array {array.name!r}")
            makers[array.name] = node.name
    wired = {}
    made = {array.name: array for node in nodes.values() for array in node.stage.outputs}
    if base is not None and issubclass(source, StoredSource):
        loads = source.loads_of(base.schema)
        made |= {name: array for array in base.schema.arrays for name in loads.get(array.name, ())}
    for node in nodes.values():
        for name in node.after:
            if name not in nodes and name not in earlier:
                raise WorkflowError(f"stages.{node.name}.after: " + unknown("stage", name, [*earlier, *nodes]))
        implied = [makers[need] for need in node.stage.needs if need in makers]
        after = tuple(dict.fromkeys([*(name for name in node.after if name in nodes), *implied]))
        for need in node.stage.needs:
            if need == "time_seconds" and need not in given:
                advice = node.stage.advice.get(need, "change the option that asks for them (per: track)")
                raise WorkflowError(
                    f"stages.{node.name}: it needs the times of frames, and source {source.kind!r} has none; {advice}"
                )
            if need in loaded and node.stage.scope == "input":
                raise WorkflowError(
                    f"stages.{node.name}: a stage of scope 'input' reads the store, which has no {need!r}; "
                    "use it in a stage that runs on chunks"
                )
            if need not in given and need not in makers:
                advice = node.stage.advice.get(need) or f"made here: {', '.join(sorted(makers)) or 'none'}"
                raise WorkflowError(
                    f"stages.{node.name}: it needs the array {need!r}, which no stage of this workflow makes; {advice}"
                )
        try:
            with own_code("check", node.stage):
                node.stage.check(made)
        except WorkflowError as err:
            raise WorkflowError(f"stages.{node.name}: {err}") from err
        wired[node.name] = StageNode(node.name, node.use, after, node.stage, _before(node, source, base))
    _check_axes(wired, source, options)
    for node in wired.values():
        for name in node.after if node.stage.scope == "chunk" else ():
            if wired[name].stage.scope == "input":
                raise WorkflowError(
                    f"stages.{node.name}: it runs on chunks and cannot come after {name!r}, which needs the whole input"
                )
        check_method(type(node.stage), f"stages.{node.name}")
    return wired


def _is_plain(name: str) -> bool:
    """Return whether a name can be that of a folder below an input."""
    return re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name) is not None


def _check_axes(nodes: Mapping[str, StageNode], source: type[Source], options: SourceOptions) -> None:
    """Check that each array of a chunk stage lies along the items or along an axis that a stage makes."""
    chunk_stages = [node for node in nodes.values() if node.stage.scope == "chunk"]
    arrays = [array for node in chunk_stages for array in node.stage.outputs]
    axes = {axis.name: axis for axis in implied_axes(arrays, source.item, _declared_axes(nodes.values()))}
    made = {array.name: array for array in arrays}
    for array in (*source.arrays, *source.found(options)):
        if array.dims[0] != source.item:
            raise WorkflowError(
                f"source {source.kind!r}: array {array.name!r} lies along {array.dims[0]!r}; "
                f"the arrays of a source have one row per {source.item!r}"
            )
    taken = {array.name for array in (*source.arrays, *source.found(options))}
    taken |= {array.name for node in nodes.values() for array in node.stage.outputs}
    for axis in axes.values():
        if axis.index in taken:
            raise WorkflowError(f"array {axis.index!r}: the store derives it for axis {axis.name!r}; rename yours")
    for node in nodes.values():
        for axis in node.stage.axes:
            if axis.of != source.item or axis.name == source.item:
                raise WorkflowError(
                    f"stages.{node.name}: axis {axis.name!r} is one of {axis.of!r}; rows belong to items: "
                    f"declare Axis(NAME, of={source.item!r}), NAME not {source.item!r}"
                )
            count = made.get(axis.count)
            if count is None or count.dims != (axis.of,) or np.dtype(count.dtype).kind not in "iu":
                raise WorkflowError(
                    f"stages.{node.name}: axis {axis.name!r} needs its count array {axis.count!r}, "
                    f"whole numbers along {axis.of!r}, among the stage's outputs"
                )
    for node in chunk_stages:
        for array in node.stage.outputs:
            if array.dims[0] != source.item and array.dims[0] not in axes:
                raise WorkflowError(
                    f"stages.{node.name}: array {array.name!r} has one row per {array.dims[0]!r}, and no stage makes "
                    f'such rows; declare axes = (Axis("{array.dims[0]}"),) and return {default_count(array.dims[0])!r}'
                )


def _declared_axes(nodes: Iterable[StageNode]) -> Iterator[Axis]:
    """Yield the axes that stages declare. Raises WorkflowError if two differ."""
    seen: dict[str, Axis] = {}
    for node in nodes:
        for axis in node.stage.axes:
            if seen.setdefault(axis.name, axis) != axis:
                raise WorkflowError(
                    f"stages.{node.name}: axis {axis.name!r} is declared in two ways: {axis}, {seen[axis.name]}"
                )
            yield axis


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


_PLAIN = {
    "dict_type": "this needs names with values, as `name: value` or {name: value}",
    "tuple_type": "this needs a list, as [a, b]",
    "list_type": "this needs a list, as [a, b]",
}
"""Messages of Pydantic that speak of Python's types, in words of a YAML file, by type of error."""


def explain(err: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """The first problem of a validation error in one line."""
    problem = err.errors()[0]
    path = ".".join(part for part in [where, *(str(p) for p in problem["loc"])] if part)
    if problem["type"] == "extra_forbidden":
        valid = list(model.model_fields)
        valid += ["after", "use"] if issubclass(model, StageOptions) else []
        valid += ["kind"] if issubclass(model, SourceOptions) else []
        message = f"{where + ': ' if where else ''}" + unknown(
            "option" if where else "section", str(problem["loc"][-1]), valid
        )
        return message
    if problem["type"] == "missing":
        return f"{path}: this is missing"
    if problem["loc"][-1:] == ("[key]",):
        key = problem["input"]
        said = ", and YAML reads on, off, yes and no as true and false" if isinstance(key, bool) else ""
        above = ".".join(part for part in [where, *(str(p) for p in problem["loc"][:-2])] if part)
        return f"{above}: a name is text, not {key!r}{said}; put it in quotes"
    if problem["type"] == "too_short" and problem["loc"] == ("stages",):
        return "stages: there is no stage; add one, as `detect: {}`"
    message = _PLAIN.get(problem["type"], problem["msg"]).removeprefix("Value error, ")
    if problem["input"] is None and problem["type"] == "dict_type":
        return f"{path}: nothing is below it; indent the lines that belong to it"
    given = _SHORT.repr(problem["input"])
    # A rule over several options gets them all as its input, and names in its message those that matter.
    shown = "" if isinstance(problem["input"], dict) or says(message, given) else f" (got {given})"
    return f"{path}: {message[0].lower()}{message[1:]}{shown}"


def stage_keys(
    workflow: Workflow, stored: Mapping[str, Mapping[str, Any]] | None = None, keep: Collection[str] = ()
) -> dict[str, str]:
    """Return the resume key of each stage.

    `stored` holds each stage's facts (`key`, `code`) as a store has them. A key that an earlier version made, without
    the stage's code, counts as equal and stays, unless the code has changed since it was first noted. The key of a
    stage in `keep` stays whatever changed; the stages after it then go on too.
    """
    keys: dict[str, str] = {}
    earlier = stage_keys(workflow.base, stored, keep) if workflow.base is not None else {}
    source = {"kind": workflow.source_kind, **workflow.source_options.keyed()}
    for node in workflow.stages:
        code = workflow.code_of(node.name)
        with own_code(f"stages.{node.name}", node.stage):
            content = node.stage.content()
            parts = {
                "use": node.use,
                "options": node.stage.options.keyed(),
                "version": node.stage.version,
                "weights": [info.weights_sha256 for info in node.stage.models()],
                "upstream": [*(earlier[name] for name in node.before), *(keys[name] for name in node.after)],
                "source": source,
                **({"content": content} if content else {}),
            }
            without_code = _digest(parts)
            keys[node.name] = _digest({**parts, "code": code}) if code else without_code
        facts = (stored or {}).get(node.name, {})
        old, as_noted = facts.get("key"), facts.get("code") in (None, code_digest(code))
        if old and (node.name in keep or (old == without_code and as_noted)):
            keys[node.name] = old
    return keys


def code_digest(code: str) -> str:
    """Return a short digest of a stage's source text, as stores note it; "" for a stage of this package."""
    return hashlib.sha256(code.encode()).hexdigest()[:16] if code else ""


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def changed_values(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield path, old value and new value of what differs in two resolved workflows."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from changed_values(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif old != new:
        yield path, old, new
