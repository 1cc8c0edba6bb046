"""One run: inputs → plan → executor → store. It reports each event to its listeners.

Data flow of one run::

    refs ─▶ probe (one ahead) ─▶ plan ─▶ chunk tasks ─▶ executor ─▶ outcomes ─▶ compaction ─▶ stages of whole inputs

A further pass goes the same way, over inputs that are made of what the store then holds.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pipeline.engine.ahead import check_further
from pipeline.engine.bound import BoundWorkflow
from pipeline.engine.declared import of_input
from pipeline.engine.derive import DeriveError, derive, stale
from pipeline.engine.events import (
    ChunkDone,
    ClusterReady,
    Event,
    InputDone,
    InputStarted,
    InputUnusable,
    Listener,
    Listeners,
    Note,
    PassStarted,
    RunDone,
    RunStarted,
)
from pipeline.engine.executor import Executor, Orders, Outcome
from pipeline.engine.follow import Follower
from pipeline.engine.graph import Node, chunk_nodes
from pipeline.engine.parts import find_moved, over, prune, with_parts
from pipeline.engine.plan import ChunkTask, InputPlan, check_input, check_keys, in_turns, open_source, plan_input
from pipeline.engine.source import InputRef, Source
from pipeline.engine.steps import Committed, WorkerSettings
from pipeline.engine.summary import Summary
from pipeline.engine.workflow import Workflow, code_digest
from pipeline.errors import InputError, StoreError, UsageError
from pipeline.store.chunks import DamagedChunkError, fail_chunk, unreadable_chunks
from pipeline.store.compact import compact
from pipeline.store.record import Record
from pipeline.store.run import RunStore
from pipeline.store.schema import DECODED
from pipeline.text import plain, plural, unknown

ACCEPTED = "accepted_failures"
"""Input attribute: the user closed it in spite of what could not be read."""


class Worksite(Protocol):
    """An executor that is started only when there is work, and facts about it."""

    @property
    def executor(self) -> Executor: ...
    @property
    def description(self) -> str: ...
    @property
    def dashboard(self) -> str: ...
    @property
    def gpu_slots(self) -> int:
        """Number of model steps that can run at once."""
        ...

    @property
    def device(self) -> str:
        """Device that models run on: cpu, cuda or tensorrt, followed by "fp16" if that precision was asked for."""
        ...


@dataclass(frozen=True)
class RunOptions:
    """Treatment of inputs and failures."""

    fresh: bool = False
    retry_failed: bool = False
    accept_failed: bool = False
    prune: bool = False
    """Items that are no longer there, or have changed, are removed first."""
    keep_stale: tuple[str, ...] = ()
    """Stages whose stored arrays are kept although their options, weights or code have changed."""
    attempts: int | None = None
    """Tries of a chunk before it is recorded as failed; None for the executor's own numbers."""
    together: int = 1
    """Inputs that advance at the same time, their chunks taken in turns."""
    debug: bool = False
    """True if an exception of a stage of whole inputs is raised instead of recorded."""


def run(
    workflow: Workflow,
    refs: Sequence[InputRef],
    out: Path,
    worksite: Callable[[], AbstractContextManager[Worksite]],
    listener: Listener,
    options: RunOptions | None = None,
    follower: Follower | None = None,
) -> Summary:
    """Run what is missing, chunk by chunk; return when all is committed, failed for good, or drained.

    `follower` gives inputs in further rounds, until the run has to stop.

    Raises a ReelgraphError if nothing can be done: the store does not fit, or is locked, or cannot be written.
    """
    began = time.perf_counter()
    workflow.models()  # raises if weights are missing, before there is a store
    with RunStore.open(out, fresh=(options or RunOptions()).fresh) as store:
        active = _Run(workflow, store, listener, options or RunOptions())
        with active.draining_on_signals(also=(signal.SIGINT,) if follower is not None else ()):
            active.summary.follows = follower is not None
            active.work_through([refs] if follower is None else follower.rounds(active), worksite)
    active.summary.seconds["total"] = time.perf_counter() - began
    active.emit(RunDone(active.summary.exit_code))
    return active.summary


class _Run:
    """State of one run; all methods run in the main thread, except `_close` and `_derive`."""

    def __init__(self, workflow: Workflow, store: RunStore, listener: Listener, options: RunOptions) -> None:
        self.workflow, self.store, self.options = workflow, store, options
        self.summary = Summary(
            out=str(store.path),
            model_steps=tuple(n.name for one in workflow.passes for n in one.stages if n.stage.slot == "gpu"),
        )
        self.listeners = Listeners([self.summary, listener])
        # Facts of each stage (resume key, code), of the first input that has it.
        stored: dict[str, Mapping[str, Any]] = {}
        for name in self.store.input_names():
            stored = {**self.store.input(name).attributes.get("stages", {}), **stored}
        self.passes = [BoundWorkflow(one, stored, options.keep_stale) for one in workflow.passes]
        self.bound = self.passes[0]
        """The workflow of the pass under way."""
        self.site: Worksite | None = None
        self.plans: dict[str, InputPlan] = {}
        self.open_chunks: Counter[str] = Counter()
        self.failed_chunks: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.noted: set[str] = set()
        self.tried: set[str] = set()
        """Paths of the inputs that were opened in this run."""
        self.began = time.perf_counter()
        """Since when rates are counted: when the executor was ready."""
        self.compactor = ThreadPoolExecutor(1, thread_name_prefix="compact")
        self.compactions: list[Future[None]] = []
        self.damage: list[tuple[InputPlan, DamagedChunkError]] = []
        """Chunk files that compaction could not read."""

    def emit(self, event: Event) -> None:
        self.listeners.on(event)

    # -- inputs ------------------------------------------------------------------------------------------

    def work_through(
        self, rounds: Iterable[Sequence[InputRef]], worksite: Callable[[], AbstractContextManager[Worksite]]
    ) -> None:
        self._check_workflow()
        with contextlib.ExitStack() as stack:
            stack.callback(self.compactor.shutdown, wait=True)

            def start() -> Worksite:
                return stack.enter_context(worksite())

            for refs in rounds:
                self._work_round(refs, start)
            if self.summary.follows:
                self._keep_findings()  # what was given up since the last round

    def _work_round(self, refs: Sequence[InputRef], start: Callable[[], Worksite]) -> None:
        self.bound = self.passes[0]
        changes: list[str] = []
        if not self.tried:
            find_moved(self.workflow, refs, self.store, changes.append)
        changes += prune(self.workflow, refs, self.store) if self.options.prune else []
        parts = list(with_parts(self.workflow, refs, self.store, changes.append))
        self._check_further(refs, parts)
        # An input that is taken again may be another now; its later parts were opened in an earlier round.
        named, refs = refs, [ref for ref in parts if ref in refs or ref.path not in self.tried]
        # What earlier rounds counted of these inputs is forgotten.
        names = {ref.path: self.store.find_input(ref.path) for ref in named if ref.path in self.tried}
        complete = [name for name in names.values() if name is not None and self.store.input(name).is_complete]
        self.summary.forget({ref.path for ref in named}, set(names.values()), len(names), len(complete))
        together = self.options.together
        self.emit(RunStarted(str(self.store.path), len(refs), self.workflow.noun, self._axes(), together))
        for ref in refs:
            self._note_once(ref.note)
        for change in changes:
            self._note_once(change)
        self._work_pass(refs, start)
        for bound in self.passes[1:]:
            self.bound = bound
            further = list(over(self.bound.workflow, named, self.store, self._note_once))
            self.emit(PassStarted(len(further), self.bound.workflow.noun, self._axes()))
            if not self.stopping.is_set():
                self._work_pass(further, start)
        self.summary.drained = (
            not self.summary.follows
            and self.stopping.is_set()
            and self.summary.inputs_complete < self.summary.inputs_total - len(self.summary.unusable)
        )
        self._keep_findings()

    def _check_further(self, refs: Sequence[InputRef], parts: Sequence[InputRef]) -> None:
        """Refuse options of further passes that do not fit; while it follows, a run says so after the first pass."""
        if not self.summary.follows:
            check_further(self.workflow, refs, parts, self.store)

    def known_paths(self) -> Collection[str]:
        """Return the paths of the inputs that the store has, or has recorded as unusable."""
        return self.store.input_paths() | {one["path"] for one in self.store.attributes.get("unusable", [])}

    def note(self, text: str) -> None:
        self.emit(Note(text))

    def give_up(self, path: str, error: str) -> None:
        """Record an input that cannot be used."""
        self.summary.unusable.append({"path": path, "error": error})

    def _axes(self) -> tuple[str, ...]:
        """Return the nouns of the rows that the pass under way makes."""
        return tuple(axis.name for axis in self.bound.schema.axes)

    def _work_pass(self, refs: Sequence[InputRef], start: Callable[[], Worksite]) -> None:
        """Do what is missing of some inputs; return when all of it is compacted."""
        self.plans, self.compactions, self.damage = {}, [], []
        tasks = in_turns((plan.tasks() for plan in self._plans(refs)), self.options.together)
        first = next(tasks, None)  # a cluster is started only when there is something to do
        try:
            if first is not None:
                began = time.perf_counter()
                if self.site is None:
                    self.site = site = start()
                    seconds = time.perf_counter() - began
                    self.emit(ClusterReady(site.description, site.dashboard, site.gpu_slots, site.device, seconds))
                self.began = time.perf_counter()
                for outcome in self.site.executor.run(
                    itertools.chain([first], tasks),
                    Orders(self._nodes, self.must_stop, self.emit, self.options.attempts),
                ):
                    self._take(outcome)
        finally:
            wait(self.compactions)
        for compaction in self.compactions:
            compaction.result()
        for plan, damage in self.damage:
            self.summary.inputs_complete -= 1
            self._note_damage(plan.name, damage)

    def _keep_findings(self) -> None:
        """Store facts of the run in the root: unusable inputs, kinds of device that models ran on, and speed."""
        changed: dict[str, Any] = {}
        summary = self.summary
        before = self.store.attributes.get("unusable", [])
        # A run that follows a folder sees a removed file once: what an earlier one recorded stays.
        kept = [one for one in before if one["path"] not in self.tried] if summary.follows else []
        unusable = kept + [one for one in summary.unusable if one not in kept]
        if unusable != before:
            changed["unusable"] = unusable
        if summary.device is not None:
            changed["devices"] = sorted({*self.store.attributes.get("devices", []), summary.device})
        if summary.items:
            changed["speed"] = {
                "seconds_per_frame": summary.seconds["run"] / summary.items,
                "rows_per_frame": {
                    **((self.store.attributes.get("speed") or {}).get("rows_per_frame") or {}),
                    **{axis: count / summary.items for axis, count in summary.rows.items()},
                },
                "frames": summary.items,
                "step_seconds": dict(summary.step_seconds),
                "model_share": summary.model_share,
                "bottleneck": summary.bottleneck,
            }
        speeds = {
            one.item: {
                "seconds_per_item": one.seconds / one.items,
                "rows_per_item": {axis: count / one.items for axis, count in one.rows.items()},
            }
            for one in summary.further
            if one.items
        }
        if speeds:
            changed["further_speed"] = {**self.store.attributes.get("further_speed", {}), **speeds}
        if changed:
            self.store.update(**changed)

    def _check_workflow(self) -> None:
        """Refuse a store that another workflow made, and store this one. Raises StoreError."""
        keys = {stage: key for bound in self.passes for stage, key in bound.keys.items()}
        for stage in self.options.keep_stale:
            if stage not in keys:
                raise UsageError(f"--keep-stale: {unknown('stage', stage, keys)}")
        stored = self.store.attributes.get("workflow")
        kept_stale = bool(self.options.keep_stale)
        fresh_keys = {k: v for one in self.workflow.passes for k, v in one.keys().items()} if kept_stale else {}
        for stage in self.options.keep_stale:
            if keys[stage] != fresh_keys[stage]:
                self.emit(Note(f"stage {stage!r}: the stored values are kept, though its code or options changed"))
        for name, bound in itertools.product(self.store.input_names(), self.passes):
            known = self.store.input(name).attributes.get("stages", {})
            check_keys(bound, stored or {}, known, name)
            # Stages that an earlier version stored without their source text: it counts from now on.
            code_of = bound.workflow.code_of
            lacking = {
                stage: {**facts, "code": code_digest(code_of(stage))}
                for stage, facts in known.items()
                if stage in bound.keys and "code" not in facts and code_of(stage)
            }
            if lacking:
                self.store.input(name).update(stages={**known, **lacking})
        now = self.workflow.resolved()
        if stored:
            kept = {stage: section for stage, section in stored["stages"].items() if stage in self.options.keep_stale}
            now["stages"] = {**stored["stages"], **now["stages"], **kept}
            models = {m["name"]: m for m in [*self.store.attributes.get("models", []), *self.workflow.models()]}
            if now != stored:
                self.store.set_workflow(now, list(models.values()))
        else:
            self.store.set_workflow(now, self.workflow.models())

    def _plans(self, refs: Sequence[InputRef]) -> Iterator[InputPlan]:
        """Yield the plan of each input that has something to do; the next one is probed meanwhile."""
        with ThreadPoolExecutor(1, thread_name_prefix="probe") as prober:
            ahead = prober.submit(self._probe, refs[0]) if refs else None
            for position, ref in enumerate(refs):
                assert ahead is not None
                current = ahead
                following = refs[position + 1] if position + 1 < len(refs) else None
                ahead = prober.submit(self._probe, following) if following is not None else None
                self.tried.add(ref.path)
                try:
                    plan = self._register(ref, current.result())
                except InputError as err:
                    self.give_up(ref.path, str(err))
                    self.emit(InputUnusable(ref.path))
                    self.note(str(err))
                    continue
                if plan is not None:
                    yield plan

    def _probe(self, ref: InputRef) -> Source | None:
        """Open an input; None if the store already holds all of it. Raises InputError."""
        name, workflow = self.store.find_input(ref.path), self.bound.workflow
        if name is None:
            return open_source(workflow, ref, None)
        stored = self.store.input(name).attributes
        with of_input(ref, "cannot be compared with what is stored"):
            is_stored = workflow.source.is_stored(ref, stored)
        if not is_stored:
            raise InputError(
                f"{ref.path} is not the input that was stored as {name!r} (its content changed); "
                "choose another --out, or start over with --fresh"
            )
        stages = stored.get("stages", {})
        if bool(stored.get("complete")) and all(
            stages.get(stage, {}).get("state") == "complete" for stage in self.bound.wanted
        ):
            check_input(workflow, ref, stored)
            return None
        return open_source(workflow, ref, stored, self.store.input(name).inventory())

    def _register(self, ref: InputRef, source: Source | None) -> InputPlan | None:
        """Make the input known to the store, and plan it; None if nothing is left to do."""
        name = self.store.find_input(ref.path)
        if source is None:
            assert name is not None
            self._count_complete(name)
            return None
        self._note_once(source.note)
        attributes = self.store.input(name).attributes if name is not None else None
        chunks = self.store.input(name).chunks() if name is not None else None
        for damage in chunks.damage if chunks is not None else ():
            self.emit(Note(f"{damage.set_aside()} and made again"))
        plan = plan_input(self.bound, name or "", source, attributes, chunks, self.options.retry_failed)
        if name is None:
            with of_input(ref, "has no fingerprint"):
                fingerprint = source.fingerprint(ref)
                if not isinstance(fingerprint, str):
                    raise TypeError(f"fingerprint() returned {type(fingerprint).__name__}; return a text")
            known_by = {"path": ref.path, "fingerprint": fingerprint}
            item = {"item": source.item} if source.item != DECODED.dims[0] else {}
            facts = {**known_by, **source.facts, **item, "chunk_frames": plan.chunk_items, "frames": plan.n_items}
            stages = {stage: self._stage_facts(stage) for stage in self.bound.wanted}
            name = self.store.add_input(ref.name, facts, source.inventory(), stages)
        else:
            known = self.store.input(name).attributes["stages"]
            added = {stage: self._stage_facts(stage) for stage in self.bound.wanted if stage not in known}
            if added:
                self.store.input(name).update(stages={**known, **added})
        plan.name = name
        self.plans[name] = plan
        self._start_input(plan)
        return plan

    def _stage_facts(self, stage: str) -> dict[str, Any]:
        code = code_digest(self.bound.workflow.code_of(stage))
        arrays = [array.name for array in self.bound.workflow.node(stage).stage.outputs]
        facts = {"key": self.bound.keys[stage], "state": "partial", "arrays": arrays}
        return {**facts, **({"code": code} if code else {})}

    def _note_once(self, text: str | None) -> None:
        """Say once what holds for a whole archive."""
        if text is not None and text not in self.noted:
            self.noted.add(text)
            self.emit(Note(text))

    def _start_input(self, plan: InputPlan) -> None:
        waiting = plan.items_of(plan.todo) + plan.items_of(plan.failed)
        self.emit(InputStarted(plan.name, plan.n_items, plan.n_items - waiting))
        self.summary.chunks_skipped += len(plan.done)
        self.open_chunks[plan.name] = len(plan.todo)
        if plan.chunks is not None:
            for index in plan.failed.tolist():
                record = plan.chunks.failed[index]
                self._note_failure(plan, index, record.step or "earlier run", str(record.error))
            done = set(plan.done.tolist()) if plan.chunks.incomplete else set()
            for entry in unreadable_chunks(plan.chunks.incomplete) if not self.options.accept_failed else ():
                if entry["chunk"] in done:
                    self._note_unreadable(plan.name, entry, plan.where(entry["chunk"]))
        if not len(plan.todo):
            self._finish_input(plan)

    def _count_complete(self, name: str) -> None:
        stored = self.store.input(name).attributes
        self.emit(InputStarted(name, int(stored["frames"]), int(stored["frames"])))
        if self.options.accept_failed:
            self._accept(name)
        elif not stored.get(ACCEPTED):
            for entry in stored.get("unreadable", []):
                self._note_unreadable(name, entry, "")
        self.emit(InputDone(name))
        self.summary.inputs_complete += 1
        if stale(self.store, name, self.bound):
            self.compactions.append(self.compactor.submit(self._derive, name))

    # -- chunks ------------------------------------------------------------------------------------------

    def _nodes(self, task: ChunkTask, settings: WorkerSettings) -> list[Node]:
        return chunk_nodes(task, self.store.path, settings)

    def must_stop(self) -> bool:
        self.store.check_lock()
        return self.stopping.is_set()

    def _take(self, outcome: Outcome) -> None:
        plan, task, result = self.plans[outcome.task.input_name], outcome.task, outcome.result
        elapsed = time.perf_counter() - self.began
        if isinstance(result, Committed):
            if result.missing and not self.options.accept_failed:
                entry = {"chunk": task.index, "frames": list(result.missing), "error": result.error}
                self._note_unreadable(task.input_name, entry, task.where)
            counts = (result.n_items, result.rows, result.seconds, elapsed)
            self.emit(ChunkDone(plan.name, task.index, *counts, broken=result.broken, covers_seconds=task.seconds))
        elif result.ends_run:
            raise StoreError(result.error)
        else:
            error = f"{result.step}: {result.error}"
            record = Record(
                "failed",
                attempts=outcome.attempts,
                step=result.step,
                error=error,
                items=(task.start, task.stop),
                time_seconds=task.time_seconds,
                tried=task.recipe.keys,
            )
            if result.damage is not None:
                self.failed_chunks[plan.name] += 1
                self._note_damage(plan.name, result.damage, task.index, task.where)
            else:
                fail_chunk(str(self.store.path), task.input_name, task.index, record, replaces=task.replaces)
                self._log_traceback(f"{task.input_name}: chunk {task.index} ({task.where})", result.trace)
                self._note_failure(plan, task.index, result.step, error)
            self.emit(ChunkDone(plan.name, task.index, 0, elapsed_seconds=elapsed, failed=True))
        self.open_chunks[plan.name] -= 1
        if self.open_chunks[plan.name] == 0:
            self._finish_input(plan)

    def _log_traceback(self, what: str, trace: str) -> None:
        """Append a traceback to a file beside the store; a run does not end because that file cannot be written."""
        if not trace:
            return
        path = self.store.path.with_name(f"{self.store.path.name}.errors.log")
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        shown = "\n".join(map(plain, trace.split("\n")))
        with contextlib.suppress(OSError), path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{now} {what}\n{shown}\n")
            self.summary.traceback_log = str(path)

    def _note_failure(self, plan: InputPlan, index: int, step: str, error: str) -> None:
        if self.options.accept_failed:
            self.summary.chunks_accepted += 1
            return
        where = plan.where(index)
        self.failed_chunks[plan.name] += 1
        self.summary.failures.append(
            {"input": plan.name, "chunk": index, "time_range": where, "step": step, "error": error}
        )
        self.emit(Note(f"{plan.name}: chunk {index} ({where}) failed: {error}"))

    def _note_damage(self, name: str, damage: DamagedChunkError, chunk: int | None = None, where: str = "") -> None:
        """Set a damaged file aside: the next run makes the chunk again."""
        error = f"{damage.set_aside()}; run again to make it again"
        self.summary.failures.append(
            {"input": name, "chunk": chunk, "time_range": where, "step": "store", "error": error}
        )
        self.emit(Note(error))

    def _note_unreadable(self, name: str, entry: Mapping[str, Any], where: str) -> None:
        count = len(entry["frames"])
        self.summary.unreadable_items += count
        self.summary.unreadable.append({"input": name, "time_range": where, **entry})
        self.emit(Note(f"{name}: {plural(count, self.bound.workflow.noun)} not read: {entry['error']}"))

    def _accept(self, name: str) -> None:
        """Remember the user's word: later runs do not fail for what is missing here."""
        if not self.store.input(name).attributes.get(ACCEPTED):
            self.store.input(name).update(**{ACCEPTED: True})

    def _finish_input(self, plan: InputPlan) -> None:
        failed = self.failed_chunks[plan.name]
        self.emit(InputDone(plan.name, failed))
        if failed == 0:
            self.summary.inputs_complete += 1
            self.compactions.append(self.compactor.submit(self._close, plan))

    def _close(self, plan: InputPlan) -> None:
        try:
            if not plan.complete:
                if self.options.accept_failed:
                    self._accept(plan.name)
                compact(
                    self.store,
                    plan.name,
                    self.bound.schema,
                    plan.n_items,
                    plan.chunk_items,
                    plan.source.values,
                    accept_failed=self.options.accept_failed,
                )
        except DamagedChunkError as damage:
            self.damage.append((plan, damage))
            return
        self._derive(plan.name)

    def _derive(self, name: str) -> None:
        try:
            for stage, seconds in derive(self.store, name, self.bound).items():
                self.summary.derived[stage] = self.summary.derived.get(stage, 0.0) + seconds
        except DeriveError as error:
            if self.options.debug and error.__cause__ is not None:
                raise error.__cause__ from None
            self._log_traceback(f"{name}: {error.stage}", "".join(traceback.format_exception(error.__cause__)))
            self.summary.underived.append({"input": name, "step": error.stage, "error": str(error)})

    # -- stopping ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def draining_on_signals(self, also: Sequence[signal.Signals] = ()) -> Iterator[None]:
        """SIGTERM and SIGUSR1 (what batch systems send before the end) finish what is under way, then stop.

        So does Ctrl-C if it is among `also`; a second one interrupts.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]

        def stop(number: int, _: object) -> None:
            if self.stopping.is_set() and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stopping.set()

        before = {number: signal.signal(number, stop) for number in (*wanted, *also)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
