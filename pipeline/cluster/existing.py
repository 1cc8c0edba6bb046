"""A cluster that runs already: a scheduler that the user started, whose workers must fit."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pipeline.cluster.connected import Cluster
from pipeline.cluster.options import ClusterOptions, scheduler_address
from pipeline.engine.steps import WorkerSettings
from pipeline.errors import ClusterError
from pipeline.machine.cores import available_cores
from pipeline.machine.device import Device, gpu_device
from pipeline.machine.gpus import card_bytes, share_bytes, visible_gpus
from pipeline.version import __version__

CONNECT_SECONDS = 20
"""Seconds that a scheduler may take to answer."""

WORKERS_SECONDS = 60
"""Seconds to wait for the first worker of an existing scheduler."""


@contextlib.contextmanager
def existing(options: ClusterOptions) -> Iterator[Cluster]:
    from distributed import Client

    where = options.scheduler or ""
    is_file = "://" not in where
    address = scheduler_address(where)
    secured = address.startswith(("tls://", "wss://"))
    if secured:
        _check_certificates(address)
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError, RuntimeError) as err:  # the last for tcp where Dask is told to encrypt
        named = f"{address} (from {where}, which may be an old one)" if is_file else address
        doubt = " or it does not accept the certificate of Dask's configuration" if secured else ""
        raise ClusterError(
            f"no scheduler answers at {named} within {CONNECT_SECONDS} s{doubt}; start one with: dask scheduler"
            + (" --protocol tls" if secured else "")
            + (f" --scheduler-file {where}" if is_file else "")
        ) from err
    try:
        settings = _check_workers(client, where, is_file, options)
        n = len(client.nthreads())
        yield Cluster(client, settings, f"{n} workers of {client.scheduler.address}", client.dashboard_link)
    finally:
        client.close(timeout=5)


def _check_certificates(address: str) -> None:
    """Raise ClusterError if Dask's configuration has no usable certificate for this address."""
    from distributed.security import Security

    settings = "distributed.comm.tls.ca-file, client.cert and client.key in Dask's configuration"
    try:
        if Security().get_connection_args("client")["ssl_context"] is None:
            raise ClusterError(f"--scheduler {address} needs TLS certificates; set {settings}")
    except OSError as err:  # no such file, or it is not a certificate
        raise ClusterError(
            f"--scheduler {address}: the TLS certificates cannot be used ({err.strerror or err}); check {settings}"
        ) from err


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
        if isinstance(facts, Exception) or facts["version"] != __version__:
            found = "no reelgraph" if isinstance(facts, Exception) else f"reelgraph {facts['version']}"
            raise ClusterError(
                f"worker {address} has {found}, this is {__version__}; install the same version there, "
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
        flush=options.flush,
    )


def _kind_on(described: list[dict[str, Any]], wanted: str) -> str:
    """The device kind of workers that are there already. Raises ClusterError if one lacks the GPU that is wanted."""
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

    gpu = next(iter(visible_gpus()), None)
    return {
        "address": dask_worker.address,
        "version": __version__,
        "host": socket.gethostname(),
        "cores": available_cores(),
        "gpu": gpu,
        "gpu_bytes": None if gpu is None else card_bytes(gpu),
    }
