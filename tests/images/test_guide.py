"""docs/features.md: its workflows and programs are run, with a small network in place of a ResNet-50."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import pipeline
import pipeline.deepface
from pipeline.images.stages.features import FeaturesOptions
from tests.docs import Reader

PAGE = Path(__file__).parents[2] / "docs" / "features.md"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photographs, one of them with a face, and one file that cannot be read."""
    data = pytest.importorskip("skimage.data")
    (tmp_path / "photos").mkdir()
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), getattr(data, name)()[:, :, ::-1])
    (tmp_path / "photos" / "damaged.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("GlobalMaxPool", ["x"], ["classes"]),
    ]
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("n", 3, 1, 1)) for n in ("classes", "pooled")]
    taken = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 224, 224))]
    model = helper.make_model(
        helper.make_graph(nodes, "net", taken, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    onnx.save(model, tmp_path / "resnet50.onnx")
    return tmp_path


@pytest.mark.slow
def test_the_page_is_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(folder, monkeypatch)
    assert reader.follow(PAGE) == 13
    reader.leave()
    run = pipeline.open(folder / "runs" / "photos.zarr")
    names = run.array("photos", "name").tolist()
    damaged = names.index("damaged.jpg")
    feature = run.array("photos", "feature")
    assert feature.shape == (5, 1280)
    assert np.isnan(feature).all(axis=1).tolist() == [index == damaged for index in range(5)]
    assert run.array("photos", "decoded").tolist() == [index != damaged for index in range(5)]
    pooled = pipeline.open(folder / "runs" / "resnet50.zarr").array("photos", "feature")
    assert pooled.shape == (5, 3)
    assert np.delete(np.linalg.norm(pooled, axis=1), damaged) == pytest.approx([1] * 4)

    whole = pipeline.open(folder / "runs" / "whole.zarr")
    assert whole.array("photos", "n_faces").tolist() == [int(index != damaged) for index in range(5)]
    for row, index in enumerate(whole.array("photos", "face_frame").tolist()):
        picture = cv2.imread(str(folder / "photos" / names[index]))
        ((_, (face,)),) = pipeline.deepface.represent(picture[None], model_name="Dlib", detector_backend="skip")
        np.testing.assert_array_equal(whole.array("photos", "embedding")[row], face["embedding"])

    largest = pipeline.open(folder / "runs" / "largest.zarr")
    found = largest.array("photos", "n_faces")
    assert found.max() == 1
    assert found[names.index("astronaut.png")] == 1
    assert len(largest.array("photos", "embedding")) == found.sum()


def test_the_page_lists_each_option() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## Options")[2].partition("## DeepFace")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in row.split("|")[1].replace("`", "").replace(" ", "").split(",")} == set(
        FeaturesOptions.model_fields
    )
