"""Video whose pixels are not square: models see square ones, stores and films keep those of the file."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import pipeline
from pipeline.engine.source import MAX_CHUNK_BYTES
from pipeline.errors import InputError
from pipeline.faces.people.pictures import Recipe
from pipeline.faces.people.question import Question, ask
from pipeline.media.film.film import Film
from pipeline.media.video.decode import square_size
from pipeline.media.video.index import build_index
from pipeline.media.video.source import VideoOptions, VideoSource
from tests.clips import ORIENTATIONS, remuxed

ASPECTS = {"wide": (Fraction(4, 3), (480, 480)), "tall": (Fraction(3, 4), (640, 360))}
"""Sample aspect ratios, and sizes at which they show 4:3."""


def squeezed(clip: Path, target: Path, aspect: Fraction, size: tuple[int, int], count: int = 61) -> Path:
    """A clip scaled to a size that is to be shown with an aspect ratio."""
    with av.open(str(clip)) as reading, av.open(str(target), "w") as writing:
        stream = writing.add_stream("libx264", rate=30, options={"crf": "12", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for number, frame in enumerate(reading.decode(video=0)):
            if number == count:
                break
            scaled = frame.reformat(*size, format="yuv420p", interpolation="BICUBIC")
            scaled.pts, scaled.time_base = number, Fraction(1, 30)
            writing.mux(stream.encode(scaled))
        writing.mux(stream.encode())
    return target


@pytest.mark.parametrize(
    ("size", "aspect", "square"),
    [
        ((720, 576), Fraction(64, 45), (1024, 576)),
        ((720, 480), Fraction(8, 9), (720, 540)),
        ((853, 480), Fraction(1280, 1281), (853, 480)),
        ((100, 100), Fraction(4), (200, 50)),
        ((100, 100), Fraction(1, 4), (50, 200)),
        ((100, 100), Fraction(300), (100, 100)),
    ],
    ids=str,
)  # fmt: skip
def test_sizes_in_square_pixels(size: tuple[int, int], aspect: Fraction, square: tuple[int, int]) -> None:
    assert square_size(*size, aspect) == square


@pytest.mark.parametrize("name", ASPECTS)
def test_memory_is_bounded_by_what_models_see(name: str, data_dir: Path, tmp_path: Path) -> None:
    aspect, size = ASPECTS[name]
    source = VideoSource(
        squeezed(data_dir / "videos/asl_A_again.mkv", tmp_path / "a.mp4", aspect, size, 3), VideoOptions()
    )
    frames = source.job(0, 1).decode().frames_rgb
    assert frames.shape == (1, 480, 640, 3)
    assert source.item_bytes == frames.nbytes <= MAX_CHUNK_BYTES
    assert (source.facts["width"], source.facts["height"]) == size
    assert source.facts["sample_aspect_ratio"] == str(aspect)


def test_the_ratio_turns_with_the_frame(data_dir: Path, tmp_path: Path) -> None:
    made = squeezed(data_dir / "videos/asl_A_again.mkv", tmp_path / "a.mp4", *ASPECTS["wide"], 3)
    path = remuxed(made, tmp_path / "turned.mp4", ORIENTATIONS["transpose=clock"][0])
    source = VideoSource(path, VideoOptions())
    assert source.job(0, 1).decode().frames_rgb.shape == (1, 640, 480, 3)
    part = VideoSource(path, VideoOptions(roi=(0, 240, 480, 120)))
    assert part.job(0, 1).decode().frames_rgb.shape == (1, 160, 480, 3)
    assert part.on_frames(np.array([10.0, 270, 20, 30])).tolist() == [10, 40, 20, 40]
    assert Film(path).sample_aspect_ratio == Fraction(3, 4)


def test_a_store_that_saw_other_frames_is_refused(data_dir: Path, tmp_path: Path) -> None:
    path = squeezed(data_dir / "videos/asl_A_again.mkv", tmp_path / "a.mp4", *ASPECTS["wide"], 3)
    source = VideoSource(path, VideoOptions())
    ref = next(VideoSource.find([str(path)], VideoOptions()))
    assert len(VideoSource.open(ref, VideoOptions(), source.facts)) == 1
    before = {name: value for name, value in source.facts.items() if name != "sample_aspect_ratio"}
    with pytest.raises(InputError, match=r"other frames .*\(sample_aspect_ratio\); run it again with --fresh"):
        VideoSource.open(ref, VideoOptions(), before)


@pytest.mark.parametrize("name", ASPECTS)
def test_faces_are_those_of_the_square_film(name: str, data_dir: Path, workflows: Path, tmp_path: Path) -> None:
    aspect, size = ASPECTS[name]
    clip = data_dir / "videos/asl_A_again.mkv"
    path = squeezed(clip, tmp_path / "squeezed.mp4", aspect, size)
    run = pipeline.run(
        workflows / "faces.yaml", [clip, path], tmp_path / "out.zarr", executor="inline", set={"source.every": 20}
    )
    square, other = (run.input(stem) for stem in (clip.stem, "squeezed"))
    vectors, boxes = [], []
    for item in (square, other):
        first = np.searchsorted(item.array("face_frame"), np.arange(4))
        vectors.append(item.array("embedding")[first])
        boxes.append(item.array("box")[first] / np.tile([item.attributes["width"], item.attributes["height"]], 2))
    np.testing.assert_allclose(boxes[1], boxes[0], atol=0.01)  # in pixels of the file
    within = max(np.linalg.norm(vectors[0][0] - vectors[0][k]) for k in (1, 2, 3))
    between = np.linalg.norm(vectors[1] - vectors[0], axis=1)
    assert between.max() < within / 2
    asked = ask(Question(str(path), 0.1), Recipe.of_store(run.attributes, "out"))
    np.testing.assert_allclose(np.array(asked.box) / np.tile(size, 2), boxes[0][0], atol=0.02)
    found = dict(
        pipeline.deepface.represent(str(path), "Dlib", detector_backend="mtcnn", every=20, enforce_detection=False)
    )
    area = found[0][0]["facial_area"]
    shown = np.array([area[side] for side in "xywh"]) / np.tile(size, 2)
    np.testing.assert_allclose(shown, boxes[0][0], atol=0.02)
    assert build_index(path).sample_aspect_ratio == aspect
