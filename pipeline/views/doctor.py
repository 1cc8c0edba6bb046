"""`reelgraph doctor`: what this machine offers, and what to do about each thing that is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline.errors import ReelgraphError
from pipeline.models.catalogue import cards
from pipeline.models.weights import cache_folder
from pipeline.views.models import is_present, with_advice

DEFAULT_WORKFLOW = "faces"
"""Shipped workflow whose models must work out of the box."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""
    """What to do; empty if there is nothing to do."""
    needed: bool = True
    """Whether a run fails without it."""


def examine(out: Path) -> list[Finding]:
    """Look at everything a run depends on; `out` is where output would go."""
    checks = (_python, _cores_and_memory, _gpus, _runtimes, _decoders, _models)
    output = _writable("output", out, "choose another --out")
    return [*(finding for check in checks for finding in check()), output, *_batch_system()]


def _checked(what: str, ok: bool, found: str, remedy: str, needed: bool = True) -> Finding:
    """Return a finding that has its remedy only if it is not ok."""
    return Finding(what, ok, found, "" if ok else remedy, needed)


def _python() -> Iterator[Finding]:
    import platform

    from pipeline.version import __version__

    found = f"{__version__} on Python {platform.python_version()}, {platform.platform()}"
    yield Finding("reelgraph", True, found)


def _cores_and_memory() -> Iterator[Finding]:
    from pipeline.cluster.starting import WORKER_BYTES
    from pipeline.machine.cores import available_cores
    from pipeline.machine.limits import free_bytes, memory_bytes

    free = free_bytes()
    found = f"{available_cores()} cores, {memory_bytes() / 1e9:.0f} GB memory, {free / 1e9:.0f} GB available"
    remedy = f"a worker takes {WORKER_BYTES / 1e9:.1f} GB at 1080p: free some memory, or use --workers 1"
    yield _checked("machine", free >= WORKER_BYTES, found, remedy)


def _gpus() -> Iterator[Finding]:
    from pipeline.machine.gpus import card_of, visible_gpus

    gpus = visible_gpus()
    if not gpus:
        remedy = (
            "none is needed: models run on the CPU; for NVIDIA GPUs install their driver, then run `make install` again"
        )
        yield Finding("GPU", False, _why_no_gpu(), remedy, needed=False)
        return
    for gpu in gpus:
        nvml, handle = card_of(gpu)
        memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
        yield Finding(f"GPU {gpu}", True, f"{name}, {memory.free / 1e9:.0f} of {memory.total / 1e9:.0f} GB free")
    bindings = _is_installed("cuda") and _is_installed("cuda.bindings")
    found = f"CUDA bindings {'present' if bindings else 'missing'}"
    yield _checked("dask-cuda", bindings, found, "pip install 'reelgraph[cu13]' (or cu12, as the driver has it)")


def _why_no_gpu() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return "none (nvidia-ml-py is not installed)"
    except pynvml.NVMLError as err:
        return f"none ({err})"
    return f"none visible (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')!r})"


def _runtimes() -> Iterator[Finding]:
    from pipeline.machine.gpus import visible_gpus
    from pipeline.models.session import detect_devices, runtime_name

    kinds = detect_devices()
    has_cuda = "cuda" in kinds or not visible_gpus()
    found = f"{runtime_name()} for {', '.join(kinds)}"
    yield _checked("ONNX Runtime", has_cuda, found, "pip uninstall onnxruntime; pip install 'reelgraph[cu13]'")
    for package in ("tensorflow", "torch"):
        remedy = f"not needed by the bundled models; pip install 'reelgraph[{package}]'"
        yield _package(package, package, remedy, needed=False)


def _decoders() -> Iterator[Finding]:
    from pipeline.media.video.nvdec import why_not_here

    yield _package("decoder av", "av", "pip install av", needed=True)
    yield _package("decoder decord", "decord", "pip install decord", needed=False)
    reason = why_not_here()
    yield Finding("decoder nvdec", reason is None, reason or _version("PyNvVideoCodec"), needed=False)


def _package(what: str, package: str, remedy: str, needed: bool) -> Finding:
    present = _is_installed(package)
    found = _version(package) or _version(f"{package}2") if present else "not installed"  # decord comes as decord2 too
    return _checked(what, present, found, remedy, needed)


def _models() -> Iterator[Finding]:
    """Check the weights that the shipped default workflow needs."""
    from pipeline.engine.workflow import load_workflow

    for info in (info for node in load_workflow(DEFAULT_WORKFLOW).stages for info in node.stage.models()):
        try:
            sha256 = info.weights_sha256
        except ReelgraphError as err:
            yield Finding(f"weights {info.name}", False, "missing", str(err))
        else:
            yield Finding(f"weights {info.name}", True, f"{info.licence}, sha256 {sha256[:12]}")

    known = cards()
    present = sum(is_present(card) for card in known.values())
    found = f"weights of {present} of {len(known)} models are here"
    yield Finding("zoo", True, f"{found}; `reelgraph models` lists them", needed=False)
    yield _writable("model cache", cache_folder(), "set REELGRAPH_CACHE to a folder that can be written")


def _writable(what: str, folder: Path, remedy: str) -> Finding:
    """Try it: permissions, read-only mounts and full disks all show only so. Leaves nothing behind."""
    existing = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"reelgraph")
    except OSError as err:
        return Finding(what, False, f"{folder} cannot be written: {err.strerror}", remedy)
    return Finding(what, True, f"{folder.absolute()}, {shutil.disk_usage(existing).free / 1e9:.0f} GB free")


def _batch_system() -> Iterator[Finding]:
    sbatch = shutil.which("sbatch")
    remedy = "only for batch jobs: workflows/slurm/run.sbatch"
    yield _checked("SLURM", sbatch is not None, sbatch or "no sbatch here", remedy, needed=False)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def lines(findings: list[Finding]) -> list[str]:
    """Return one line per finding, with the remedy below it if there is one."""
    marks = [("ok " if one.ok else "NO " if one.needed else "-- ", one) for one in findings]
    return with_advice([(f"{mark} {one.what}: {one.found}", one.remedy) for mark, one in marks], 6)
