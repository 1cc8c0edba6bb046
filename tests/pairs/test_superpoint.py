"""SuperPoint with weights made at random: the numbers of another implementation. No weights are fetched."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.models import session
from pipeline.models.catalogue import cards
from pipeline.models.weights import weights_files
from pipeline.pairs.models import alike, superpoint
from pipeline.pairs.stages.keypoints import Keypoints, KeypointsOptions
from tests.devices import tolerance
from tests.pairs import networks
from tests.pairs.conftest import DESK, equal, find, joined, nearest, noise

Read = Callable[[str], np.ndarray]

RECORDED = json.loads((Path(__file__).parent / "superpoint.json").read_text())
"""Some of the keypoints that SuperPointForKeypointDetection of transformers 5.24.0 (torch 2.14.1 on a CPU) finds with
the tensors of `networks.superpoint` in the grey picture. It leaves out no border at the right and below: such points
are left out here. `count`: all others; `rows`: x, y (0, 0 is the centre of a pixel), score, and the first five
components of the descriptor."""


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the path of weights made at random; the graph is cached nowhere."""
    path = tmp_path / "superpoint_v1.pth"
    path.write_bytes(b"random")
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(superpoint, "read_tensors", lambda path: networks.superpoint())
    return path


def test_the_numbers_of_another_implementation(pictures: Read, weights: Path, device: Device) -> None:
    made = find([pictures(DESK)[:203, :310]], device, model="superpoint", weights=weights, most=100_000)
    assert made["n_keypoints"].tolist() == [RECORDED["count"]]
    rows = np.array(RECORDED["rows"])
    index, distance = nearest(rows[:, :2] + 0.5, made["keypoint"])
    assert distance.max() == 0
    np.testing.assert_allclose(made["keypoint_score"][index], rows[:, 2], atol=tolerance(device, 3e-4))
    np.testing.assert_allclose(made["descriptor"][index, :5].astype(float), rows[:, 3:], atol=tolerance(device, 1e-3))
    np.testing.assert_allclose(np.linalg.norm(made["descriptor"].astype(float), axis=1), 1, atol=1e-3)


def test_division_into_batches_changes_nothing(
    pictures: Read, weights: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_fits", {})
    desk = pictures(DESK)[:100, :150]
    frames = [desk, noise(90, 70), desk[::-1]]
    chosen = {"model": "superpoint", "weights": weights, "most": 200}
    together = find(frames, device, **chosen)
    assert (together["n_keypoints"] > 20).all()
    equal(together, joined([find([frame], device, **chosen) for frame in frames]))
    equal(together, find(frames, replace(device, batch_memory_bytes=1), **chosen))
    equal(together, find(frames, replace(device, precision="fp16"), **chosen))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 90), (31, 33), (16, 700)])
def test_pictures_of_any_size(weights: Path, height: int, width: int) -> None:
    made = find([noise(height, width)] * 2, model="superpoint", weights=weights, threshold=0)
    assert made["n_keypoints"][0] == made["n_keypoints"][1] > 0
    assert (made["keypoint"] >= 4.5).all()
    assert (made["keypoint"] < (width - 4, height - 4)).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 40), (40, 15)])
def test_pictures_without_an_inside(weights: Path, height: int, width: int) -> None:
    assert find([noise(height, width)], model="superpoint", weights=weights)["n_keypoints"].tolist() == [0]


def test_the_path_of_the_weights(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(ModelError, match=r"needs weights: PATH of superpoint_v1\.pth.*non-commercial research only"):
        Keypoints(KeypointsOptions(model="superpoint"))
    with pytest.raises(ModelError, match=r"absent\.pth: no such file"):
        Keypoints(KeypointsOptions(model="superpoint", weights=tmp_path / "absent.pth"))
    with pytest.raises(ModelError, match="weights is for model: superpoint, not sift"):
        Keypoints(KeypointsOptions(weights=weights))
    (info,) = Keypoints(KeypointsOptions(model="superpoint", weights=weights)).models()
    assert info.licence == cards()["superpoint"].licence
    assert KeypointsOptions(model="superpoint", weights=Path("here.pth")).weights == Path.cwd() / "here.pth"
    assert "weights" not in KeypointsOptions(model="superpoint", weights=weights).keyed()


def test_weights_of_another_network(alike_weights: None) -> None:
    with pytest.raises(ModelError, match=r"alike-t\.pth is not a SuperPoint network"):
        superpoint.build_graph(weights_files(alike.CARDS["alike-t"])[0])


def test_the_models_command_says_that_the_user_has_the_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "superpoint", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "non-commercial research only" in json.dumps(shown)
    assert '"present": false' in json.dumps(shown)
    assert main(["models", "fetch", "superpoint"]) == 0
    assert "superpoint: not fetched; set weights: PATH in the workflow" in capsys.readouterr().out
