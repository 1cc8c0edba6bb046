"""docs/objects.md: its workflows and programs are run, with a made-up YOLOv8 in place of a trained one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

import pipeline
from pipeline.objects.classes import COCO_NAMES
from pipeline.objects.models.families import Family
from pipeline.objects.stages.count import CountOptions
from pipeline.objects.stages.objects import ObjectsOptions
from pipeline.objects.stages.track import TrackObjectsOptions
from tests.clips import write_clip
from tests.docs import Reader
from tests.objects.made_networks import picture, save

PAGE = Path(__file__).parents[2] / "docs" / "objects.md"


@pytest.mark.slow
def test_the_page_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "street.mp4", n_frames=30)
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "grey.png"), picture(200, 300))
    rows = np.zeros((84, 8400), np.float32)
    rows[:4, :3] = np.array([[100, 320, 50, 60], [300, 320, 60, 40], [500, 320, 50, 50]]).T
    rows[[4, 6, 20], [0, 1, 2]] = [0.9, 0.8, 0.7]  # a person, a car and a dog
    names = str({number: name for number, name in enumerate(COCO_NAMES)})
    save(tmp_path / "yolov8n.onnx", {"output0": rows}, batch=1, metadata={"names": names, "task": "detect"})
    reader = Reader(tmp_path, monkeypatch)
    assert reader.follow(PAGE) >= 18
    reader.leave()
    run = pipeline.open(tmp_path / "runs" / "cars.zarr")
    assert set(run.rows("object")["class_name"]) == {"person", "car"}
    assert run.array("street", "n_objects").tolist() == [2] * 6
    street = run.input("street")
    assert street.array("track").tolist() == [0, 1] * 6
    assert street.array("counts").tolist() == [[1]] * 6, "the person"
    assert street.array("crossings").sum() == 0, "nothing moves"
    assert pipeline.open(tmp_path / "runs" / "photos.zarr").array("photos", "n_objects").tolist() == [0]


def test_the_page_lists_all_options_and_families() -> None:
    text = PAGE.read_text()
    table = text[text.index("## Options") : text.index("## What a store holds")]
    options = [name for row in re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE) for name in row.split(", ")]
    assert {name.strip("`") for name in options} == set(ObjectsOptions.model_fields)
    for heading, options_of in (("## Tracks", TrackObjectsOptions), ("## Lines and zones", CountOptions)):
        table = text[text.index(heading) :].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(options_of.model_fields)
    families = text[text.index("## Families") : text.index("## Options")]
    assert set(get_args(Family)) <= set(re.findall(r"^\| `(\w+)` \|", families, re.MULTILINE))
