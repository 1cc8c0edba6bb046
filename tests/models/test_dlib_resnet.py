"""The embedder against dlib, and its chips."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.faces.models import create_detector, create_embedder, zoo
from pipeline.faces.models.align import DLIB_SIDE, dlib, dlib_template, similarity
from pipeline.faces.models.base import Detector, Embedder, Faces
from pipeline.faces.models.recognisers.dlib_resnet import NAME, build_graph
from pipeline.machine.device import Device
from pipeline.models.weights import weights_files
from tests.devices import tolerance

from .conftest import read_rgb


@pytest.fixture(scope="module")
def embedder(device: Device) -> Embedder:
    return create_embedder("Dlib", device)


@pytest.fixture(scope="module")
def chips(embedder: Embedder, detector: Detector, astronaut: np.ndarray, grace_hopper: np.ndarray) -> np.ndarray:
    """Five chips: two faces, a mirror image, noise, black."""
    pictures = [astronaut, grace_hopper]
    found = embedder.chips(pictures, detector.detect(pictures))
    noise = np.random.default_rng(0).integers(0, 256, (DLIB_SIDE, DLIB_SIDE, 3), dtype=np.uint8)
    return np.stack([*found, found[0][:, ::-1], noise, np.zeros_like(noise)])


def test_equals_dlib(device: Device, embedder: Embedder, chips: np.ndarray) -> None:
    dlib = pytest.importorskip("dlib")
    model = dlib.face_recognition_model_v1(str(weights_files(zoo.card(NAME))[0]))
    expected = np.array([model.compute_face_descriptor(np.ascontiguousarray(chip)) for chip in chips])
    assert np.abs(embedder.embed(chips) - expected).max() < tolerance(device, 1e-5)


def test_does_not_depend_on_batch_or_memory(device: Device, embedder: Embedder, chips: np.ndarray) -> None:
    together = embedder.embed(chips)
    one_by_one = np.concatenate([embedder.embed(chip[None]) for chip in chips])
    lean = create_embedder("Dlib", replace(device, threads=2, batch_memory_bytes=1)).embed(chips)
    for other in (one_by_one, lean):
        np.testing.assert_allclose(together, other, rtol=0, atol=tolerance(device, 0))
    assert together.dtype == np.float32
    assert together.shape == (5, embedder.dimension)


def test_tells_people_apart(embedder: Embedder, chips: np.ndarray) -> None:
    vectors = embedder.embed(chips)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 0.6 > np.linalg.norm(vectors[0] - vectors[2])


def test_flip_takes_the_mean_with_the_mirror_image(device: Device, embedder: Embedder, chips: np.ndarray) -> None:
    flipping = create_embedder("Dlib", device, flip=True)
    vectors, mirrored = embedder.embed(chips[:1]), embedder.embed(chips[2:3])
    np.testing.assert_allclose(flipping.embed(chips[:1]), (vectors + mirrored) / 2, atol=tolerance(device, 1e-6))


def test_no_faces(embedder: Embedder, astronaut: np.ndarray) -> None:
    none = Faces(
        np.empty(0, np.int64), np.empty((0, 4), np.float32), np.empty((0, 5, 2), np.float32), np.empty(0, np.float32)
    )
    chips = embedder.chips(astronaut[None], none)
    assert chips.shape == (0, DLIB_SIDE, DLIB_SIDE, 3)
    assert embedder.embed(chips).shape == (0, 128)


def test_wrong_chips(embedder: Embedder) -> None:
    with pytest.raises(
        ValueError, match=r"chips must be uint8 or float32 \(n, 150, 150, 3\), not float64 \(1, 112, 112, 3\)"
    ):
        embedder.embed(np.zeros((1, 112, 112, 3)))


def at(points: np.ndarray, frame: int = 0) -> Faces:
    landmarks = np.full((1, 5, 2), np.nan, np.float32)
    landmarks[0, list(dlib().landmarks)] = points
    return Faces(np.array([frame]), np.zeros((1, 4), np.float32), landmarks, np.ones(1, np.float32))


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.7, 4.0, 9.3])
@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0])
def test_chip_shows_the_face_upright_at_any_size(embedder: Embedder, scale: float, angle: float) -> None:
    """A frame with coordinates for colours, seen through a known transform, must read as those coordinates."""
    side = 1600
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([side / 2, side / 2])
    points = (dlib_template() - 75) @ turn.T + centre
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    frame = np.stack([x, y, np.zeros_like(x)], axis=2) * (255 / side)
    chip = embedder.chips(frame.round().astype(np.uint8)[None], at(points))[0]
    grid = np.stack(np.meshgrid(np.arange(150), np.arange(150)), axis=2)
    expected = ((grid - 75) @ turn.T + centre) * (255 / side)
    inside = ((expected > 4) & (expected < 251)).all(axis=2)
    assert inside.mean() > 0.6
    assert np.abs(chip[..., :2] - expected)[inside].max() <= 1.5


def test_large_faces_do_not_alias(embedder: Embedder) -> None:
    """A fine checkerboard seen from afar is grey."""
    frame = np.where(np.indices((900, 900)).sum(axis=0) % 2, 255, 0).astype(np.uint8)[..., None].repeat(3, axis=2)
    chip = embedder.chips(frame[None], at(dlib_template() * 5.5 + 20))[0]
    assert np.abs(chip[5:-5, 5:-5].astype(int) - 127).max() <= 24


@pytest.mark.parametrize(
    "points", [np.full((4, 2), np.nan), np.full((4, 2), 7.0), dlib_template() - 5000], ids=["unknown", "one", "far"]
)
def test_nothing_to_see_is_black(embedder: Embedder, points: np.ndarray) -> None:
    chip = embedder.chips(np.full((1, 50, 50, 3), 200, np.uint8), at(points))
    assert not chip.any()


def test_similarity_recovers_a_known_transform() -> None:
    source = np.random.default_rng(1).normal(size=(3, 4, 2))
    expected = np.array([[0.6, -0.8, 3], [0.8, 0.6, -2]])
    target = source[1] @ expected[:, :2].T + expected[:, 2]
    np.testing.assert_allclose(similarity(source[1:2], target)[0], expected, atol=1e-12)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", "cut"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "dlib.dat"
    path.write_bytes(weights_files(zoo.card(NAME))[0].read_bytes()[:5_000_000] if isinstance(content, str) else content)
    with pytest.raises(ModelError, match=r"dlib\.dat is not dlib's face recognition model, or is damaged"):
        build_graph(path)


def labelled_pairs(data_dir: Path) -> list[dict[str, str]]:
    """path_a, path_b and same ("1" or "0") of each pair, whichever of its names the list has."""
    found = [path for name in ("pairs.csv", "pairs_dev.csv") if (path := data_dir / "faces" / name).is_file()]
    if not found:
        pytest.skip(f"neither pairs.csv nor pairs_dev.csv in {data_dir / 'faces'}")
    with found[0].open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_pairs_of_people(device: Device, embedder: Embedder, data_dir: Path) -> None:
    """The figures that the module claims, on the labelled pairs; none of their faces is smaller than 40 pixels."""
    rows = labelled_pairs(data_dir)
    detector = create_detector("mtcnn", device, min_face=40)
    vectors = {}
    for name in sorted({row[key] for row in rows for key in ("path_a", "path_b")}):
        picture = [read_rgb(data_dir / "faces" / name)]
        faces = detector.detect(picture)
        largest = int(faces.box[:, 2:].prod(axis=1).argmax())
        vectors[name] = embedder.embed(embedder.chips(picture, faces))[largest]
    distance = np.array([np.linalg.norm(vectors[row["path_a"]] - vectors[row["path_b"]]) for row in rows])
    same = np.array([row["same"] == "1" for row in rows])
    at_one_percent = np.quantile(distance[~same], 0.01, method="lower")
    assert (distance[same][:, None] < distance[~same][None]).mean() >= 0.9995
    assert (distance[same] <= at_one_percent).mean() >= 0.98
