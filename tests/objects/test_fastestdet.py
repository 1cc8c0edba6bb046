"""FastestDet, a real network, on real clips and photographs; its decoding is compared with a plain one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnxruntime
import pytest

import pipeline
from pipeline.cli import main
from tests.objects.made_networks import found, names, stage

CLIPS = ["intel_bottle.mp4", "asl_A_help.mkv", "lp_s18.mp4", "intel_onebyone.mp4"]
"""Clips whose frames are larger than the network's input on both sides: they are only reduced."""


@pytest.fixture(scope="module")
def weights(data_dir: Path) -> dict[str, Any]:
    folder = data_dir / "weights"
    if not (folder / "FastestDet_coco.onnx").is_file():
        pytest.skip(f"no FastestDet_coco.onnx in {folder}")
    return {"model": str(folder / "FastestDet_coco.onnx"), "classes": str(folder / "coco.names")}


def frames(path: Path, numbers: list[int]) -> list[np.ndarray]:
    """Return some frames of a clip, RGB."""
    with av.open(str(path)) as container:
        decoded = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        return [frame for number, frame in zip(range(max(numbers) + 1), decoded, strict=False) if number in numbers]


def plainly(session: Any, rgb: np.ndarray, least: float, limit: float) -> list[tuple[list[float], float, int]]:
    """Return corners, score and class of each object, cell by cell, as the network's authors decode it."""
    height, width = rgb.shape[:2]
    small = cv2.resize(rgb[:, :, ::-1], (352, 352), interpolation=cv2.INTER_AREA)
    (maps,) = session.run(None, {"input.1": (small.transpose(2, 0, 1)[None] / 255).astype(np.float32)})
    candidates = []
    for row in range(22):
        for column in range(22):
            cell = maps[0, :, row, column]
            score = float(cell[0] * cell[5:].max())
            if score < least:
                continue
            x, y = (column + np.tanh(cell[1])) / 22, (row + np.tanh(cell[2])) / 22
            w, h = 1 / (1 + np.exp(-cell[3])), 1 / (1 + np.exp(-cell[4]))
            corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            candidates.append((corners, score, int(cell[5:].argmax())))
    kept: list[tuple[list[float], float, int]] = []
    for candidate in sorted(candidates, key=lambda one: -one[1]):
        if all(other[2] != candidate[2] or iou(other[0], candidate[0]) <= limit for other in kept):
            kept.append(candidate)
    return kept


def iou(one: list[float], other: list[float]) -> float:
    width, height = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared)


@pytest.mark.parametrize("clip", CLIPS)
def test_the_same_objects_as_by_the_authors_rule(weights: dict[str, Any], data_dir: Path, clip: str) -> None:
    session = onnxruntime.InferenceSession(weights["model"])
    pictures = frames(data_dir / "videos" / clip, [0, 11, 25, 40])
    assert len(pictures) == 4
    result = found(stage(**weights), *pictures)
    starts = np.concatenate([[0], np.cumsum(result["n_objects"])])
    for index, picture in enumerate(pictures):
        expected = plainly(session, picture, 0.25, 0.45)
        part = slice(starts[index], starts[index + 1])
        assert result["class"][part].tolist() == [one[2] for one in expected]
        np.testing.assert_allclose(result["score"][part], [one[1] for one in expected], rtol=1e-4)
        corners = np.array([one[0] for one in expected]).reshape(-1, 4)
        corners = corners.clip(0, [picture.shape[1], picture.shape[0]] * 2)
        box = result["box"][part]
        np.testing.assert_allclose(np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1), corners, atol=0.05)
    assert starts[-1] > 4


def test_photographs(weights: dict[str, Any]) -> None:
    data = pytest.importorskip("skimage.data")
    made = stage(**weights, score=0.5)
    for name, expected in (("astronaut", "person"), ("chelsea", "cat")):
        result = found(made, getattr(data, name)())
        assert names(made)[result["class"][0]] == expected
        assert result["box"][0, 2:].prod() > 0.3 * np.prod(getattr(data, name)().shape[:2])


def test_a_run_over_a_clip(
    weights: dict[str, Any], data_dir: Path, workflows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = data_dir / "videos" / "intel_bottle.mp4"
    out = tmp_path / "bottles.zarr"
    arguments = ["run", str(workflows / "objects.yaml"), str(clip), "--out", str(out), "--executor", "inline"]
    arguments += ["--stop", "20", "--set", f"objects.model={weights['model']}", "--set", "objects.score=0.4"]
    arguments += ["--set", f"objects.classes={weights['classes']}"]
    assert main(arguments) == 0
    assert " objects in " in capsys.readouterr().out
    assert main(arguments) == 0  # nothing to do
    assert main([*arguments, "--set", "objects.batch=3"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--set", "objects.score=0.5"]) == 2
    assert "score" in capsys.readouterr().err

    run = pipeline.open(out)
    rows = run.rows("object")
    frames_with = rows.groupby("class_name")["frame"].nunique()
    n_frames = len(run.array("intel_bottle", "n_objects"))
    assert frames_with["bottle"] > 0.8 * n_frames  # bottles stand on a shelf all the time
    assert frames_with["person"] > 0.1 * n_frames  # hands and arms come and go
    seen = Counter(rows["class_name"])
    assert (seen["bottle"] + seen["person"]) / sum(seen.values()) > 0.8
    (model,) = run.attributes["models"]
    assert model["licence"] == "not known: a file of your own"
    assert model["weights_sha256"].startswith("31cb14c017fc")

    assert main(["status", str(out)]) == 0
    assert f"{n_frames} of {n_frames} frames, {len(rows)} objects, complete" in capsys.readouterr().out
    assert main(["export", str(out), "--to", str(tmp_path / "o.csv")]) == 0
    header, first = (tmp_path / "o.csv").read_text().splitlines()[:2]
    assert header.endswith('"x","y","w","h","class","class_name","score","track"')
    assert '"bottle"' in first
    assert main(["report", str(out)]) == 0
    assert "Objects per frame" in (tmp_path / "bottles.html").read_text()


def test_a_part_of_each_frame(weights: dict[str, Any], data_dir: Path, tmp_path: Path) -> None:
    """Boxes are in pixels of the whole frame, wherever the part lies."""
    clip, stages = data_dir / "videos" / "asl_A_help.mkv", {"objects": {"use": "objects", "score": 0.5, **weights}}
    boxes = {}
    for name, more in (("whole", {}), ("part", {"roi": [120, 0, 520, 480]})):
        document = {"source": {"kind": "video", "every": 20, **more}, "stages": stages}
        path = tmp_path / f"{name}.yaml"
        path.write_text(str(document))
        run = pipeline.run(path, [clip], out=tmp_path / f"{name}.zarr", executor="inline")
        item = run.input("asl_A_help")
        counts, box, label = item.array("n_objects"), item.array("box"), item.array("class")
        firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        assert (counts >= 1).all()
        assert label[firsts].tolist() == [0] * len(counts)  # a person
        boxes[name] = box[firsts]
    middles = [boxes[name][:, 0] + boxes[name][:, 2] / 2 for name in ("whole", "part")]
    assert np.abs(middles[0] - middles[1]).max() < 40


def test_people_by_hog_in_a_clip(data_dir: Path, workflows: Path, tmp_path: Path) -> None:
    """Three people walk towards the camera; two runs find the same."""
    clip = data_dir / "videos" / "derived" / "intel_face-demographics-walking-and-pause.mp4"
    made = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.zarr"
        item = pipeline.run(workflows / "objects.yaml", [clip], out=out, executor="inline").input(clip.stem)
        made.append({array: item.array(array) for array in ("n_objects", "box", "class", "score")})
    for array, values in made[0].items():
        np.testing.assert_array_equal(values, made[1][array])
    assert (made[0]["n_objects"] >= 1).mean() > 0.7
    assert set(made[0]["class"].tolist()) == {0}


def test_photographs_in_a_folder(weights: dict[str, Any], data_dir: Path, workflows: Path, tmp_path: Path) -> None:
    """Pictures differ in size; boxes lie inside each."""
    out = tmp_path / "groups.zarr"
    arguments = ["run", str(workflows / "objects.yaml"), str(data_dir / "faces" / "groups"), "--images"]
    arguments += ["--set", f"objects.model={weights['model']}", "--set", f"objects.classes={weights['classes']}"]
    arguments += ["--set", "objects.keep=person", "--out", str(out), "--executor", "inline"]
    assert main(arguments) == 0
    item = pipeline.open(out).input("groups")
    size = np.stack([item.array("width"), item.array("height")], axis=1)[item.array("object_frame")]
    box = item.array("box")
    assert len(np.unique(size, axis=0)) > 3
    assert (box[:, :2] >= 0).all()
    assert (box[:, :2] + box[:, 2:] <= size + 0.01).all()
    counts = dict(zip(item.array("name").tolist(), item.array("n_objects").tolist(), strict=True))
    assert counts["oar_test_image.jpg"] >= 3  # six people
    assert counts["ul_09.jpg"] >= 3  # eight
