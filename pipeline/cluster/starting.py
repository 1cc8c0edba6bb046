"""Clusters that are started here: one worker per GPU, or CPU workers. The scheduler is always Dask's."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing import resource_tracker
from typing import Any

import dask
import psutil

from pipeline.cluster.connected import DASK_CONFIG, SILENT, Cluster
from pipeline.cluster.existing import existing
from pipeline.cluster.options import ClusterOptions, chosen_gpus
from pipeline.cluster.worker import preloads
from pipeline.engine.steps import WorkerSettings
from pipeline.errors import ClusterError
from pipeline.machine.cores import available_cores
from pipeline.machine.device import Device, gpu_device
from pipeline.machine.gpus import card_bytes, share_bytes, visible_gpus
from pipeline.machine.limits import memory_bytes
from pipeline.text import plural

WORKER_BYTES = 1500 << 20
"""Memory to plan for one CPU worker: half as much again as it was seen to take at 1080p (models, activations, one
chunk of frames)."""

_Started = tuple[Any, WorkerSettings, str]
"""A cluster of Dask, the settings of its workers, and what it is in words."""

_ROLES = ("scheduler", "worker", "client")
_CERTIFICATES = ("ca-file", *(f"{role}.{part}" for role in _ROLES for part in ("cert", "key")))
"""Names below `distributed.comm.tls` in Dask's configuration, of what a local cluster needs of it."""


@contextlib.contextmanager
def connect(options: ClusterOptions, note: Callable[[str], None] = lambda _: None) -> Iterator[Cluster]:
    """Start or join a cluster; what was started here is closed at the end. `note` gets lines that the user should read.

    Raises ClusterError if the scheduler cannot be reached, its workers do not fit, or none can be started.
    """
    import distributed  # noqa: F401  (its defaults must be in place before ours go over them)

    for logger in ("distributed", "distributed.client"):  # Dask gives the client's a level of its own
        logging.getLogger(logger).setLevel(SILENT)
    with dask.config.set(DASK_CONFIG), _handler_levels_kept():
        if options.scheduler:
            with existing(options, note) as cluster:
                yield cluster.at(options.precision)
        else:
            with _local(options, note) as cluster:
                yield cluster.at(options.precision)


@contextlib.contextmanager
def _handler_levels_kept() -> Iterator[None]:
    """Set the handlers of Dask's logger back at the end, for they may serve other loggers as well.

    A cluster silences them until it is closed. One that takes too long to close is left (_close_quickly).
    """
    levels = [(handler, handler.level) for handler in logging.getLogger("distributed").handlers]
    try:
        yield
    finally:
        for handler, level in levels:
            handler.setLevel(level)


@contextlib.contextmanager
def _local(options: ClusterOptions, note: Callable[[str], None]) -> Iterator[Cluster]:
    from distributed import Client

    from pipeline.cluster.nanny import KilledError

    gpus = chosen_gpus(options)
    if not gpus and (options.workers or 0) > (cores := available_cores()):
        note(f"{options.workers} workers share {plural(cores, 'core')}: more workers than cores make a run slower")
    with _loop_beyond_interrupts() as loop:
        with warnings.catch_warnings():
            # Dask takes a free port where the dashboard's is taken, and the run prints which. To look first and ask
            # for it later would be a race against other runs that start.
            warnings.filterwarnings("ignore", r"Port \d+ is already in use")
            try:
                started = _uninterrupted(
                    lambda: _local_cuda(options, gpus, loop) if gpus else _local_cpu(options, loop)
                )
            except RuntimeError as err:  # of Dask, whose workers' own words stand on stderr, far above its traceback
                cause: BaseException = err
                while cause.__cause__ is not None:
                    cause = cause.__cause__
                if isinstance(cause, KilledError):
                    raise ClusterError(f"{cause}; if memory is short, give fewer --workers") from err
                raise ClusterError(
                    f"no worker could be started ({type(cause).__name__}: {cause}); what they say of it stands above. "
                    "They import the script that starts them, so a script has its call under: "
                    "if __name__ == '__main__':"
                ) from err
        cluster, settings, description = started
        try:
            if options.insecure:
                description += f", without TLS: a process that reaches {cluster.scheduler_address} can run code as you"
            client = Client(cluster, set_as_default=False)
            try:
                yield Cluster(client, settings, description, cluster.dashboard_link)
            finally:
                client.close(timeout=2)
        finally:
            _close_quickly(cluster)


def _security(options: ClusterOptions) -> Any:
    """Return the TLS certificates of a local cluster: those of Dask's configuration if it has all, else temporary ones.

    Without them every user of the machine could connect to its scheduler and run code.
    """
    from distributed.security import Security

    if options.insecure:
        return Security(require_encryption=False)
    if all(dask.config.get(f"distributed.comm.tls.{name}", None) for name in _CERTIFICATES):
        return Security(require_encryption=True)
    return Security.temporary()


def _close_quickly(cluster: Any) -> None:
    """Close a local cluster; a worker that has not ended within seconds (a hung codec, a long batch) is killed."""
    workers = [nanny.pid for nanny in cluster.workers.values() if getattr(nanny, "pid", None)]
    try:
        cluster.close(timeout=3)
    except (TimeoutError, OSError):
        for pid in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()


def _common(options: ClusterOptions, loop: Any, workers: int, threads: int) -> dict[str, Any]:
    """Return the arguments that Dask's clusters share, on CPUs and on GPUs."""
    return {
        "loop": loop, "threads_per_worker": threads, "host": options.host, "security": _security(options),
        "dashboard_address": f"{options.host}:{options.dashboard_port}", "silence_logs": SILENT,
        "memory_limit": options.worker_memory_bytes or memory_bytes() // workers,
    }  # fmt: skip


def _local_cpu(options: ClusterOptions, loop: Any) -> _Started:
    from distributed import LocalCluster

    from pipeline.cluster.nanny import Nanny

    cores = available_cores()
    workers = options.workers or max(1, min(cores, memory_bytes() // (2 * WORKER_BYTES)))
    threads = options.threads or 1
    model_threads = max(1, cores // workers)
    cluster = LocalCluster(
        n_workers=workers, worker_class=Nanny, resources={"GPU": 1}, preload=preloads(),
        **_common(options, loop, workers, threads),
    )  # fmt: skip
    settings = WorkerSettings(
        # What the user grants a worker is for frames and Python as well.
        device=Device("cpu", threads=model_threads, memory_bytes=(options.worker_memory_bytes or 0) // 2 or None),
        decode_threads=max(1, cores // workers),
        chunk_timeout_seconds=options.chunk_timeout_seconds,
        flush=options.flush,
    )
    return cluster, settings, f"{workers} CPU worker{'s' * (workers > 1)} × {threads} slot{'s' * (threads > 1)}"


def _uninterrupted(start: Callable[[], _Started]) -> _Started:
    """Return what `start` returns. After Ctrl-C the cluster is closed as soon as it is there; a second one leaves it.

    Dask leaves a cluster that is interrupted while it starts to its threads. Python ends those anywhere, for example in
    the middle of a semaphore's removal.
    """
    outcome: Future[_Started] = Future()

    def run() -> None:
        try:
            outcome.set_result(start())
        except Exception as err:
            outcome.set_exception(err)

    try:
        with _sigint_masked():
            threading.Thread(target=run, name="cluster start", daemon=True).start()
        return outcome.result()
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):  # a start that fails is closed by Dask
            _close_quickly(outcome.result()[0])
        raise


@contextlib.contextmanager
def _sigint_masked() -> Iterator[None]:
    """Threads that are started within it never see SIGINT, nor do the processes started from them.

    Ctrl-C on a terminal goes to all of them, and one that is still starting would end in a traceback.
    """
    masked = getattr(signal, "pthread_sigmask", None)
    before = masked(signal.SIG_BLOCK, {signal.SIGINT}) if masked else set()
    try:
        yield
    finally:
        if masked:
            masked(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _loop_beyond_interrupts() -> Iterator[Any]:
    """Give an event loop that runs in a thread which never sees SIGINT."""
    from distributed.utils import LoopRunner

    resource_tracker.ensure_running()  # which unblocks SIGINT in the thread that starts it
    runner = LoopRunner()
    with _sigint_masked():
        runner.start()
    try:
        yield runner.loop
    finally:
        runner.stop()


def _local_cuda(options: ClusterOptions, gpus: list[str], loop: Any) -> _Started:
    from pipeline.cluster.cuda import SharedGPUCluster

    per_gpu = options.workers_per_gpu
    threads = options.threads or 3
    workers = per_gpu * len(gpus)
    cluster = SharedGPUCluster(
        gpus=gpus, workers_per_gpu=per_gpu, **_common(options, loop, workers, threads)
    )  # fmt: skip
    share = share_bytes(min(map(card_bytes, gpus)), per_gpu, options.gpu_memory_bytes)
    settings = WorkerSettings(
        device=gpu_device(options.device, share),
        decode_threads=max(1, available_cores() // max(1, workers * (threads - 1))),
        chunk_timeout_seconds=options.chunk_timeout_seconds,
        flush=options.flush,
    )
    return (
        cluster,
        settings,
        f"{workers} worker{'s' * (workers > 1)} on {len(gpus)} GPU{'s' * (len(gpus) > 1)} × {threads} slots",
    )


def in_process_settings(options: ClusterOptions | None = None) -> WorkerSettings:
    """Settings of a run without a cluster: all cores to the one process, and the first GPU where --device wants one.

    Raises ClusterError if there is none.
    """
    cores = available_cores()
    device = Device("cpu", threads=cores)
    if options is not None and options.device in ("cuda", "tensorrt"):
        gpus = chosen_gpus(options)[:1]
        device = gpu_device(options.device, share_bytes(card_bytes(gpus[0]), 1, options.gpu_memory_bytes))
        device = replace(device, index=visible_gpus().index(gpus[0]))
    flush = options.flush if options is not None else True
    settings = WorkerSettings(device=device, decode_threads=cores, flush=flush)
    return settings.at(options.precision) if options is not None else settings
