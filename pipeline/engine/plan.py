"""The plan: how a source is cut into chunks, and which (chunk, stage) are still missing. Knows no Dask."""

from __future__ import annotations

import pickle
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from pipeline.engine.bound import BoundWorkflow, Recipe
from pipeline.engine.declared import check_opened, check_times, of_input, own_code
from pipeline.engine.finding import imported_as, source_text, text_of
from pipeline.engine.source import INVENTORY, InputRef, Job, Loaded, Source, most_chunk_items
from pipeline.engine.values import json_default, json_values
from pipeline.engine.workflow import Workflow, as_override, changed_values, code_digest, make_importable
from pipeline.errors import InputError, StoreError, WorkflowError
from pipeline.store.chunks import Chunks

CHUNK_OVERHEAD_ITEMS = 10
"""Cost of one more chunk (tasks, a commit: about 15 ms), in items of a video decoded."""

MOST_SETTINGS = 3
"""A message names the stored values of no more changed options than this."""

FEW_CHUNKS = 1024
"""An input has no more chunks than this on account of a stage that asks for short ones."""


def choose_chunk_items(source: Source, most: int | None = None) -> int:
    """Return the items per chunk: within the limits, the length that wastes the least loading.

    A chunk of a video that starts between two key frames is decoded from the key frame before it. So lengths that
    divide the distance of the key frames win. Depends on input and workflow only, never on the machine. `most`: what
    the stages ask for (`Stage.most_items`).
    """
    limit = most_chunk_items(source.item_bytes, source.most_items)
    total = len(source)
    if most is not None:
        limit = min(limit, max(most, -(-total // FEW_CHUNKS)))
    if total <= limit:
        return max(total, 1)

    def cost(length: int) -> tuple[int, int]:
        return source.cost(length) + CHUNK_OVERHEAD_ITEMS * -(-total // length), -length

    return min(range(max(1, limit // 4), limit + 1), key=cost)


@dataclass(frozen=True)
class ChunkTask:
    """All that is to be done for one chunk; small and picklable."""

    input_name: str
    index: int
    start: int
    """First item, inclusive, counted along the input's items."""
    stop: int
    """Last item, exclusive."""
    values: Mapping[str, np.ndarray]
    """Item arrays of the source."""
    job: Job | None
    """None if no missing stage needs what the source loads."""
    recipe: Recipe
    """Steps for what is missing."""
    where: str
    """Place of the items in words: a range of times, of names."""
    files: tuple[str, ...] = ()
    """Files of this chunk that earlier passes committed."""
    replaces: tuple[str, ...] = ()
    """Files that hold earlier failures of this chunk."""
    earlier_attempts: int = 0
    origin: tuple[int, int] = (0, 0)
    """x, y in the whole picture of the first pixel that stages see."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Pixels that stages see in a pixel of the whole picture, along x and y."""

    @property
    def n_items(self) -> int:
        return self.stop - self.start

    @property
    def time_seconds(self) -> tuple[float, float] | None:
        """Times of the first and the last item; None if items have no times."""
        times = self.values.get("time_seconds")
        return None if times is None or not len(times) else (float(times[0]), float(times[-1]))

    @property
    def seconds(self) -> float | None:
        """Time that the items stand for: each until the next, the last as long as the mean; None without times."""
        times = self.time_seconds
        return None if times is None else (times[1] - times[0]) * self.n_items / max(1, self.n_items - 1)

    @property
    def begins(self) -> float:
        """Point that its input has reached before this chunk: seconds, or items if they have no times."""
        times = self.time_seconds
        return self.start if times is None else times[0]


@dataclass(frozen=True)
class SealedJob(Job):
    """A job of a source that is not part of this package.

    Its class lies in a module beside the workflow, which the scheduler cannot import and a worker only once it is told
    where. So it travels as bytes.
    """

    folder: str
    """Folder of the workflow file."""
    module: str
    """Module of its class."""
    text: tuple[int, int] | None
    """Text of the module that the run was set up with."""
    content: bytes
    """Pickled job."""

    @classmethod
    def of(cls, job: Job, folder: Path) -> Job:
        """Seal a job if its class is not part of this package."""
        module = type(job).__module__
        is_own = module.split(".")[0] != __name__.split(".")[0]
        return cls(str(folder), module, text_of(module), pickle.dumps(job)) if is_own else job

    def load(self, threads: int = 1) -> Loaded:
        make_importable(Path(self.folder))
        imported_as(self.module, self.text)
        job: Job = pickle.loads(self.content)
        return job.load(threads)


class InputPlan:
    """One input, cut into chunks, with what is missing of each. Holds a few bytes per chunk."""

    def __init__(
        self, bound: BoundWorkflow, name: str, source: Source, chunk_items: int, chunks: Chunks | None,
        finished: Collection[str] = (), retry_failed: bool = False, is_compacted: bool = False,
    ) -> None:  # fmt: skip
        self.bound, self.name, self.source, self.chunk_items, self.chunks = bound, name, source, chunk_items, chunks
        self._is_compacted = is_compacted or bool(finished)
        self.complete = False
        """Nothing is missing and the arrays are compacted."""
        wanted = bound.wanted
        # Without a stage that runs on chunks, the bit is that of the items: stages of the whole input need theirs.
        full = np.uint64((1 << max(1, len(wanted))) - 1)
        have = chunks.has(wanted, self.total) if chunks is not None else np.zeros(self.total, np.uint64)
        have |= np.uint64(sum(1 << k for k, stage in enumerate(wanted) if stage in finished))
        if not wanted and chunks is not None:
            have[[index for index in chunks.indices if index < self.total]] = full
        if not wanted and is_compacted:
            have |= full
        failed = np.zeros(self.total, bool)
        failed[[index for index in (chunks.failed if chunks else ()) if index < self.total]] = True
        self._missing = np.where(failed & (have == full), full, full & ~have)
        """uint64 (total,): a bit for each wanted stage that a chunk misses."""
        if not retry_failed:
            self._missing[failed] = 0
        self._given_up = failed & (not retry_failed)

    @property
    def n_items(self) -> int:
        return len(self.source)

    @property
    def total(self) -> int:
        """Number of chunks."""
        return -(-self.n_items // self.chunk_items)

    @property
    def todo(self) -> np.ndarray:
        """int64: chunks with something missing that are to be tried, ascending."""
        return np.flatnonzero(self._missing)

    @property
    def failed(self) -> np.ndarray:
        """int64: chunks recorded as failed by an earlier run and not taken again, ascending."""
        return np.flatnonzero(self._given_up)

    @property
    def done(self) -> np.ndarray:
        """int64: chunks of which nothing is missing, ascending."""
        return np.flatnonzero((self._missing == 0) & ~self._given_up)

    def missing(self, index: int) -> tuple[str, ...]:
        """Return the missing stages of a chunk, in workflow order."""
        bits = int(self._missing[index])
        return tuple(stage for k, stage in enumerate(self.bound.wanted) if bits >> k & 1)

    def items_of(self, chunks: np.ndarray) -> int:
        """Return the number of items in some chunks."""
        if not len(chunks):
            return 0
        last = self.total - 1
        short = self.total * self.chunk_items - self.n_items
        return len(chunks) * self.chunk_items - (short if last in chunks[-1:] else 0)

    def boundaries_of(self, index: int) -> tuple[int, int]:
        """Return the first item (inclusive) and the last (exclusive) of a chunk."""
        start = index * self.chunk_items
        return start, min(start + self.chunk_items, self.n_items)

    def where(self, index: int) -> str:
        """Return the place of a chunk in words."""
        return self.source.where(*self.boundaries_of(index))

    def tasks(self) -> Iterator[ChunkTask]:
        """Yield what is to be done, in order."""
        return (self.task(index) for index in self.todo.tolist())

    def task(self, index: int) -> ChunkTask:
        start, stop = self.boundaries_of(index)
        parts = self.chunks.parts(index) if self.chunks is not None else []
        files = tuple(part.name for part in parts if not part.is_failure)
        recipe = self.bound.recipe(self.missing(index), not (files or self._is_compacted))
        known = self.chunks is not None and index in self.chunks.failed
        with own_code(f"source {self.bound.workflow.source_kind!r}", self.source):
            values = self.source.values(start, stop)
            job, where = self._job(start, stop, recipe), self.source.where(start, stop)
        declared = {array.name for array in self.source.arrays}
        if not isinstance(values, Mapping) or values.keys() != declared:
            given = (", ".join(sorted(values)) or "none") if isinstance(values, Mapping) else type(values).__name__
            raise WorkflowError(
                f"source {self.bound.workflow.source_kind!r} declares the arrays "
                f"{', '.join(sorted(declared)) or 'none'}, and values() returned {given}"
            )
        with own_code(f"source {self.bound.workflow.source_kind!r}", self.source):
            check_times(self.source, start, values, f"source {self.bound.workflow.source_kind!r}, {self.name!r}")
        return ChunkTask(
            input_name=self.name,
            index=index,
            start=start,
            stop=stop,
            values=values,
            job=job,
            recipe=recipe,
            where=where,
            files=files,
            replaces=self.chunks.failures(index) if self.chunks is not None and parts else (),
            earlier_attempts=self.chunks.failed[index].attempts if self.chunks is not None and known else 0,
            origin=self.source.origin,
            scale=self.source.scale,
        )

    def _job(self, start: int, stop: int, recipe: Recipe) -> Job | None:
        if not recipe.needs_items:
            return None
        return SealedJob.of(self.source.job_of(start, stop, recipe.loads), self.bound.workflow.folder)


def in_turns(inputs: Iterator[Iterator[ChunkTask]], together: int) -> Iterator[ChunkTask]:
    """Yield the tasks of all inputs; `together` inputs advance at the same time.

    The next task is always of the input that is least far. One that takes the place of a finished input counts from
    the point that the others have reached: they do not wait for it.
    """
    turns: list[tuple[float, int, float, ChunkTask, Iterator[ChunkTask]]] = []
    numbered = enumerate(inputs)
    joined = 0.0
    while True:
        while len(turns) < together and (following := next(numbered, None)) is not None:
            number, tasks = following
            if (task := next(tasks, None)) is not None:
                ahead = 0.0 if number < together else joined - task.begins
                heappush(turns, (task.begins + ahead, number, ahead, task, tasks))
        if not turns:
            return
        joined, number, ahead, task, tasks = heappop(turns)
        yield task
        if (task := next(tasks, None)) is not None:
            heappush(turns, (task.begins + ahead, number, ahead, task, tasks))


def find_inputs(workflow: Workflow, words: Sequence[str]) -> list[InputRef]:
    """Return the inputs that words of the user name. Raises InputError if there is none."""
    where = f"source {workflow.source_kind!r}"
    with own_code(where, workflow.source):
        refs = list(workflow.source.find(words, workflow.source_options))
    for ref in refs:
        if not isinstance(ref, InputRef):
            raise WorkflowError(f"{where}: find() gave a {type(ref).__name__}; yield InputRef(path, name)")
    if not refs:
        raise InputError(f"{where} finds no input in {', '.join(words)}; check the names")
    return refs


def open_source(
    workflow: Workflow, ref: InputRef, stored: Mapping[str, Any] | None, inventory: bytes | None = None
) -> Source:
    """Open an input.

    Raises InputError if the options of a stage do not fit it, or if it cannot be used, whatever the source raises.
    """
    if stored is not None and inventory is not None:
        stored = {**stored, INVENTORY: inventory}
    with of_input(ref, "cannot be opened"):
        source = workflow.source.open(ref, workflow.source_options, stored)
        check_opened(source)
    check_input(workflow, ref, source.facts)
    return source


def check_input(workflow: Workflow, ref: InputRef, facts: Mapping[str, Any]) -> None:
    """Check the options of stages against an input. Raises InputError that names both."""
    for node in workflow.stages:
        try:
            with own_code(f"stages.{node.name}", node.stage):
                node.stage.check_input(facts)
        except InputError as err:
            raise InputError(f"{ref.path}: stages.{node.name}: {err}") from err


def cut(n_items: int, chunk_items: int) -> list[tuple[int, int]]:
    """Return (start, stop) of every chunk; stop is exclusive."""
    return [(start, min(start + chunk_items, n_items)) for start in range(0, n_items, chunk_items)]


def plan_input(
    bound: BoundWorkflow,
    name: str,
    source: Source,
    attributes: Mapping[str, Any] | None,
    chunks: Chunks | None,
    retry_failed: bool = False,
) -> InputPlan:
    """Find which chunks of an input miss which stages.

    `attributes` are the stored attributes of the input (None for a new one), `chunks` its committed chunks. Raises
    StoreError if a stored record is damaged.
    """
    stored = attributes or {}
    asked = [node.stage.most_items for node in bound.chunk_stages if node.stage.most_items is not None]
    chunk_items = int(stored.get("chunk_frames") or choose_chunk_items(source, min(asked, default=None)))
    finished = {stage for stage, facts in stored.get("stages", {}).items() if facts.get("state") == "complete"}
    plan = InputPlan(bound, name, source, chunk_items, chunks, finished, retry_failed, bool(stored.get("complete")))
    plan.complete = bool(stored.get("complete")) and not len(plan.todo) and not len(plan.failed)
    return plan


def check_keys(
    bound: BoundWorkflow, stored_workflow: Mapping[str, Any], stored_stages: Mapping[str, Any], name: str
) -> None:
    """Refuse to go on if a chunk stage was stored under other options, weights, code or upstream stages. (A stage of
    the whole input is simply done again.)

    Raises StoreError with the difference shown.
    """
    workflow, keys, section = bound.workflow, bound.keys, bound.workflow.section
    changed = [s for s, facts in stored_stages.items() if s in bound.wanted and facts.get("key") != keys[s]]
    if not changed:
        return
    options = json_values(workflow.source_options)
    kind = {"kind": workflow.source_kind} if workflow.base is None else {}
    now = {
        section: {**kind, **options},
        "stages": {n.name: {"use": n.use, "after": [*n.before, *n.after], **n.options} for n in workflow.stages},
    }
    old = {
        section: {**_defaults(workflow.source_options), **stored_workflow.get(section, {})},
        "stages": {
            s: {**_defaults(workflow.node(s).stage.options), **v}  # options that came after the store was written
            for s, v in stored_workflow.get("stages", {}).items()
            if s in now["stages"]
        },
    }
    now["stages"] = {s: v for s, v in now["stages"].items() if s in old["stages"]}
    unkeyed = {f"{section}.{option}" for option in workflow.source_options.UNKEYED}
    differing = changed_values(old, now)
    found = [(path.removeprefix("stages."), *values) for path, *values in differing if path not in unkeyed]
    changes = [f"{path}: {before!r} -> {after!r}" for path, before, after in found]
    codes = {stage: code_digest(workflow.code_of(stage)) for stage in changed}
    own = [stage for stage, code in codes.items() if code and stored_stages[stage].get("code") != code]
    advice = "choose another --out, or start over with --fresh"
    if 0 < len(found) <= MOST_SETTINGS and not any(path.endswith((".use", ".after", ".kind")) for path, *_ in found):
        stored = " ".join(f"--set {shlex.quote(as_override(path, before))}" for path, before, _ in found)
        advice = f"go on with the stored ones by {stored}, {advice}"
    if not changes and own:
        texts = [stage for stage in own if workflow.node(stage).code]
        changes = [f"the source text of stage {stage!r} ({workflow.node(stage).use})" for stage in texts]
        if source_text(workflow.source):
            changes.append(f"{'or that of' if texts else 'the source text of'} source {workflow.source_kind}")
        advice += f", or keep the stored values with {' '.join(f'--keep-stale {stage}' for stage in own)}"
    named = "" if workflow.base is None else f", or a file that the section {section} names"
    shown = "; ".join(changes) or f"the weights or the version of the stage{named}"
    raise StoreError(f"{name!r} was stored with other settings for {', '.join(changed)} ({shown}); {advice}")


def _defaults(options: BaseModel) -> dict[str, Any]:
    fields = type(options).model_fields
    return {name: json_default(field) for name, field in fields.items() if not field.is_required()}
