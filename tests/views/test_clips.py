"""Clips of one person: cut between frames and between samples, joined, or copied."""

from __future__ import annotations

import csv
import errno
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.errors import InputError, StoreError, UsageError
from pipeline.faces.people.labels import choose
from pipeline.faces.views.clips import ClipOptions, cut_clips
from pipeline.media.film.targets import safe
from pipeline.media.video.index import build_index
from pipeline.store.compact import add_arrays
from pipeline.store.run import RunStore
from pipeline.store.schema import Array
from tests.clips import ORIENTATIONS, remuxed
from tests.made_stores import EVERY
from tests.views.films import beeps, read_film, sound_packets, still, store_of, write_film

FACE = (100, 80, 60, 80)
TIGHT = ClipOptions(margin_seconds=0.0, longest_gap_seconds=0.3)


def on_screen(*samples: int, n: int = 30) -> np.ndarray:
    """float32 (n, 1, 4): a face in these samples."""
    boxes = np.full((n, 1, 4), np.nan, np.float32)
    boxes[list(samples)] = FACE
    return boxes


def store_with(tmp_path: Path, film: Path, *samples: int) -> Path:
    n = -(-len(build_index(film)) // 5)
    return store_of(tmp_path / "a.zarr", [film], [on_screen(*samples, n=n)], person=[np.ones((n, 1), int)])


def bar(frames: np.ndarray) -> list[int]:
    """Where the white bar of each frame begins, which tells them apart."""
    return [int(np.argmax(row)) for row in frames[:, :20].min((1, 3)) > 220]


def test_an_appearance_is_cut_to_the_frame_and_to_the_sample(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 150, first_seconds=0.84, gop=60)
    made = cut_clips([store_with(tmp_path, film, 6, 7, 8, 9, 10, 20, 21)], "Ann", options=TIGHT)
    assert [Path(clip.file).name for clip in made.clips] == ["a_Ann_0-00-02.040.mp4", "a_Ann_0-00-04.840.mp4"]
    frames = read_film(film)[1]
    for clip, (first, last) in zip(made.clips, [(30, 55), (100, 110)], strict=True):
        times, shown = read_film(Path(clip.file))
        assert times == pytest.approx(np.arange(last - first) / 25)
        assert bar(shown) == bar(frames[first:last])
        assert clip.frames == last - first
        assert (clip.start_seconds, clip.stop_seconds) == pytest.approx((0.84 + first / 25, 0.84 + last / 25))
        assert clip.screen_seconds == pytest.approx((last - first) / 25)
        heard_from = clip.start_seconds - 0.001  # AAC blurs what is loud a little
        expected = [at - clip.start_seconds for at in beeps(film) if heard_from <= at < clip.stop_seconds]
        assert len(expected) == 1
        assert beeps(Path(clip.file)) == pytest.approx(expected, abs=0.001)
        with av.open(clip.file) as container:
            heard = container.streams.audio[0]
            assert float(heard.duration * heard.time_base) == pytest.approx((last - first) / 25, abs=0.022)


def test_margins_and_gaps_make_one_of_appearances_that_meet(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 150, (64, 48), sounds=())
    store = store_with(tmp_path, film, 6, 7, 8, 9, 10, 20, 21)

    def spans(**options: Any) -> list[tuple[float, float]]:
        made = cut_clips([store], "1", tmp_path / "made", ClipOptions(**options), force=True)
        return [(round(clip.start_seconds, 3), round(clip.stop_seconds, 3)) for clip in made.clips]

    assert spans(margin_seconds=0.2, longest_gap_seconds=0.3) == [(1.0, 2.4), (3.8, 4.6)]
    assert spans(margin_seconds=0.0, longest_gap_seconds=2.0) == [(1.2, 4.4)]
    assert spans(margin_seconds=1.0, longest_gap_seconds=0.3) == [(0.2, 5.4)]
    assert spans(margin_seconds=9.0, longest_gap_seconds=0.3) == [(0.0, 6.0)]


def test_a_list_says_what_was_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = write_film(tmp_path / "a.mp4", 50, (64, 48))
    store = store_with(tmp_path, film, 2, 3)
    asked = ["clips", str(store), "--person", "ann", "--out", str(tmp_path / "cut"), "--margin", "0", "--json"]
    assert main(asked) == 0
    printed = json.loads(capsys.readouterr().out)
    (clip,) = printed["clips"]
    assert printed["list_file"] == str(tmp_path / "cut/Ann_clips.csv")
    assert json.loads((tmp_path / "cut/Ann_clips.json").read_text()) == [clip]
    with (tmp_path / "cut/Ann_clips.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["input"], row["person"], row["frames"]) == ("a", "Ann", "10")
    assert main(asked) == 2
    assert "exists already" in capsys.readouterr().err


def test_long_names_that_begin_alike_have_clips_of_their_own(tmp_path: Path) -> None:
    names = [f"{'reunion ' * 9}{camera}" for camera in "AB"]
    films = [write_film(tmp_path / f"{name}.mp4", 50, (64, 48), sounds=()) for name in names]
    seen = [on_screen(2, 3, n=10)] * 2
    store = store_of(tmp_path / "a.zarr", films, seen, person=[np.ones((10, 1), int)] * 2)
    made = cut_clips([store], "Ann", tmp_path / "cut", TIGHT).clips
    assert len({clip.file for clip in made}) == len({clip.input for clip in made}) == 2
    assert all(Path(clip.file).is_file() for clip in made)


def test_a_list_of_other_clips_is_not_replaced(tmp_path: Path) -> None:
    stores = []
    for name in "ab":
        (tmp_path / name).mkdir()
        stores.append(store_with(tmp_path / name, write_film(tmp_path / name / f"{name}.mp4", 50, (64, 48)), 2, 3))
    cut_clips([stores[0]], "Ann", tmp_path / "cut", TIGHT)
    content = (tmp_path / "cut/Ann_clips.json").read_text()
    with pytest.raises(UsageError, match=r"Ann_clips\.csv exists already"):
        cut_clips([stores[1]], "Ann", tmp_path / "cut", TIGHT)
    assert (tmp_path / "cut/Ann_clips.json").read_text() == content
    (made,) = cut_clips([stores[1]], "Ann", tmp_path / "cut", TIGHT, force=True).clips
    assert [one["file"] for one in json.loads((tmp_path / "cut/Ann_clips.json").read_text())] == [made.file]


def test_appearances_in_several_inputs_are_joined_in_step(tmp_path: Path) -> None:
    films = [
        write_film(tmp_path / "a.mkv", 75, (160, 120), first_seconds=0.5, sounds=("flac",)),
        write_film(tmp_path / "b.mkv", 75, (120, 160), sounds=()),
        write_film(tmp_path / "c.mp4", 75, (320, 180), aspect=Fraction(4, 3), sounds=("mp3",)),
    ]
    faces = [on_screen(*samples, n=15) for samples in ([5, 6, 7, 8, 9], [1, 2], [0, 1, 2, 3, 4, 5, 10])]
    store = store_of(tmp_path / "s.zarr", films, faces, person=[np.ones((15, 1), int)] * 3)
    options = ClipOptions(margin_seconds=0.0, longest_gap_seconds=0.3, join=True)
    made = cut_clips([store], "Ann", tmp_path, options)
    assert {clip.file for clip in made.clips} == {str(tmp_path / "Ann.mp4")}
    assert [clip.input for clip in made.clips] == ["a", "b", "c", "c"]
    assert [clip.at_seconds for clip in made.clips] == pytest.approx([0.0, 1.0, 1.4, 2.6])
    times, frames = read_film(tmp_path / "Ann.mp4")
    assert times == pytest.approx(np.arange(70) / 25, abs=1e-4)
    assert frames.shape[1:3] == (120, 160)
    assert frames[30, :, :30].max() < 30  # beside a tall picture
    assert frames[30, 10:110, 70:90].max() > 100
    assert frames[50, :15].max() < 30  # above a wide one
    # a: from 1.5 s of the file, where its second beep is; b is silent; c: from 0 to 1.2 s, and from 2 s.
    assert beeps(tmp_path / "Ann.mp4") == pytest.approx([0.0, 1.4, 2.4, 2.6], abs=0.03)


def test_parts_with_other_rates_and_channels_are_joined_in_step(tmp_path: Path) -> None:
    films = [
        write_film(tmp_path / "a.mp4", 75, (64, 48), layout="stereo"),
        write_film(tmp_path / "b.mp4", 75, (64, 48)),
        write_film(tmp_path / "c.mkv", 75, (64, 48), sounds=("flac",), rate=22050),
        write_film(tmp_path / "d.mp4", 75, (64, 48), layout="stereo", rate=44100),
    ]
    faces = [on_screen(*range(2, 8), n=15)] * 4  # 0.4 to 1.6 s
    store = store_of(tmp_path / "s.zarr", films, faces, person=[np.ones((15, 1), int)] * 4)
    made = cut_clips([store], "Ann", tmp_path, ClipOptions(margin_seconds=0.0, longest_gap_seconds=0.3, join=True))
    assert [clip.at_seconds for clip in made.clips] == pytest.approx([0.0, 1.2, 2.4, 3.6])
    assert beeps(tmp_path / "Ann.mp4") == pytest.approx([0.6, 1.8, 3.0, 4.2], abs=0.002)


def test_a_broadcast_that_changes_its_channels_is_heard_throughout(tmp_path: Path) -> None:
    parts = [
        write_film(tmp_path / f"{k}.ts", 50, (64, 48), sounds=("mp2",), layout=layout, first_seconds=2.2 * k)
        for k, layout in enumerate(("mono", "stereo", "mono"))
    ]
    film = tmp_path / "a.ts"
    film.write_bytes(b"".join(part.read_bytes() for part in parts))
    (clip,) = cut_clips([store_with(tmp_path, film, *range(2, 28))], "Ann", options=TIGHT).clips
    expected = [at - clip.start_seconds for part in parts for at in beeps(part)]
    assert beeps(Path(clip.file)) == pytest.approx([at for at in expected if at >= 0], abs=0.002)
    assert len(expected) == len(parts) * 2


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.mpg", "mpeg2video"), ("a.avi", "mpeg4")])
def test_copied_packets_of_a_file_without_an_exact_index_begin_at_a_key_frame(
    tmp_path: Path, name: str, codec: str
) -> None:
    """A search in MPEG-TS and MPEG-PS goes past the key frame: what was copied could not be shown."""
    film = write_film(tmp_path / name, 150, codec=codec, sounds=("mp2",), gop=25)
    index = build_index(film)
    for faces in (range(1, 3), range(22, 25)):
        store = store_with(tmp_path / str(faces.start), film, *faces)
        (clip,) = cut_clips([store], "Ann", options=ClipOptions(0.0, 0.3, copy=True)).clips
        first = int(np.searchsorted(index.time_seconds, clip.start_seconds - 1e-6))
        assert index.key[first]
        assert first <= faces.start * EVERY < first + 26
        times, frames = read_film(Path(clip.file))
        assert times[0] == pytest.approx(0, abs=0.0011)
        assert len(frames) >= 10
        assert (frames[:10] == read_film(film)[1][first : first + 10]).all()


def test_packets_without_times_are_not_copied(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mpg", 30, (64, 48), sounds=("mp2",))
    with pytest.raises(InputError, match=r"its packets have no times and cannot be copied; cut it without --copy"):
        cut_clips([store_with(tmp_path, film, 2, 3)], "Ann", options=ClipOptions(copy=True))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_copied_packets_begin_at_a_key_frame(tmp_path: Path, name: str) -> None:
    film = write_film(tmp_path / name, 150, gop=25)
    made = cut_clips([store_with(tmp_path, film, 12, 13, 14, 15)], "Ann", options=ClipOptions(0.0, 0.3, copy=True))
    (clip,) = made.clips
    out = Path(clip.file)
    assert out.suffix == film.suffix
    assert (clip.start_seconds, clip.stop_seconds) == pytest.approx((2.0, 3.2))
    assert any("longer than asked" in note for note in made.notes)
    times, frames = read_film(out)
    assert times[:30] == pytest.approx(np.arange(30) / 25, abs=0.0011)
    assert 30 <= len(times) <= 34  # those that others are built on come along
    assert (frames[:30] == read_film(film)[1][50:80]).all()
    ours, theirs = sound_packets(out), [(at, data) for at, data in sound_packets(film) if 2.0 <= at < 3.2]
    assert [data for _, data in ours] == [data for _, data in theirs]
    assert [at + 2.0 for at, _ in ours] == pytest.approx([at for at, _ in theirs], abs=0.0011)


def test_codecs_of_quicktime_alone_are_copied_to_quicktime(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mov", 50, (64, 48), codec="qtrle", pix_fmt="rgb24", gop=5)
    made = cut_clips([store_with(tmp_path, film, 4, 5)], "Ann", options=ClipOptions(0.0, 0.3, copy=True))
    (clip,) = made.clips
    assert Path(clip.file).suffix == ".mov"
    first = round(clip.start_seconds * 25)
    frames = read_film(Path(clip.file))[1]
    assert len(frames) >= 10
    assert (frames == read_film(film)[1][first : first + len(frames)]).all()


def test_packets_that_no_container_takes_are_refused_in_one_line(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.avi", 30, (64, 48), codec="cinepak", pix_fmt="rgb24", sounds=())
    with pytest.raises(InputError, match=r"packets cannot be copied .*'cinepak'.*cut it without --copy"):
        cut_clips([store_with(tmp_path, film, 2, 3)], "Ann", tmp_path / "cut", ClipOptions(copy=True))
    assert list((tmp_path / "cut").iterdir()) == []


def test_copying_to_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with(tmp_path, write_film(tmp_path / "a.mp4", 50, (64, 48)), 2, 3)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pipeline.media.film.packets.Copied.take", full)
    with pytest.raises(StoreError, match=r"cannot write .*No space left on device; free some space"):
        cut_clips([store], "Ann", tmp_path / "cut", ClipOptions(copy=True))
    assert list((tmp_path / "cut").iterdir()) == []


def test_a_turned_video_stays_upright_when_copied(tmp_path: Path, data_dir: Path) -> None:
    film = data_dir / "videos/derived/asl_A_again_rot90meta.mp4"
    made = cut_clips([store_with(tmp_path, film, 2, 3)], "Ann", tmp_path / "cut", ClipOptions(copy=True))
    assert build_index(Path(made.clips[0].file)).rotation == build_index(film).rotation != 0


@pytest.mark.parametrize("name", list(ORIENTATIONS))
def test_a_mirrored_video_stays_as_it_is_shown_when_copied(tmp_path: Path, name: str) -> None:
    made = write_film(tmp_path / "stored.mp4", 20, (64, 48), sounds=())
    film = remuxed(made, tmp_path / "a.mp4", ORIENTATIONS[name][0])
    cut = cut_clips([store_with(tmp_path, film, 1, 2)], "Ann", tmp_path / "cut", ClipOptions(copy=True))
    source, copied = build_index(film), build_index(Path(cut.clips[0].file))
    assert (copied.rotation, copied.mirrored) == (source.rotation, source.mirrored)


@pytest.mark.parametrize("copy", [False, True], ids=["encoded", "copied"])
def test_a_clip_of_the_second_part_of_a_joined_film(tmp_path: Path, copy: bool) -> None:
    part = write_film(tmp_path / "part.ts", 50, sounds=("mp2",), gop=10)
    film = tmp_path / "joined.ts"
    film.write_bytes(part.read_bytes() * 2)
    store = store_with(tmp_path, film, 16, 17)  # frames 80 to 89
    options = ClipOptions(copy=copy, margin_seconds=0.0, longest_gap_seconds=0.3)
    (clip,) = cut_clips([store], "Ann", tmp_path / "cut", options).clips
    first = build_index(film).time_seconds[0]
    assert clip.start_seconds - first == pytest.approx(80 / 25, abs=0.001)
    times, shown = read_film(Path(clip.file))
    assert bar(shown)[:10] == bar(read_film(part)[1][30:40])
    assert np.diff(times)[:9] == pytest.approx(0.04, abs=0.0011)
    assert len(sound_packets(Path(clip.file))) > 10


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("Anna", "unknown person 'Anna'; did you mean 'Ann'"),
        ("9", "unknown person '9'"),
        ("Bo", "unknown person 'Bo'"),  # in the registry, on none of these videos
    ],
)
def test_somebody_unknown_is_answered_with_who_comes_nearest(tmp_path: Path, asked: str, said: str) -> None:
    store = store_with(tmp_path, write_film(tmp_path / "a.mp4", 20, (64, 48), sounds=()), 1)
    with pytest.raises(UsageError, match=said):
        cut_clips([store], asked)


def test_people_are_found_by_id_by_name_and_by_gallery(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 20, (64, 48), sounds=())
    store = store_of(tmp_path / "a.zarr", [film], [still(4, FACE)], person=[np.array([[1], [1], [2], [-1]])])
    identity = Array("identity", ("face",), "int32", attributes={"names": ["Cy", "2", "Cy", "Ann"]})
    with RunStore.open(store) as opened:
        add_arrays(opened, "a", [identity], {"identity": np.arange(4, dtype=np.int32)}, {"find": "key"})
    items = list(pipeline.open(store).inputs.values())
    found = {word: choose(items, word)[0].rows.tolist() for word in ("1", "ANN", "2", "person 2", "bo", "cy")}
    one, bo, cy = [True, True, False, False], [False, False, True, False], [True, False, True, False]
    ann = [True, True, False, True]  # by the registry, and by the gallery
    assert found == {"1": one, "ANN": ann, "2": bo, "person 2": bo, "bo": bo, "cy": cy}
    (tmp_path / "people.json").write_text('{"people": {"1": {"name": "Ann"}, "2": {"name": "ann"}}}')
    with pytest.raises(UsageError, match="2 people are called 'Ann': 1, 2; give the id"):
        choose(items, "Ann")


def test_an_interrupted_cut_leaves_no_half_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film = write_film(tmp_path / "a.mp4", 50, (64, 48))
    store = store_with(tmp_path, film, 2, 3, 8)

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.views.progress.Work.done", stops)
    for options in (TIGHT, ClipOptions(join=True)):
        with pytest.raises(KeyboardInterrupt):
            cut_clips([store], "Ann", tmp_path / "cut", options)
    assert list((tmp_path / "cut").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("Ann Lee", "Ann-Lee"), ("../../etc/passwd", "etc-passwd"), ("Мишель", "Мишель"), ("a:b*c?", "a-b-c"),
        ("...", "person"), ("x" * 200, "x" * 60),
    ],
)  # fmt: skip
def test_names_are_safe_as_names_of_files(name: str, made: str) -> None:
    assert safe(name, "person") == made


def test_join_and_copy_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose one"):
        cut_clips([tmp_path], "Ann", options=ClipOptions(join=True, copy=True))
