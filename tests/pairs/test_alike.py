"""ALIKE gives the numbers of its authors' own code on PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.models.catalogue import cards
from pipeline.pairs.models.alike import CARDS, build_graph
from tests.devices import tolerance
from tests.pairs.conftest import DESK, DSC, find, nearest

Read = Callable[[str], np.ndarray]

RECORDED = json.loads((Path(__file__).parent / "alike.json").read_text())
"""Some of the keypoints that the authors' code finds (Shiaoming/ALIKE, commit 4e61fc77, torch 2.14.1 on a CPU):
`ALike(**configs[name], top_k=-1, scores_th=0.2, n_limit=2048)(picture, sort=True, sub_pixel=True)`. `count`: all of
them; `rows`: x, y (0, 0 is the centre of a pixel), score, and the first five components of the descriptor."""


@pytest.mark.usefixtures("alike_weights")
@pytest.mark.parametrize("picture", [DSC, DESK])
@pytest.mark.parametrize("model", CARDS)
def test_the_numbers_of_the_authors_code(pictures: Read, model: str, picture: str, device: Device) -> None:
    recorded = RECORDED[model][picture]
    made = find([pictures(picture)], device, model=model)
    assert made["n_keypoints"].tolist() == [recorded["count"]]
    rows = np.array(recorded["rows"])
    index, distance = nearest(rows[:, :2] + 0.5, made["keypoint"])
    assert distance.max() < tolerance(device, 1e-3)
    np.testing.assert_allclose(made["keypoint_score"][index], rows[:, 2], atol=tolerance(device, 3e-4))
    np.testing.assert_allclose(made["descriptor"][index, :5].astype(float), rows[:, 3:], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(made["descriptor"].astype(float), axis=1), 1, atol=1e-3)
    assert np.isnan(made["keypoint_scale"]).all()
    assert np.isnan(made["keypoint_angle"]).all()


@pytest.mark.usefixtures("alike_weights")
def test_half_precision_moves_no_points(pictures: Read, device: Device) -> None:
    whole, half = (find([pictures(DESK)], replace(device, precision=p), model="alike-t") for p in ("fp32", "fp16"))
    np.testing.assert_array_equal(whole["keypoint"], half["keypoint"])


@pytest.mark.usefixtures("alike_weights")
def test_points_move_with_the_picture(pictures: Read) -> None:
    desk = pictures(DESK)
    before, after = find([desk], model="alike-n"), find([desk[32:, 64:]], model="alike-n")
    inside = (before["keypoint"] > (80, 48)).all(axis=1)
    index, distance = nearest(before["keypoint"][inside] - (64, 32), after["keypoint"])
    assert (distance < 0.1).mean() > 0.9
    cosine = (before["descriptor"][inside].astype(float) * after["descriptor"][index]).sum(axis=1)
    assert np.median(cosine[distance < 0.1]) > 0.99


def test_missing_and_wrong_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"no file .*alike-n\.pth; run: reelgraph models fetch alike-n"):
        find([np.zeros((64, 64, 3), np.uint8)], model="alike-n")
    other = data_dir / "weights" / "deepface" / "2.7_80x80_MiniFASNetV2.pth"
    if not other.is_file():
        pytest.skip(f"no test data at {other}; set REELGRAPH_DATA")
    with pytest.raises(ModelError, match=r"MiniFASNetV2\.pth is not an ALIKE network with one head"):
        build_graph(other)


def test_the_weights_can_be_fetched(data_dir: Path) -> None:
    for name, card in CARDS.items():
        assert cards()[name] is card
        (file,) = card.weights
        assert file.urls == (f"https://raw.githubusercontent.com/Shiaoming/ALIKE/main/models/{name}.pth",)
        path = data_dir / "weights" / file.name
        if not path.is_file():
            pytest.skip(f"no test data at {path}; set REELGRAPH_DATA")
        from pipeline.models.weights import sha256

        assert (sha256([path]), path.stat().st_size) == (file.sha256, file.size_bytes)
