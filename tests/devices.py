"""One suite for CPU and GPU: which devices tests run on, and how far results may differ between them.

A test that takes the fixture `device` runs on the CPU, and on CUDA where a GPU is visible. With REELGRAPH_REQUIRE_GPU=1
it runs on CUDA in any case, so that on a machine without a GPU it fails instead of vanishing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from pipeline.faces.models.base import Faces
from pipeline.machine.device import Device
from pipeline.machine.gpus import visible_gpus

GPU_TOLERANCE = 1e-3
"""Of embeddings and probabilities on CUDA: another order of summation in every layer."""
GPU_PIXELS = 1.0
"""Of boxes and landmarks on CUDA."""
SAME_FACE = 0.7
"""Intersection over union from which two boxes are of one face: one of 20 pixels, a pixel aside both ways, has 0.82."""


def gpu_is_required() -> bool:
    return os.environ.get("REELGRAPH_REQUIRE_GPU") == "1"


def device_parameters(gpus: list[str], required: bool) -> list[Any]:
    """The CPU, and CUDA where there is a GPU or there has to be one."""
    cuda = pytest.param("cuda", marks=pytest.mark.gpu)
    return ["cpu", cuda] if gpus or required else ["cpu"]


DEVICES = device_parameters(visible_gpus(), gpu_is_required())


def device_of(kind: str) -> Device:
    """Fails the test where the GPU that it needs is not there."""
    if kind != "cpu" and not visible_gpus():
        pytest.fail("REELGRAPH_REQUIRE_GPU=1, and this machine shows no GPU; see: reelgraph doctor")
    return Device(kind)


def tolerance(device: Device, cpu: float, scale: float = 1.0) -> float:
    """What a test allows on the CPU; on CUDA at least GPU_TOLERANCE of `scale`, the size of what is compared."""
    return cpu if device.kind == "cpu" else max(cpu, GPU_TOLERANCE * scale)


def overlaps(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """float (n, m): intersection over union of boxes x, y, w, h."""
    a, b = ours[:, None].astype(np.float64), theirs[None].astype(np.float64)
    start = np.maximum(a[..., :2], b[..., :2])
    stop = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.clip(stop - start, 0, None).prod(axis=-1)
    both = a[..., 2:].prod(axis=-1) + b[..., 2:].prod(axis=-1) - shared
    return np.asarray(shared / np.maximum(both, 1e-9))


def matched(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """int (n,): for each of `ours` the row of the same face among `theirs`. Fails unless each has exactly one."""
    assert ours.shape == theirs.shape
    if not len(ours):
        return np.empty(0, np.int64)
    found = overlaps(ours, theirs)
    rows = found.argmax(axis=1)
    assert found[np.arange(len(ours)), rows].min() >= SAME_FACE
    assert len(set(rows.tolist())) == len(rows)
    return rows


def assert_same_faces(ours: Faces, expected: Faces, device: Device, names: Iterable[str] = ()) -> None:
    """The faces of one frame: equal on the CPU; on CUDA matched by overlap, within a pixel and a thousandth."""
    names = (*names, "box", "landmarks", "confidence")
    if device.kind == "cpu":
        for name in names:
            np.testing.assert_array_equal(getattr(ours, name), getattr(expected, name), err_msg=name)
        return
    rows = matched(ours.box, expected.box)
    for name in names:
        allowed = GPU_TOLERANCE if name == "confidence" else GPU_PIXELS
        np.testing.assert_allclose(getattr(ours, name), getattr(expected, name)[rows], atol=allowed, err_msg=name)
