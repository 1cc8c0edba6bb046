"""`pipeline.run` and `pipeline.engine.plan`: the engine that the command line calls too."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import ReelgraphError, UsageError
from pipeline.text import unknown

if TYPE_CHECKING:
    from pipeline.cluster.options import ClusterOptions
    from pipeline.engine.executor import Executor
    from pipeline.engine.run import Progress, RunOptions, Summary
    from pipeline.engine.workflow import Workflow
    from pipeline.store.read import Run
    from pipeline.views.plan import PlanView


EXECUTORS = ("dask", "inline")


@dataclass(frozen=True)
class _Site:
    executor: Executor
    description: str
    dashboard: str
    gpu_slots: int
    device: str


def run(
    workflow: str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    executor: Literal["dask", "inline"] = "dask",
    set: Mapping[str, Any] | Sequence[str] = (),
    fresh: bool = False,
    retry_failed: bool = False,
    accept_failed: bool = False,
    progress: Progress | None = None,
    **cluster: Any,
) -> Run:
    """Run a workflow over inputs into the store `out`, or carry on where it stopped; returns the opened store.

    `inputs`: files, folders, globs, list files. `set`: options to change, `{"detect.min_face": 40}`.
    `cluster`: the fields of `pipeline.cluster.options.ClusterOptions`: workers, workers_per_gpu, threads, gpus, device,
    precision, scheduler, host, worker_memory_bytes, gpu_memory_bytes, chunk_timeout_seconds.
    The returned `Run` has the run's `summary`. Raises ReelgraphError for a user's mistake; failed chunks do not raise.
    """
    from pipeline.cluster.options import ClusterOptions
    from pipeline.engine.run import RunOptions
    from pipeline.store.read import open as open_store
    from pipeline.views.progress import Silent

    texts = _as_overrides(set) if isinstance(set, Mapping) else list(set)
    summary = execute(
        workflow,
        [str(inputs)] if isinstance(inputs, str | Path) else [str(one) for one in inputs],
        out,
        overrides=texts,
        executor=executor,
        cluster=ClusterOptions(**cluster),
        options=RunOptions(fresh, retry_failed, accept_failed),
        progress=progress or Silent(),
    )
    opened = open_store(out)
    opened.summary = summary
    return opened


def _as_overrides(values: Mapping[str, Any]) -> list[str]:
    """What `--set` takes, of values of Python: as JSON, for a text such as "a # b" is something else in YAML."""
    return [f"{key}={json.dumps(value, default=str, ensure_ascii=False)}" for key, value in values.items()]


def execute(
    workflow: str | Path | Workflow,
    inputs: Sequence[str],
    out: str | Path,
    *,
    overrides: Sequence[str],
    executor: str,
    cluster: ClusterOptions,
    options: RunOptions,
    progress: Progress,
) -> Summary:
    """`run`, with everything said explicitly; what the command line calls. `overrides` are for workflow files."""
    from pipeline.engine import run as runner
    from pipeline.engine.workflow import load_workflow
    from pipeline.media.inputs import expand

    _refuse_in_spawned_child()
    if executor not in EXECUTORS:
        raise UsageError(unknown("executor", executor, EXECUTORS))
    loaded = load_workflow(workflow, overrides) if isinstance(workflow, str | Path) else workflow
    paths = expand(inputs)
    if executor != "inline" or (cluster.device, cluster.precision) != ("auto", "fp32"):
        from pipeline.cluster.options import check

        check(cluster)

    def worksite() -> contextlib.AbstractContextManager[_Site]:
        return _in_process(cluster) if executor == "inline" else _on_dask(cluster)

    return runner.run(loaded, paths, Path(out), worksite, progress, options)


def plan(workflow: str | Path, inputs: Sequence[str], out: str | Path, *, overrides: Sequence[str] = ()) -> PlanView:
    """What `run` would do, without doing it: chunks, frames, memory, hours, disk, and what is done already."""
    from pipeline.engine.workflow import load_workflow
    from pipeline.media.inputs import expand
    from pipeline.views.plan import survey

    return survey(load_workflow(workflow, overrides), expand(inputs), Path(out).expanduser())


@contextlib.contextmanager
def _in_process(options: ClusterOptions) -> Iterator[_Site]:
    from pipeline.cluster.starting import in_process_settings
    from pipeline.engine.executor import InProcessExecutor
    from pipeline.engine.steps import unload_stages

    settings = in_process_settings(options)
    try:
        yield _Site(InProcessExecutor(settings), "in this process", "", 1, settings.device.name)
    finally:
        unload_stages()


@contextlib.contextmanager
def _on_dask(options: ClusterOptions) -> Iterator[_Site]:
    from pipeline.cluster.executor import DaskExecutor
    from pipeline.cluster.starting import connect

    with connect(options) as cluster:
        name = cluster.settings.device.name
        yield _Site(DaskExecutor(cluster), cluster.description, cluster.dashboard, len(cluster.slots()), name)


def _refuse_in_spawned_child() -> None:
    """A worker process imports the script that started it; a script without a guard would start a run in each."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ReelgraphError(
            "a run was started while a worker process imports your script; "
            "put its call under: if __name__ == '__main__':"
        )
