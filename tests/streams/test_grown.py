"""Footage that is appended to a known file becomes an input of its own; what is stored stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

import pipeline
from pipeline.engine.events import Silent
from pipeline.engine.source import InputRef
from pipeline.media.film.film import film_of
from pipeline.media.film.whereabouts import DRAWN, Ints, read_found
from pipeline.media.spans import length_of
from pipeline.media.video.index import PacketIndex, build_index
from pipeline.media.video.source import VideoOptions, VideoSource, open_as_stored
from pipeline.store.read import RunInput
from pipeline.views.annotate import Painter, Pixels, annotate_inputs
from pipeline.views.progress import Work
from tests.streams.cameras import number_in, numbers_of, picture, write_film
from tests.streams.numbered import analysed, write_workflow


class Blank(Painter):
    """Draws nothing."""

    axis = "object"
    reaches = (DRAWN,)

    def __init__(self, _: int, item: RunInput) -> None:
        super().__init__(item, read_found(item, self.axis, np.empty(0, np.int32)))

    def change(self, rank: int, frame_rgb: Pixels, *on: Ints) -> None: ...


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
    # A film of a later part begins at its part, and the parts are as long together as the file.
    films = [film_of(item) for item in done.inputs.values()]
    begins = [float(item.array("time_seconds").min()) for item in done.inputs.values()]
    assert [float(film.times[film.first]) for film in films] == begins
    (made,) = annotate_inputs([done.inputs["a-3"]], tmp_path / "part.mp4", Blank, Work(Silent()))
    assert made.frames == len(numbers_of(tmp_path / "part.mp4")) >= 30
    assert made.frames == 30 or bframes != "0"
    lengths = [length_of(item.attributes) for item in done.inputs.values()]
    assert sum(lengths) == pytest.approx(90 / 25, abs=0.15)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.ts", {}), ("a.mkv", LIVE), ("a.mp4", FRAGMENTS), ("a.mp4", {})],
    ids=["ts", "mkv", "fragments", "mp4"],
)
def test_a_file_that_grows_while_it_is_analysed(
    name: str, options: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = write_film(tmp_path / "film.mp4", 60, gop=15, preset="veryfast", bf="2")
    path, workflow, out = tmp_path / name, write_workflow(tmp_path), tmp_path / "out.zarr"
    stages = [beginning(film, tmp_path / f"{k}-{name}", 30 + 15 * k, **options).read_bytes() for k in range(3)]
    if options or name.endswith(".ts"):
        stages[:2] = [cut_before(tmp_path / f"2-{name}", 30 + 15 * k) for k in range(2)]
    path.write_bytes(stages.pop(0))

    def index_and_grow(path: Path) -> PacketIndex:
        """Let the file grow between the survey of its packets and the decoding of its frames."""
        found = build_index(path)
        if stages:
            path.write_bytes(stages.pop(0))
        return found

    monkeypatch.setattr("pipeline.media.video.index.build_index", index_and_grow)
    for _ in range(3):
        done = pipeline.run(workflow, path, out, executor="inline")
        assert done.summary.exit_code == 0, done.summary
    numbers = [number for found in analysed(out).values() for number in found]
    assert sorted(numbers) == list(range(60))


def test_decord_goes_on_in_a_file_that_has_grown(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 60, gop=30, preset="veryfast", bf="2")
    path, options = beginning(film, tmp_path / "a.mp4", 35), VideoOptions.model_validate({"every": 1})
    before = VideoSource(path, options)
    assert before.decoder == "decord"
    jobs = [before.job(0, len(before))]
    beginning(film, path, 60)
    jobs += [VideoSource.open(InputRef(str(path), "a"), options, before.facts).job(0, len(before))]
    shown = build_index(film).place.tolist()
    for job in jobs:
        loaded = job.load()
        assert [number_in(one) for one in loaded.arrays["frames_rgb"]] == [k for k in range(60) if shown[k] < 35]


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


@pytest.mark.parametrize(("name", "options"), [("a.mp4", FRAGMENTS), ("a.mkv", LIVE)], ids=["fragment", "packet"])
def test_what_a_cut_file_did_not_hold_is_done_with_the_next_part(
    name: str, options: dict[str, str], tmp_path: Path
) -> None:
    film = write_film(tmp_path / "film.mp4", 60, gop=20)
    path, workflow, out = tmp_path / name, write_workflow(tmp_path), tmp_path / "out.zarr"
    whole = beginning(film, tmp_path / f"whole-{name}", 60, **options).read_bytes()
    for share in (0.5, 0.8, 1.0):
        path.write_bytes(whole[: int(share * len(whole))])
        done = pipeline.run(workflow, path, out, executor="inline")
        assert not done.summary.unusable
    found = [item.array("number")[item.array("decoded")].tolist() for item in done.inputs.values()]
    assert len(found) == 3
    assert sorted(number for numbers in found for number in numbers) == list(range(60))
    # A run that was killed, and continues now, leaves those frames to the next part.
    options_of = VideoOptions.model_validate({"every": 1})
    path.write_bytes(whole[: len(whole) // 2])
    before = VideoSource(path, options_of)
    path.write_bytes(whole)
    now = VideoSource.open(InputRef(str(path), "a"), options_of, before.facts)
    assert now.index.readable.tolist() == before.index.readable.tolist()


def test_a_frame_that_mpegts_held_in_part(tmp_path: Path) -> None:
    path, workflow, out = tmp_path / "a.ts", write_workflow(tmp_path), tmp_path / "out.zarr"
    whole, noise = tmp_path / "whole.ts", np.random.default_rng(0)
    with av.open(str(whole), "w") as writing:
        stream = writing.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = 160, 120, "yuv420p", 20
        stream.codec_context.thread_count = 1
        for number in range(40):
            shown = picture(number)
            shown[60:] = noise.integers(0, 255, (60, 160, 3))
            writing.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        writing.mux(stream.encode())
    path.write_bytes(whole.read_bytes()[: len(cut_before(whole, 20)) + 20 * 188])
    assert len(build_index(path)) == 21
    pipeline.run(workflow, path, out, executor="inline")
    path.write_bytes(whole.read_bytes())
    done = pipeline.run(workflow, path, out, executor="inline")
    found = [item.array("number")[item.array("decoded")].tolist() for item in done.inputs.values()]
    assert found == [list(range(20)), list(range(20, 40))]
