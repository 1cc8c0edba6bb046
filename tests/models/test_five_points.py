"""dlib's five points of faces against dlib itself, and the two views that are cut by them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.faces.models import create_embedder, zoo
from pipeline.faces.models.align import dlib_points
from pipeline.faces.models.base import Faces
from pipeline.faces.models.recognisers import five_points
from pipeline.faces.stages.embed import Embed, EmbedOptions
from pipeline.machine.device import Device
from pipeline.models.weights import weights_files
from tests.devices import tolerance

BOXES = np.array(
    [
        (180, 70, 90, 100), (200, 80, 60, 70),  # about the face
        (-30, -40, 120, 110), (460, 470, 100, 100), (0, 0, 511, 511), (300, 300, 12, 9),  # of something else
    ]
)  # fmt: skip


def faces_in(boxes: np.ndarray) -> Faces:
    count = len(boxes)
    unknown = np.full((count, 5, 2), np.nan, np.float32)
    return Faces(np.zeros(count, np.int64), boxes.astype(np.float32), unknown, np.ones(count, np.float32))


def test_equals_dlib(astronaut: np.ndarray) -> None:
    dlib = pytest.importorskip("dlib")
    predictor = dlib.shape_predictor(str(weights_files(zoo.card("dlib"))[0]))
    found = five_points.load().points([astronaut], np.zeros(len(BOXES), np.int64), BOXES.astype(np.float64))
    for points, (x, y, w, h) in zip(found, BOXES.tolist(), strict=True):
        parts = predictor(astronaut, dlib.rectangle(x, y, x + w, y + h)).parts()
        np.testing.assert_array_equal(np.floor(points + 0.5), [(part.x, part.y) for part in parts])


def test_a_face_alone_has_the_points_it_has_among_others(astronaut: np.ndarray) -> None:
    cascade, frames = five_points.load(), [astronaut[:400], astronaut]
    boxes = BOXES.astype(np.float64)
    together = cascade.points(frames, np.repeat([0, 1], [2, 4]), boxes)
    for at, box in enumerate(boxes):
        np.testing.assert_array_equal(cascade.points(frames, np.array([at // 2 and 1]), box[None])[0], together[at])


def test_the_layout_of_the_frames_does_not_matter(astronaut: np.ndarray) -> None:
    cascade, boxes = five_points.load(), BOXES.astype(np.float64)
    frame = np.arange(len(BOXES)) % 2
    block = np.stack([astronaut, astronaut[::-1]])
    found = cascade.points(block, frame, boxes)
    wider = np.concatenate([block, block], axis=2)
    for same in (list(block), wider[:, :, : block.shape[2]], np.asfortranarray(block)):
        np.testing.assert_array_equal(cascade.points(same, frame, boxes), found)


def test_points_lie_on_the_chip_as_dlib_places_them(astronaut: np.ndarray) -> None:
    cascade, faces = five_points.load(), faces_in(BOXES[:1])
    (transform,) = cascade.transforms([astronaut], faces, np.full((1, 2, 3), np.nan))
    (points,) = cascade.points([astronaut], faces.frame, faces.box.astype(np.float64))
    placed = points @ transform[:, :2].T + transform[:, 2]
    assert np.abs(placed - dlib_points()).max() < 8


def test_two_views_are_the_mean_of_both_chips(device: Device, astronaut: np.ndarray) -> None:
    faces = faces_in(BOXES[:2])
    native, two = (create_embedder("Dlib", device, align=align) for align in ("native", "two_views"))
    chips = two.chips([astronaut], faces)
    assert chips.shape == (2, 2, 150, 150, 3)
    np.testing.assert_array_equal(chips[:, 0], native.chips([astronaut], faces))
    mean = (native.embed(chips[:, 0]) + native.embed(chips[:, 1])) / 2
    np.testing.assert_allclose(two.embed(chips), mean, atol=tolerance(device, 1e-6))
    assert np.linalg.norm(native.embed(chips[:, 0]) - native.embed(chips[:, 1]), axis=1).max() < 0.6  # one person
    none = two.embed(two.chips([astronaut], faces_in(np.empty((0, 4)))))
    assert none.shape == (0, 128)


def test_a_face_without_a_box_is_cut_as_the_first_chip(astronaut: np.ndarray) -> None:
    faces = faces_in(np.array([(180, 70, 0, 0), (np.nan,) * 4]))
    faces.landmarks[:] = [(205, 110), (245, 110), (225, 130), (210, 150), (240, 150)]
    chips = create_embedder("Dlib", Device(), align="two_views").chips([astronaut], faces)
    np.testing.assert_array_equal(chips[:, 1], chips[:, 0, :, ::-1])
    assert chips.any(axis=(1, 2, 3, 4)).all()


@pytest.mark.parametrize("change", ["short", "other", "empty"])
def test_a_damaged_file_is_refused(tmp_path: Path, change: str) -> None:
    content = weights_files(zoo.card("dlib"))[0].read_bytes()
    damaged = {"short": content[:-1], "other": b"\x55" + content[1:], "empty": b""}[change]
    (tmp_path / "shape.dat").write_bytes(damaged)
    with pytest.raises(ModelError, match=r"shape\.dat is not dlib's predictor of 5 landmarks, or is damaged; run: pip"):
        five_points.read(tmp_path / "shape.dat")


def test_stores_say_that_their_vectors_are_of_two_views() -> None:
    stage = Embed(EmbedOptions(align="two_views"))
    assert stage.outputs[0].attributes["align"] == "two_views"
    assert [info.name for info in stage.models()] == ["Dlib", "dlib"]
    with pytest.raises(ModelError, match="two_views needs the embedder Dlib, not ArcFace"):
        create_embedder("ArcFace", Device(), align="two_views")
