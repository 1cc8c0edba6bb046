"""Networks in half precision: nearly the same results, and the store says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.errors import ClusterError
from pipeline.faces.models import create_detector, create_embedder
from pipeline.machine.device import Device
from tests.clips import write_clip

FULL, HALF = Device(), Device(precision="fp16")


def test_embeddings_move_by_far_less_than_a_threshold(astronaut: np.ndarray) -> None:
    frames = astronaut[None]
    faces = create_detector("mtcnn", FULL).detect(frames)
    full, half = (create_embedder("Dlib", device) for device in (FULL, HALF))
    chips = full.chips(frames, faces)
    moved = np.linalg.norm(full.embed(chips) - half.embed(chips), axis=1)
    assert len(moved) > 0
    assert 0 < moved.max() < 0.01
    assert half.embed(chips).dtype == np.float32


def test_the_same_faces_are_found(astronaut: np.ndarray) -> None:
    frames = astronaut[None]
    full, half = (create_detector("mtcnn", device).detect(frames) for device in (FULL, HALF))
    assert len(full.frame) == len(half.frame) > 0
    np.testing.assert_allclose(half.box, full.box, atol=2)
    np.testing.assert_allclose(half.confidence, full.confidence, atol=0.01)


def test_a_run_records_its_precision(tmp_path: Path, workflows: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", n_frames=10)
    options: dict[str, Any] = {"executor": "inline", "precision": "fp16"}
    run = pipeline.run(workflows / "faces.yaml", clip, tmp_path / "out.zarr", **options)
    assert run.attributes["devices"] == ["cpu fp16"]
    assert run.summary.device == "cpu fp16"


def test_unknown_precision(tmp_path: Path, workflows: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", n_frames=10)
    with pytest.raises(ClusterError, match=r"unknown precision 'fp15'; did you mean 'fp16'\?"):
        pipeline.run(workflows / "faces.yaml", clip, tmp_path / "out.zarr", precision="fp15")
