"""One decode of a group of pictures serves all chunks in it, and few readers stay open."""

import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.media.video.readers import PARKED_READERS, POOL
from pipeline.media.video.source import VideoOptions, VideoSource

from .conftest import Recipe, read_number, write_clip


def dense(path: Path, decoder: str = "pyav") -> VideoSource:
    return VideoSource(path, VideoOptions(every=1, decoder=decoder))


def test_chunks_in_order_decode_a_group_once(made: Callable[[str], Path]) -> None:
    source = dense(made("long_gop.mp4"))
    assert source.facts["key_frames"] == 1
    sent = [source.job(start, start + 20).decode().source_frames_decoded for start in range(0, 200, 20)]
    assert sum(sent) == 200
    assert source.cost(20) == sum(range(20, 201, 20))


def test_threads_wait_for_the_reader_before_them(made: Callable[[str], Path]) -> None:
    source = dense(made("long_gop.mp4"))
    sent: dict[int, int] = {}
    numbers: dict[int, list[int]] = {}
    started = [threading.Event() for _ in range(10)]

    def work(k: int) -> None:
        job = source.job(20 * k, 20 * k + 20)
        started[k].set()
        result = job.decode()
        sent[k], numbers[k] = result.source_frames_decoded, [read_number(image) for image in result.frames_rgb]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(10)]
    for k, thread in enumerate(threads):
        thread.start()
        started[k].wait()
    for thread in threads:
        thread.join()
    assert [n for k in range(10) for n in numbers[k]] == list(range(200))
    # Threads that start at once may take their places out of order; a reader for each chunk would send 1,100.
    assert sum(sent.values()) <= 400


def test_sampled_sparsely_a_chunk_seeks_over_what_it_does_not_need(made: Callable[[str], Path]) -> None:
    source = VideoSource(made("short_gop.mp4"), VideoOptions(every=60, decoder="pyav"))
    assert source.frame.tolist() == [0, 60, 120, 180]
    result = source.job(0, 4).decode()
    assert [read_number(image) for image in result.frames_rgb] == [0, 60, 120, 180]
    assert source.cost(64) == 4
    assert result.source_frames_decoded < 40


def test_key_frames_only(made: Callable[[str], Path]) -> None:
    source = VideoSource(made("short_gop.mp4"), VideoOptions(keyframes=True))
    assert source.frame.tolist() == list(range(0, 200, 20))
    result = source.job(0, 10).decode()
    assert [read_number(image) for image in result.frames_rgb] == list(range(0, 200, 20))


def test_few_readers_stay_open(tmp_path: Path) -> None:
    for number in range(PARKED_READERS + 3):
        path = write_clip(tmp_path / f"{number}.mp4", Recipe(frames=10, options=(("preset", "ultrafast"),)))
        dense(path).job(0, 5).decode()
    assert len(POOL) == PARKED_READERS


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_a_job_travels_by_pickle(decoder: str, made: Callable[[str], Path]) -> None:
    source = dense(made("short_gop.mp4"), decoder)
    data = pickle.dumps(source.job(30, 60))
    assert len(data) < 4000
    assert [read_number(image) for image in pickle.loads(data).decode().frames_rgb] == list(range(30, 60))


@pytest.mark.parametrize("change", ["other", "gone"])
def test_a_file_changed_meanwhile_is_refused(change: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", Recipe(frames=10, options=(("preset", "ultrafast"),)))
    job = dense(path).job(0, 5)
    if change == "grown":
        path.write_bytes(b"x" + path.read_bytes())
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"a\.mp4 (has changed|is gone) since the run was set up"):
        job.decode()


@pytest.mark.parametrize(("start", "stop"), [(0, 20), (90, 110), (180, 200)])
def test_decord_reads_only_from_the_key_frame(start: int, stop: int, made: Callable[[str], Path]) -> None:
    source = dense(made("short_gop.mp4"), "decord")
    result = source.job(start, stop).decode()
    assert [read_number(image) for image in result.frames_rgb] == list(range(start, stop))
    assert result.source_frames_decoded == stop - start // 20 * 20
