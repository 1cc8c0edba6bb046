"""Footage that is appended to a known file becomes an input of its own; what is stored stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest

import pipeline
from pipeline.media.film.film import film_of
from pipeline.media.video.index import build_index
from pipeline.media.video.source import open_as_stored
from tests.streams.cameras import write_film
from tests.streams.numbered import analysed, write_workflow

LIVE = {"live": "1", "cluster_time_limit": "200"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


def beginning(film: Path, target: Path, frames: int, **options: str) -> Path:
    """Copy the first packets of a film into another container."""
    with av.open(str(film)) as reading, av.open(str(target), "w", options=options) as writing:
        copy = writing.add_stream_from_template(reading.streams.video[0])
        for number, packet in enumerate(reading.demux(video=0)):
            if packet.size and number < frames:
                packet.stream = copy
                writing.mux_one(packet)
    return target


def cut_before(film: Path, frame: int) -> bytes:
    """Return the bytes of a film before a frame, as a writer that has not come to it leaves them."""
    content = film.read_bytes()
    with av.open(str(film)) as container:
        at = [int(packet.pos or 0) for packet in container.demux(video=0) if packet.size][frame]
    moof = content.rfind(b"moof", 0, at)
    return content[: moof - 4] if moof > 0 else content[:at]


@pytest.mark.parametrize(
    ("name", "options", "bframes"),
    [("a.ts", {}, "2"), ("a.mkv", LIVE, "0"), ("a.mp4", FRAGMENTS, "0"), ("a.mp4", {}, "0")],
    ids=["ts-bframes", "mkv", "fragments", "mp4"],
)
def test_appended_frames(name: str, options: dict[str, str], bframes: str, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 90, gop=10, preset="veryfast", bf=bframes)
    grown, path, workflow = tmp_path / f"grown-{name}", tmp_path / name, write_workflow(tmp_path)
    out = tmp_path / "out.zarr"

    beginning(film, grown, 90, **options)

    def grow(frames: int) -> None:
        if options or name.endswith(".ts"):
            path.write_bytes(cut_before(grown, frames) if frames < 90 else grown.read_bytes())
        else:
            beginning(film, path, frames, **options)

    def run(every: int = 1) -> pipeline.Run:
        return pipeline.run(workflow, path, out, executor="inline", set={"source.every": every})

    for frames, parts in ((40, ["a"]), (60, ["a", "a-2"]), (90, ["a", "a-2", "a-3"])):
        grow(frames)
        done = run()
        assert done.summary.exit_code == 0, done.summary
        found = analysed(out)
        assert list(found) == parts
        assert sorted(number for numbers in found.values() for number in numbers) == list(range(frames))
    assert run().summary.chunks == 0
    times = [time for item in done.inputs.values() for time in item.array("time_seconds").tolist()]
    assert sorted(times) == build_index(path).time_seconds.tolist()
    assert done.inputs["a-3"].attributes["path"] == str(path)
    for item in done.inputs.values():
        last = int(item.array("frame")[-1])
        assert len(film_of(item)) > last
        assert len(open_as_stored(item.attributes)) > last


def test_a_stage_that_is_added_sees_the_frames_of_each_part(film: Path, tmp_path: Path) -> None:
    path, out, workflow = tmp_path / "a.ts", tmp_path / "out.zarr", write_workflow(tmp_path)
    whole = beginning(film, tmp_path / "whole.ts", 50)
    path.write_bytes(cut_before(whole, 30))
    done = pipeline.run(workflow, path, out, executor="inline", set={"source.every": 3})
    workflow.write_text(workflow.read_text() + '  again: {use: "numbered_stage:Again"}\n')
    path.write_bytes(whole.read_bytes())
    done = pipeline.run(workflow, path, out, executor="inline", set={"source.every": 3})
    assert done.summary.exit_code == 0
    again = [item.array("again").tolist() for item in done.inputs.values()]
    assert again == [list(range(0, 30, 3)), list(range(30, 50, 3))]


@pytest.mark.parametrize("change", ["other", "shorter", "cut"])
def test_other_content_is_refused_as_before(change: str, film: Path, tmp_path: Path) -> None:
    path, out, workflow = tmp_path / "a.mp4", tmp_path / "out.zarr", write_workflow(tmp_path)
    beginning(film, path, 40)
    pipeline.run(workflow, path, out, executor="inline")
    make: dict[str, Callable[[], object]] = {
        "other": lambda: write_film(path, 50, first=7),
        "shorter": lambda: beginning(film, path, 20),
        "cut": lambda: path.write_bytes(path.read_bytes()[:-2000]),
    }
    make[change]()
    done = pipeline.run(workflow, path, out, executor="inline")
    assert done.summary.exit_code == 2
    assert "is not the input that was stored as 'a' (its content changed)" in done.summary.unusable[0]["error"]
    assert list(analysed(out)) == ["a"]
