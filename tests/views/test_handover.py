"""Files for editors and annotators: what other programs read in them is what the store says of people and times."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
import pytest

import pipeline
from pipeline.cli import main
from pipeline.errors import InputError, UsageError
from pipeline.faces.views.clips import ClipOptions, cut_clips
from pipeline.faces.views.people import people_of
from pipeline.media.film import stills
from pipeline.media.timecode import RATES, frames_of_day, named_rate, start_of
from pipeline.store.schema import Array
from pipeline.views.export import export, lines
from tests.made_stores import EVERY, faces_of, film, make_store
from tests.views.films import PERSON, TRACK, read_film, store_of, write_film
from tests.views.test_report import decoded, page_of

FACE = (10, 8, 16, 20)
SEQUENCES = ["edl", "fcpxml", "otio"]
CAPTIONS = ["vtt", "srt", "ffmetadata"]
EVENTS = [*CAPTIONS, *SEQUENCES]
NTSC = RATES["29.97"]
Seen = tuple[str, float, float]
"""Name of a person, start and stop in seconds."""


def short_film(
    path: Path, n: int = 150, rate: Fraction = Fraction(25), *, timecode: str | None = None, pts: Any = None
) -> Path:
    """A small film. `pts`: times in 1/1000 s."""
    base = Fraction(1, 1000) if pts is not None else 1 / rate
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = base
        if timecode is not None:
            stream.metadata["timecode"] = timecode
        for k in range(n):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), k % 200 + 20, np.uint8), format="rgb24")
            frame.pts, frame.time_base = (k if pts is None else int(pts[k])), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cast(out: Path, films: list[Path], shots: list[dict[int, range]], **more: Any) -> Path:
    """A store of people (1 Ann, 2 Bo, others without a name) who are in these samples of each film."""
    boxes, people = [], []
    for path, shot in zip(films, shots, strict=True):
        with av.open(str(path)) as container:
            n = -(-sum(1 for packet in container.demux(video=0) if packet.size) // EVERY)
        box = np.full((n, len(shot) or 1, 4), np.nan, np.float32)
        for k, samples in enumerate(shot.values()):
            box[samples.start : samples.stop, k] = FACE
        boxes.append(box)
        people.append(np.tile([list(shot) or [-1]], (n, 1)).reshape(n, -1))
    return store_of(out, films, boxes, person=people, track=people, **more)


def named(out: Path, names: dict[int, str], frames: int = 40, **more: Any) -> Path:
    """A store without a video: each person in half of the frames."""
    arrays = faces_of(np.full(frames, len(names)), np.zeros((frames * len(names), 8)))
    arrays |= {"person": np.tile(list(names), frames), "track": np.tile(list(names), frames)}
    about = {"registry": "none.json", "names": {str(code): name for code, name in names.items()}}
    return make_store(out, {"a": arrays}, extra=(Array("person", ("face",), "int32", (), about), TRACK), **more)


def truth(out: Path) -> list[Seen]:
    """Appearances as `reelgraph people --json` has them."""
    items = list(pipeline.open(out).inputs.values())
    names = {1: SimpleNamespace(name="Ann"), 2: SimpleNamespace(name="Bo")}
    found = people_of(items, SimpleNamespace(people=names))  # type: ignore[arg-type]
    seen = [
        (one.name or f"person {one.id}", each["start_seconds"], each["stop_seconds"])
        for one in found
        for each in one.appearances
    ]
    return sorted(seen, key=lambda each: (each[1], each[2], each[0]))


def captions(path: Path) -> list[Seen]:
    """Subtitles and chapters as FFmpeg reads them."""
    options = {"format": "ffmetadata"} if path.suffix == ".ffmetadata" else {}
    with av.open(str(path), **options) as container:
        if options:
            return [
                (one["metadata"]["title"], float(one["start"] * one["time_base"]), float(one["end"] * one["time_base"]))
                for one in container.chapters()
            ]
        packets = [packet for packet in container.demux() if packet.size]
        base = container.streams.subtitles[0].time_base
    return [
        (bytes(one).decode(), float(one.pts * base), float((one.pts + (one.duration or 0)) * base)) for one in packets
    ]


def clips_of(path: Path, rate: float = 25.0) -> list[Any]:
    """Clips as OpenTimelineIO reads them, and where each begins in the sequence."""
    otio: Any = pytest.importorskip("opentimelineio")
    if path.suffix == ".edl":
        read = otio.adapters.read_from_file(str(path), rate=rate)
    elif path.suffix == ".fcpxml":
        pytest.importorskip("otio_fcpx_xml_adapter")
        read = otio.adapters.read_from_file(str(path))[0]
    else:
        read = otio.adapters.read_from_file(str(path))
    return [
        SimpleNamespace(
            name=clip.name, source_range=clip.source_range, metadata=clip.metadata, media=clip.media_reference,
            recorded=int(clip.range_in_parent().start_time.value),
        )
        for clip in read.find_clips()
    ]  # fmt: skip


def spans_of_xml(path: Path) -> list[tuple[str, Fraction, Fraction, Fraction]]:
    """Name, offset, start and duration of the clips of an FCPXML file."""
    found = []
    for clip in ET.parse(path).iter("asset-clip"):
        times = [Fraction(clip.attrib[name].removesuffix("s")) for name in ("offset", "start", "duration")]
        found.append((clip.attrib["name"], *times))
    return found


# -- times ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Ann, who comes back, and Bo beside her, in a film whose first frame is shown at 0.84 s."""
    video = write_film(tmp_path / "a.mp4", 250, (64, 48), first_seconds=0.84)
    seen = np.full((50, 3, 4), np.nan, np.float32)
    seen[6:11, 0] = seen[8:21, 1] = seen[30:50, 2] = FACE
    who = np.tile([1, 2, 1], (50, 1))
    return store_of(tmp_path / "two.zarr", [video], [seen], person=[who], track=[np.tile([0, 1, 2], (50, 1))])


def test_every_file_has_the_times_of_people_report_and_clips(two: Path, tmp_path: Path) -> None:
    expected = truth(two)
    assert [(name, round(start, 3)) for name, start, _ in expected] == [("Ann", 2.04), ("Bo", 2.44), ("Ann", 6.84)]
    for suffix in CAPTIONS:
        export(two, tmp_path / f"p.{suffix}")
        found = captions(tmp_path / f"p.{suffix}")
        assert [one[0] for one in found] == [one[0] for one in expected]
        np.testing.assert_allclose([one[1:] for one in found], [one[1:] for one in expected], atol=0.0006)
    ann = sum(stop - start for name, start, stop in expected if name == "Ann")
    clips = cut_clips([two], "Ann", tmp_path / "cut", ClipOptions(margin_seconds=0.0)).clips
    times = [(name, start, stop) for name, start, stop in expected if name == "Ann"]
    np.testing.assert_allclose([(one.start_seconds, one.stop_seconds) for one in clips], [one[1:] for one in times])
    page = page_of(two, tmp_path / "page.html")
    start = page.charts["inputs"][0]["start"]
    shown = [(page.people[row["of"]], *span) for row in page.rows() for span in decoded(row["at"], start)]
    shown.sort(key=lambda each: each[1])
    np.testing.assert_allclose([one[1:] for one in shown], [one[1:] for one in expected], atol=0.051)
    export(two, tmp_path / "faces.csv")
    table = pd.read_csv(tmp_path / "faces.csv")
    first = table[table["person_name"] == "Ann"]["time_seconds"].iloc[0]
    assert first == pytest.approx(expected[0][1])
    seconds = {page.people[row["of"]]: row["seconds"] for row in page.rows()}
    assert seconds["Ann"] == pytest.approx(ann, abs=0.051)


@pytest.mark.parametrize(("frames", "seconds"), [(4, 0.16), (5, 0.2)], ids=["cut short by the end", "whole"])
def test_a_single_sample_has_one_time_on_screen_everywhere(tmp_path: Path, frames: int, seconds: float) -> None:
    """It stands until the next one would come, or until the end of the film."""
    film = short_film(tmp_path / "a.mp4", frames)
    out = cast(tmp_path / "s.zarr", [film], [{1: range(1)}])
    ((name, start, stop),) = expected = truth(out)
    assert (name, start, stop) == ("Ann", 0.0, pytest.approx(seconds))
    (person,) = people_of(list(pipeline.open(out).inputs.values()), SimpleNamespace(people={}))  # type: ignore[arg-type]
    assert person.screen_seconds == pytest.approx(seconds)
    for suffix in CAPTIONS:
        export(out, tmp_path / f"p.{suffix}")
        times = [one[1:] for one in captions(tmp_path / f"p.{suffix}")]
        np.testing.assert_allclose(times, [expected[0][1:]], atol=0.0006)
    (clip,) = cut_clips([out], "Ann", tmp_path / "cut", ClipOptions(margin_seconds=0.0)).clips
    assert (clip.start_seconds, clip.stop_seconds, clip.screen_seconds) == pytest.approx((0.0, seconds, seconds))
    page = page_of(out, tmp_path / "page.html")
    (row,) = page.rows()
    assert row["seconds"] == pytest.approx(seconds, abs=0.051)
    assert page.charts["inputs"][0]["stop"] == pytest.approx(seconds, abs=0.051)
    np.testing.assert_allclose(decoded(row["at"], 0.0), [(0.0, seconds)], atol=0.051)
    pytest.importorskip("opentimelineio")
    for suffix in ("edl", "otio"):
        export(out, tmp_path / f"p.{suffix}")
        (cut,) = clips_of(tmp_path / f"p.{suffix}")
        assert cut.source_range.duration.to_seconds() == pytest.approx(seconds)


@pytest.mark.parametrize("suffix", SEQUENCES)
def test_cuts_count_frames_from_the_first_one(two: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("opentimelineio")
    expected = truth(two)
    exported = export(two, tmp_path / f"p.{suffix}")
    assert (exported.axis, exported.appearances, exported.frames) == ("appearance", 3, 50)
    clips = clips_of(tmp_path / f"p.{suffix}")
    assert [clip.name for clip in clips] == [name for name, _, _ in expected]
    recorded = 0
    for clip, (_, start, stop) in zip(clips, expected, strict=True):
        source = clip.source_range
        assert (source.start_time.value, source.duration.value) == (
            round((start - 0.84) * 25),
            round((stop - start) * 25),
        )
        assert clip.recorded == recorded  # one after the other: nothing overlaps
        recorded += source.duration.value
        assert clip.media.target_url.endswith("/a.mp4")
        if suffix == "otio":
            said = clip.metadata["reelgraph"]
            assert (said["start_seconds"], said["stop_seconds"]) == (start, stop)


def test_a_real_video_that_begins_late(tmp_path: Path, data_dir: Path) -> None:
    pytest.importorskip("opentimelineio")
    video = data_dir / "videos" / "fr_short_hamilton.mp4"
    out = cast(tmp_path / "s.zarr", [video], [{1: range(17, 42)}])
    export(out, tmp_path / "p.vtt")
    with av.open(str(video)) as container:
        times = sorted(float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.size)
    (one,) = captions(tmp_path / "p.vtt")
    # A store samples every fifth frame: the 17th is frame 85, and the 42nd, which no longer shows her, is frame 210.
    assert one == ("Ann", pytest.approx(times[85], abs=0.0006), pytest.approx(times[210], abs=0.05))
    export(out, tmp_path / "p.edl")
    (clip,) = clips_of(tmp_path / "p.edl", float(NTSC))
    assert clip.source_range.start_time.value == 85
    assert "FCM: DROP FRAME" in (tmp_path / "p.edl").read_text()


def test_a_transport_stream_begins_at_zero_for_players(tmp_path: Path) -> None:
    video = write_film(tmp_path / "a.ts", 100, (64, 48), first_seconds=3600.0, sounds=("mp2",))
    out = cast(tmp_path / "s.zarr", [video], [{1: range(5, 10)}])
    with av.open(str(video)) as container:
        begins = container.start_time / 1_000_000
    assert begins == pytest.approx(3600, abs=0.1)
    ((_, start, _),) = truth(out)
    for suffix in CAPTIONS:
        export(out, tmp_path / f"p.{suffix}")
        ((_, shown, _),) = captions(tmp_path / f"p.{suffix}")
        assert shown == pytest.approx(start - begins, abs=0.0006)
        assert 1.0 <= shown < 1.1
    video.unlink()  # the store knows the first frame alone
    export(out, tmp_path / "gone.srt")
    assert captions(tmp_path / "gone.srt")[0][1] == pytest.approx(1.0, abs=0.001)


def test_a_turned_video_and_a_part_of_one(tmp_path: Path, data_dir: Path) -> None:
    video = data_dir / "videos" / "derived" / "asl_A_again_rot90meta.mp4"
    out = cast(tmp_path / "s.zarr", [video], [{1: range(2, 6)}], roi=(0, 0, 240, 320), done_chunks=3)
    exported = export(out, tmp_path / "p.srt")
    assert exported.done_share < 1
    assert "the rest is not in the file" in lines(exported)[1]
    ((_, start, stop),) = captions(tmp_path / "p.srt")
    assert (start, stop) == pytest.approx(truth(out)[0][1:], abs=0.0006)
    pytest.importorskip("opentimelineio")
    export(out, tmp_path / "p.fcpxml")
    said = ET.parse(tmp_path / "p.fcpxml").find(".//format")
    assert said is not None
    assert (said.attrib["width"], said.attrib["height"]) == ("640", "480")
    assert spans_of_xml(tmp_path / "p.fcpxml")[0][2] == Fraction(10, 30)


@pytest.mark.parametrize(("aspect", "told"), [(Fraction(4, 3), ("4", "3")), (None, (None, None))])
def test_pixels_that_are_not_square_are_said(tmp_path: Path, aspect: Fraction | None, told: tuple[str, str]) -> None:
    """An editor took them for square, and showed the sequence too narrow."""
    video = write_film(tmp_path / "a.mp4", 50, (64, 48), sounds=(), aspect=aspect)
    export(cast(tmp_path / "s.zarr", [video], [{1: range(2, 5)}]), tmp_path / "p.fcpxml")
    (said,) = ET.parse(tmp_path / "p.fcpxml").iter("format")
    assert (said.get("paspH"), said.get("paspV")) == told
    assert (said.get("width"), said.get("height")) == ("64", "48")


# -- timecodes -------------------------------------------------------------------------------------------------------


def library_frames(text: str, rate: Fraction) -> int:
    otio: Any = pytest.importorskip("opentimelineio")
    per_second = float(rate) if ";" in text else float(round(rate))
    return int(otio.opentime.from_timecode(text, per_second).value)


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
@pytest.mark.parametrize("text", ["00:00:59:23", "00:01:00:02", "00:10:00:00", "10:59:59:12", "23:59:59:23"])
def test_timecodes_are_those_of_the_library(rate: Fraction, text: str) -> None:
    assert start_of(text, rate, "here").frames == library_frames(text, rate)
    if rate in (NTSC, RATES["59.94"]):
        dropped = text[:8] + ";" + ("04" if text[3:8] == "01:00" else text[9:])
        start = start_of(dropped, rate, "here")
        assert (start.frames, start.drop) == (library_frames(dropped, rate), True)
        assert start.frames < frames_of_day(rate, True)


@pytest.mark.parametrize(
    ("text", "rate", "message"),
    [
        ("1:00", "25", "not a timecode of 25 frames"),
        ("01:00:00:25", "25", "not a timecode of 25 frames"),
        ("24:00:00:00", "25", "not a timecode"),
        ("01:00:00;00", "25", "drop frame, which 25 frames per second do not have"),
        ("00:01:00;00", "29.97", "leaves out; the next one is 00:01:00;02"),
        ("00:01:00;03", "59.94", "the next one is 00:01:00;04"),
    ],
)
def test_what_is_not_a_timecode_is_said(text: str, rate: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        start_of(text, RATES[rate], "--start-timecode")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "name"), [("25", "25"), ("30000/1001", "29.97"), ("23.98", "23.976"), ("60.0", "60")])
def test_rates_have_several_spellings(text: str, name: str) -> None:
    assert named_rate(text) == RATES[name]


@pytest.mark.parametrize(
    ("name", "written", "asked", "drop", "first"),
    [
        ("29.97", None, None, True, "00:00:01;00"),
        ("29.97", "01:00:00;00", None, True, "01:00:01;00"),
        ("29.97", "01:00:00:00", None, False, "01:00:01:00"),
        ("29.97", "01:00:00:00", "10:00:59;00", True, "10:01:00;02"),
        ("59.94", None, "00:00:59;30", True, "00:01:00;04"),
        ("25", "09:58:00:10", None, False, "09:58:01:15"),
        ("23.976", None, "01:00:00:00", False, "01:00:01:06"),
        ("50", None, "01:00:00:00", False, "01:00:00:30"),
    ],
)
def test_cuts_begin_at_the_videos_timecode(
    tmp_path: Path, name: str, written: str | None, asked: str | None, drop: bool, first: str
) -> None:
    pytest.importorskip("opentimelineio")
    rate = RATES[name]
    video = short_film(tmp_path / "a.mov", 120, rate, timecode=written)
    out = cast(tmp_path / "s.zarr", [video], [{1: range(6, 12)}])
    for suffix in SEQUENCES:
        export(out, tmp_path / f"p.{suffix}", start_timecode=asked)
    text = (tmp_path / "p.edl").read_text()
    assert f"\nFCM: {'' if drop else 'NON-'}DROP FRAME\n" in text
    assert text.splitlines()[3].split()[4] == first
    (clip,) = clips_of(tmp_path / "p.edl", float(rate) if drop else round(rate))
    begins = start_of(asked or written, rate, "here").frames
    assert (clip.source_range.start_time.value, clip.source_range.duration.value) == (begins + 30, 30)
    (clip,) = clips_of(tmp_path / "p.otio")
    assert (clip.source_range.start_time.value, clip.source_range.start_time.rate) == (begins + 30, float(rate))
    assert clip.media.available_range.start_time.value == begins
    ((_, _, start, length),) = spans_of_xml(tmp_path / "p.fcpxml")
    assert (start, length) == ((begins + 30) / rate, 30 / rate)
    tree = ET.parse(tmp_path / "p.fcpxml")
    assert {one.attrib["tcFormat"] for one in tree.iter("asset-clip")} == {"DF" if drop else "NDF"}
    assert [Fraction(one.attrib["start"][:-1]) for one in tree.iter("asset")] == [begins / rate]


def test_an_average_rate_does_not_drift_over_hours(tmp_path: Path) -> None:
    """A file that says 29.97 for 30000/1001: after ten hours the two are a frame apart."""
    n = 220_000
    counts = np.zeros(n, int)
    counts[-2:] = 1
    arrays = faces_of(counts, np.zeros((2, 8)), person=np.ones(2, np.int32), track=np.zeros(2, np.int32))
    out = make_store(
        tmp_path / "s.zarr", {"a": arrays}, extra=(PERSON, TRACK), facts={"fps": 29.97}, chunk_frames=n,
        moments={"a": np.arange(n) * EVERY / 29.97},
    )  # fmt: skip
    export(out, tmp_path / "p.fcpxml")
    ((_, _, start, _),) = spans_of_xml(tmp_path / "p.fcpxml")
    assert start * NTSC == (n - 2) * EVERY


def test_frames_that_do_not_last_equally_long(tmp_path: Path, data_dir: Path) -> None:
    pytest.importorskip("opentimelineio")
    video = data_dir / "videos" / "derived" / "asl_B_sorry_vfr.mp4"
    out = cast(tmp_path / "s.zarr", [video], [{1: range(2, 5)}])
    ((_, start, stop),) = truth(out)
    export(out, tmp_path / "p.otio")
    (clip,) = clips_of(tmp_path / "p.otio")
    assert clip.source_range.start_time.to_seconds() == pytest.approx(start, abs=0.0006)
    assert clip.source_range.end_time_exclusive().to_seconds() == pytest.approx(stop, abs=0.0006)
    for suffix in ("edl", "fcpxml"):
        with pytest.raises(UsageError, match=r"18\.\d+ frames per second, .*no timecodes; .*--frame-rate") as caught:
            export(out, tmp_path / f"p.{suffix}")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / f"p.{suffix}").exists()
    export(out, tmp_path / "p.edl", frame_rate="30")
    (clip,) = clips_of(tmp_path / "p.edl", 30)
    source_frames = [0, 1, 2, 3, 6, 8, 9, 10, 14, 15, 16]  # of the video before frames were left out
    assert clip.source_range.start_time.value == source_frames[10] == round(start * 30)
    with pytest.raises(UsageError, match=r"--frame-rate 12.5 has no timecodes; choose 23.976 \| 24"):
        export(out, tmp_path / "q.edl", frame_rate="12.5")


def test_a_file_timecode_at_another_rate_keeps_its_second(tmp_path: Path) -> None:
    pytest.importorskip("opentimelineio")
    video = short_film(tmp_path / "a.mov", 120, Fraction(50), timecode="10:00:00:40")
    out = cast(tmp_path / "s.zarr", [video], [{1: range(10, 20)}])
    export(out, tmp_path / "p.edl", frame_rate="25")
    assert (tmp_path / "p.edl").read_text().splitlines()[3].split()[4:6] == ["10:00:01:20", "10:00:02:20"]


@pytest.mark.parametrize(
    ("own", "asked", "written", "first", "head"),
    [
        ("59.94", "29.97", "00:00:59;40", "00:01:00;07", "DROP FRAME"),
        ("29.97", "59.94", "00:00:59;20", "00:01:00;44", "DROP FRAME"),
        ("59.94", "29.97", "00:00:59:40", "00:01:00:05", "NON-DROP FRAME"),
        ("29.97", "25", "00:00:59;20", "00:01:00:16", "NON-DROP FRAME"),
    ],
)
def test_drop_frame_stays_at_a_rate_that_has_it(
    tmp_path: Path, own: str, asked: str, written: str, first: str, head: str
) -> None:
    """Another count of the same clock: without it, cuts were 3.6 s off after an hour."""
    pytest.importorskip("opentimelineio")
    video = short_film(tmp_path / "a.mov", 120, RATES[own], timecode=written)
    out = cast(tmp_path / "s.zarr", [video], [{1: range(6, 12)}])
    export(out, tmp_path / "p.edl", frame_rate=asked)
    text = (tmp_path / "p.edl").read_text()
    assert f"\nFCM: {head}\n" in text
    assert text.splitlines()[3].split()[4] == first


def test_a_day_is_the_end_of_an_edl_alone(tmp_path: Path) -> None:
    pytest.importorskip("opentimelineio")
    out = named(tmp_path / "s.zarr", {1: "Ann"}, start_seconds=90_000.0)  # the clock of the file runs for 25 hours
    facts = {"start_seconds": 0.0, "duration_seconds": 90_010.0}
    out = named(tmp_path / "t.zarr", {1: "Ann"}, start_seconds=90_000.0, facts=facts)
    with pytest.raises(UsageError, match="'a' goes on beyond 24:00:00:00, and an EDL has no timecodes for that"):
        export(out, tmp_path / "p.edl")
    export(out, tmp_path / "p.fcpxml")
    assert spans_of_xml(tmp_path / "p.fcpxml")[0][2] == 90_000
    export(out, tmp_path / "p.otio")
    assert clips_of(tmp_path / "p.otio")[0].source_range.start_time.to_seconds() == 90_000
    for suffix in CAPTIONS:
        export(out, tmp_path / f"p.{suffix}")
        assert captions(tmp_path / f"p.{suffix}")[0][1:] == pytest.approx((90_000, 90_008), abs=0.3)


def test_a_video_that_is_not_there_has_no_timecode_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("opentimelineio")
    out = named(tmp_path / "s.zarr", {1: "Ann"})
    (note,) = lines(export(out, tmp_path / "p.edl"))[1:]
    assert note == (
        "a: its video is not there, so timecodes count from 00:00:00:00; set another start with --start-timecode"
    )
    assert lines(export(out, tmp_path / "q.edl", start_timecode="01:00:00:00"))[1:] == []


# -- names and people ------------------------------------------------------------------------------------------------

NAMES = {
    "quotes": 'Ann "the" O\'Neil, Jr.',
    "markup": "<b>Ann</b> & {\\i1}Bo",
    "arrow": "Ann --> Bo 00:00:01,000 --> 00:00:02,000",
    "metadata": "a=b;c#d\\e [CHAPTER]",
    "emoji": "Zoë 👩‍🚀 李",
    "long": "Ann " * 100 + "Li",
    "line breaks": "Ann\nSTART=0\r\n\n002  BO",
    "control": "Ann\x00\x1b[2J\u202e\udc80\ufffe",
}


@pytest.mark.parametrize("suffix", EVENTS)
@pytest.mark.parametrize("kind", NAMES)
def test_a_name_comes_back_in_one_line(tmp_path: Path, suffix: str, kind: str) -> None:
    if suffix in SEQUENCES:
        pytest.importorskip("opentimelineio")
    out = named(tmp_path / "s.zarr", {1: NAMES[kind], 2: "Bo"})
    export(out, tmp_path / f"p.{suffix}")
    if suffix in CAPTIONS:
        found = [one[0] for one in captions(tmp_path / f"p.{suffix}")]
    else:
        found = [clip.name for clip in clips_of(tmp_path / f"p.{suffix}")]
    expected = NAMES[kind]
    if kind == "line breaks":
        expected = r"Ann\nSTART=0\r\n\n002  BO"
    elif kind == "control":
        expected = "Ann\\x00\\x1b[2J\\u202e\\udc80" + ("\ufffd" if suffix == "fcpxml" else "\ufffe")
    elif suffix == "srt":
        expected = expected.translate(str.maketrans("<>{}", "‹›()"))
    elif suffix == "vtt":
        expected = expected.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")  # as players want it
    assert sorted(found) == sorted([expected, "Bo"])


@pytest.mark.parametrize("suffix", EVENTS)
def test_people_without_a_name_have_their_label(tmp_path: Path, suffix: str) -> None:
    if suffix in SEQUENCES:
        pytest.importorskip("opentimelineio")
    export(named(tmp_path / "s.zarr", {7: ""}), tmp_path / f"p.{suffix}")
    assert "person 7" in (tmp_path / f"p.{suffix}").read_text()


@pytest.mark.parametrize("suffix", EVENTS)
@pytest.mark.parametrize("kind", ["no face", "strangers"])
def test_no_person_seen_is_a_file_without_events(tmp_path: Path, suffix: str, kind: str) -> None:
    if suffix in SEQUENCES:
        pytest.importorskip("opentimelineio")
    n = 0 if kind == "no face" else 10
    arrays = faces_of(np.full(10, n // 10), np.zeros((n, 8)), person=np.full(n, -1), track=np.full(n, 1))
    out = make_store(tmp_path / "s.zarr", {"a": arrays}, extra=(PERSON, TRACK))
    exported = export(out, tmp_path / f"p.{suffix}")
    assert (exported.appearances, exported.frames) == (0, 10)
    path = tmp_path / f"p.{suffix}"
    if suffix == "srt":  # FFmpeg takes an empty file for none
        assert path.read_bytes() == b""
    else:
        assert (captions(path) if suffix in CAPTIONS else clips_of(path)) == []


def test_events_beyond_cmx_are_noted(tmp_path: Path) -> None:
    pytest.importorskip("opentimelineio")
    arrays = faces_of(np.arange(2000) % 2, np.zeros((1000, 8)))  # in every other frame, each time by another track
    arrays |= {"person": np.ones(1000, np.int32), "track": np.arange(1000, dtype=np.int32)}
    exported = export(make_store(tmp_path / "s.zarr", {"a": arrays}, extra=(PERSON, TRACK)), tmp_path / "p.edl")
    assert exported.appearances == 1000 == len(clips_of(tmp_path / "p.edl"))
    assert "1000 events, and CMX 3600 has 999" in exported.notes[-1]


def test_a_store_without_people_says_what_to_run(tmp_path: Path) -> None:
    out = make_store(tmp_path / "s.zarr", {"a": faces_of(np.ones(5, int), np.zeros((5, 8)))})
    with pytest.raises(UsageError, match="'a' has no people yet; run `reelgraph people` or `find` on"):
        export(out, tmp_path / "p.srt")
    assert list(tmp_path.iterdir()) == [out]


def test_one_sample_is_seen_by_players_and_editors(tmp_path: Path) -> None:
    ended = {"start_seconds": 0.0, "duration_seconds": 1e-9}  # as the file says; the frame has no time left
    out = named(tmp_path / "s.zarr", {1: "Ann"}, frames=1, facts=ended)
    export(out, tmp_path / "p.srt")
    ((_, start, stop),) = captions(tmp_path / "p.srt")
    assert stop > start
    pytest.importorskip("opentimelineio")
    export(out, tmp_path / "p.edl")
    assert clips_of(tmp_path / "p.edl")[0].source_range.duration.value == 1


def test_chapters_go_into_a_video(two: Path, tmp_path: Path) -> None:
    export(two, tmp_path / "p.ffmetadata")
    with av.open(str(tmp_path / "p.ffmetadata"), format="ffmetadata") as read:
        chapters = read.chapters()
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(tmp_path / "with.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        target.set_chapters(chapters)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    with av.open(str(tmp_path / "with.mkv")) as made:
        found = [(one["metadata"]["title"], float(one["start"] * one["time_base"])) for one in made.chapters()]
    assert found == [(name, pytest.approx(start, abs=0.001)) for name, start, _ in truth(two)]


# -- several inputs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> Path:
    films = [short_film(tmp_path / f"{name}.mp4") for name in ("Long Film 1", "long_film_10", "李")]
    return cast(tmp_path / "s.zarr", films, [{1: range(2, 6)}, {2: range(3, 9)}, {1: range(1, 3), 5: range(1, 9)}])


def test_a_file_of_one_video_is_written_for_each(three: Path, tmp_path: Path) -> None:
    for suffix in (*CAPTIONS, "mot.txt"):
        with pytest.raises(UsageError, match=r"belongs to one video, and there are 3; .*\{input\}") as caught:
            export(three, tmp_path / f"p.{suffix}")
        assert f"--to '{tmp_path}/{{input}}.{suffix}'" in str(caught.value)
    exported = export(three, tmp_path / "subs" / "{input}.srt")
    assert (exported.inputs, exported.appearances) == (3, 4)
    names = list(pipeline.open(three).inputs)
    assert {path.stem for path in (tmp_path / "subs").iterdir()} == set(names)
    assert [one[0] for one in captions(tmp_path / "subs" / f"{names[2]}.srt")] == ["Ann", "person 5"]
    with pytest.raises(UsageError, match="exists already"):
        export(three, tmp_path / "subs" / "{input}.srt")


def test_an_input_that_a_format_cannot_hold_is_left_out_and_the_others_are_written(
    three: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One store has no people yet: the exit code is 1, as for some unusable inputs among several."""
    new = make_store(tmp_path / "new.zarr", {"b": faces_of(np.ones(5, int), np.zeros((5, 8)))})
    names = list(pipeline.open(three).inputs)
    to = tmp_path / "subs" / "{input}.srt"
    assert main(["export", str(new), str(three), "--to", str(to), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (why,) = found["left_out"]
    assert why.startswith("new.zarr/b: no file is written: ")
    assert "has no people yet; run `reelgraph people` or `find` on" in why
    assert (found["inputs"], found["done_share"]) == (3, 1.0)
    subs = [path for path in (tmp_path / "subs").rglob("*") if path.is_file()]
    written = sorted(path.relative_to(tmp_path / "subs").as_posix() for path in subs)
    assert written == sorted(f"{three.name}/{name}.srt" for name in names)
    alone = json.loads(_shown(["export", str(three), "--to", str(tmp_path / "x" / "{input}.srt"), "--json"], 0, capsys))
    counts = ("appearances", "frames", "inputs", "left_out")
    assert [alone.get(name) for name in counts] == [*(found.get(name) for name in counts[:3]), []]
    assert "has no people yet" in _shown(["export", str(new), "--to", str(tmp_path / "y" / "{input}.srt")], 2, capsys)
    assert not list((tmp_path / "y").rglob("*.srt"))
    assert "has no people yet" in _shown(["export", str(three), str(new), "--to", str(tmp_path / "z.otio")], 2, capsys)
    drop = ["--start-timecode", "01:00:00;00"]  # at 25 frames a second there is no such timecode
    shown = _shown(["export", str(three), "--to", str(tmp_path / "{input}.edl"), *drop], 2, capsys)
    assert shown.count("\n") == 1, "a mistake that holds for all is said once"


def _shown(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == code
    out, err = capsys.readouterr()
    return out or err


def test_a_table_for_each_input_has_its_rows(three: Path, tmp_path: Path) -> None:
    exported = export(three, tmp_path / "{input}.csv")
    tables = [pd.read_csv(tmp_path / f"{name}.csv") for name in pipeline.open(three).inputs]
    assert [len(table) for table in tables] == [4, 6, 10]
    assert exported.columns == list(tables[0].columns)


def test_one_sequence_holds_all_videos(three: Path, tmp_path: Path) -> None:
    pytest.importorskip("opentimelineio")
    for suffix in SEQUENCES:
        export(three, tmp_path / f"p.{suffix}")
        clips = clips_of(tmp_path / f"p.{suffix}")
        assert [clip.name for clip in clips] == ["Ann", "Bo", "Ann", "person 5"]
        assert [clip.source_range.start_time.value for clip in clips] == [10, 15, 5, 5]
        assert [clip.recorded for clip in clips] == [0, 20, 50, 60]
    reels = [line.split()[1] for line in (tmp_path / "p.edl").read_text().splitlines() if line[:3].isdigit()]
    assert reels == ["LONGFILM", "LONGFIL2", "REEL", "REEL"]


def test_later_parts_of_a_video_are_cut_from_the_same_reel(tmp_path: Path) -> None:
    """A file that has grown is two inputs, and one video for an editor."""
    pytest.importorskip("opentimelineio")
    ones = [np.ones(n, int) for n in (10, 40)]
    arrays = [faces_of(one, np.zeros((len(one), 8)), person=one, track=one - 1) for one in ones]
    about = {"registry": "none.json", "names": {"1": "Ann"}}
    paths = dict.fromkeys(("a", "a-2"), tmp_path / "a.mp4")
    extra = (Array("person", ("face",), "int32", (), about), TRACK)
    out = make_store(tmp_path / "s.zarr", dict(zip(paths, arrays, strict=True)), extra=extra, paths=paths)
    for suffix in ("edl", "fcpxml"):
        export(out, tmp_path / f"p.{suffix}")
    lines = (tmp_path / "p.edl").read_text().splitlines()
    assert [line.split()[1] for line in lines if line[:3].isdigit()] == ["A", "A"]
    (asset,) = ET.parse(tmp_path / "p.fcpxml").iter("asset")
    lengths = [item.attributes["duration_seconds"] for item in pipeline.open(out).inputs.values()]
    assert min(lengths) < max(lengths) == pytest.approx(float(Fraction(asset.attrib["duration"].removesuffix("s"))))


def test_rates_that_differ_need_a_choice(tmp_path: Path) -> None:
    pytest.importorskip("opentimelineio")
    films = [short_film(tmp_path / "a.mp4"), short_film(tmp_path / "b.mp4", rate=NTSC)]
    out = cast(tmp_path / "s.zarr", films, [{1: range(5, 10)}, {1: range(6, 12)}])
    with pytest.raises(UsageError, match=r"'b' has timecodes of 29.97 frames per second with drop frame, and 'a'"):
        export(out, tmp_path / "p.edl")
    export(out, tmp_path / "p.edl", frame_rate="25")
    starts = [clip.source_range.start_time.value for clip in clips_of(tmp_path / "p.edl")]
    assert starts == [25, round(30 / NTSC * 25)]
    export(out, tmp_path / "p.otio")
    rates = [clip.source_range.start_time.rate for clip in clips_of(tmp_path / "p.otio")]
    assert rates == [25.0, float(NTSC)]


def test_stores_of_one_name_cannot_share_files(tmp_path: Path) -> None:
    stores = [named(tmp_path / folder / "s.zarr", {1: "Ann"}) for folder in ("x", "y")]
    with pytest.raises(UsageError, match=r"s.zarr/a.srt would be written twice; export the stores one by one"):
        export(stores, tmp_path / "{input}.srt")


# -- annotators --------------------------------------------------------------------------------------------------------


def test_mot_text_is_read_as_numbers(tmp_path: Path) -> None:
    made = film(60, 3, seed=2)
    out = make_store(tmp_path / "s.zarr", {"a": made.arrays}, extra=made.extra)
    export(out, tmp_path / "a.mot.txt")
    table = np.loadtxt(tmp_path / "a.mot.txt", delimiter=",", ndmin=2)
    frames = np.repeat(np.arange(60), made.arrays["n_faces"]) * EVERY
    assert table[:, 0].tolist() == (frames + 1).tolist()
    track = made.arrays["track"]
    assert table[:, 1].tolist() == np.where(track >= 0, track + 1, -1).tolist()
    np.testing.assert_allclose(table[:, 2:6], made.arrays["box"], atol=0.0051)
    np.testing.assert_allclose(table[:, 6], made.arrays["confidence"], atol=0.00006)
    assert (table[:, 7:] == -1).all()


def test_mot_text_of_detections_has_no_ids(tmp_path: Path) -> None:
    out = make_store(tmp_path / "s.zarr", {"a": faces_of(np.array([0, 2]), np.zeros((2, 8)))})
    export(out, tmp_path / "a.mot.txt")
    assert [line.split(",")[:2] for line in (tmp_path / "a.mot.txt").read_text().splitlines()] == [["6", "-1"]] * 2


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    return cast(tmp_path / "s.zarr", [write_film(tmp_path / "a.mp4", 60, sounds=())], [{1: range(2, 6)}])


@pytest.mark.parametrize("all_frames", [False, True])
def test_coco_has_its_pictures(shown: Path, tmp_path: Path, all_frames: bool) -> None:
    export(shown, tmp_path / "f.json", images=tmp_path / "pictures", all_frames=all_frames)
    images = json.loads((tmp_path / "f.json").read_text())["images"]
    assert [image["frame"] for image in images] == (list(range(0, 60, 5)) if all_frames else [10, 15, 20, 25])
    frames = read_film(tmp_path / "a.mp4")[1]
    for image in images:
        picture = cv2.imread(str(tmp_path / "pictures" / image["file_name"]))
        assert picture is not None
        assert picture.shape == (image["height"], image["width"], 3)
        others = [np.abs(picture[..., ::-1].astype(int) - frames[k]).mean() for k in range(60)]
        assert int(np.argmin(others)) == image["frame"]
    kept = {str(path.relative_to(tmp_path / "pictures")) for path in (tmp_path / "pictures").rglob("*.jpg")}
    assert kept == {image["file_name"] for image in images}


def test_pictures_go_on_where_they_stopped(shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    real = stills.atomic_write

    def stop_at_the_third(path: Path, *pieces: Any, **more: Any) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        real(path, *pieces, **more)

    monkeypatch.setattr(stills, "atomic_write", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        export(shown, tmp_path / "f.json", images=tmp_path / "p")
    assert not (tmp_path / "f.json").exists()
    assert [path.name for path in written] == [stills.MARK, "00000010.jpg", "00000015.jpg"]
    written.clear()
    monkeypatch.setattr(stills, "atomic_write", lambda path, *rest: (written.append(path), real(path, *rest)))
    export(shown, tmp_path / "f.json", images=tmp_path / "p")
    assert [path.name for path in written] == [stills.MARK, "00000020.jpg", "00000025.jpg"]


def test_pictures_of_others_stay(shown: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "00000010.jpg").write_text("mine")
    with pytest.raises(UsageError, match="holds other files already; name a new folder"):
        export(shown, tmp_path / "f.json", images=folder)
    other = cast(tmp_path / "t.zarr", [write_film(tmp_path / "b.mp4", 30, sounds=())], [{1: range(2, 4)}])
    export(shown, tmp_path / "f.json", images=tmp_path / "new")
    with pytest.raises(UsageError, match="holds other files already"):
        export(other, tmp_path / "g.json", images=tmp_path / "new")
    with pytest.raises(UsageError, match=r"--images .*cannot be written"):
        export(shown, tmp_path / "g.json", images=tmp_path / "f.json" / "folder")


def test_pictures_need_the_video(shown: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(InputError, match="the video of 'a' is gone"):
        export(shown, tmp_path / "f.json", images=tmp_path / "p")
    assert not (tmp_path / "f.json").exists()


def test_pictures_of_two_stores_have_names_of_their_own(tmp_path: Path) -> None:
    video = write_film(tmp_path / "a.mp4", 30, sounds=())
    stores = [cast(tmp_path / f"{name}.zarr", [video], [{1: range(2, 4)}]) for name in ("x", "y")]
    export(stores, tmp_path / "f.json", images=tmp_path / "p")
    names = [image["file_name"] for image in json.loads((tmp_path / "f.json").read_text())["images"]]
    assert names == [f"{store}.zarr/a/{frame:08d}.jpg" for store in "xy" for frame in (10, 15)]
    assert all((tmp_path / "p" / name).is_file() for name in names)


def test_a_file_for_each_video_shares_the_pictures_folder(tmp_path: Path) -> None:
    films = [write_film(tmp_path / f"{name}.mp4", 30, sounds=()) for name in "ab"]
    out = cast(tmp_path / "s.zarr", films, [{1: range(2, 4)}, {1: range(1, 3)}])
    export(out, tmp_path / "{input}.json", images=tmp_path / "p")
    for name, frames in (("a", [10, 15]), ("b", [5, 10])):
        images = json.loads((tmp_path / f"{name}.json").read_text())["images"]
        assert [image["file_name"] for image in images] == [f"{name}/{frame:08d}.jpg" for frame in frames]
        assert all((tmp_path / "p" / image["file_name"]).is_file() for image in images)


# -- values of whole frames ------------------------------------------------------------------------------------------


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Faces in frames with a luma, a cut, a class and a mean colour; and a blur of faces beside one of frames."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 3, 30)
    n = int(counts.sum())
    values = {
        "luma": rng.random(30, np.float32), "cut": rng.random(30) < 0.2, "light": rng.integers(0, 2, 30),
        "colour": rng.random((30, 3), np.float32), "blur": rng.random(30, np.float32),
    }  # fmt: skip
    declared = (
        Array("luma", ("frame",), "float32"),
        Array("cut", ("frame",), "bool"),
        Array("light", ("frame",), "int32", (), {"class_names": ["day", "night"]}),
        Array("colour", ("frame", "channel"), "float32", (3,)),
        Array("blur", ("frame",), "float32"),
    )
    out = make_store(tmp_path / "s.zarr", {"a": faces_of(counts, np.zeros((n, 8)), **values)}, extra=declared)
    return out, values | {"n_faces": counts}


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_values_of_a_frame_are_columns_of_its_faces(
    tmp_path: Path, measured: tuple[Path, dict[str, np.ndarray]], suffix: str
) -> None:
    out, values = measured
    export(out, tmp_path / f"f.{suffix}")
    more = {"lines": True} if suffix == "jsonl" else {}
    table = getattr(pd, f"read_{suffix.removesuffix('l')}")(tmp_path / f"f.{suffix}", **more)
    frame = np.repeat(np.arange(30), values["n_faces"])
    for name in ("luma", "cut", "light", "blur"):
        np.testing.assert_allclose(table[name], values[name][frame], rtol=1e-6)
    assert table["light_name"].tolist() == np.array(["day", "night"])[values["light"][frame]].tolist()
    colour = table[[f"colour_{k}" for k in range(3)]] if suffix == "csv" else np.stack(table["colour"].tolist())
    np.testing.assert_allclose(colour, values["colour"][frame], rtol=1e-6)
    np.testing.assert_array_equal(pipeline.open(out).rows("face")["luma"], values["luma"][frame])


def test_two_places_of_a_frame_are_told_apart(tmp_path: Path) -> None:
    """The second one's x and y stood in the place of the first one's: the scale of a picture as its origin."""
    made = {"origin": np.array([[1, 2], [3, 4]], np.float32), "scale": np.array([[5, 6], [7, 8]], np.float32)}
    extra = tuple(Array(name, ("frame", "xy"), "float32", (2,)) for name in made)
    out = make_store(tmp_path / "s.zarr", {"a": faces_of(np.ones(2, int), np.zeros((2, 8)), **made)}, extra=extra)
    export(out, tmp_path / "f.csv")
    table = pd.read_csv(tmp_path / "f.csv")
    assert table["x"].tolist() == [100, 100], "that of the face"
    np.testing.assert_array_equal(table[["frame_x", "frame_y"]], made["origin"])
    np.testing.assert_array_equal(table[["scale_x", "scale_y"]], made["scale"])
    export(out, tmp_path / "f.json")
    images = json.loads((tmp_path / "f.json").read_text())["images"]
    assert [[one[name] for name in ("x", "y", "scale_x", "scale_y")] for one in images] == [[1, 2, 5, 6], [3, 4, 7, 8]]


def test_values_of_a_frame_belong_to_cocos_images(tmp_path: Path, measured: tuple[Path, dict[str, np.ndarray]]) -> None:
    out, values = measured
    export(out, tmp_path / "f.json")
    found = json.loads((tmp_path / "f.json").read_text())
    for image in found["images"]:
        at = image["frame"] // EVERY
        assert (image["luma"], image["cut"]) == (pytest.approx(float(values["luma"][at])), bool(values["cut"][at]))
        assert image["light_name"] == ["day", "night"][values["light"][at]]
        assert image["colour"] == pytest.approx(values["colour"][at].tolist())
    assert not any("luma" in one.get("attributes", {}) for one in found["annotations"])


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "words", "message"),
    [
        (
            "p.csv",
            ["--start-timecode", "01:00:00:00"],
            "csv does not support --start-timecode; choose --format edl",
        ),
        ("p.srt", ["--frame-rate", "25"], "format srt does not support --frame-rate"),
        ("p.edl", ["--images", "x"], "format edl does not support --images; choose --format coco"),
        ("p.edl", ["--start-timecode", "noon"], "--start-timecode: 'noon' is not a timecode of 25 frames per second"),
        ("p.srt", ["--axis", "frame"], "holds rows of 'face' only"),
    ],
)
def test_mistakes_end_with_2(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str, words: list[str], message: str
) -> None:
    assert main(["export", str(two), "--to", str(tmp_path / to), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / to).exists()


def test_the_command_counts_appearances(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(two), "--to", str(tmp_path / "p.vtt"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["appearances"], said["frames"], said["notes"]) == ("vtt", 3, 50, [])


def test_without_the_library_the_command_says_what_to_install(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentimelineio", None)
    with pytest.raises(UsageError, match=r"pip install 'reelgraph\[otio\]'"):
        export(two, tmp_path / "p.edl")
    export(two, tmp_path / "p.fcpxml")
    assert len(spans_of_xml(tmp_path / "p.fcpxml")) == 3
