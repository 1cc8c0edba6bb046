"""Start what a run works on, and run: the one way in for the command line, for Python and for domains."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cluster.options import ClusterOptions, check, check_in_process
from pipeline.engine import run as runner
from pipeline.engine.events import Listener, Note
from pipeline.engine.executor import Executor, InProcessExecutor
from pipeline.engine.follow import Follower
from pipeline.engine.plan import find_inputs
from pipeline.engine.run import RunOptions
from pipeline.engine.source import InputRef
from pipeline.engine.steps import unload_stages
from pipeline.engine.summary import Summary
from pipeline.engine.workflow import Workflow, load_workflow
from pipeline.errors import ReelgraphError, UsageError
from pipeline.text import unknown

EXECUTORS = ("dask", "inline")


@dataclass(frozen=True)
class _Site:
    executor: Executor
    description: str
    dashboard: str
    gpu_slots: int
    device: str


def execute(
    workflow: str | Path | Workflow,
    inputs: Sequence[str],
    out: str | Path,
    *,
    overrides: Sequence[str],
    executor: str,
    cluster: ClusterOptions,
    options: RunOptions,
    listener: Listener,
    debug: bool = False,
    follow: str | None = None,
    settle_seconds: float = 10.0,
) -> Summary:
    """Do what `run` does, with everything said explicitly. `overrides` are for workflow files.

    `follow`: a folder whose inputs are taken as they are finished, after `settle_seconds` without a change at most.
    """
    _refuse_in_spawned_child()
    if executor not in EXECUTORS:
        raise UsageError(unknown("executor", executor, EXECUTORS))
    loaded = load_workflow(workflow, overrides) if isinstance(workflow, str | Path) else workflow
    if debug and executor != "inline":
        raise UsageError("--debug raises what a stage raises, which needs this process: add --executor inline")
    if options.attempts is not None and options.attempts < 1:
        raise UsageError(f"--attempts {options.attempts}: a chunk is tried at least once; give 1 or more")
    if options.together < 1:
        raise UsageError(f"--together {options.together}: at least one input is worked on; give 1 or more")

    def find(words: Sequence[str]) -> list[InputRef]:
        return find_inputs(loaded, words)

    follower = None if follow is None else Follower(follow, lambda: find([follow]), settle_seconds)
    refs = find(inputs) if follower is None else []
    if executor == "inline":
        check_in_process(cluster)
    if executor != "inline" or (cluster.device, cluster.precision) != ("auto", "fp32"):
        check(cluster)

    def worksite() -> contextlib.AbstractContextManager[_Site]:
        if executor == "inline":
            return _in_process(cluster, debug)
        return _on_dask(cluster, lambda text: listener.on(Note(text)))

    return runner.run(loaded, refs, Path(out), worksite, listener, replace(options, debug=debug), follower)


@contextlib.contextmanager
def _in_process(options: ClusterOptions, debug: bool) -> Iterator[_Site]:
    from pipeline.cluster.starting import in_process_settings

    settings = replace(in_process_settings(options), debug=debug)
    try:
        yield _Site(InProcessExecutor(settings), "in this process", "", 1, settings.device.name)
    finally:
        unload_stages()


@contextlib.contextmanager
def _on_dask(options: ClusterOptions, note: Callable[[str], None]) -> Iterator[_Site]:
    from pipeline.cluster.executor import DaskExecutor
    from pipeline.cluster.starting import connect

    with connect(options, note) as cluster:
        name = cluster.settings.device.name
        executor = DaskExecutor(cluster, options.wait_for_workers_seconds)
        yield _Site(executor, cluster.description, cluster.dashboard, len(cluster.slots()), name)


def _refuse_in_spawned_child() -> None:
    """A worker process imports the script that started it; a script without a guard would start a run in each."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ReelgraphError(
            "a run was started while a worker process imports your script; "
            "put its call under: if __name__ == '__main__':"
        )
