"""Options, sampling, facts, choice of decoder and refusals of the video source."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.engine.finding import find_source
from pipeline.engine.source import InputRef
from pipeline.errors import InputError, WorkflowError
from pipeline.media.video.source import VideoOptions, VideoSource
from pipeline.text import parse_seconds

from .conftest import RECIPES, Recipe, trim_by_edit_list, write_clip


@pytest.mark.parametrize(
    ("text", "seconds"), [("12.5", 12.5), ("01:02:03", 3723.0), ("00:00:01.250", 1.25), ("2:05", 125.0), ("90", 90.0)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds
    assert VideoOptions(start=text).start == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every": 5, "fps": 2}, "every and fps exclude each other"),
        ({"fps": 2, "keyframes": True}, "fps and keyframes exclude each other"),
        ({"every": 0}, "greater than or equal to 1"),
        ({"fps": 0}, "greater than 0"),
        ({"start": "1:75"}, "'1:75' is not a time"),
        ({"start": 3, "stop": 3}, "must lie before stop"),
        ({"stop": float("nan")}, "finite"),
        ({"roi": (0, 0, 0, 5)}, "width, height >= 1"),
        ({"decoder": "gpu"}, "'auto', 'pyav', 'decord' or 'nvdec'"),
        ({"evry": 5}, "Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_wrong_options(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VideoOptions(**given)


def test_exactly_one_kind_of_sampling_holds() -> None:
    assert VideoOptions().every == 5
    assert VideoOptions(fps=2).every is None
    assert VideoOptions(keyframes=True).every is None
    assert all(field.description for name, field in VideoOptions.model_fields.items() if name != "kind")


@pytest.mark.parametrize(
    ("options", "ranks"),
    [
        ({"every": 30}, [0, 30, 60, 90, 120, 150, 180]),
        ({"every": 30, "start": 1.3, "stop": 4.8}, [60, 90]),
        ({"every": 30, "start": 1.2, "stop": 4.8}, [30, 60, 90]),
        ({"fps": 1}, [0, 25, 50, 75, 100, 125, 150, 175]),
        ({"fps": 2, "stop": 1.5}, [0, 13, 25]),
        ({"fps": 1000, "stop": 0.2}, [0, 1, 2, 3, 4]),
        ({"keyframes": True, "start": 4}, [100, 120, 140, 160, 180]),
    ],
    ids=str,
)
def test_sampling(options: dict[str, Any], ranks: list[int], made: Callable[[str], Path]) -> None:
    source = VideoSource(made("short_gop.mp4"), VideoOptions(**options))
    assert source.frame.tolist() == ranks
    assert source.frame.dtype == np.int64
    np.testing.assert_allclose(source.time_seconds, np.array(ranks) / 25)


def test_facts(data_dir: Path) -> None:
    path = data_dir / "videos" / "derived" / "asl_A_again_rot90meta.mp4"
    ref = InputRef(str(path), path.stem)
    source = find_source("video").open(ref, VideoOptions(), None)
    facts = source.facts
    assert json.loads(json.dumps(facts)) == facts
    expected = {"width": 640, "height": 480, "fps": 30.0, "source_frames": 77, "every": 5, "decoder": "pyav"}
    assert expected.items() <= facts.items()
    assert facts["path"] == str(path)
    assert facts["bytes"] == path.stat().st_size
    assert find_source("video").fingerprint(ref) == facts["fingerprint"]
    assert source.item_bytes == 640 * 480 * 3
    assert facts["duration_seconds"] == pytest.approx(77 / 30, abs=0.001)


def test_fingerprint_is_of_the_content(made: Callable[[str], Path], tmp_path: Path) -> None:
    first = VideoSource(made("one_frame.mp4"), VideoOptions())
    copy = Path(shutil.copy(first.path, tmp_path / "copy.mp4"))
    assert VideoSource(copy, VideoOptions()).facts["fingerprint"] == first.facts["fingerprint"]
    other = VideoSource(write_clip(tmp_path / "other.mp4", Recipe(frames=2)), VideoOptions())
    assert other.facts["fingerprint"] != first.facts["fingerprint"]


def test_first_default_stream_is_taken(data_dir: Path) -> None:
    facts = VideoSource(data_dir / "videos" / "tc_nasa_multistream.mp4", VideoOptions()).facts
    assert (facts["stream"], facts["width"], facts["source_frames"], facts["decoder"]) == (0, 320, 325, "pyav")


@pytest.mark.parametrize("length", [1, 7, 64])
@pytest.mark.parametrize("options", [{"every": 1}, {"every": 3}, {"every": 50}, {"keyframes": True}], ids=str)
def test_decode_cost_is_what_jobs_promise(length: int, options: dict[str, Any], made: Callable[[str], Path]) -> None:
    source = VideoSource(made("short_gop.mp4"), VideoOptions(**options))
    expected = 0
    for start in range(0, len(source.frame), length):
        job = source.job(start, min(len(source.frame), start + length))
        expected += sum(int(job.rank[s.last - 1]) - s.key_rank + 1 for s in job.segments)
    assert source.cost(length) == expected


@pytest.mark.parametrize(
    ("name", "decoder"),
    [
        ("short_gop.mp4", "decord"),
        ("vp9.webm", "decord"),
        ("vfr.mkv", "decord"),
        ("mpeg4.avi", "pyav"),
        ("h264.ts", "pyav"),
        ("open_gop.mp4", "pyav"),
        ("open_gop_x265.mp4", "pyav"),
        ("ten_bit.mp4", "pyav"),
        ("refresh.mp4", "pyav"),
    ],
)
def test_auto_takes_decord_where_it_is_exact(name: str, decoder: str, made: Callable[[str], Path]) -> None:
    assert VideoSource(made(name), VideoOptions(every=1)).decoder == decoder


@pytest.mark.parametrize("sampling", [{"every": 5}, {"fps": 2}])
def test_auto_takes_pyav_where_frames_are_left_out(sampling: dict[str, int], made: Callable[[str], Path]) -> None:
    assert VideoSource(made("short_gop.mp4"), VideoOptions(**sampling)).decoder == "pyav"


def test_auto_leaves_long_groups_in_many_chunks_to_pyav(made: Callable[[str], Path]) -> None:
    path = made("long_gop.mp4")
    assert VideoSource(path, VideoOptions(every=1)).decoder == "pyav"
    assert VideoSource(path, VideoOptions(every=1), decoder="decord").decoder == "decord"


@pytest.mark.parametrize("name", ["open_gop.mp4", "h264.ts", "ten_bit.mp4", "mpeg4.avi"])
def test_decord_is_refused_where_it_is_not_exact(name: str, made: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=r"decoder decord is not exact here \(.+\); use decoder: auto or pyav"):
        VideoSource(made(name), VideoOptions(decoder="decord"))


def test_decord_is_refused_on_a_trimmed_file(made: Callable[[str], Path], tmp_path: Path) -> None:
    path = trim_by_edit_list(made("short_gop.mp4"), tmp_path / "trimmed.mp4", 30)
    with pytest.raises(InputError, match="edit list"):
        VideoSource(path, VideoOptions(decoder="decord"))


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _no_index(path: Path) -> None:
    write_clip(path, RECIPES["long_gop.mp4"])
    path.write_bytes(path.read_bytes()[:4000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b""), r"is empty \(0 bytes\)"),
        (lambda p: p.write_text("no film\n" * 400), "not a video that FFmpeg can read"),
        (_audio_only, "has no video stream"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: os.mkfifo(p), "is a pipe, a socket or a device"),
        (lambda p: None, "no such file"),
        (_no_index, "its index .* is missing; copy it again, or repair it with untrunc"),
    ],
    ids=["empty", "text", "audio", "folder", "pipe", "missing", "no index"],
)
def test_unusable_files(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        VideoSource(path, VideoOptions())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_title_in_another_encoding_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Z?rich"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        container.mux(stream.encode())
    path.write_bytes(path.read_bytes().replace(b"Z?rich", b"Z\xfcrich"))
    assert len(VideoSource(path, VideoOptions()).frame) == 1


def test_a_name_that_no_table_could_hold(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.mp4"))
    path.write_bytes(b"x")
    with pytest.raises(InputError, match=r"caf\\xe9\.mp4': its name is not UTF-8; rename it"):
        VideoSource(path, VideoOptions())


def test_no_permission(made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(InputError, match="permission denied"):
        VideoSource(made("one_frame.mp4"), VideoOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 60}, r"no frame between start and stop; its frames lie from 0\.000 to 8\.000 s"),
        ({"roi": (200, 0, 20, 20)}, r"roi \[200, 0, 20, 20\] reaches beyond the 208x64 frame"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(options: dict[str, Any], message: str, made: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match=message):
        VideoSource(made("short_gop.mp4"), VideoOptions(**options))


def test_unknown_kind() -> None:
    with pytest.raises(WorkflowError, match=r"unknown source 'film'; .*valid: .*images, video"):
        find_source("film")


def test_decoders_are_not_imported_with_the_package() -> None:
    code = "import sys, pipeline.media.video.source; print(sorted({'av', 'decord', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
