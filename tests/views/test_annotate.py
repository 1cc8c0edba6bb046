"""Annotated films: every frame at its time, sound as it was, boxes where faces are."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.engine.events import ChunkDone, Event, Silent
from pipeline.errors import InputError, ReelgraphError, UsageError
from pipeline.faces.views.annotate import Wanted, annotate
from pipeline.media.film.film import film_of
from pipeline.media.film.movie import part_of
from pipeline.media.video.index import build_index
from tests.clips import ORIENTATIONS, remuxed
from tests.views.films import SIZE, beeps, read_film, sound_packets, still, store_of, texture, write_film

NO_BOXES = Wanted(boxes=False)
FACE = (100, 80, 60, 80)


def annotated(tmp_path: Path, film: Path, box: np.ndarray | None = None, **more: Any) -> Path:
    """A film annotated with boxes at its samples (default: one face that stands still)."""
    wanted, target = more.pop("wanted", None), more.pop("target", tmp_path / "out.mp4")
    n = -(-len(build_index(film)) // 5)
    store = store_of(tmp_path / "a.zarr", [film], [still(n, FACE) if box is None else box], **more)
    return Path(annotate([store], target=target, wanted=wanted)[0].file)


@pytest.mark.parametrize(
    ("name", "made", "target", "copied"),
    [
        ("a.mp4", {}, "out.mp4", True),
        ("late.mp4", {"first_seconds": 0.852}, "out.mp4", True),
        ("a.mkv", {"sounds": ("aac", "aac")}, "out.mkv", True),
        ("flac.mkv", {"sounds": ("flac",)}, "out.mp4", True),
        ("vp8.webm", {"n_frames": 20, "codec": "libvpx", "sounds": ("libopus",)}, "out.mp4", True),
        ("pcm.mkv", {"sounds": ("pcm_s16le", "mp2"), "first_seconds": 0.5}, "out.mp4", False),
        ("silent.mp4", {"sounds": ()}, "out.mov", True),
        ("small.mp4", {"n_frames": 15, "size": (64, 48)}, "out.webm", False),
        ("variable.mkv", {"pts": [0, 40, 80, 200, 210, 1000, 1033, *range(1100, 2800, 40)]}, "out.mp4", True),
        ("old.avi", {"codec": "mpeg4", "sounds": ("mp3",)}, "out.mp4", True),
    ],
)  # fmt: skip
def test_every_frame_at_its_time_and_the_sound_with_it(
    tmp_path: Path, name: str, made: dict[str, Any], target: str, copied: bool
) -> None:
    film = write_film(tmp_path / name, **made)
    out = annotated(tmp_path, film, target=tmp_path / target)
    source, result = build_index(film), build_index(out)
    there = source.time_seconds[source.readable]  # the AVI promises a frame more than it holds
    assert len(result) == len(there) == made.get("n_frames", len(made.get("pts", range(50))))
    grid = 0.0006 if target.endswith(("mkv", "webm")) else 1e-9  # Matroska counts milliseconds
    assert result.time_seconds == pytest.approx(there, abs=grid)
    for track in range(len(made.get("sounds", ("aac",)))):
        if copied:
            ours, theirs = sound_packets(out, track), sound_packets(film, track)
            assert [data for _, data in ours] == [data for _, data in theirs]
            assert [at for at, _ in ours] == pytest.approx([at for at, _ in theirs], abs=0.0006)
        else:
            assert beeps(out, track) == pytest.approx(beeps(film, track), abs=0.004)


def test_sound_that_begins_before_the_picture_does_not_move_it(tmp_path: Path) -> None:
    """An encoder of AAC begins before time 0. An MP4 holds that, a Matroska file does not."""
    film = write_film(tmp_path / "a.mp4", 20, (64, 48))
    assert sound_packets(film)[0][0] < 0
    out = annotated(tmp_path, film, target=tmp_path / "out.mkv")
    assert build_index(out).time_seconds == pytest.approx(build_index(film).time_seconds, abs=0.0006)
    ours, theirs = sound_packets(out), [(at, data) for at, data in sound_packets(film) if at >= 0]
    assert [data for _, data in ours] == [data for _, data in theirs]
    assert [at for at, _ in ours] == pytest.approx([at for at, _ in theirs], abs=0.0006)


def test_sound_of_several_tracks_keeps_its_language(tmp_path: Path) -> None:
    film = tmp_path / "a.mkv"
    with av.open(str(write_film(tmp_path / "b.mkv"))) as read, av.open(str(film), "w") as written:
        copies = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
        copies[1].metadata["language"] = "ukr"
        for packet in read.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                written.mux(packet)
    with av.open(str(annotated(tmp_path, film))) as container:
        assert container.streams.audio[0].language == "ukr"


@pytest.mark.parametrize(
    ("size", "pix_fmt", "aspect", "shown"),
    [
        ((161, 121), "yuv444p", None, (162, 122)),
        ((160, 120), "yuv420p10le", Fraction(4, 3), (160, 120)),
        ((160, 120), "yuv422p", Fraction(15, 16), (160, 120)),
    ],
)
def test_any_size_depth_and_shape_of_pixels(
    tmp_path: Path, size: tuple[int, int], pix_fmt: str, aspect: Fraction | None, shown: tuple[int, int]
) -> None:
    film = write_film(tmp_path / "a.mp4", 20, size, pix_fmt=pix_fmt, aspect=aspect)
    out = annotated(tmp_path, film, wanted=NO_BOXES)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.pix_fmt) == (*shown, "yuv420p")
        assert stream.codec_context.sample_aspect_ratio == (aspect or 1)
    ours = read_film(out)[1][5][: size[1], : size[0]]
    assert np.abs(ours.astype(int) - read_film(film)[1][5]).mean() < 4


@pytest.mark.parametrize("colour", [None, (1, 1, 1), (6, 6, 6), (9, 14, 9)], ids=["none", "709", "601", "2020"])
def test_colours_stay(tmp_path: Path, colour: tuple[int, int, int] | None) -> None:
    film = tmp_path / "a.mp4"
    with av.open(str(film), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        if colour is not None:
            context = stream.codec_context
            context.color_range, (context.colorspace, context.color_trc, context.color_primaries) = 1, colour
        planes = np.full((96, 64), 130, np.uint8)
        planes[64:80], planes[80:] = 100, 160  # chroma that the matrices give other colours for
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    out = annotated(tmp_path, film, wanted=NO_BOXES)
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        context = container.streams.video[0].codec_context
    assert (context.colorspace, context.color_trc, context.color_primaries) == (colour or (2, 2, 2))
    assert np.abs(frame.to_ndarray(format="yuv420p").astype(int) - planes).max() <= 2


@pytest.mark.parametrize("name", ["dec_rot90.mov", "dec_rot180.mov", "derived/asl_A_again_rot90meta.mp4"])
def test_turned_videos_come_out_upright(tmp_path: Path, data_dir: Path, name: str) -> None:
    film = data_dir / "videos" / name
    source = build_index(film)
    assert source.rotation
    boxes = still(-(-len(source) // 5), (10, 10, 20, 20))
    out = annotated(tmp_path, film, boxes, wanted=Wanted(boxes=False, stop=0.3))
    result = build_index(out)
    turned = np.rot90(read_film(film)[1][:3], source.rotation // 90, axes=(1, 2))
    assert (result.rotation, result.height, result.width) == (0, *turned.shape[1:3])
    assert np.abs(read_film(out)[1][:3].astype(int) - turned).mean() < 4


@pytest.mark.parametrize("name", [name for name, (matrix, _) in ORIENTATIONS.items() if matrix != (1, 0, 0, 1)])
def test_mirrored_videos_come_out_as_players_show_them(tmp_path: Path, name: str) -> None:
    matrix, upright = ORIENTATIONS[name]
    film = remuxed(write_film(tmp_path / "stored.mp4", 20, sounds=()), tmp_path / "a.mp4", matrix)
    shown = np.stack([upright(frame) for frame in read_film(film)[1]])
    height, width = shown.shape[1:3]
    box = (width - 90, 60, 60, 80)
    out = annotated(tmp_path, film, still(4, box))
    result = build_index(out)
    assert (result.rotation, result.mirrored, result.height, result.width) == (0, False, height, width)
    apart = np.abs(read_film(out)[1].astype(int) - shown).max(-1) > 60
    columns = np.flatnonzero(apart[10, 80:120].mean(0) > 0.6)  # rows beside which nothing is written
    assert (columns.min(), columns.max()) == (pytest.approx(width - 90, abs=2), pytest.approx(width - 30, abs=2))
    outside = np.ones((height, width), bool)
    outside[:, width - 100 : width - 20] = outside[:70] = False
    assert np.abs(read_film(out)[1][10].astype(int) - shown[10])[outside].mean() < 4


def test_the_whole_of_a_joined_film_is_written_with_its_sound(tmp_path: Path) -> None:
    parts = [write_film(tmp_path / f"part{number}.ts", 50, sounds=("mp2",)) for number in (1, 2)]
    film = tmp_path / "joined.ts"
    film.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = build_index(film)
    out = annotated(tmp_path, film, wanted=NO_BOXES, target=tmp_path / "out.mkv")
    result = build_index(out)
    assert len(result) == len(source) == 100
    assert result.time_seconds == pytest.approx(source.time_seconds, abs=0.0011)
    first = source.time_seconds[0]
    assert np.array(beeps(out)) - first == pytest.approx([0, 1, 2, 3], abs=0.06)
    late = Path(annotate([tmp_path / "a.zarr"], target=tmp_path / "late.mkv", wanted=Wanted(start=first + 2.5))[0].file)
    assert len(build_index(late)) == pytest.approx(38, abs=1)
    assert beeps(late) == pytest.approx([0.5], abs=0.06)


def differs(out: Path, plain: Path) -> np.ndarray:
    """bool (n, height, width): where one film was drawn on and the other was not."""
    return np.asarray(np.abs(read_film(out)[1].astype(int) - read_film(plain)[1]).max(-1) > 60)


def test_boxes_move_between_samples_and_stay_half_a_gap(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 50)
    box = np.full((10, 1, 4), np.nan, np.float32)
    box[3], box[4] = (40, 80, 60, 80), (60, 80, 60, 80)  # frames 15 and 20
    plain = annotated(tmp_path, film, box, wanted=NO_BOXES, target=tmp_path / "plain.mp4")
    out = Path(annotate([tmp_path / "a.zarr"], target=tmp_path / "out.mp4")[0].file)
    drawn = differs(out, plain)
    for frame, x in ((15, 40), (17, 48), (20, 60), (22, 60)):
        lines = np.flatnonzero(drawn[frame, 90:150].mean(0) > 0.6)  # rows beside which nothing is written
        assert (lines.min(), lines.max()) == (pytest.approx(x, abs=2), pytest.approx(x + 60, abs=2)), frame
    assert np.flatnonzero(drawn.mean((1, 2)) > 0.002).tolist() == list(range(12, 24))


def test_boxes_of_a_part_of_the_picture_lie_where_it_is(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 10)
    out = annotated(tmp_path, film, still(2, (155, 90, 60, 80)), roi=(150, 60, 120, 150))
    apart = np.abs(read_film(out)[1][3].astype(int) - texture()).max(-1) > 60
    assert np.flatnonzero(apart[100:150].mean(0) > 0.6).min() == pytest.approx(155, abs=2)


def test_a_person_keeps_colour_and_name(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 50)
    faces = still(10, (20, 60, 50, 60), (200, 60, 50, 60))
    swapped = np.array([[1, 2]] * 5 + [[2, 1]] * 5)
    out = annotated(tmp_path, film, faces, person=[swapped])
    frames = read_film(out)[1].astype(int)

    def line(frame: int, x: int) -> np.ndarray:
        return np.median(frames[frame, 75:110, x], axis=0)

    assert np.abs(line(5, 20) - line(40, 200)).max() < 40
    assert np.abs(line(5, 20) - line(5, 200)).max() > 80


def test_a_part_of_the_time_begins_at_zero(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 100, first_seconds=0.5)
    out = annotated(tmp_path, film, wanted=Wanted(start=1.45, stop=3.0))
    times, _ = read_film(out)
    assert times == pytest.approx(np.arange(39) / 25)  # of the frames from 1.46 to before 3.0 s
    assert beeps(out) == pytest.approx([at - 1.46 for at in beeps(film) if 1.46 <= at < 3.0], abs=0.002)


def test_what_is_done_of_a_store_is_shown_and_its_share_said(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 50)
    store = store_of(tmp_path / "a.zarr", [film], [still(10, FACE)], done_chunks=1)
    (made,) = annotate([store])
    assert (made.frames, made.done_share, made.unseen_frames) == (50, 0.4, 35)
    assert any("40%" in note for note in made.notes)
    frames = read_film(Path(made.file))[1].astype(int)
    drawn = np.abs(frames - texture()).max(-1)[:, 100:150, 95:165].mean((1, 2))
    assert drawn[:17].min() > 2 * drawn[19:].max()


def test_a_damaged_video_loses_only_what_cannot_be_read(tmp_path: Path, data_dir: Path) -> None:
    film = data_dir / "videos" / "dec_corrupted.mp4"
    store = store_of(tmp_path / "a.zarr", [film], [still(10, FACE)])
    (made,) = annotate([store], wanted=NO_BOXES)
    assert made.frames + made.lost_frames == 50
    assert 28 <= made.frames < 50
    assert any("could not be decoded" in note for note in made.notes)
    assert len(build_index(Path(made.file))) == made.frames


class _Stops(Silent):
    """Somebody who interrupts after some frames."""

    def on(self, event: Event) -> None:
        if isinstance(event, ChunkDone):
            raise KeyboardInterrupt


def test_an_interrupted_film_leaves_nothing_and_spares_what_was_there(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 50)
    out = annotated(tmp_path, film)
    before = out.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        annotate([tmp_path / "a.zarr"], target=out, force=True, progress=_Stops())
    with pytest.raises(KeyboardInterrupt):
        annotate([tmp_path / "a.zarr"], target=tmp_path / "other.mp4", progress=_Stops())
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "a.zarr", "out.mp4"]
    part_of(out).write_bytes(b"left by a killed process")
    assert Path(annotate([tmp_path / "a.zarr"], target=out, force=True)[0].file).stat().st_size > 1000
    assert not part_of(out).exists()


def refusals() -> list[Any]:
    return [
        pytest.param({"target": "out.mp4"}, UsageError, "exists already", id="exists"),
        pytest.param({"target": "a.mp4", "force": True}, UsageError, "is the video of 'a' itself", id="source"),
        pytest.param({"target": "out.avi"}, UsageError, "ends in .mp4", id="ending"),
        pytest.param({"inputs": ["b"]}, UsageError, "unknown input 'b'", id="input"),
        pytest.param({"wanted": Wanted(start=9.0)}, UsageError, "no frame between", id="beyond"),
        pytest.param({"wanted": Wanted(blur=("Anna",))}, UsageError, "did you mean 'Ann'", id="person"),
    ]


@pytest.mark.parametrize(("asked", "error", "said"), refusals())
def test_what_cannot_be_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], error: type[ReelgraphError], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    film = write_film(tmp_path / "a.mp4", 10)
    (tmp_path / "out.mp4").write_bytes(b"mine")
    store = store_of(tmp_path / "a.zarr", [film], [still(2, FACE)], person=[np.ones((2, 1), int)])
    with pytest.raises(error, match=said) as caught:
        annotate([store], **asked)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"


def test_a_video_that_is_gone_or_another_one_is_refused(tmp_path: Path) -> None:
    film = write_film(tmp_path / "a.mp4", 10)
    store = store_of(tmp_path / "a.zarr", [film], [still(2, FACE)])
    write_film(film, 20)
    with pytest.raises(InputError, match="has changed since 'a' was made"):
        annotate([store])
    film.unlink()
    with pytest.raises(InputError, match=r"is gone: .*put it back"):
        annotate([store])


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = [write_film(tmp_path / f"{name}.mp4", 10) for name in "ab"]
    store = store_of(tmp_path / "s.zarr", films, [still(2, FACE)] * 2)
    assert main(["annotate", str(store), "--out", str(tmp_path / "made"), "--json"]) == 0
    shown = capsys.readouterr()
    made = json.loads(shown.out)["films"]
    assert [Path(one["file"]).name for one in made] == ["a_annotated.mp4", "b_annotated.mp4"]
    assert [(one["frames"], one["audio_streams"], one["lost_frames"]) for one in made] == [(10, 1, 0)] * 2
    assert "10/10 frames" in shown.err
    assert main(["annotate", str(store), "--out", str(tmp_path / "made")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_frames_come_in_order_and_few_are_alive(tmp_path: Path) -> None:
    film_path = write_film(tmp_path / "a.mp4", 50, (64, 48))
    store = store_of(tmp_path / "a.zarr", [film_path], [still(10, FACE)])
    import pipeline

    film = film_of(pipeline.open(store).input("a"))
    ranks = []
    for rank, frame in film.frames(7, 44):
        assert frame.shape == (48, 64, 3)
        ranks.append(rank)
        if rank == 30:
            break
    assert ranks == list(range(7, 31))
    assert SIZE != (64, 48)
