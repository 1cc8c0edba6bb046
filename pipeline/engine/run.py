"""One run: inputs → plan → executor → store, with progress and a summary. Views and clusters come in from outside."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.engine.derive import DeriveError, derive, stale
from pipeline.engine.executor import Executor, Orders, Outcome
from pipeline.engine.finding import open_source
from pipeline.engine.graph import Node, chunk_nodes
from pipeline.engine.plan import ChunkTask, InputPlan, check_keys, plan_input
from pipeline.engine.steps import Committed, WorkerSettings
from pipeline.engine.workflow import Workflow
from pipeline.errors import InputError, StoreError
from pipeline.files.fingerprint import fingerprint
from pipeline.store.chunks import fail_chunk, unreadable_chunks
from pipeline.store.compact import compact
from pipeline.store.run import RunStore
from pipeline.text import span

ACCEPTED = "accepted_failures"
"""Input attribute: the user closed it in spite of what could not be read."""

EXIT_DONE, EXIT_FAILED, EXIT_MISTAKE, EXIT_DRAINED = 0, 1, 2, 75


class Progress(Protocol):
    """What watches a run. Every method may be called from the run's thread only."""

    def cluster(self, description: str, dashboard: str) -> None: ...
    def input_started(self, name: str, n_frames: int, n_frames_done: int) -> None: ...
    def chunk_done(self, name: str, n_frames: int, n_faces: int) -> None: ...
    def input_finished(self, name: str, failed_chunks: int) -> None: ...
    def note(self, text: str) -> None: ...


class Worksite(Protocol):
    """An executor that is started only when there is work, and what is to be said about it."""

    @property
    def executor(self) -> Executor: ...
    @property
    def description(self) -> str: ...
    @property
    def dashboard(self) -> str: ...
    @property
    def gpu_slots(self) -> int:
        """How many model steps can run at once."""
        ...

    @property
    def device(self) -> str:
        """What models run on: cpu, cuda or tensorrt, with "fp16" behind it where that is asked for."""
        ...


@dataclass(frozen=True)
class RunOptions:
    """How inputs and failures are treated."""

    fresh: bool = False
    retry_failed: bool = False
    accept_failed: bool = False


@dataclass
class Summary:
    """What a run did. Seconds are wall time, except `step_seconds`: summed over all workers."""

    out: str
    frames: int = 0
    faces: int = 0
    chunks: int = 0
    chunks_skipped: int = 0
    """Committed by an earlier run."""
    chunks_accepted: int = 0
    """Failed chunks that inputs were closed without, as asked."""
    failures: list[dict[str, Any]] = field(default_factory=list)
    """Failed chunks: input, chunk, time_range, step, error."""
    unreadable_frames: int = 0
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    """Chunks stored with frames missing: input, chunk, time_range, frames (ranks), error."""
    unusable: list[dict[str, Any]] = field(default_factory=list)
    """Inputs that could not be used at all: path, error."""
    derived: dict[str, float] = field(default_factory=dict)
    """Stages of whole inputs that were run (tracks, identities), with their seconds over all inputs."""
    underived: list[dict[str, Any]] = field(default_factory=list)
    """Where such a stage failed: input, step, error."""
    inputs_complete: int = 0
    inputs_total: int = 0
    drained: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    """total; start: the cluster's start; run: from the first task submitted to the last one done."""
    step_seconds: dict[str, float] = field(default_factory=dict)
    device: str | None = None
    """What models ran on: cpu, cuda or tensorrt, "cuda fp16"; None where nothing was left to run."""
    gpu_slots: int = 1
    model_steps: tuple[str, ...] = ()

    @property
    def model_share(self) -> float:
        """Share of the run in which the model slots were busy: 1 is the models' own speed."""
        busy = sum(self.step_seconds.get(step, 0.0) for step in self.model_steps)
        wall = self.seconds.get("run", 0.0) * self.gpu_slots
        return min(1.0, busy / wall) if wall else 0.0

    @property
    def bottleneck(self) -> str | None:
        """The step that the run waited for: the longest model step where the model slots were mostly busy."""
        if not self.step_seconds:
            return None
        steps = self.model_steps if self.model_share >= 0.5 else tuple(self.step_seconds)
        return max(steps, key=lambda step: self.step_seconds.get(step, 0.0))

    @property
    def exit_code(self) -> int:
        if self.drained:
            return EXIT_DRAINED
        if self.unusable and self.inputs_total == len(self.unusable):
            return EXIT_MISTAKE
        failed = self.failures or self.unreadable or self.unusable or self.underived
        return EXIT_FAILED if failed else EXIT_DONE

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        values = {key: value for key, value in vars(self).items() if key not in ("model_steps", "gpu_slots")}
        rate = self.frames / self.seconds["run"] if self.seconds.get("run") else None
        return values | {
            "bottleneck": self.bottleneck,
            "model_share": round(self.model_share, 4),
            "frames_per_second": rate,
            "failed_chunks": len(self.failures),
            "exit_code": self.exit_code,
        }


def run(
    workflow: Workflow,
    paths: Sequence[Path],
    out: Path,
    worksite: Callable[[], AbstractContextManager[Worksite]],
    progress: Progress,
    options: RunOptions | None = None,
) -> Summary:
    """Run what is missing, chunk by chunk; returns when all is committed, failed for good, or drained.

    Raises a ReelgraphError where nothing can be done: the store does not fit, or is locked, or cannot be written.
    """
    began = time.perf_counter()
    workflow.models()  # raises where weights are missing, before there is a store
    with RunStore.open(out, fresh=(options or RunOptions()).fresh) as store:
        active = _Run(workflow, store, progress, options or RunOptions())
        with active.draining_on_signals():
            active.work_through(paths, worksite)
    active.summary.seconds["total"] = time.perf_counter() - began
    return active.summary


class _Run:
    """State of one run; all methods run in the main thread, except `_close`, `_compact` and `_derive`."""

    def __init__(self, workflow: Workflow, store: RunStore, progress: Progress, options: RunOptions) -> None:
        self.workflow, self.store, self.progress, self.options = workflow, store, progress, options
        self.summary = Summary(
            out=str(store.path),
            model_steps=tuple(n.name for n in workflow.stages if n.stage.slot == "gpu"),
        )
        self.plans: dict[str, InputPlan] = {}
        self.open_chunks: Counter[str] = Counter()
        self.failed_chunks: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.noted: set[str] = set()
        self.compactor = ThreadPoolExecutor(1, thread_name_prefix="compact")
        self.compactions: list[Future[None]] = []

    # -- inputs ------------------------------------------------------------------------------------------

    def work_through(self, paths: Sequence[Path], worksite: Callable[[], AbstractContextManager[Worksite]]) -> None:
        self._check_workflow()
        tasks = self._tasks(paths)
        first = next(tasks, None)  # a cluster is started only when there is something to do
        try:
            if first is not None:
                self._execute(itertools.chain([first], tasks), worksite)
        finally:
            self.compactor.shutdown(wait=True)
        for compaction in self.compactions:
            compaction.result()
        self.summary.drained = (
            self.stopping.is_set()
            and self.summary.inputs_complete < self.summary.inputs_total - len(self.summary.unusable)
        )
        self._keep_findings()

    def _keep_findings(self) -> None:
        """What the root keeps of a run beside its workflow: unusable inputs, the kinds of device that models ran on
        here, and how fast it went."""
        changed: dict[str, Any] = {}
        if self.summary.unusable != self.store.attributes.get("unusable", []):
            changed["unusable"] = self.summary.unusable
        if self.summary.device is not None:
            changed["devices"] = sorted({*self.store.attributes.get("devices", []), self.summary.device})
        if self.summary.frames:
            changed["speed"] = {
                "seconds_per_frame": self.summary.seconds["run"] / self.summary.frames,
                "faces_per_frame": self.summary.faces / self.summary.frames,
                "frames": self.summary.frames,
                "step_seconds": dict(self.summary.step_seconds),
                "model_share": self.summary.model_share,
                "bottleneck": self.summary.bottleneck,
            }
        if changed:
            self.store.update(**changed)

    def _check_workflow(self) -> None:
        stored = self.store.attributes.get("workflow")
        for name in self.store.input_names():
            check_keys(self.workflow, stored or {}, self.store.input(name).attributes.get("stages", {}), name)
        now = self.workflow.resolved()
        if stored:
            now["stages"] = {**stored["stages"], **now["stages"]}
            models = {m["name"]: m for m in [*self.store.attributes.get("models", []), *self.workflow.models()]}
            if now != stored:
                self.store.set_workflow(now, list(models.values()))
        else:
            self.store.set_workflow(now, self.workflow.models())

    def _tasks(self, paths: Sequence[Path]) -> Iterator[ChunkTask]:
        """Chunk tasks of all inputs, in order; the next input is probed while this one's chunks run."""
        self.summary.inputs_total = len(paths)
        with ThreadPoolExecutor(1, thread_name_prefix="probe") as prober:
            ahead = prober.submit(self._probe, paths[0]) if paths else None
            for position, path in enumerate(paths):
                assert ahead is not None
                current = ahead
                following = paths[position + 1] if position + 1 < len(paths) else None
                ahead = prober.submit(self._probe, following) if following is not None else None
                try:
                    plan = self._register(path, current.result())
                except InputError as err:
                    self.summary.unusable.append({"path": str(path), "error": str(err)})
                    self.progress.note(str(err))
                    continue
                if plan is not None:
                    yield from (plan.task(index, self.workflow) for index in plan.missing)

    def _probe(self, path: Path) -> Any:
        """The source of an input; None where the store already holds all of it."""
        name = self.store.find_input(str(path))
        if name is None:
            return open_source(self.workflow.source_kind, path, self.workflow.source_options)
        stored = self.store.input(name).attributes
        if fingerprint(path) != stored["fingerprint"]:
            raise InputError(
                f"{path} is not the file that was stored as {name!r} (its content changed); "
                "choose another --out, or start over with --fresh"
            )
        if self._holds_all(stored):
            return None
        return open_source(self.workflow.source_kind, path, self.workflow.source_options, stored["decoder"])

    def _holds_all(self, stored: dict[str, Any]) -> bool:
        stages = stored.get("stages", {})
        wanted = [node.name for node in self.workflow.chunk_stages]
        return bool(stored.get("complete")) and all(stages.get(s, {}).get("state") == "complete" for s in wanted)

    def _register(self, path: Path, source: Any) -> InputPlan | None:
        """Make the input known to the store, and plan it; None where nothing is left to do."""
        name = self.store.find_input(str(path))
        if source is None:
            assert name is not None
            self._count_complete(name)
            return None
        self._note_once(source.note)
        attributes = self.store.input(name).attributes if name is not None else None
        records = self.store.input(name).records() if name is not None else {}
        plan = plan_input(self.workflow, name or "", source, attributes, records, self.options.retry_failed)
        keys = self.workflow.keys()
        if name is None:
            facts = {**source.facts, "chunk_frames": plan.chunk_frames, "frames": plan.n_frames}
            name = self.store.add_input(path.stem, facts)
        known = self.store.input(name).attributes["stages"]
        of_chunks = [node.name for node in self.workflow.chunk_stages]
        added = {stage: {"key": keys[stage], "state": "partial"} for stage in of_chunks if stage not in known}
        if added:
            self.store.input(name).update(stages={**known, **added})
        plan.name = name
        self.plans[name] = plan
        self._start_input(plan, records)
        return plan

    def _note_once(self, text: str | None) -> None:
        """What holds for a whole archive is said once."""
        if text is not None and text not in self.noted:
            self.noted.add(text)
            self.progress.note(text)

    def _start_input(self, plan: InputPlan, records: dict[int, dict[str, Any]]) -> None:
        waiting = set(plan.missing) | plan.failed
        frames_waiting = sum(stop - start for start, stop in map(plan.boundaries_of, waiting))
        self.progress.input_started(plan.name, plan.n_frames, plan.n_frames - frames_waiting)
        self.summary.chunks_skipped += len(plan.done)
        self.open_chunks[plan.name] = len(plan.missing)
        for index in sorted(plan.failed):
            record = records[index]
            self._note_failure(plan, index, str(record.get("step", "earlier run")), str(record.get("error")))
        for entry in unreadable_chunks(records) if not self.options.accept_failed else ():
            if entry["chunk"] in plan.done:
                start, stop = plan.boundaries_of(entry["chunk"])
                self._note_unreadable(plan.name, entry, span(plan.source.time_seconds[start:stop]))
        if not plan.missing:
            self._finish_input(plan)

    def _count_complete(self, name: str) -> None:
        stored = self.store.input(name).attributes
        self.progress.input_started(name, int(stored["frames"]), int(stored["frames"]))
        if self.options.accept_failed:
            self._accept(name)
        elif not stored.get(ACCEPTED):
            for entry in stored.get("unreadable", []):
                self._note_unreadable(name, entry, "")
        self.progress.input_finished(name, 0)
        self.summary.inputs_complete += 1
        if stale(self.store, name, self.workflow, self.workflow.keys()):
            self.compactions.append(self.compactor.submit(self._derive, name))

    # -- chunks ------------------------------------------------------------------------------------------

    def _execute(self, tasks: Iterator[ChunkTask], worksite: Callable[[], AbstractContextManager[Worksite]]) -> None:
        began = time.perf_counter()
        with worksite() as site:
            self.progress.cluster(site.description, site.dashboard)
            self.summary.gpu_slots, self.summary.device = site.gpu_slots, site.device
            started = time.perf_counter()
            self.summary.seconds["start"] = started - began
            orders = Orders(self._nodes, self._must_stop, self.progress.note)
            for outcome in site.executor.run(tasks, orders):
                self._take(outcome)
                self.summary.seconds["run"] = time.perf_counter() - started

    def _nodes(self, task: ChunkTask, settings: WorkerSettings) -> list[Node]:
        return chunk_nodes(task, self.workflow, self.store.path, settings)

    def _must_stop(self) -> bool:
        self.store.check_lock()
        return self.stopping.is_set()

    def _take(self, outcome: Outcome) -> None:
        plan, task, result = self.plans[outcome.task.input_name], outcome.task, outcome.result
        if isinstance(result, Committed):
            self.summary.chunks += 1
            self.summary.frames += result.n_frames
            self.summary.faces += result.n_faces
            for step, seconds in result.seconds.items():
                self.summary.step_seconds[step] = self.summary.step_seconds.get(step, 0.0) + seconds
            if result.missing and not self.options.accept_failed:
                entry = {"chunk": task.index, "frames": list(result.missing), "error": result.error}
                self._note_unreadable(task.input_name, entry, task.time_range)
            self.progress.chunk_done(task.input_name, result.n_frames, result.n_faces)
        elif result.ends_run:
            raise StoreError(result.error)
        else:
            record = {
                "state": "failed",
                "attempts": outcome.attempts,
                "seconds": {},
                "worker": None,
                "step": result.step,
                "error": f"{result.step}: {result.error}",
                "frames": [task.start, task.stop],
                "time_seconds": [float(task.time_seconds[0]), float(task.time_seconds[-1])],
            }
            fail_chunk(str(self.store.path), task.input_name, task.index, record)
            self._note_failure(plan, task.index, result.step, str(record["error"]))
            self.progress.chunk_done(task.input_name, 0, 0)
        self.open_chunks[plan.name] -= 1
        if self.open_chunks[plan.name] == 0:
            self._finish_input(plan)

    def _note_failure(self, plan: InputPlan, index: int, step: str, error: str) -> None:
        if self.options.accept_failed:
            self.summary.chunks_accepted += 1
            return
        start, stop = plan.boundaries_of(index)
        time_range = span(plan.source.time_seconds[start:stop])
        self.failed_chunks[plan.name] += 1
        self.summary.failures.append(
            {
                "input": plan.name,
                "chunk": index,
                "time_range": time_range,
                "step": step,
                "error": error,
            }
        )
        self.progress.note(f"{plan.name}: chunk {index} ({time_range}) failed: {error}")

    def _note_unreadable(self, name: str, entry: Mapping[str, Any], time_range: str) -> None:
        self.summary.unreadable_frames += len(entry["frames"])
        self.summary.unreadable.append({"input": name, "time_range": time_range, **entry})
        self.progress.note(f"{name}: {len(entry['frames'])} frames not read: {entry['error']}")

    def _accept(self, name: str) -> None:
        """Remember the user's word: later runs do not fail for what is missing here."""
        if not self.store.input(name).attributes.get(ACCEPTED):
            self.store.input(name).update(**{ACCEPTED: True})

    def _finish_input(self, plan: InputPlan) -> None:
        failed = self.failed_chunks[plan.name]
        self.progress.input_finished(plan.name, failed)
        if failed == 0:
            self.summary.inputs_complete += 1
            self.compactions.append(self.compactor.submit(self._close, plan))

    def _close(self, plan: InputPlan) -> None:
        if not plan.complete:
            self._compact(plan)
        self._derive(plan.name)

    def _derive(self, name: str) -> None:
        try:
            for stage, seconds in derive(self.store, name, self.workflow).items():
                self.summary.derived[stage] = self.summary.derived.get(stage, 0.0) + seconds
        except DeriveError as error:
            self.summary.underived.append({"input": name, "step": error.stage, "error": str(error)})

    def _compact(self, plan: InputPlan) -> None:
        if self.options.accept_failed:
            self._accept(plan.name)
        compact(
            self.store,
            plan.name,
            [array for node in self.workflow.chunk_stages for array in node.stage.outputs],
            plan.boundaries,
            plan.n_frames,
            frame=np.asarray(plan.source.frame),
            time_seconds=np.asarray(plan.source.time_seconds),
            accept_failed=self.options.accept_failed,
        )

    # -- stopping ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def draining_on_signals(self) -> Iterator[None]:
        """SIGTERM and SIGUSR1 (what batch systems send before the end) finish what is under way, then stop."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = [getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
        before = {number: signal.signal(number, lambda *_: self.stopping.set()) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
