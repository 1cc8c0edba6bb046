"""Files whose timestamps start again: recordings that were joined end to end."""

import random
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline.engine.events import Silent
from pipeline.media.video.source import VideoOptions, VideoSource

from .conftest import Recipe, read_number, walk, write_clip

X264 = (("preset", "medium"),)
PARTS: dict[str, tuple[Recipe, Recipe]] = {
    "b_frames.ts": (Recipe(options=X264, b_frames=3, frames=60), Recipe(options=X264, b_frames=2, frames=52)),
    "b_frames_and_none.ts": (Recipe(options=X264, b_frames=3, frames=60), Recipe(b_frames=0, frames=50)),
    "hevc.ts": (
        Recipe("libx265", frames=60, gop=20, options=(("x265-params", "open-gop=0:log-level=none"),)),
        Recipe("libx265", frames=50, gop=20, options=(("x265-params", "open-gop=0:log-level=none"),)),
    ),
    "mpeg2.vob": (Recipe("mpeg2video", b_frames=2, frames=60), Recipe("mpeg2video", b_frames=2, frames=52)),
    "mpeg4.ts": (Recipe("mpeg4", frames=60), Recipe("mpeg4", frames=50)),
}
LATER = 1_000_000
"""Frames by which the clock of a part is ahead: eleven hours."""


def joined(name: str, tmp_path: Path, order: tuple[int, ...] = (0, 1), later: tuple[int, ...] = ()) -> Path:
    """Parts of a recipe in one file; the clocks of those named in `later` are ahead."""
    suffix = Path(name).suffix
    whole = b""
    for number in order:
        recipe = PARTS[name][number]
        start = LATER if number in later else 0
        times = tuple(range(start, start + recipe.frames))
        part = write_clip(tmp_path / f"part{number}{suffix}", Recipe(**{**vars(recipe), "times": times}))
        whole += part.read_bytes()
    path = tmp_path / name
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("order", [(0, 1), (1, 0, 1)], ids=str)
def test_parts_follow_each_other(name: str, order: tuple[int, ...], tmp_path: Path) -> None:
    path = joined(name, tmp_path, order)
    counts = [PARTS[name][number].frames for number in order]
    source = VideoSource(path, VideoOptions(every=1))
    assert len(source) == sum(counts) == len(walk(path, source.index.stream).pts)
    steps = np.diff(source.time_seconds)
    assert steps.min() > 0
    assert np.abs(np.delete(steps, np.cumsum(counts)[:-1] - 1) - 0.04).max() < 1e-4
    assert np.abs(steps[np.cumsum(counts)[:-1] - 1] - 0.04).max() < 0.0801  # as FFmpeg's remux: whole frames at most
    chunks = [(at, min(at + 9, len(source))) for at in range(0, len(source), 9)]
    random.Random(5).shuffle(chunks)
    wanted = np.concatenate([np.arange(count) for count in counts])
    sent = 0
    for start, stop in chunks:
        result = source.job(start, stop).decode()
        assert result.error is None
        assert [read_number(frame) for frame in result.frames_rgb] == wanted[start:stop].tolist()
        sent += result.source_frames_decoded
    assert sent < 6 * len(source)  # each chunk seeks: reading from the start would be more
    assert source.facts["joined_parts"] == len(order)
    again = "1 time" if len(order) == 2 else "2 times"
    assert source.note is not None
    assert source.note.startswith(f"{path}: its timestamps start again {again}, first at ")


@pytest.mark.parametrize("later", [(0,), (1,)], ids=["back", "ahead"])
def test_a_clock_that_jumps(later: tuple[int, ...], tmp_path: Path) -> None:
    source = VideoSource(joined("b_frames.ts", tmp_path, later=later), VideoOptions(every=1))
    assert source.index.duration_seconds == pytest.approx(112 / 25, abs=0.001)
    result = source.job(58, 63).decode()
    assert [read_number(frame) for frame in result.frames_rgb] == [58, 59, 0, 1, 2]


@pytest.mark.parametrize("step", [1, 75], ids=["soon", "after minutes"])
def test_a_clock_that_runs_over_is_no_break(step: int, tmp_path: Path) -> None:
    start = 2**33 // 3600 - 40 * step  # of 1/90000 s in 33 bits
    times = tuple(range(start, start + 90 * step, step))
    path = write_clip(tmp_path / "over.ts", Recipe(options=X264, b_frames=3, times=times))
    source = VideoSource(path, VideoOptions(every=1))
    np.testing.assert_allclose(np.diff(source.time_seconds), step / 25, atol=1e-4)
    assert source.note is None
    for first in (60, 20, 40):
        result = source.job(first, first + 10).decode()
        assert [read_number(frame) for frame in result.frames_rgb] == list(range(first, first + 10))


def test_frames_that_are_far_apart_are_no_breaks(tmp_path: Path) -> None:
    times = tuple(n * 25 * 15 for n in range(20))
    source = VideoSource(write_clip(tmp_path / "lapse.ts", Recipe("mpeg4", frames=20, times=times)), VideoOptions())
    assert source.index.breaks == ()
    assert source.index.duration_seconds > 19 * 15


def test_a_time_in_the_second_part_is_found(tmp_path: Path) -> None:
    path = joined("b_frames.ts", tmp_path)
    first = VideoSource(path, VideoOptions(every=1)).time_seconds[0]
    source = VideoSource(path, VideoOptions(every=1, start=float(first) + 4))
    assert source.frame.tolist() == list(range(100, 112))


def test_the_note_is_told_once_for_an_input(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import numpy as np\nfrom pipeline import Array, Stage\n"
        "class Grey(Stage):\n    needs = ('frames_rgb',)\n    outputs = (Array('grey', ('frame',), 'float32'),)\n"
        "    def run(self, chunk):\n        return {'grey': chunk.frames_rgb.mean((1, 2, 3), dtype='float32')}\n"
    )
    (tmp_path / "own.yaml").write_text("source: {every: 5}\nstages:\n  grey: {use: 'own:Grey'}\n")
    heard = Silent()
    paths = [joined("b_frames.ts", tmp_path), joined("mpeg4.ts", tmp_path)]
    run = pipeline.run(tmp_path / "own.yaml", paths, tmp_path / "out.zarr", executor="inline", listener=heard)
    assert run.summary.exit_code == 0
    assert [sum(str(path) in text for text in heard.notes) for path in paths] == [1, 1]
