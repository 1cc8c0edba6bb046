"""A run whose networks find no memory for a batch: it goes on with smaller ones, and stores the same arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import pipeline
from pipeline.models import session
from tests.pairs.kills import make_pictures

OPTIONS = {"keypoints.model": "xfeat", "keypoints.most": 64, "match.matcher": "lighterglue", "verify.least": 8}


@pytest.mark.usefixtures("xfeat_weights")
def test_an_allocation_that_fails_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path / "photos", 12)
    whole = pipeline.run("match", tmp_path / "photos", tmp_path / "whole.zarr", executor="inline", set=OPTIONS)
    assert whole.inputs["photos-pairs"].array("n_matches").sum() > 100
    run = onnxruntime.InferenceSession.run
    sizes: list[int] = []

    def scarce(self: Any, names: Any, inputs: dict[str, np.ndarray], *more: Any) -> Any:
        sizes.append(len(next(iter(inputs.values()))))
        if sizes[-1] > 2:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 98000000")
        return run(self, names, inputs, *more)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", scarce)
    monkeypatch.setattr(session, "_fits", {})
    halved = pipeline.run("match", tmp_path / "photos", tmp_path / "halved.zarr", executor="inline", set=OPTIONS)
    assert halved.summary.exit_code == whole.summary.exit_code == 0
    assert max(sizes) > 2
    assert min(sizes) <= 2
    for name, item in whole.inputs.items():
        for array in item.arrays:
            np.testing.assert_array_equal(halved.array(name, array), item.array(array), err_msg=f"{name}/{array}")
