"""The visible GPUs, and a worker's share of one."""

from __future__ import annotations

import importlib
import os
from typing import Any

from pipeline.errors import ClusterError

GPU_HEADROOM_BYTES = 2 << 30
"""GPU memory left to the driver, the display and libraries' own workspaces."""


def visible_gpus() -> list[str]:
    """The GPUs that NVML shows and CUDA_VISIBLE_DEVICES leaves: ordinals, or UUIDs where it names those.

    Empty without driver or bindings. dask-cuda does not even import without the CUDA bindings, so NVML is asked first.
    """
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except Exception:  # no module, no driver, no permission: each has a class of its own
        return []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return [str(ordinal) for ordinal in range(count)]
    parts = [part.strip() for part in allowed.split(",") if part.strip()]
    return [part for part in parts if not part.lstrip("-").isdigit() or 0 <= int(part) < count]


def card_of(gpu: str) -> tuple[Any, Any]:
    """NVML and its handle of a GPU, an ordinal or a UUID."""
    nvml = importlib.import_module("pynvml")
    return nvml, nvml.nvmlDeviceGetHandleByIndex(int(gpu)) if gpu.isdigit() else nvml.nvmlDeviceGetHandleByUUID(gpu)


def card_name(gpu: str) -> str:
    """Return the name of a GPU, an ordinal or a UUID."""
    nvml, handle = card_of(gpu)
    return str(nvml.nvmlDeviceGetName(handle))


def card_bytes(gpu: str) -> int:
    """Memory of a GPU, an ordinal or a UUID."""
    nvml, handle = card_of(gpu)
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)


def share_bytes(card: int, workers: int, wanted: int | None = None) -> int:
    """Return the GPU memory of one worker, bytes: `wanted`, by default an equal share of the card.

    `card` is the card's memory, bytes; GPU_HEADROOM_BYTES of it stay free.

    Raises ClusterError if the card has not as much as is wanted.
    """
    share = (card - GPU_HEADROOM_BYTES) // workers
    if wanted is not None and wanted > share:
        raise ClusterError(
            f"--gpu-memory {wanted / 1e9:.1f} GB for each of {workers} workers does not fit a card of {card / 1e9:.1f} "
            f"GB with {GPU_HEADROOM_BYTES / 1e9:.1f} GB of head-room; {share / 1e9:.1f} GB would"
        )
    return wanted or share
