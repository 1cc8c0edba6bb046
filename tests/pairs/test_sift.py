"""SIFT: the places, sizes and directions of known pictures, and those that COLMAP finds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.pairs.models.sift import root
from pipeline.views.report import report
from tests.pairs.conftest import DESK, DSC, find, nearest

Read = Callable[[str], np.ndarray]


@pytest.mark.parametrize("sigma", [3, 6, 10])
def test_the_place_and_size_of_a_blob(sigma: float) -> None:
    """0, 0 is the corner of the first pixel: the middle of pixel 80 is 80.5."""
    y, x = np.mgrid[:200, :300] + 0.5
    centres = np.array([(80.5, 60.5), (200.25, 120.75)])
    light = sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2 / sigma**2) for cx, cy in centres)
    made = find([np.repeat(np.round(255 * light)[..., None], 3, axis=2).astype(np.uint8)])
    index, distance = nearest(made["keypoint"], centres)
    assert set(index.tolist()) == {0, 1}
    assert distance[index == 0].max() < 0.002
    assert distance[index == 1].max() < 0.1
    np.testing.assert_allclose(made["keypoint_scale"], 2 * sigma * 0.888, rtol=0.01)


Turn = Callable[[np.ndarray], np.ndarray]

TURNS: dict[str, tuple[Turn, Turn, float | None]] = {
    "mirrored": (lambda p: p[:, ::-1], lambda xy: np.stack([640 - xy[:, 0], xy[:, 1]], axis=1), None),
    "upside down": (lambda p: p[::-1], lambda xy: np.stack([xy[:, 0], 480 - xy[:, 1]], axis=1), None),
    "turned right": (lambda p: np.rot90(p, -1), lambda xy: np.stack([480 - xy[:, 1], xy[:, 0]], axis=1), 90),
    "turned around": (lambda p: p[::-1, ::-1], lambda xy: (640, 480) - xy, 180),
    "cut": (lambda p: p[32:, 64:], lambda xy: xy - (64, 32), 0),
}


@pytest.mark.parametrize(("turn", "place", "angle"), TURNS.values(), ids=TURNS)
def test_points_move_with_the_picture(pictures: Read, turn: Turn, place: Turn, angle: float | None) -> None:
    desk = pictures(DESK)
    assert desk.shape == (480, 640, 3)
    before, after = find([desk], most=5000), find([np.ascontiguousarray(turn(desk))], most=5000)
    expected = place(before["keypoint"].astype(np.float64))
    index, distance = nearest(expected, after["keypoint"])
    found = distance < 0.1
    assert found.mean() > 0.85
    assert np.abs((after["keypoint"][index] - expected)[found].mean(axis=0)).max() < 0.005
    np.testing.assert_allclose(
        np.median(after["keypoint_scale"][index][found] / before["keypoint_scale"][found]), 1, rtol=1e-3
    )
    if angle is not None:
        turned = (after["keypoint_angle"][index] - before["keypoint_angle"] - angle + 180)[found] % 360 - 180
        same = np.abs(turned) < 5  # a point may have several directions
        assert same.mean() > 0.75
        assert np.abs(np.median(turned[same])) < 0.1
        ours, theirs = (a.astype(np.float64) / 512 for a in (before["descriptor"], after["descriptor"][index]))
        assert np.median((ours * theirs).sum(axis=1)[found][same]) > 0.99


def test_the_points_of_colmap(pictures: Read) -> None:
    """Points of pycolmap 4.2.1 (its own SIFT on the CPU, all defaults): 40 of 6,705, drawn by chance.

    `rows` are x, y, scale and angle (radians); `descriptors` those of every fifth row, as its database has them.
    """
    recorded = json.loads((Path(__file__).parent / "colmap_sift.json").read_text())
    rows, descriptors = np.array(recorded["rows"]), np.array(recorded["descriptors"])
    made = find([pictures(DSC)], most=100_000)
    distance = np.linalg.norm(rows[:, None, :2] - made["keypoint"][None], axis=2)
    scale = np.abs(np.log(made["keypoint_scale"][None] / 2 / rows[:, None, 2]))
    angle = np.abs((made["keypoint_angle"][None] - np.rad2deg(rows[:, None, 3]) + 180) % 360 - 180)
    cost = distance + 100 * (scale > 0.1) + 100 * (angle > 10)
    index, found = cost.argmin(axis=1), cost.min(axis=1) < 0.5
    assert found.mean() > 0.7
    offset = (made["keypoint"][index] - rows[:, :2])[found]
    assert np.abs(np.median(offset, axis=0)).max() < 0.02
    assert np.median(np.linalg.norm(offset, axis=1)) < 0.05
    ours = made["descriptor"][index[::5]].astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1)
    np.testing.assert_allclose(lengths, np.linalg.norm(descriptors, axis=1), rtol=0.005)
    cosine = (ours * descriptors).sum(axis=1) / lengths / np.linalg.norm(descriptors, axis=1)
    assert cosine[found[::5]].min() > 0.97
    assert np.median(cosine[found[::5]]) > 0.99


def test_descriptors_without_root_are_opencvs(pictures: Read) -> None:
    desk = pictures(DESK)
    made = find([desk], root=False, threshold=0.04, most=400)
    theirs, described = cv2.SIFT.create(0, 3, 0.04, 10, 1.6, True).detectAndCompute(
        cv2.cvtColor(desk, cv2.COLOR_RGB2GRAY), None
    )
    by_place = {(*point.pt, point.size, point.angle): row for point, row in zip(theirs, described, strict=True)}
    rows = zip(made["keypoint"] - 0.5, made["keypoint_scale"], made["keypoint_angle"], made["descriptor"], strict=True)
    for (x, y), scale, angle, descriptor in rows:
        key = min(
            by_place, key=lambda one: abs(one[0] - x) + abs(one[1] - y) + abs(one[2] - scale) + abs(one[3] - angle)
        )
        np.testing.assert_array_equal(descriptor, by_place[key])


def test_root_sift() -> None:
    plain = np.zeros((3, 128), np.float32)
    plain[0, :4] = 1, 1, 1, 1
    plain[1, 5], plain[1, 6:22] = 16, 1
    made = root(plain)
    assert made.dtype == np.uint8
    assert made[0, :5].tolist() == [255, 255, 255, 255, 0]  # 512 × √¼ is 256, one too many
    assert made[1, 5:8].tolist() == [255, 91, 91]  # 512 × √(1/32) = 90.5
    assert not made[2].any()


def test_a_lack_of_memory_is_opencvs_own_message() -> None:
    from pipeline.models.session import is_out_of_memory

    with pytest.raises((cv2.error, MemoryError)) as caught:
        cv2.resize(np.zeros((2, 2), np.float64), (2**31 - 1, 2**20))
    assert is_out_of_memory(caught.value), caught.value


def test_sift_has_no_hash_of_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The store has one, of nothing; it would send readers after a file that does not exist."""
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.zeros((32, 32, 3), np.uint8))
    out = tmp_path / "s.zarr"
    run = pipeline.run("match", tmp_path / "photos", out, executor="inline")
    stored = run.attributes["models"][0]["weights_sha256"]
    assert main(["status", str(out)]) == 0
    assert re.search(r"model sift: Apache-2.0 \(opencv [\d.]+\)\n", capsys.readouterr().out)
    report(out, tmp_path / "s.html")
    assert stored not in (tmp_path / "s.html").read_text(encoding="utf-8")
