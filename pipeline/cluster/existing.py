"""A cluster that runs already: a scheduler that the user started, whose workers must fit."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pipeline.cluster.connected import Cluster, Workers
from pipeline.cluster.options import ClusterOptions, scheduler_address
from pipeline.engine.steps import WorkerSettings
from pipeline.errors import ClusterError
from pipeline.machine.cores import available_cores
from pipeline.machine.device import Device, gpu_device
from pipeline.machine.gpus import card_bytes, share_bytes, visible_gpus
from pipeline.text import duration, plural
from pipeline.version import __version__, difference, versions

CONNECT_SECONDS = 20
"""Seconds that a scheduler may take to answer."""

DESCRIBE_SECONDS = 20
"""Seconds that a worker may take to describe itself. One that hangs, or is stopped, never does."""


_Process = tuple[str, str]
"""Address and folder of a worker. Each worker process has a folder of its own, while one that is started again may get
the address of the one before."""


@contextlib.contextmanager
def existing(options: ClusterOptions, note: Callable[[str], None]) -> Iterator[Cluster]:
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
    command = (
        f"dask worker {f'--scheduler-file {where}' if is_file else where} --resources GPU=1 --nthreads 1 "
        "(on GPUs: dask cuda worker, --nthreads 3)"
    )
    pool = ThreadPoolExecutor(4, thread_name_prefix="newcomers")
    try:
        try:
            settings, checked, silent = _check_workers(client, where, command, options, note)
        except OSError as err:
            raise ClusterError(f"the scheduler at {where} was lost ({err}); start one and run again") from err
        described = f"{plural(len(checked), 'worker')} of {client.scheduler.address}"
        newcomers = Newcomers(client, command, pool, dict.fromkeys(checked, _FITS), silent)
        yield Cluster(client, settings, described, client.dashboard_link, newcomers.fitting)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
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


def _check_workers(
    client: Any, where: str, command: str, options: ClusterOptions, note: Callable[[str], None]
) -> tuple[WorkerSettings, list[_Process], set[str]]:
    """Return settings for the workers, their processes, and addresses of workers that do not answer.

    Refuses workers that Dask would wait for forever: no GPU slot, or another reelgraph. `command` starts one.
    """
    none = f"the scheduler at {where} has no workers; start some with: {command}"
    wait = options.wait_for_workers_seconds
    if not client.nthreads():
        note(f"{none}. Waiting {duration(wait)} for one (--wait-for-workers)")
    deadline = time.monotonic() + wait
    fitting: dict[str, dict[str, Any]] = {}
    silent: set[str] = set()
    while not fitting:  # a worker can die before it has described itself
        try:
            client.wait_for_workers(1, timeout=max(0.1, deadline - time.monotonic()))
        except TimeoutError as err:
            raise ClusterError(none) from err
        known = client.scheduler_info(n_workers=-1)["workers"]
        workers = {address: facts for address, facts in known.items() if facts["status"] != "init"}
        described = _describe(client, list(workers))
        for address, facts in described.items():
            wrong = _misfit(workers[address], facts) if address in workers else None
            if wrong is not None:
                raise ClusterError(f"worker {address} {wrong}: {command}")
        fitting = {a: facts for a, facts in described.items() if a in workers and isinstance(facts, dict)}
        for address, facts in described.items():
            if isinstance(facts, TimeoutError) and address not in silent:
                silent.add(address)
                note(_silent(address))
        if silent and not fitting and time.monotonic() >= deadline:
            raise ClusterError(
                f"no worker of the scheduler at {where} answers, and none came within {duration(wait)} "
                f"(--wait-for-workers); end {', '.join(sorted(silent))} and start workers with: {command}"
            )
    slots = min(workers[address]["nthreads"] for address in fitting)
    return _settings_there(list(fitting.values()), slots, options), [_process(a, workers[a]) for a in fitting], silent


def _process(address: str, facts: Mapping[str, Any]) -> _Process:
    return address, str(facts.get("local_directory"))


def _silent(address: str) -> str:
    return f"worker {address} does not answer within {DESCRIBE_SECONDS} s; it gets no work until it does"


def _describe(client: Any, addresses: Collection[str]) -> dict[str, dict[str, Any] | Exception]:
    """Return what each worker says of itself, or TimeoutError if it does not answer, or OSError if it is gone."""

    async def ask() -> dict[str, dict[str, Any] | Exception]:
        # One question for each: a question to all of them ends when the last has answered.
        asked = {
            address: asyncio.ensure_future(client._run(_describe_worker, workers=[address], on_error="return"))
            for address in addresses
        }
        done, late = await asyncio.wait(asked.values(), timeout=DESCRIBE_SECONDS)
        for question in late:
            question.cancel()
        answers: dict[str, dict[str, Any] | Exception] = {}
        for address, question in asked.items():
            if question not in done:
                answers[address] = TimeoutError()
            else:
                answers[address] = question.exception() or question.result().get(address, OSError())
        return answers

    return dict(client.sync(ask)) if addresses else {}


def _misfit(facts: Mapping[str, Any], described: Mapping[str, Any] | Exception) -> str | None:
    """Return what is wrong with a worker, and what to do before starting it again; None if it fits.

    `facts` are the scheduler's, `described` is what `_describe_worker` returned there.
    """
    if facts.get("resources", {}).get("GPU", 0) < 1:
        return "offers no GPU slot; start it with"
    here = {**versions(), "reelgraph": __version__}
    if isinstance(described, OSError):
        return None  # it went away
    if isinstance(described, Exception):
        return f"has no reelgraph, this is {__version__}; install the same version there, then"
    wrong = difference(described.get("versions", {"reelgraph": described.get("version")}), here)
    return wrong and f"{wrong}; install the same version there, then"


_FITS: Future[str | None] = Future()
_FITS.set_result(None)


@dataclass
class Newcomers:
    """Checks workers that join a running cluster, without waiting for what they answer."""

    client: Any
    command: str
    """Command that starts a worker."""
    pool: ThreadPoolExecutor
    checks: dict[_Process, Future[str | None]]
    """Result of each check: the fault of the worker, None if it fits. Those of the start fit."""
    silent: set[str] = field(default_factory=set)
    """Addresses of workers that are known not to answer."""
    _noted: set[_Process] = field(default_factory=set)

    def fitting(self, workers: Workers, note: Callable[[str], None]) -> Workers:
        """Return those of the workers that are known to fit, and report the others once."""
        fit = {}
        for address, facts in workers.items():
            process = _process(address, facts)
            if process not in self.checks:
                self.checks[process] = self.pool.submit(self._check, address, facts)
            if not self.checks[process].done():
                continue
            try:
                wrong = self.checks[process].result()
            except TimeoutError:
                if address not in self.silent:
                    self.silent.add(address)
                    note(_silent(address))
                del self.checks[process]  # it is asked again
                continue
            self.silent.discard(address)
            if wrong is None:
                fit[address] = facts
            elif process not in self._noted:
                self._noted.add(process)
                note(f"worker {address} gets no work: it {wrong}: {self.command}")
        return fit

    def _check(self, address: str, facts: Mapping[str, Any]) -> str | None:
        """Return what is wrong with a worker. Raises TimeoutError if it does not answer."""
        try:
            answer = _describe(self.client, [address])[address]
        except (OSError, KeyError):
            return None  # the scheduler went away
        if isinstance(answer, TimeoutError):
            raise answer
        return _misfit(facts, answer)


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
        versions=versions(),
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
        "versions": versions(),
        "host": socket.gethostname(),
        "cores": available_cores(),
        "gpu": gpu,
        "gpu_bytes": None if gpu is None else card_bytes(gpu),
    }
