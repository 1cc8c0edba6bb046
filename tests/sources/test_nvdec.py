"""`decoder: nvdec`: what it falls back to and what is said then; its reader on a stand-in library, and on a GPU."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.engine.events import Silent
from pipeline.errors import InputError
from pipeline.machine import gpus
from pipeline.machine.device import Device
from pipeline.media.video import nvdec
from pipeline.media.video.readers import POOL, close_readers
from pipeline.media.video.source import VideoOptions, VideoSource
from tests.clips import ORIENTATIONS, remuxed
from tests.faults import one_stage
from tests.sources import stand_in_nvdec
from tests.sources.stand_in_nvdec import Decoder

ON_A_GPU = 2
"""Grey levels by which a pixel may differ on a real GPU; frames and times may not. 0 is what is expected."""
PLAIN = ["short_gop.mp4", "long_gop.mp4", "vp9.webm", "vfr.mkv", "full_range.mp4", "hevc.mp4"]


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    nvdec.why_not_here.cache_clear()
    close_readers()
    yield
    nvdec.why_not_here.cache_clear()
    close_readers()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put the stand-in where the package would be, on a machine with a GPU."""

    def put(**changed: Any) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == nvdec.PACKAGE or find(name))
        monkeypatch.setitem(sys.modules, nvdec.PACKAGE, stand_in_nvdec.package(**changed))  # type: ignore[arg-type]
        monkeypatch.setattr(gpus, "visible_gpus", lambda: ["0"])
        monkeypatch.setattr(Decoder, "made", 0)
        monkeypatch.setattr(Decoder, "ended", 0)
        nvdec.why_not_here.cache_clear()

    put()
    return put


def source_of(path: Path, decoder: str = "nvdec", every: int = 1, **options: Any) -> VideoSource:
    return VideoSource(path, VideoOptions(every=every, decoder=decoder, **options))  # type: ignore[arg-type]


def all_frames(source: VideoSource, length: int, backwards: bool = False) -> np.ndarray:
    starts = range(0, len(source.frame), length)
    parts = {}
    for start in reversed(starts) if backwards else starts:
        result = source.job(start, min(start + length, len(source.frame))).decode()
        assert result.error is None
        assert result.decoded.all()
        parts[start] = result.frames_rgb.copy()
    return np.concatenate([parts[start] for start in starts])


# -- without it -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec(nvdec.PACKAGE) is not None, reason="PyNvVideoCodec is installed")
def test_without_the_package_auto_takes_its_place(made: Callable[[str], Path]) -> None:
    source = source_of(made("short_gop.mp4"))
    assert source.decoder == source_of(made("short_gop.mp4"), "auto").decoder != "nvdec"
    assert source.facts["decoder"] == source.decoder
    assert source.note == (
        "decoder nvdec cannot be used here (PyNvVideoCodec is not installed: pip install 'reelgraph[nvdec]'); "
        "decoder: auto takes its place"
    )


def test_without_a_gpu(stand_in: Callable[..., None], made: Callable[[str], Path], monkeypatch: Any) -> None:
    monkeypatch.setattr(gpus, "visible_gpus", lambda: [])
    source = source_of(made("short_gop.mp4"))
    assert source.decoder != "nvdec"
    assert source.note is not None
    assert source.note.startswith("decoder nvdec cannot be used here (no GPU is visible);")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("libcuda.so.1: not found\n\n=== HELP ===\n1. ...", "libcuda.so.1: not found"), ("", "OSError")],
)
def test_a_package_that_cannot_be_loaded(
    stand_in: Callable[..., None], monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    def fails(name: str) -> None:
        raise OSError(text)

    monkeypatch.setattr(importlib, "import_module", fails)
    assert nvdec.why_not_here() == f"PyNvVideoCodec cannot be loaded: {reason}"


def test_a_codec_that_the_gpu_lacks(stand_in: Callable[..., None], made: Callable[[str], Path]) -> None:
    def create(**_: Any) -> None:
        raise stand_in_nvdec.PyNvVCException("Codec not supported on this GPU\nHEVC")

    stand_in(CreateDecoder=create)
    source = source_of(made("short_gop.mp4"))
    assert source.decoder != "nvdec"
    assert source.note is not None
    assert source.note.endswith(
        "short_gop.mp4: not for decoder nvdec (Codec not supported on this GPU); decoder: auto takes its place"
    )
    assert len(POOL) <= 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mpeg4.avi", "its codec is mpeg4"),
        ("open_gop.mp4", "its groups of pictures are open"),
        ("ten_bit.mp4", "its pixel format is yuv420p10le"),
    ],
)
def test_files_that_are_not_for_it(
    stand_in: Callable[..., None], made: Callable[[str], Path], name: str, reason: str
) -> None:
    source = source_of(made(name))
    assert source.decoder != "nvdec"
    assert source.note is not None
    assert f"{name}: not for decoder nvdec ({reason}" in source.note
    assert Decoder.made == 0


def test_other_pixels_than_pyav_s_are_refused(
    stand_in: Callable[..., None], made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Decoder._handed_out

    def brighter(self: Decoder, place: int, frame: Any) -> stand_in_nvdec.DecodedFrame:
        found = given(self, place, frame)
        self._stock[place][:8] += 9
        return found

    monkeypatch.setattr(Decoder, "_handed_out", brighter)
    source = source_of(made("short_gop.mp4"))
    assert source.decoder != "nvdec"
    assert "NVDEC gives other pixels for its frames [" in str(source.note)


def test_a_run_says_it_once_for_many_files(made: Callable[[str], Path], tmp_path: Path) -> None:
    if nvdec.why_not_here() is None:
        pytest.skip("NVDEC can be used here")
    listener = Silent()
    workflow = one_stage(tmp_path, "Faulty", fault="none")
    done = pipeline.run(
        workflow,
        [made("short_gop.mp4"), made("long_gop.mp4")],
        tmp_path / "out.zarr",
        set={"source.decoder": "nvdec"},
        executor="inline",
        listener=listener,
    )
    assert done.summary.exit_code == 0
    assert [note for note in listener.notes if "nvdec" in note] == [str(source_of(made("short_gop.mp4")).note)]


# -- the reader, on a stand-in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(ORIENTATIONS))
def test_frames_are_upright_and_unmirrored(
    stand_in: Callable[..., None], made: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    path = remuxed(made("short_gop.mp4"), tmp_path / "turned.mp4", ORIENTATIONS[name][0])
    source = source_of(path)
    assert source.decoder == "nvdec"
    stored = source_of(made("short_gop.mp4"), "pyav").job(0, 3).decode().frames_rgb
    np.testing.assert_array_equal(all_frames(source, 3)[:3], [ORIENTATIONS[name][1](frame) for frame in stored])


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(("every", "length", "backwards"), [(1, 41, False), (5, 16, True)])
def test_frames_are_those_of_pyav(
    stand_in: Callable[..., None], made: Callable[[str], Path], name: str, every: int, length: int, backwards: bool
) -> None:
    ours, theirs = (source_of(made(name), decoder, every) for decoder in ("nvdec", "pyav"))
    assert (ours.decoder, ours.note) == ("nvdec", None)
    close_readers()
    Decoder.made = 0
    np.testing.assert_array_equal(ours.frame, theirs.frame)
    np.testing.assert_array_equal(ours.time_seconds, theirs.time_seconds)
    frames = all_frames(ours, length, backwards)
    assert Decoder.made >= 1, "PyAV decoded it"
    np.testing.assert_array_equal(frames, all_frames(theirs, length, backwards))


def test_a_seek_ends_the_stream_before_it(stand_in: Callable[..., None], made: Callable[[str], Path]) -> None:
    source = source_of(made("short_gop.mp4"))
    close_readers()
    Decoder.made = Decoder.ended = 0
    expected = source_of(made("short_gop.mp4"), "pyav")
    for start in (100, 30, 60, 0):
        found = source.job(start, start + 5).decode().frames_rgb
        np.testing.assert_array_equal(found, expected.job(start, start + 5).decode().frames_rgb)
    assert Decoder.made == 1
    assert Decoder.ended >= 2


def test_region_of_interest(stand_in: Callable[..., None], made: Callable[[str], Path]) -> None:
    part = source_of(made("short_gop.mp4"), roi=(4, 6, 20, 30))
    assert part.decoder == "nvdec"
    whole = source_of(made("short_gop.mp4"), "pyav").job(0, 3).decode().frames_rgb
    np.testing.assert_array_equal(part.job(0, 3).decode().frames_rgb, whole[:, 6:36, 4:24])


@pytest.mark.parametrize("lost", [7, 24])
def test_frames_that_do_not_come_are_read_with_pyav(
    stand_in: Callable[..., None], made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    source = source_of(made("short_gop.mp4"))
    expected = source_of(made("short_gop.mp4"), "pyav").job(0, 60).decode().frames_rgb
    decode, pts = Decoder.Decode, int(source.index.pts[lost])
    monkeypatch.setattr(Decoder, "Decode", lambda *given: [one for one in decode(*given) if one.getPTS() != pts])
    result = source.job(0, 60).decode()
    assert result.error is None
    np.testing.assert_array_equal(result.frames_rgb, expected)


def test_an_error_in_the_middle_is_mended_by_pyav(
    stand_in: Callable[..., None], made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(made("short_gop.mp4"))
    expected = source_of(made("short_gop.mp4"), "pyav").job(0, 60).decode().frames_rgb

    def fails(*_: Any) -> None:
        raise stand_in_nvdec.PyNvVCException("CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(Decoder, "Decode", fails)
    np.testing.assert_array_equal(source.job(0, 60).decode().frames_rgb, expected)


def test_a_store_goes_on_where_there_is_no_gpu(
    stand_in: Callable[..., None], made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made("short_gop.mp4")
    options = VideoOptions(every=1, decoder="nvdec")
    assert VideoSource(path, options, "nvdec").note is None
    expected = source_of(path, "pyav").job(0, 40).decode().frames_rgb
    close_readers()
    monkeypatch.setattr(gpus, "visible_gpus", lambda: [])
    nvdec.why_not_here.cache_clear()
    Decoder.made = 0
    resumed = VideoSource(path, options, "nvdec")
    assert resumed.facts["decoder"] == "nvdec"
    assert resumed.note is not None
    assert resumed.note.startswith("decoder nvdec, which the store was set up with, cannot be used here (no GPU")
    np.testing.assert_array_equal(resumed.job(0, 40).decode().frames_rgb, expected)
    assert Decoder.made == 0
    assert VideoSource(path, options, "pyav").note is None


def test_a_file_that_is_gone_is_no_matter_of_the_decoder(stand_in: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.mp4"):
        source_of(tmp_path / "gone.mp4")


# -- on a GPU ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["short_gop.mp4", "long_gop.mp4", "vfr.mkv", "full_range.mp4", "hevc.mp4"])
@pytest.mark.parametrize(("every", "length", "backwards"), [(1, 41, False), (5, 16, True)])
def test_nvdec_agrees_with_pyav(
    gpu: Device, made: Callable[[str], Path], name: str, every: int, length: int, backwards: bool
) -> None:
    if importlib.util.find_spec(nvdec.PACKAGE) is None:
        pytest.skip("PyNvVideoCodec is not installed")
    assert nvdec.why_not_here() is None
    ours = VideoSource(made(name), VideoOptions(every=every, decoder="nvdec"), "nvdec")  # whatever set-up would choose
    theirs = source_of(made(name), "pyav", every)
    np.testing.assert_array_equal(ours.frame, theirs.frame)
    np.testing.assert_array_equal(ours.time_seconds, theirs.time_seconds)
    for start in reversed(range(0, len(ours.frame), length)) if backwards else range(0, len(ours.frame), length):
        stop = min(start + length, len(ours.frame))
        found = ours.job(start, stop).decode_with_nvdec()
        assert found is not None
        expected = theirs.job(start, stop).decode().frames_rgb
        assert np.abs(found.astype(int) - expected).max() <= ON_A_GPU, (start, stop)


@pytest.mark.gpu
def test_set_up_chooses_nvdec(gpu: Device, made: Callable[[str], Path]) -> None:
    if importlib.util.find_spec(nvdec.PACKAGE) is None:
        pytest.skip("PyNvVideoCodec is not installed")
    source = source_of(made("short_gop.mp4"))
    assert (source.decoder, source.note) == ("nvdec", None)
