"""The device that models run on, and how much of the machine they may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """The device that a model runs on, and the share of the machine that it may take."""

    kind: str = "cpu"
    """"cpu", "cuda" or "tensorrt"."""
    index: int = 0
    """Ordinal among the visible CUDA devices."""
    threads: int = 1
    """Intra-op threads of one inference session on a CPU."""
    memory_bytes: int | None = None
    """Most memory that all sessions of this process may take together; None for no limit. On a GPU each session gets a
    part of it (session.py, MEMORY_SHARES); the CUDA context and the libraries' own workspaces come on top."""
    precision: str = "fp32"
    """"fp32", or "fp16": networks compute in half precision (session.half); arrays stay float32."""
    batch_memory_bytes: int = 512 << 20
    """Most memory that the activations of one batch should take; bounds sub-batches within a chunk."""

    @property
    def name(self) -> str:
        """Name that a store records: "cpu", "cuda", "cuda fp16"."""
        return self.kind if self.precision == "fp32" else f"{self.kind} {self.precision}"



def gpu_device(kind: str, share: int) -> Device:
    """Return a GPU of which this worker may take `share` bytes; kind "auto" is CUDA."""
    return Device("cuda" if kind == "auto" else kind, memory_bytes=share, batch_memory_bytes=min(4 << 30, share // 4))
