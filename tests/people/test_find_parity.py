"""Who is who, and how near, as `DeepFace.find` says it of the same frames with the same gallery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import pipeline
from pipeline.faces.models import zoo
from pipeline.faces.people.find import find
from pipeline.models.weights import weights_files

pytestmark = pytest.mark.slow

FLOW = """
source: {every: 24}
stages:
  detect: {use: detect, model: opencv, align: deepface}
  embed: {use: embed, model: Dlib, align: deepface}
"""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """DEEPFACE_HOME with the weights that packages carry."""
    weights = tmp_path_factory.mktemp("home") / ".deepface" / "weights"
    weights.mkdir(parents=True)
    (packaged,) = weights_files(zoo.card("Dlib"))
    (weights / packaged.name).symlink_to(packaged)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPFACE_HOME", str(weights.parent.parent))
        yield


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, one of them twice, and a picture of both."""
    import skimage.data
    from matplotlib.cbook import get_sample_data

    folder = tmp_path_factory.mktemp("people")
    astronaut = skimage.data.astronaut()[:, :, ::-1]
    with get_sample_data("grace_hopper.jpg") as file:
        hopper = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
    hopper = cv2.resize(hopper, None, fx=0.8, fy=0.8)[:512]
    both = np.zeros((512, 512 + hopper.shape[1], 3), np.uint8)
    both[:, :512], both[: len(hopper), 512:] = astronaut, hopper
    pictures = {"Eileen/a": astronaut, "Eileen/b": astronaut[:, ::-1], "Grace": hopper, "both": both}
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture)
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "flow.yaml").write_text(FLOW)
    pipeline.make_demo_clip(folder / "demo.mp4", seconds=3, size=(640, 360))
    pipeline.run(folder / "flow.yaml", folder / "demo.mp4", folder / "out.zarr", executor="inline")
    return folder / "out.zarr"


def test_the_shipped_workflow_names_people(store: Path, gallery: Path, workflows: Path, tmp_path: Path) -> None:
    (gallery / "both.png").rename(tmp_path / "both.png")
    try:
        run = pipeline.run(
            workflows / "find.yaml",
            store.parent / "demo.mp4",
            tmp_path / "out.zarr",
            set={"source.every": 24, "identify.gallery": str(gallery)},
            executor="inline",
        )
    finally:
        (tmp_path / "both.png").rename(gallery / "both.png")
    item = run.input("demo")
    names = item.arrays["identity"].attributes["names"]
    found = {names[row] for row in item.array("identity") if row >= 0}
    assert found == {"Eileen", "Grace"}


def frames_of(clip: Path) -> dict[int, np.ndarray]:
    import av

    with av.open(str(clip)) as container:
        return {k: frame.to_ndarray(format="bgr24") for k, frame in enumerate(container.decode(video=0)) if k % 24 == 0}


@pytest.mark.parametrize(
    ("metric", "threshold"), [("cosine", None), ("euclidean", None), ("euclidean_l2", 0.3), ("angular", 1)]
)
def test_identities_and_distances_are_deepfaces(
    metric: str, threshold: float | None, store: Path, gallery: Path
) -> None:
    from deepface import DeepFace

    find([store], gallery, metric=metric, threshold=threshold, all_faces=True, per="face")
    item = pipeline.open(store).input("demo")
    found = item.read(["frame", "face_frame", "box", "identity", "distance"])
    facts = item.arrays["identity"].attributes
    compared = known = 0
    for rank, frame in frames_of(store.parent / "demo.mp4").items():
        rows = np.flatnonzero(found["frame"][found["face_frame"]] == rank)
        if not len(rows):
            continue
        options: dict[str, Any] = {"model_name": "Dlib", "detector_backend": "opencv", "silent": True}
        everyone = DeepFace.find(
            frame, str(gallery), distance_metric=metric, similarity_search=True, return_type="dict", **options
        )
        accepted = DeepFace.find(
            frame, str(gallery), distance_metric=metric, threshold=threshold, return_type="dict", **options
        )
        nearest = {(face[0]["source_x"], face[0]["source_y"]): face for face in everyone}
        names = {(face[0]["source_x"], face[0]["source_y"]): face[0]["identity"] for face in accepted if face}
        assert len(nearest) == len(rows)
        for row in rows:
            place = tuple(max(0, int(side)) for side in found["box"][row, :2])
            best = nearest[place][0]["distance"]
            assert found["distance"][row] == pytest.approx(best, abs=1e-4)
            identity = found["identity"][row]
            ours = str(gallery / facts["pictures"][identity]) if identity >= 0 else None
            assert (ours is None) == (place not in names)
            # One face is in two pictures: DeepFace names either of those that are equally near.
            equals = {str(one["identity"]) for one in nearest[place] if one["distance"] <= best + 1e-6}
            assert ours is None or ours in equals
            compared += 1
            known += identity >= 0
    assert compared >= 3
    assert known >= (compared if threshold == 1 else 2)
