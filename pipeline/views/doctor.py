"""`reelgraph doctor`: what this machine offers, and what to do about each thing that is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pipeline.errors import ReelgraphError


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""
    needed: bool = True
    """Whether a run fails without it."""


def examine(out: Path) -> list[Finding]:
    """Look at everything a run depends on; `out` is where output would go."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _cores_and_memory,
        _gpus,
        _runtimes,
        _decoders,
        _models,
        lambda: _output(out),
        _batch_system,
    ]
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[Finding]:
    import platform

    from pipeline.version import __version__

    yield Finding(
        "reelgraph", True, f"{__version__} on Python {platform.python_version()}, {platform.platform()}"
    )


def _cores_and_memory() -> Iterator[Finding]:
    import psutil

    from pipeline.cluster.starting import WORKER_BYTES
    from pipeline.machine.cores import available_cores

    cores, memory = available_cores(), psutil.virtual_memory()
    enough = memory.available >= WORKER_BYTES
    yield Finding(
        "machine",
        enough,
        f"{cores} cores, {memory.total / 1e9:.0f} GB memory, {memory.available / 1e9:.0f} GB available",
        "" if enough else f"a worker takes {WORKER_BYTES / 1e9:.1f} GB at 1080p: free some memory, or use --workers 1",
    )


def _gpus() -> Iterator[Finding]:
    from pipeline.machine.gpus import card_of, visible_gpus

    gpus = visible_gpus()
    if not gpus:
        yield Finding(
            "GPU",
            False,
            _why_no_gpu(),
            "none is needed: models run on the CPU; for NVIDIA GPUs install "
            "their driver, then run `make install` again",
            needed=False,
        )
        return
    for gpu in gpus:
        nvml, handle = card_of(gpu)
        memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
        yield Finding(f"GPU {gpu}", True, f"{name}, {memory.free / 1e9:.0f} of {memory.total / 1e9:.0f} GB free")
    bindings = importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None
    yield Finding(
        "dask-cuda",
        bindings,
        "CUDA bindings present" if bindings else "CUDA bindings missing",
        "" if bindings else "pip install 'reelgraph[cu13]' (or cu12, as the driver has it)",
    )


def _why_no_gpu() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return "none (nvidia-ml-py is not installed)"
    except pynvml.NVMLError as err:
        return f"none ({err})"
    return "none visible (CUDA_VISIBLE_DEVICES=" + repr(os.environ.get("CUDA_VISIBLE_DEVICES")) + ")"


def _runtimes() -> Iterator[Finding]:
    from pipeline.machine.gpus import visible_gpus
    from pipeline.models.session import detect_devices, runtime_name

    kinds = detect_devices()
    lacks_cuda = bool(visible_gpus()) and "cuda" not in kinds
    yield Finding(
        "ONNX Runtime",
        not lacks_cuda,
        f"{runtime_name()} for {', '.join(kinds)}",
        "pip uninstall onnxruntime; pip install 'reelgraph[cu13]'" if lacks_cuda else "",
    )
    for package, extra in (("tensorflow", "tensorflow"), ("torch", "torch")):
        present = importlib.util.find_spec(package) is not None
        yield Finding(
            package,
            present,
            _version(package) if present else "not installed",
            "" if present else f"not needed by the bundled models; pip install 'reelgraph[{extra}]'",
            needed=False,
        )


def _decoders() -> Iterator[Finding]:
    from pipeline.media.video.nvdec import why_not_here

    for package, module, needed in (("av", "av", True), ("decord", "decord", False)):
        present = importlib.util.find_spec(module) is not None
        found = (_version(package) or _version("decord2")) if present else "not installed"
        yield Finding(f"decoder {package}", present, found, "" if present else f"pip install {package}", needed=needed)
    reason = why_not_here()
    yield Finding("decoder nvdec", reason is None, reason or _version("PyNvVideoCodec"), needed=False)


def _models() -> Iterator[Finding]:
    from pipeline.faces.models import describe
    from pipeline.models.weights import cache_folder

    for name in ("mtcnn", "Dlib"):
        try:
            info = describe(name).as_dict()
        except ReelgraphError as err:
            yield Finding(f"weights {name}", False, "missing", str(err))
        else:
            yield Finding(f"weights {name}", True, f"{info['licence']}, sha256 {info['weights_sha256'][:12]}")
    yield _zoo()
    yield _writable("model cache", cache_folder(), "set REELGRAPH_CACHE to a folder that can be written")


def _zoo() -> Finding:
    from pipeline.faces.models.zoo import CARDS
    from pipeline.views.models import is_present

    present = sum(is_present(card) for card in CARDS.values())
    found = f"weights of {present} of {len(CARDS)} models are here"
    return Finding("zoo", True, f"{found}; `reelgraph models` lists them", needed=False)


def _output(out: Path) -> Iterator[Finding]:
    yield _writable("output", out, "choose another --out")


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
    yield Finding(
        "SLURM",
        sbatch is not None,
        sbatch or "no sbatch here",
        "" if sbatch else "only for batch jobs: workflows/slurm/run.sbatch",
        needed=False,
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def lines(findings: list[Finding]) -> list[str]:
    """One line per finding, with the remedy below where there is one."""
    shown = []
    for finding in findings:
        mark = "ok " if finding.ok else "-- " if not finding.needed else "NO "
        shown.append(f"{mark} {finding.what}: {finding.found}")
        if finding.remedy:
            shown.append(f"      {finding.remedy}")
    return shown
