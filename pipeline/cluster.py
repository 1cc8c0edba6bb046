"""Where tasks run: one worker per GPU, CPU workers, or a scheduler that is already there. Never one of our own."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import signal
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import psutil

import pipeline
from pipeline.cores import available_cores as available_cores
from pipeline.errors import ClusterError
from pipeline.gpus import card_bytes, share_bytes, visible_gpus
from pipeline.models.base import PRECISIONS, Device
from pipeline.names import unknown
from pipeline.steps import WorkerSettings
from pipeline.worker import preloads

DEVICES = ("auto", "cpu", "cuda", "tensorrt")
"""What --device takes."""

SILENT = logging.CRITICAL + 1
"""Dask's log level here: what it logs as critical while a cluster closes (messages to a client that has gone, with
their tracebacks) is not news, and what is news reaches us as exceptions."""

WORKER_BYTES = 1500 << 20
"""Memory to plan for one CPU worker: half as much again as it was seen to take at 1080p (models, activations, one
chunk of frames)."""

WORN_SHARE = 0.75
"""Share of its memory limit at which a worker is restarted between chunks: below Dask's pause, after which it would
take no more work, and far above what models and two chunks need."""

CONNECT_SECONDS = 20
"""How long a scheduler may take to answer."""

RESTART_SECONDS = 60
"""How long a worker may take to come back."""

WORKERS_SECONDS = 60
"""How long to wait for the first worker of an existing scheduler."""

DASK_CONFIG = {
    # A worker that dies fails the tasks it was running at once; the runner tries suspects again one at a time.
    "distributed.scheduler.allowed-failures": 0,
    # Frames stay where they were decoded.
    "distributed.scheduler.work-stealing": False,
    # Frames on disk would be slower than decoding them again; the chunk plan bounds memory instead.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": 0.9,
    "distributed.worker.memory.terminate": 0.97,
    "distributed.comm.timeouts.connect": "30s",
    # Numbers for glibc, read when a worker starts: Dask's own make it give every large block back at once, and pages
    # that are asked for again cost more than what is computed in them (a tenth of a run, measured).
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 30,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 << 20,
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    # Dask watches itself closely: on two cores that was a twelfth of all time. Ten profile samples a second are enough
    # for the dashboard, and nobody reads how late an event loop wakes up.
    "distributed.worker.profile.interval": "100ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.admin.tick.interval": "1s",
    # A step in C may hold the interpreter's lock for long; that is the watchdog's business.
    "distributed.scheduler.worker-ttl": "20 minutes",
    "distributed.admin.tick.limit": "1h",
}


@dataclass(frozen=True)
class ClusterOptions:
    """What the user may say about the cluster. None of it changes results."""

    workers: int | None = None
    """CPU workers; None: one per core, as far as memory goes."""
    workers_per_gpu: int = 1
    threads: int | None = None
    """Slots per worker: one GPU slot, the others decode and write. None: 1 on a CPU, where decoding beside the models
    would take their own core and twice the memory; 3 on a GPU."""
    gpus: tuple[str, ...] | None = None
    """Ordinals or UUIDs of the GPUs to use; None: all that are visible."""
    device: str = "auto"
    """One of DEVICES: what ONNX Runtime runs models on. auto: CUDA where there is a GPU, else the CPU; in this process
    (executor inline) always the CPU. The models are the same; values differ in the last digits, with TensorRT more."""
    worker_memory_bytes: int | None = None
    """Memory of one worker, beyond which it is restarted; None: an equal share of the machine's."""
    precision: str = "fp32"
    """"fp16": networks compute in half precision; results differ slightly."""
    gpu_memory_bytes: int | None = None
    """GPU memory of one worker's models; None: an equal share of the card, less head-room."""
    scheduler: str | None = None
    """Address (tcp://host:port, tls://host:port) or scheduler file of a running cluster."""
    host: str = "127.0.0.1"
    """Where scheduler and dashboard listen: whoever reaches them runs code as you."""
    dashboard_port: int = 8787
    chunk_timeout_seconds: float = 600.0


@dataclass(frozen=True)
class Cluster:
    """A connected cluster."""

    client: Any
    settings: WorkerSettings
    description: str
    dashboard: str

    def at(self, precision: str) -> Cluster:
        """The same cluster, whose models compute in this precision."""
        return replace(self, settings=self.settings.at(precision))

    def slots(self) -> dict[str, int]:
        """Threads of every worker, by address."""
        return dict(self.client.nthreads())

    def chunks_at_once(self) -> int:
        """Chunks that may be under way: one per slot, and on a GPU one more per worker, decoded ahead.

        This bounds the decoded frames in memory. On a CPU decoding takes the models' own cores, so that
        a chunk more in memory would gain nothing.
        """
        spare = 0 if self.settings.device.kind == "cpu" else 1
        return max(1, sum(threads + spare for threads in self.slots().values()))

    def worn_workers(self) -> dict[str, WornWorker]:
        """Workers that have come to hold too much memory, by address."""
        found = {}
        for address, facts in self.client.scheduler_info(n_workers=-1)["workers"].items():
            used, limit = facts.get("metrics", {}).get("memory") or 0, facts.get("memory_limit") or 0
            paused = facts.get("status") == "paused"
            if limit and (used > WORN_SHARE * limit or paused):
                found[address] = WornWorker(used, limit, paused)
        return found

    def used_by_others(self, addresses: Sequence[str], ours: Callable[[Any], bool]) -> set[str]:
        """Of these workers, those that compute or keep something under a key that is not ours: a restart would take it
        away from another client."""
        if not addresses:
            return set()
        keys = [self.client.processing(list(addresses)), self.client.has_what(list(addresses))]
        return {address for found in keys for address, held in found.items() if not all(map(ours, held))}

    def restart(self, addresses: Sequence[str]) -> None:
        """Start workers afresh. Raises ValueError where nobody watches over them who could."""
        self.client.restart_workers(list(addresses), timeout=RESTART_SECONDS, raise_for_error=False)


@dataclass(frozen=True)
class WornWorker:
    """A worker that holds too much memory."""

    used_bytes: int
    limit_bytes: int
    paused: bool
    """Dask gives it no more work."""


def check(options: ClusterOptions) -> None:
    """Raise ClusterError for what can be told at once to be a mistake, before a store is made or a process started."""
    if options.device not in DEVICES:
        raise ClusterError(unknown("device", options.device, DEVICES))
    if options.precision not in PRECISIONS:
        raise ClusterError(unknown("precision", options.precision, PRECISIONS))
    if options.scheduler is not None:
        _refuse_for_a_running_cluster(options)
        _scheduler_address(options.scheduler)
        return
    _chosen_gpus(options)
    if not 0 <= options.dashboard_port < 1 << 16:
        raise ClusterError(f"--dashboard-port {options.dashboard_port}: ports are 0 (any free one) to 65535")
    try:
        if ":" in options.host:  # Dask's dashboard takes none
            raise OSError(errno.EAFNOSUPPORT, "IPv6 is not supported")
        with socket.socket() as probe:
            probe.bind((options.host, 0))
    except OSError as err:
        raise ClusterError(
            f"cannot listen on --host {options.host}: {err.strerror}; give an address of this machine, for example "
            "127.0.0.1, or 0.0.0.0 for all of them"
        ) from err


def _refuse_for_a_running_cluster(options: ClusterOptions) -> None:
    """What would change nothing there."""
    ours = ClusterOptions()
    for name, flag in {
        "workers": "--workers",
        "workers_per_gpu": "--workers-per-gpu",
        "threads": "--threads",
        "gpus": "--gpus",
        "worker_memory_bytes": "--worker-memory",
    }.items():
        if getattr(options, name) != getattr(ours, name):
            raise ClusterError(
                f"{flag} is for workers started here; those of --scheduler are there already: leave it out"
            )


def _chosen_gpus(options: ClusterOptions) -> list[str]:
    """The GPUs that were asked for, all that are visible by default. Raises ClusterError where one is not there."""
    if options.device == "cpu":
        if options.gpus:
            raise ClusterError(f"--gpus {','.join(options.gpus)} and --device cpu exclude each other; leave one out")
        return []
    visible = visible_gpus()
    if options.gpus is None:
        if options.device != "auto" and not visible:
            raise ClusterError(
                f"--device {options.device}: this machine shows no GPU; leave it out to run on the CPU, "
                "or see: reelgraph doctor"
            )
        return visible
    for gpu in options.gpus:
        if gpu not in visible and not (visible and gpu.startswith(("GPU-", "MIG-"))):
            there = f"this machine shows {', '.join(visible)}" if visible else "this machine shows no GPU"
            remedy = "name some of those" if visible else "leave it out to run on the CPU, or see: reelgraph doctor"
            raise ClusterError(f"--gpus {','.join(options.gpus)}: there is no GPU {gpu!r}; {there}: {remedy}")
    return list(options.gpus)


def _scheduler_address(where: str) -> str:
    """The address in a scheduler file, or the address itself. Raises ClusterError for what can be neither."""
    if "://" in where:
        if where.partition("://")[0] not in ("tcp", "tls", "ucx", "ws", "wss"):
            raise ClusterError(f"--scheduler {where}: write the address as tcp://host:port or tls://host:port")
        return where
    start = f"start one with: dask scheduler --scheduler-file {where}"
    try:
        address = json.loads(Path(where).read_text())["address"]
    except FileNotFoundError as err:
        raise ClusterError(f"scheduler file {where} does not exist; {start}") from err
    except OSError as err:
        raise ClusterError(f"scheduler file {where} cannot be read: {err.strerror}; check its permissions") from err
    except (ValueError, KeyError, TypeError) as err:
        raise ClusterError(f"{where} is not a scheduler file: it names no address; {start}") from err
    return str(address)


@contextlib.contextmanager
def connect(options: ClusterOptions) -> Iterator[Cluster]:
    """Start or join a cluster; what was started here is closed at the end.

    Raises ClusterError where the scheduler cannot be reached, its workers do not fit, or none can be started.
    """
    import distributed  # noqa: F401  (its defaults must be in place before ours go over them)

    for logger in ("distributed", "distributed.client"):  # Dask gives the client's a level of its own
        logging.getLogger(logger).setLevel(SILENT)
    with dask.config.set(DASK_CONFIG):
        if options.scheduler:
            with _existing(options) as cluster:
                yield cluster.at(options.precision)
        else:
            with _local(options) as cluster:
                yield cluster.at(options.precision)


@contextlib.contextmanager
def _local(options: ClusterOptions) -> Iterator[Cluster]:
    from distributed import Client

    gpus = _chosen_gpus(options)
    with _loop_beyond_interrupts() as loop:
        with warnings.catch_warnings():
            # Dask takes a free port where the dashboard's is taken, and the run prints which. To look first and ask
            # for it later would be a race against other runs that start.
            warnings.filterwarnings("ignore", r"Port \d+ is already in use")
            try:
                started = _local_cuda(options, gpus, loop) if gpus else _local_cpu(options, loop)
            except RuntimeError as err:  # of Dask, whose workers' own words stand on stderr, far above its traceback
                raise ClusterError(
                    f"no worker could be started ({err}); what they say of it stands above. They import the script "
                    "that starts them, so a script has its call under: if __name__ == '__main__':"
                ) from err
        cluster, settings, description = started
        try:
            client = Client(cluster, set_as_default=False)
            try:
                yield Cluster(client, settings, description, cluster.dashboard_link)
            finally:
                client.close(timeout=2)
        finally:
            _close_quickly(cluster)


def _close_quickly(cluster: Any) -> None:
    """Close a local cluster; a worker that has not ended within seconds (a hung codec, a long batch) is killed."""
    workers = [nanny.pid for nanny in cluster.workers.values() if getattr(nanny, "pid", None)]
    try:
        cluster.close(timeout=3)
    except (TimeoutError, OSError):
        for pid in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()


def _local_cpu(options: ClusterOptions, loop: Any) -> tuple[Any, WorkerSettings, str]:
    from distributed import LocalCluster

    cores = available_cores()
    workers = options.workers or max(1, min(cores, int(psutil.virtual_memory().total // (2 * WORKER_BYTES))))
    threads = options.threads or 1
    model_threads = max(1, cores // workers)
    cluster = LocalCluster(
        loop=loop,
        n_workers=workers,
        threads_per_worker=threads,
        resources={"GPU": 1},
        preload=preloads(),
        host=options.host,
        dashboard_address=f"{options.host}:{options.dashboard_port}",
        memory_limit=options.worker_memory_bytes or psutil.virtual_memory().total // workers,
        silence_logs=SILENT,
    )
    settings = WorkerSettings(
        # What the user grants a worker is for frames and Python as well.
        device=Device("cpu", threads=model_threads, memory_bytes=(options.worker_memory_bytes or 0) // 2 or None),
        decode_threads=max(1, cores // workers),
        chunk_timeout_seconds=options.chunk_timeout_seconds,
    )
    return cluster, settings, f"{workers} CPU worker{'s' * (workers > 1)} × {threads} slot{'s' * (threads > 1)}"


@contextlib.contextmanager
def _loop_beyond_interrupts() -> Iterator[Any]:
    """A running event loop in a thread that never sees SIGINT, nor do the processes started from it: Ctrl-C on a
    terminal goes to all of them, and one that is still starting would end in a traceback."""
    from distributed.utils import LoopRunner

    resource_tracker.ensure_running()  # which unblocks SIGINT in the thread that starts it
    runner = LoopRunner()
    masked = getattr(signal, "pthread_sigmask", None)
    before = masked(signal.SIG_BLOCK, {signal.SIGINT}) if masked else set()
    try:
        runner.start()
    finally:
        if masked:
            masked(signal.SIG_SETMASK, before)
    try:
        yield runner.loop
    finally:
        runner.stop()


def _local_cuda(options: ClusterOptions, gpus: list[str], loop: Any) -> tuple[Any, WorkerSettings, str]:
    from pipeline.cuda_cluster import SharedGPUCluster

    per_gpu = options.workers_per_gpu
    threads = options.threads or 3
    workers = per_gpu * len(gpus)
    cluster = SharedGPUCluster(
        loop=loop,
        gpus=gpus,
        workers_per_gpu=per_gpu,
        threads_per_worker=threads,
        host=options.host,
        dashboard_address=f"{options.host}:{options.dashboard_port}",
        silence_logs=SILENT,
        **({"memory_limit": options.worker_memory_bytes} if options.worker_memory_bytes else {}),
    )
    share = share_bytes(min(map(card_bytes, gpus)), per_gpu, options.gpu_memory_bytes)
    settings = WorkerSettings(
        device=gpu_device(options.device, share),
        decode_threads=max(1, available_cores() // max(1, workers * (threads - 1))),
        chunk_timeout_seconds=options.chunk_timeout_seconds,
    )
    return (
        cluster,
        settings,
        f"{workers} worker{'s' * (workers > 1)} on {len(gpus)} GPU{'s' * (len(gpus) > 1)} × {threads} slots",
    )


def gpu_device(kind: str, share: int) -> Device:
    """A GPU as a worker sees it, which may take `share` bytes of it; "auto" is CUDA."""
    return Device("cuda" if kind == "auto" else kind, memory_bytes=share, batch_memory_bytes=min(4 << 30, share // 4))


@contextlib.contextmanager
def _existing(options: ClusterOptions) -> Iterator[Cluster]:
    from distributed import Client

    where = options.scheduler or ""
    is_file = "://" not in where
    address = _scheduler_address(where)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as err:
        named = f"{address} (from {where}, which may be an old one)" if is_file else address
        raise ClusterError(
            f"no scheduler answers at {named} within {CONNECT_SECONDS} s; start one with: dask scheduler"
            + (f" --scheduler-file {where}" if is_file else "")
        ) from err
    try:
        settings = _check_workers(client, where, is_file, options)
        n = len(client.nthreads())
        yield Cluster(client, settings, f"{n} workers of {client.scheduler.address}", client.dashboard_link)
    finally:
        client.close(timeout=5)


def _check_workers(client: Any, where: str, is_file: bool, options: ClusterOptions) -> WorkerSettings:
    """Refuse workers that Dask would wait for forever: no GPU slot, or another reelgraph."""
    join = f"--scheduler-file {where}" if is_file else where
    command = f"dask worker {join} --resources GPU=1 --nthreads 1 (on GPUs: dask cuda worker, --nthreads 3)"
    try:
        client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    except TimeoutError as err:
        raise ClusterError(f"the scheduler at {where} has no workers; start some with: {command}") from err
    workers = client.scheduler_info(n_workers=-1)["workers"]
    for address, facts in workers.items():
        if facts.get("resources", {}).get("GPU", 0) < 1:
            raise ClusterError(f"worker {address} offers no GPU slot; start it with: {command}")
    described = client.run(_describe_worker, on_error="return")
    for address, facts in described.items():
        if isinstance(facts, Exception) or facts["version"] != pipeline.__version__:
            found = "no reelgraph" if isinstance(facts, Exception) else f"reelgraph {facts['version']}"
            raise ClusterError(
                f"worker {address} has {found}, this is {pipeline.__version__}; install the same version there, "
                f"then: {command}"
            )
    slots = min(facts["nthreads"] for facts in workers.values())
    return _settings_there(list(described.values()), slots, options)


def _settings_there(described: list[dict[str, Any]], slots: int, options: ClusterOptions) -> WorkerSettings:
    """Settings that hold on all workers of a running cluster, which have this many slots at least."""
    workers_of = Counter(one["host"] for one in described)
    cores = min(max(1, one["cores"] // workers_of[one["host"]]) for one in described)
    kind = _kind_on(described, options.device)
    device = Device("cpu", threads=cores)
    if kind != "cpu":
        workers_on = Counter((one["host"], one["gpu"]) for one in described)
        wanted = options.gpu_memory_bytes
        device = gpu_device(
            kind, min(share_bytes(one["gpu_bytes"], workers_on[one["host"], one["gpu"]], wanted) for one in described)
        )
    return WorkerSettings(
        device=device,
        decode_threads=max(1, cores // max(1, slots - 1)),  # one slot runs models
        chunk_timeout_seconds=options.chunk_timeout_seconds,
    )


def _kind_on(described: list[dict[str, Any]], wanted: str) -> str:
    """The device kind of workers that are there already. Raises ClusterError where one lacks the GPU that is wanted."""
    without = [one["address"] for one in described if one["gpu"] is None]
    if wanted in ("cuda", "tensorrt") and without:
        raise ClusterError(
            f"--device {wanted}: worker {without[0]} sees no GPU; start the workers with: dask cuda worker, "
            "or leave --device out"
        )
    if wanted == "auto":
        return "cpu" if without else "cuda"
    return wanted


def _describe_worker(dask_worker: Any) -> dict[str, Any]:
    """Runs on each worker. Its GPU is the first that it sees, as dask-cuda has it."""
    import pipeline
    from pipeline.cores import available_cores
    from pipeline.gpus import card_bytes, visible_gpus

    gpu = next(iter(visible_gpus()), None)
    return {
        "address": dask_worker.address,
        "version": pipeline.__version__,
        "host": socket.gethostname(),
        "cores": available_cores(),
        "gpu": gpu,
        "gpu_bytes": None if gpu is None else card_bytes(gpu),
    }


def in_process_settings(options: ClusterOptions | None = None) -> WorkerSettings:
    """Settings of a run without a cluster: all cores to the one process, and the first GPU where --device wants one.

    Raises ClusterError where there is none.
    """
    cores = available_cores()
    device = Device("cpu", threads=cores)
    if options is not None and options.device in ("cuda", "tensorrt"):
        gpus = _chosen_gpus(options)[:1]
        device = gpu_device(options.device, share_bytes(card_bytes(gpus[0]), 1, options.gpu_memory_bytes))
        device = replace(device, index=visible_gpus().index(gpus[0]))
    settings = replace(WorkerSettings(), device=device, decode_threads=cores)
    return settings.at(options.precision) if options is not None else settings
