"""Mosaics: frames in tiles, and boxes and points of the mosaic back in their frames."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data

import pipeline
from pipeline.engine.stage import Chunk
from pipeline.engine.workflow import load_workflow
from pipeline.errors import ReelgraphError
from pipeline.faces.models.base import Faces
from pipeline.faces.stages.detect import Detect, DetectOptions
from pipeline.machine.device import Device
from pipeline.media.mosaic import PLAIN, Mosaics
from pipeline.media.preparation import Preparation
from tests.clips import write_clip
from tests.objects.made_networks import found, save, stage

BRIGHT = (255, 200, 40)
STRETCH = Preparation((1, 1), "NHWC", "uint8", "stretch")
GREY_BARS = Preparation((1, 1), "NHWC", "uint8", "longest", bars=114)


def scene(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return a dark picture with one bright box, x, y, width, height."""
    picture = np.full((height, width, 3), 60, np.uint8)
    x, y, w, h = box
    picture[y : y + h, x : x + w] = BRIGHT
    return picture


def seen(mosaic: np.ndarray) -> np.ndarray:
    """Return the bright boxes of a mosaic, to parts of a pixel: a pixel at a border has the share that it covers."""
    share = (mosaic[:, :, 0].astype(float) - 60).clip(0) / (255 - 60) * (mosaic[:, :, 2] < 60)
    _, _, places, _ = cv2.connectedComponentsWithStats((share > 0.05).astype(np.uint8))
    boxes = []
    for x, y, w, h, _ in places[1:].tolist():
        part = share[y : y + h, x : x + w]
        across, down = part.max(axis=0), part.max(axis=1)
        left, top = x + 1 - across[0], y + 1 - down[0]
        boxes.append([left, top, across.sum(), down.sum()])
    return np.array(boxes).reshape(-1, 4)


def looked(mosaics: Mosaics) -> tuple[np.ndarray, np.ndarray]:
    """Return the mosaic's index and the box of each bright box."""
    boxes = [seen(mosaic) for mosaic in mosaics]
    return np.repeat(np.arange(len(boxes)), [len(one) for one in boxes]), np.concatenate(boxes)


@pytest.mark.parametrize("how", [PLAIN, STRETCH, GREY_BARS], ids=["bars", "stretch", "grey bars"])
@pytest.mark.parametrize(
    ("tiles", "size"),
    [((2, 2), None), ((2, 2), (352, 352)), ((3, 2), (361, 517)), ((1, 4), (720, 640)), ((2, 3), None)],
)
def test_boxes_come_back_within_a_pixel(how: Preparation, tiles: tuple[int, int], size: Any) -> None:
    chance = np.random.default_rng(3)
    pictures, truth = [], []
    for height, width in [(360, 640), (480, 320), (300, 300), (361, 643), (720, 1280)] * 3:
        w, h = chance.integers(width // 6, width // 2), chance.integers(height // 6, height // 2)
        truth.append((int(chance.integers(width - w)), int(chance.integers(height - h)), int(w), int(h)))
        pictures.append(scene(height, width, truth[-1]))
    decoded = np.ones(15, bool)
    decoded[[2, 6, 7]] = False
    mosaics = Mosaics(pictures, decoded, tiles, size, how)
    mosaic, box = looked(mosaics)
    centre = box[:, None, :2] + box[:, None, 2:] / 2
    which, frame, boxes, points = mosaics.apart(mosaic, box, np.ones(len(box)), centre)
    assert frame.tolist() == np.flatnonzero(decoded).tolist()
    assert sorted(which.tolist()) == list(range(12))
    for index, own in zip(frame.tolist(), boxes, strict=True):
        shrunk = [own / part for own, part in zip(pictures[index].shape, _tile(mosaics, index), strict=False)]
        pixel = max(1.0, *shrunk)  # of the mosaic, in pixels of the frame
        np.testing.assert_allclose(own, truth[index], atol=pixel, err_msg=str(index))
    np.testing.assert_allclose(points[:, 0], boxes[:, :2] + boxes[:, 2:] / 2, atol=0.01)


def _tile(mosaics: Mosaics, frame: int) -> tuple[float, float]:
    """Return height and width of a frame's picture in its mosaic."""
    n = mosaics._n
    _, _, width, height, _, _ = mosaics._plan(frame // n)[1][frame % n]
    return height, width


def test_halved_frames_come_back_exactly() -> None:
    truth = [(40, 20, 120, 60), (0, 0, 64, 48), (576, 320, 64, 40), (200, 100, 2, 2)]
    frames = np.stack([scene(360, 640, box) for box in truth])
    mosaics = Mosaics(frames, np.ones(4, bool), (2, 2))
    assert mosaics[0].shape == (360, 640, 3)
    mosaic, box = looked(mosaics)
    np.testing.assert_array_equal(mosaics.apart(mosaic, box, np.ones(4)).box, truth)


def test_tiles_without_a_picture_are_black_and_hold_nothing() -> None:
    frames = np.full((7, 90, 160, 3), 200, np.uint8)
    decoded = np.array([False] * 3 + [True, True, False, True])
    mosaics = Mosaics(frames, decoded, (3, 1), (30, 300))
    # Tiles are 100 pixels wide, and pictures in them 53. The first mosaic is not there: it has no picture.
    shown = [[bool(mosaic[:, x : x + 100].any()) for x in (0, 100, 200)] for mosaic in mosaics]
    assert shown == [[True, True, False], [True, False, False]]
    assert [np.flatnonzero(mosaic.any(axis=(0, 2)))[[0, -1]].tolist() for mosaic in mosaics] == [[23, 175], [23, 75]]
    middles = np.array([[40, 5, 20, 20], [140, 5, 20, 20], [240, 5, 20, 20]] * 2, float)
    apart = mosaics.apart(np.repeat([0, 1], 3), middles, np.ones(6))
    assert apart.frame.tolist() == [3, 4, 6]
    assert apart.which.tolist() == [0, 1, 3]
    assert len(Mosaics(frames, np.zeros(7, bool), (3, 1))) == 0
    assert [list(pairwise([0, *(stop for _, stop in mosaics.blocks(most))])) for most in (1, 10**9)] == [
        [(0, 1), (1, 2)], [(0, 2)],
    ]  # fmt: skip


BORDERS = {
    "inside": ((10, 10, 20, 20), (0, (20, 20, 40, 40))),
    "most of it left of a border": ((85, 10, 20, 20), (0, (170, 20, 30, 40))),
    "most of it right of a border": ((95, 10, 20, 20), (1, (0, 20, 30, 40))),
    "half on each side": ((90, 10, 20, 20), None),
    "below a border": ((110, 45, 20, 20), (3, (20, 0, 40, 30))),
    "at a corner, with less than half anywhere": ((88, 38, 20, 20), None),
    "at a corner, with more than half in one": ((82, 32, 20, 20), (0, (164, 64, 36, 36))),
    "over two tiles": ((0, 10, 200, 30), None),
    "over all tiles": ((0, 0, 200, 100), None),
    "beyond the mosaic": ((-8, -8, 40, 40), (0, (0, 0, 64, 64))),
    "far beyond the mosaic": ((-30, 10, 40, 40), None),
    "in a black tile": ((10, 60, 20, 20), None),
    "most of it in a black tile": ((85, 60, 20, 20), None),
    "no area": ((10, 10, 0, 5), None),
}


@pytest.mark.parametrize(("box", "expected"), BORDERS.values(), ids=list(BORDERS))
def test_objects_across_borders_belong_to_one_frame_or_none(box: Any, expected: Any) -> None:
    frames = np.zeros((4, 100, 200, 3), np.uint8)
    mosaics = Mosaics(frames, np.array([True, True, False, True]), (2, 2), (100, 200))
    apart = mosaics.apart(np.zeros(1, int), np.array([box], float), np.ones(1))
    got = list(zip(apart.frame.tolist(), map(tuple, apart.box.tolist()), strict=True))
    assert got == ([] if expected is None else [expected])


def test_objects_of_bars_belong_to_no_frame() -> None:
    frames = np.zeros((2, 100, 50, 3), np.uint8)
    mosaics = Mosaics(frames, np.ones(2, bool), (2, 1), (100, 200))  # pictures at 25 to 75 and 125 to 175
    box = np.array([[2, 10, 20, 20], [70, 10, 20, 20], [65, 10, 20, 20], [122, 10, 20, 20]], float)
    apart = mosaics.apart(np.zeros(4, int), box, np.ones(4))
    assert apart.which.tolist() == [3]
    assert apart.box.tolist() == [[0, 10, 17, 20]]


CELLS = [(8, 8, 40, 20), (72, 20, 16, 16), (10, 80, 40, 40), (70, 70, 50, 50), (34, 100, 60, 20)]
"""Boxes of a mosaic of 128 by 128 pixels: one in each tile, and one across two of them."""


def test_objects_of_a_network(tmp_path: Path, device: Device) -> None:
    """The network gives the same boxes for each mosaic; the frames are half as high as their tiles."""
    rows = np.zeros((5, 336), np.float32)
    rows[:4, : len(CELLS)] = np.transpose([[x + w / 2, y + h / 2, w, h] for x, y, w, h in CELLS])
    rows[4, : len(CELLS)] = [0.9, 0.8, 0.7, 0.6, 0.95]
    path = save(tmp_path / "net.onnx", {"output0": rows}, (128, 128))
    frames = [np.full((64, 128, 3), 90, np.uint8)] * 7
    decoded = [True, False, True, True, True, True, False]
    made = stage(path, device, tiles="2x2", family="yolov8")
    result = found(made, *frames, decoded=decoded)
    assert result["n_objects"].tolist() == [1, 0, 1, 1, 1, 1, 0]
    # A tile has 16 pixels of grey above and below its picture of 64 by 32 pixels.
    boxes = {0: [16, 0, 80, 24], 1: [16, 8, 32, 32], 2: [20, 0, 80, 64], 3: [12, 0, 100, 64]}
    assert result["box"].tolist() == [boxes[number] for number in (0, 2, 3, 0, 1)]
    two = stage(path, device, tiles=[1, 2], family="yolov8", most=1)
    assert found(two, *frames, decoded=decoded)["n_objects"].tolist() == [1, 0, 1, 1, 1, 1, 0]


def test_a_second_look_gives_what_each_frame_alone_gives(tmp_path: Path, device: Device) -> None:
    """Frames of which a mosaic shows nothing are not looked at alone, and have no objects."""
    rows = np.zeros((5, 336), np.float32)
    rows[:, :3] = [[30, 70, 71], [30, 22, 22], [20, 8, 8], [20, 8, 8], [0.9, 0.8, 0.7]]
    path = save(tmp_path / "net.onnx", {"output0": rows}, (128, 128))
    frames, decoded = [np.full((128, 128, 3), 90, np.uint8)] * 7, [True] * 5 + [False, True]
    alone = found(stage(path, device, family="yolov8"), *frames, decoded=decoded)
    assert alone["n_objects"].tolist() == [2, 2, 2, 2, 2, 0, 2]
    again = found(stage(path, device, tiles="2x2", look_again=True, family="yolov8"), *frames, decoded=decoded)
    shown = [0, 1, 4]  # the first two tiles of each mosaic; the last one has no frame 5
    assert np.flatnonzero(again["n_objects"]).tolist() == shown
    rows_of = np.repeat(np.arange(7), alone["n_objects"])
    for name in ("box", "class", "score"):
        np.testing.assert_array_equal(again[name], alone[name][np.isin(rows_of, shown)])
    best = found(stage(path, device, tiles="2x2", look_again=True, family="yolov8", most=1), *frames, decoded=decoded)
    assert best["n_objects"].tolist() == [1, 1, 0, 0, 1, 0, 0]
    assert best["score"].tolist() == [np.float32(0.9)] * 3
    sure = stage(path, device, tiles="2x2", look_again=True, family="yolov8", score=0.85)
    weak = found(sure, *frames, decoded=decoded)
    assert weak["n_objects"].tolist() == [1, 1, 0, 0, 1, 0, 0]  # the mosaic shows no more than 0.8 of frame 1
    assert weak["score"].tolist() == [np.float32(0.9)] * 3


class TwoFaces:
    """Finds the same two faces in every picture, and remembers the pictures."""

    def detect(self, frames: Any) -> Faces:
        self.shapes = [frame.shape for frame in frames]
        n = len(frames)
        box = np.tile(np.array([[10, 10, 30, 40], [170, 10, 20, 20]], np.float32), (n, 1))
        landmarks = box[:, None, :2] + np.arange(10, dtype=np.float32).reshape(5, 2)
        return Faces(np.repeat(np.arange(n), 2), box, landmarks, np.tile(np.array([0.7, 0.9], np.float32), n))


def faces_in(detector: Any, frames: np.ndarray, decoded: list[bool], **options: Any) -> dict[str, np.ndarray]:
    made = Detect(DetectOptions.model_validate({"tiles": "2x2", **options}))
    if detector is None:
        made.load(Device())
    else:
        made.detector = detector
    return made.run(Chunk("clip", 0, np.arange(len(frames)), None, np.array(decoded), {"frames_rgb": frames}))


def test_faces_and_their_landmarks() -> None:
    frames, detector = np.zeros((6, 100, 200, 3), np.uint8), TwoFaces()
    result = faces_in(detector, frames, [True] * 4 + [False, True], size="400x200")
    assert detector.shapes == [(200, 400, 3)] * 2
    assert result["n_faces"].tolist() == [2, 0, 0, 0, 0, 0]
    assert result["box"].tolist() == [[170, 10, 20, 20], [10, 10, 30, 40]]
    assert result["confidence"].tolist() == np.array([0.9, 0.7], np.float32).tolist()
    result = faces_in(detector, frames, [True] * 4 + [False, True], max_faces=1)
    assert detector.shapes == [(100, 200, 3)] * 2
    assert result["n_faces"].tolist() == [1, 1, 0, 0, 0, 1]
    assert result["box"].tolist() == [[20, 20, 60, 80], [140, 20, 40, 40], [140, 20, 40, 40]]
    np.testing.assert_array_equal(result["landmarks"][0], [20, 20] + 2 * np.arange(10).reshape(5, 2))


def test_a_real_detector_finds_the_same_faces_in_a_mosaic() -> None:
    astronaut = skimage.data.astronaut()
    frames = np.stack([np.roll(astronaut, shift, axis=1) for shift in (0, 40, -60, 90, 20)])
    alone = Detect(DetectOptions(min_face=60))
    alone.load(Device())
    single = alone.run(Chunk("clip", 0, np.arange(5), None, np.ones(5, bool), {"frames_rgb": frames}))
    mosaic = faces_in(None, frames, [True] * 5, min_face=30)
    assert mosaic["n_faces"].tolist() == single["n_faces"].tolist() == [1] * 5
    np.testing.assert_allclose(mosaic["box"], single["box"], atol=12)  # of a face of 100 pixels, seen at half its size
    np.testing.assert_allclose(mosaic["landmarks"], single["landmarks"], atol=5)


def test_a_second_look_at_faces() -> None:
    empty = np.zeros((512, 512, 3), np.uint8)
    frames = np.stack([empty, skimage.data.astronaut(), empty, skimage.data.astronaut()[::-1], empty])
    alone = Detect(DetectOptions())
    alone.load(Device())
    single = alone.run(Chunk("clip", 0, np.arange(5), None, np.ones(5, bool), {"frames_rgb": frames}))
    again = faces_in(None, frames, [True] * 5, look_again=True)
    assert single["n_faces"].tolist() == [0, 1, 0, 0, 0]
    assert again.keys() == single.keys()
    for name, values in single.items():
        np.testing.assert_array_equal(again[name], values)
    assert faces_in(None, frames[:1], [True], look_again=True)["n_faces"].tolist() == [0]
    detector = TwoFaces()
    largest = faces_in(detector, frames, [True] * 4 + [False], look_again=True, max_faces=1)
    assert detector.shapes == [(512, 512, 3)]  # the frame of the one tile that shows faces
    assert largest["n_faces"].tolist() == [1, 0, 0, 0, 0]
    assert largest["box"].tolist() == [[10, 10, 30, 40]]


def test_a_run_with_mosaics(tmp_path: Path) -> None:
    """The last chunk has 3 frames: its mosaic has a black tile. Another grid is another resume key."""
    rows = np.zeros((5, 84), np.float32)
    rows[:, :2] = [[16, 48], [16, 16], [8, 8], [8, 8], [0.9, 0.8]]
    network = save(tmp_path / "net.onnx", {"output0": rows}, (64, 64))
    workflow = tmp_path / "objects.yaml"
    workflow.write_text(f"stages: {{objects: {{use: objects, model: {network}, tiles: 2x2}}}}\nsource: {{every: 1}}\n")
    clip = write_clip(tmp_path / "clip.mp4", n_frames=67)
    run = pipeline.run(workflow, clip, tmp_path / "out.zarr", executor="inline")
    assert run.array("clip", "n_objects").tolist() == [1, 1, 0, 0] * 16 + [1, 1, 0]
    with pytest.raises(ReelgraphError, match="tiles"):
        pipeline.run(workflow, clip, tmp_path / "out.zarr", executor="inline", set={"objects.tiles": "4x1"})


WRONG = {
    "source": ("source: {kind: mosaic}\nstages: {detect: {use: detect}}", r"source 'mosaic' does not.*set tiles: 2x2"),
    "no grid": ("stages: {detect: {use: detect, tiles: two}}", r"tiles: 'two' are not columns and rows from 1 to 16"),
    "0": ("stages: {detect: {use: detect, tiles: '0x2'}}", r"'0x2' are not columns and rows from 1 to 16, such as 2x2"),
    "17": ("stages: {objects: {use: objects, tiles: 17}}", r"tiles: 17 are not columns and rows"),
    "three": ("stages: {objects: {use: objects, tiles: [2, 2, 2]}}", r"tiles: \[2, 2, 2\] are not columns and rows"),
    "size": ("stages: {detect: {use: detect, size: 640x480}}", "option size needs tiles; leave it out, or set tiles"),
    "hog": ("stages: {objects: {use: objects, size: 640x480}}", "model hog has no option size; set tiles: 2x2 for"),
    "small": ("stages: {detect: {use: detect, tiles: 9x2, size: 8x8}}", "size 8x8 is too small for tiles 9x2"),
    "again": ("stages: {objects: {use: objects, look_again: true}}", "option look_again needs tiles; leave it out"),
    "turned": ("stages: {detect: {use: detect, tiles: 2, turned: true}}", "option tiles needs .*turned: false"),
    "deepface": ("stages: {detect: {use: detect, tiles: 2, align: deepface}}", "option tiles needs align: native"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=list(WRONG))
def test_wrong_options_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "workflow.yaml").write_text(text)
    with pytest.raises(ReelgraphError, match=message):
        load_workflow(tmp_path / "workflow.yaml")


def test_a_size_as_text_is_that_of_two_numbers() -> None:
    assert DetectOptions.model_validate({"tiles": "3 x 2", "size": "1280x720"}).size == (720, 1280)
    options = DetectOptions.model_validate({"tiles": [3, 2], "size": [720, 1280]})
    assert options.keyed()["tiles"] == [3, 2]
    assert Detect(options).seconds_per_megapixel == Detect.seconds_per_megapixel / 6  # what `plan` reckons with
    assert not {"tiles", "size", "turned"} & set(DetectOptions().keyed())
