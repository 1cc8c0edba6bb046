"""The stage `keypoints`: places, order and counts, whatever model finds the points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import pipeline
from pipeline.engine.stage import Chunk
from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.media.picture import resized
from pipeline.models import session
from pipeline.pairs.models import EXTRACTORS
from pipeline.pairs.models.extractor import LocalFeatures, Picture, in_batches, strongest
from pipeline.pairs.stages.keypoints import Keypoints, KeypointsOptions
from tests.pairs.conftest import DESK, DSC, Arrays, equal, find, joined, nearest

Read = Callable[[str], np.ndarray]

MODELS = ("sift", "alike-n", "alike-t", "xfeat")


@pytest.fixture(autouse=True)
def weights(request: pytest.FixtureRequest) -> None:
    """Weights of the model that a test is run with."""
    model = request.node.callspec.params.get("model") if hasattr(request.node, "callspec") else ""
    request.getfixturevalue("xfeat_weights" if model == "xfeat" else "alike_weights")


def noise(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(coarse, (0, 0), 1.2)


@pytest.mark.parametrize("model", MODELS)
def test_order_and_most(pictures: Read, model: str) -> None:
    frames = [pictures(DESK), pictures(DESK)[::-1]]
    every = find(frames, model=model, most=100_000)
    assert every["n_keypoints"].min() > 300
    for first in (0, every["n_keypoints"][0]):
        scores = every["keypoint_score"][first:][: every["n_keypoints"][0 if first == 0 else 1]]
        assert (np.diff(scores) <= 0).all()
        assert scores[0] > scores[-1]
    some = find(frames[:1], model=model, most=50)
    assert some["n_keypoints"].tolist() == [50]
    if model == "sift":  # networks keep the highest maxima, and score a point beside the maximum
        equal(some, {"n_keypoints": some["n_keypoints"], **{k: v[:50] for k, v in every.items() if k != "n_keypoints"}})
    else:
        assert np.isin(some["keypoint"], every["keypoint"][: every["n_keypoints"][0]]).all()
        assert some["keypoint_score"].mean() > np.percentile(every["keypoint_score"][: every["n_keypoints"][0]], 90)


@pytest.mark.parametrize("model", MODELS)
def test_division_into_chunks_and_batches_changes_nothing(
    pictures: Read, model: str, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, dsc = pictures(DESK)[:200, :300], pictures(DSC)[100:300, 200:500]
    frames = [desk, noise(90, 70), dsc, noise(64, 300), desk[::-1]]
    monkeypatch.setattr(session, "_fits", {})
    together = find(frames, device, model=model)
    assert (together["n_keypoints"] > 0).all()
    equal(together, joined([find([frame], device, model=model) for frame in frames]))
    equal(together, find(frames, replace(device, batch_memory_bytes=1), model=model))
    equal(find([desk, dsc], device, model=model), find(np.stack([desk, dsc]), device, model=model))


@pytest.mark.parametrize("model", MODELS)
def test_nothing_in_black_and_undecoded_pictures(pictures: Read, model: str) -> None:
    desk = pictures(DESK)[:240, :320]
    frames = np.stack([np.zeros_like(desk), desk, desk, np.full_like(desk, 128), np.full_like(desk, 255)])
    made = find(frames, decoded=[True, True, False, True, True], model=model)
    assert made["n_keypoints"][[0, 2, 3, 4]].tolist() == [0, 0, 0, 0]
    equal(made, {**find([desk], model=model), "n_keypoints": made["n_keypoints"]})
    assert not find(frames[:1], decoded=[False], model=model)["n_keypoints"].any()
    assert not find(frames[:0], model=model)["n_keypoints"].any()


SIZES = [(1, 1), (1, 40), (5, 5), (6, 6), (7, 9), (31, 33), (12, 3000), (3000, 12), (32, 32), (65, 64)]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pictures_of_any_size(model: str, height: int, width: int) -> None:
    made = find([noise(height, width), noise(height, width)[:, ::-1]], model=model, threshold=0, longest=4000)
    points = made["keypoint"]
    assert (points > 0).all()
    assert (points < (width, height)).all()
    if max(height, width) == 3000:
        assert made["n_keypoints"].min() > 50
        longer = points[:, 0 if width == 3000 else 1]
        assert longer.min() < 300
        assert longer.max() > 2700


@pytest.mark.parametrize("model", MODELS)
def test_grey_pictures(pictures: Read, model: str) -> None:
    grey = cv2.cvtColor(pictures(DESK), cv2.COLOR_RGB2GRAY)
    assert find([np.repeat(grey[..., None], 3, axis=2)], model=model)["n_keypoints"][0] > 300


@pytest.mark.parametrize("model", MODELS)
def test_points_found_in_a_smaller_copy_lie_in_the_picture(pictures: Read, model: str) -> None:
    dsc = pictures(DSC)  # 1024 × 682
    made, small = find([dsc], model=model, longest=500), find([resized(dsc, 500, 333)], model=model)
    assert made["n_keypoints"][0] > 300
    np.testing.assert_allclose(made["keypoint"], small["keypoint"] * (1024 / 500, 682 / 333), rtol=1e-6)
    factor = np.sqrt(1024 / 500 * 682 / 333)
    np.testing.assert_allclose(made["keypoint_scale"], small["keypoint_scale"] * factor, rtol=1e-6)
    for name in ("n_keypoints", "keypoint_score", "keypoint_angle", "descriptor"):
        np.testing.assert_array_equal(made[name], small[name])


@pytest.mark.parametrize("model", MODELS)
def test_a_higher_threshold_keeps_the_same_points(pictures: Read, model: str) -> None:
    few, many = (
        find([pictures(DESK)], model=model, threshold=value, most=100_000)
        for value in ((0.06, 0.02) if model == "sift" else (0.5, 0.1))
    )
    assert 50 < few["n_keypoints"][0] < 0.9 * many["n_keypoints"][0]
    assert (nearest(few["keypoint"], many["keypoint"])[1] == 0).mean() > 0.99


@pytest.mark.parametrize("model", MODELS)
def test_threads_change_nothing(pictures: Read, model: str) -> None:
    frames = [pictures(DSC)[:400, :600], pictures(DESK)]
    threads = cv2.getNumThreads()
    try:
        made = []
        for number in (1, 4, 4):
            cv2.setNumThreads(number)
            made.append(find(frames, Device(threads=number), model=model))
    finally:
        cv2.setNumThreads(threads)
    equal(made[0], made[1])
    equal(made[0], made[2])


def test_equal_scores_have_one_order() -> None:
    rng = np.random.default_rng(0)
    points = np.array([(x, y) for y in range(4) for x in range(4)], np.float32).repeat(2, axis=0)
    angles = np.tile([10, 20], 16).astype(np.float32)
    same = np.ones(32, np.float32)
    features = LocalFeatures(points, same, same, angles, np.arange(32, dtype=np.uint8)[:, None])
    for _ in range(5):
        mixed = LocalFeatures._make(array[order] for order in [rng.permutation(32)] for array in features)
        assert strongest(mixed, 5).descriptors.ravel().tolist() == [0, 1, 2, 3, 4]
        assert strongest(mixed, 99).descriptors.ravel().tolist() == list(range(32))


def test_a_lack_of_memory_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_fits", {})
    sizes: list[int] = []

    def run(pictures: list[Picture]) -> list[LocalFeatures]:
        sizes.append(len(pictures))
        if len(pictures) > 2:
            raise RuntimeError("Failed to allocate memory for requested buffer of size 98000000")
        return [LocalFeatures.none(1, "uint8")._replace(scores=np.full(1, p[0, 0, 0], np.float32)) for p in pictures]

    pictures = [np.full((4 + k % 2, 8, 3), k, np.uint8) for k in range(14)]
    found = in_batches(Device(), "model", pictures, 1, run)
    assert [one.scores[0] for one in found] == list(range(14))
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1, 7, 3, 1, 1, 1, 1, 1, 1, 1]


def test_a_picture_that_does_not_fit_the_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise cv2.error(
            "OpenCV(4.14.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 98000000 bytes"
        )

    monkeypatch.setattr(session, "_fits", {})
    monkeypatch.setattr(cv2, "cvtColor", fail)
    with pytest.raises(ModelError, match=r"model 'sift': not even one item of shape \(64, 64, 3\) fits the memory"):
        find([noise(64, 64)])


def test_options_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'sfit'; did you mean 'sift'"):
        Keypoints(KeypointsOptions(model="sfit"))
    with pytest.raises(ModelError, match=r"root: false is for model: sift, not alike-n; leave it out"):
        Keypoints(KeypointsOptions(model="alike-n", root=False))


def test_each_model_has_the_slot_that_it_needs() -> None:
    slots = {name: Keypoints(KeypointsOptions(model=name)).slot for name in MODELS}
    assert slots == {"sift": "cpu", "alike-n": "gpu", "alike-t": "gpu", "xfeat": "gpu"}
    assert set(MODELS) <= set(EXTRACTORS)


def test_a_run_over_pictures(pictures: Read, tmp_path: Path) -> None:
    """Frames of two sizes and a file that is not a picture; the points lie in the pictures themselves."""
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [DSC, DESK]
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / f"{number}.png"), cv2.cvtColor(pictures(name), cv2.COLOR_RGB2BGR))
    (folder / "2.png").write_bytes(b"not a picture")
    workflow = tmp_path / "keypoints.yaml"
    workflow.write_text(
        "source: {kind: images, longest: 512}\nstages: {keypoints: {use: keypoints, most: 300, threshold: 0.01}}"
    )
    pipeline.run(workflow, [folder], out=tmp_path / "out", executor="inline")
    run = pipeline.open(tmp_path / "out")
    made = {name: run.array("photos", name) for name in ("n_keypoints", "keypoint", "descriptor", "keypoint_frame")}
    assert made["n_keypoints"].tolist() == [300, 300, 0]
    for number, name in enumerate(names):
        whole = pictures(name)
        height, width = whole.shape[:2]
        small = resized(whole, 512, round(height * 512 / width))
        expected: Arrays = find([small], most=300, threshold=0.01)
        mine = made["keypoint_frame"] == number
        np.testing.assert_array_equal(made["descriptor"][mine], expected["descriptor"])
        np.testing.assert_allclose(
            made["keypoint"][mine], expected["keypoint"] * (width / small.shape[1], height / small.shape[0]), rtol=1e-5
        )


def test_a_chunk_of_nothing_but_unreadable_pictures() -> None:
    stage = Keypoints(KeypointsOptions())
    stage.load(Device())
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    made = stage.run(Chunk("input", 0, np.arange(3), None, np.zeros(3, bool), {"frames_rgb": frames}))
    assert made["n_keypoints"].tolist() == [0, 0, 0]
    assert made["descriptor"].shape == (0, 128)
