"""Frames and pictures come upright and unmirrored in all eight orientations."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.faces.deepface.frames import Batch, of_pictures
from pipeline.faces.people.pictures import read_picture
from pipeline.media.video.source import VideoOptions, VideoSource
from tests.clips import ORIENTATIONS, remuxed


def stored_frames(path: Path, count: int) -> np.ndarray:
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([next(frames).to_ndarray(format="rgb24", threads=1) for _ in range(count)])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("name", ORIENTATIONS)
def test_videos(name: str, suffix: str, made: Callable[[str], Path], tmp_path: Path) -> None:
    matrix, upright = ORIENTATIONS[name]
    path = remuxed(made("short_gop.mp4"), tmp_path / f"clip{suffix}", matrix)
    source = VideoSource(path, VideoOptions(every=1))
    result = source.job(0, 3).decode()
    assert result.decoded.all()
    wanted = [upright(frame) for frame in stored_frames(path, 3)]
    assert (source.facts["height"], source.facts["width"]) == wanted[0].shape[:2]
    assert source.facts.get("mirrored", False) == (np.linalg.det(np.reshape(matrix, (2, 2))) < 0)
    assert np.array_equal(result.frames_rgb, wanted)


def test_a_part_of_a_mirrored_frame_is_cut_from_the_upright_one(made: Callable[[str], Path], tmp_path: Path) -> None:
    matrix, upright = ORIENTATIONS["transpose=cclock_flip"]
    path = remuxed(made("short_gop.mp4"), tmp_path / "clip.mp4", matrix)
    part = VideoSource(path, VideoOptions(every=1, roi=(10, 100, 20, 30))).job(0, 1).decode().frames_rgb[0]
    assert np.array_equal(part, upright(stored_frames(path, 1)[0])[100:130, 10:30])


def test_decord_is_refused_on_mirrored_frames(made: Callable[[str], Path], tmp_path: Path) -> None:
    path = remuxed(made("short_gop.mp4"), tmp_path / "clip.mp4", ORIENTATIONS["hflip"][0])
    with pytest.raises(Exception, match=r"decord is not exact here \(its frames are mirrored\)"):
        VideoSource(path, VideoOptions(decoder="decord"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("number", range(1, 9))
def test_pictures(number: int, suffix: str, tmp_path: Path) -> None:
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:20, :32], pixels[:20, 32:], pixels[20:, :32], pixels[20:, 32:] = (250, 0, 0), (0, 250, 0), (0, 0, 250), 250
    exif = Image.Exif()
    exif[274] = number
    path = tmp_path / f"picture{suffix}"
    how = {".jpg": {"quality": 95, "subsampling": 0}, ".webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(pixels).save(path, exif=exif, **how)
    wanted = list(ORIENTATIONS.values())[number - 1][1](pixels)
    (batch,) = of_pictures([io.BytesIO(path.read_bytes())], 1)
    assert isinstance(batch, Batch)
    as_input = VideoSource(path, VideoOptions()).job(0, 1).decode().frames_rgb[0]
    for got in (read_picture(path), batch.frames_rgb[0], as_input):
        assert got.shape == wanted.shape
        assert np.abs(got.astype(int) - wanted).max() < 20


def test_png_pictures_are_read_after_a_film_was_read_with_decord(made: Callable[[str], Path], tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "grey").save(tmp_path / "picture.png")
    code = (
        "import sys; from pipeline.media.video.source import VideoOptions, VideoSource\n"
        "assert VideoSource(sys.argv[1], VideoOptions(every=1)).decoder == 'decord'\n"
        "from pipeline.faces.people.pictures import read_picture; print(read_picture(sys.argv[2]).shape)"
    )
    command = [sys.executable, "-c", code, str(made("short_gop.mp4")), str(tmp_path / "picture.png")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "(8, 8, 3)\n"
