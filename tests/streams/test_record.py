"""Recording: segments of live cameras, through breaks of the connection, of the clock and of the recorder."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from av.container import InputContainer

import pipeline
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.files.journal import JOURNAL, Journal, JournalReader
from pipeline.media.recording import recorder, segments
from pipeline.media.recording.camera import Timeline, cameras
from pipeline.media.recording.recorder import record
from pipeline.media.recording.segments import recording_into
from pipeline.text import without_secrets
from tests.processes import COMMAND, kill_group, start, wait_until
from tests.streams.cameras import HttpCamera, numbers_of, picture, write_film


class Recording(threading.Thread):
    """A recorder in a thread of this process."""

    def __init__(self, folder: Path, *sources: str, names: list[str] | None = None, **settings: Any) -> None:
        super().__init__(daemon=True)
        self.stop, self.lines, self.found, self.folder = threading.Event(), list[str](), list[dict[str, Any]](), folder
        self.cameras = cameras(list(sources), names or [])
        known = {"seconds": 1.0, "timeout_seconds": 1.0, "keep_hours": None, "keep_gb": None}
        self.settings = {**known, **settings}
        self.start()

    def run(self) -> None:
        self.found = record(self.cameras, self.folder, self.stop, self.lines.append, **self.settings)

    def end(self) -> list[dict[str, Any]]:
        self.stop.set()
        self.join(20)
        return self.found

    def films(self, name: str = "*") -> list[Path]:
        return sorted(self.folder.glob(f"{name}_*.mkv"))


def follows(numbers: list[int], count: int = 50) -> bool:
    """Return whether each number is the one after that before it, in a loop."""
    return all((after - before) % count == 1 for before, after in pairwise(numbers))


def test_breaks_and_two_kinds_of_stream(
    camera: HttpCamera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_PAUSES", (0.2, 1.0))
    urls = [camera.url("ts", "admin:se@cret@"), camera.url("mjpeg") + "?user=a&password=se@cret"]
    recording = Recording(tmp_path / "out", *urls, names=["door", "yard"], seconds=0.4)
    wait_until(lambda: len(recording.films("door")) > 1)
    camera.is_broken.set()
    time.sleep(0.3)
    camera.is_broken.clear()
    wait_until(lambda: len(camera.sent) == 4 and all(len(sent) > 30 for sent in camera.sent))
    found = recording.end()
    assert [(one["name"], one["gaps"], one["error"]) for one in found] == [("door", 1, None), ("yard", 1, None)]
    for name, one in zip(("door", "yard"), found, strict=True):
        films = recording.films(name)
        numbers = [numbers_of(film) for film in films]
        assert sum(map(len, numbers)) == one["frames"]
        assert all(follows(numbers_of_film) for numbers_of_film in numbers)
        joined = [number for numbers_of_film in numbers for number in numbers_of_film]
        assert sum(not follows(pair) for pair in map(list, pairwise(joined))) <= 1, "one gap"
        assert len([line for line in recording.lines if line.startswith(f"{name}: gap of ")]) == 1
        lengths = [len(numbers_of_film) for numbers_of_film in numbers]
        assert lengths[0] in range(18, 25), "0.4 s at 50 frames per second"
    # What each connection was sent before the break is there, to the last frame.
    door = [number for film in recording.films("door") for number in numbers_of(film)]
    first = next(sent for kind, sent in camera.sent_by_kind if kind == "ts")
    assert door[: len(first)] == first
    assert "cret" not in "".join([*recording.lines, *os.listdir(tmp_path / "out"), json.dumps(found)])


def test_a_clock_that_starts_again(camera: HttpCamera, tmp_path: Path) -> None:
    camera.reset_after = 25  # within a group of pictures
    recording = Recording(tmp_path, camera.url("ts"), names=["a"], seconds=60)
    wait_until(lambda: bool(camera.sent) and len(camera.sent[0]) > 60)
    found = recording.end()
    films = recording.films()
    numbers = [numbers_of(film) for film in films]
    assert len(numbers[0]) == 30
    assert follows(numbers[0] + numbers[1])
    assert sum(map(len, numbers)) == found[0]["frames"]
    with av.open(str(films[0])) as container:
        times = [float(packet.pts * packet.time_base) for packet in container.demux(video=0) if packet.size]
    assert times == pytest.approx([k / 50 for k in range(30)], abs=0.002), "the time line goes on through the break"
    assert "its clock jumped by -0.5 s" in recording.lines[0]


def test_camera_that_hangs(camera: HttpCamera, tmp_path: Path) -> None:
    recording = Recording(tmp_path, camera.url("slow"), camera.url("ts"), names=["slow", "good"], timeout_seconds=0.5)
    wait_until(lambda: any(line.startswith("slow: no signal") for line in recording.lines))
    kept = recording.films("slow")
    assert len(numbers_of(*kept)) in (60, 61)
    assert follows(numbers_of(*kept))
    wait_until(lambda: any(line.startswith("slow: gap of ") for line in recording.lines))
    began = time.monotonic()
    found = recording.end()
    assert time.monotonic() - began < 3
    assert found[0]["gap_seconds"] >= 1.4, "0.5 s until it counts as silent, and a pause of 1 s"
    silent = next(line for line in recording.lines if line.startswith("slow: no signal"))
    assert silent.endswith("(it sends nothing); it is tried again and again")
    length = next(line for line in recording.lines if line.startswith(kept[0].name)).split(", ")[1]
    assert 1 <= float(length.removesuffix(" s")) <= 1.4, "60 frames at 50 per second, without the silence"
    assert found[1]["gaps"] == 0
    assert follows(numbers_of(*recording.films("good")))


def test_kill_and_salvage(camera: HttpCamera, tmp_path: Path) -> None:
    words = ("record", camera.url("ts", "u:secret@"), "--segments", "60", "--to", tmp_path, "--name", "door")
    process = start(*words)
    wait_until(lambda: bool(camera.sent) and len(camera.sent[0]) > 80)
    kill_group(process)
    left = list(tmp_path.glob(".door_*.partial"))
    assert len(left) == 1
    (tmp_path / ".door_20200101T000000_000Z.mkv.partial").write_bytes(b"of a kill before the first frame")
    (tmp_path / ".mine.mkv.partial").write_bytes(b"of another program")
    process = start(*words)
    wait_until(lambda: len(camera.sent) > 1 and len(camera.sent[1]) > 45)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "saved" in said
    assert "removed; an earlier recorder did not close it" in said
    assert "secret" not in said
    assert int(re.findall(r"saved (\d+) frames", said)[0]) >= 40, "what was not saved is a part of a second"
    assert [path.name for path in tmp_path.glob(".*.partial")] == [".mine.mkv.partial"]
    films = sorted(tmp_path.glob("door_*.mkv"))
    assert len(films) == 2
    assert all(follows(numbers_of(film)) for film in films)
    reader = JournalReader(tmp_path)
    reader.refresh()
    assert list(reader.finished) == [film.name for film in films]


def test_retention(tmp_path: Path, film: Path) -> None:
    mine = tmp_path / "mine_20200101T000000_000Z.mkv"
    mine.write_bytes(b"x" * 1000)
    with recording_into(tmp_path, print) as kept, av.open(str(film)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for at in (1.6e9, 1.6e9 + 60, time.time()):
            segment = kept.begin("cam", at, container.streams.video[0], False)
            for packet in packets:
                segment.take(packet, int(packet.pts or 0), int(packet.dts or 0))
            assert kept.finish(segment)
        first, second, last = list(kept.journal.bytes_of)
        one = kept.journal.bytes_of[first]
        kept.retain(3.5 * one, float("inf"))
        assert len(list(tmp_path.glob("cam_*"))) == 3
        kept.retain(2.5 * one, float("inf"))
        assert [path.name for path in sorted(tmp_path.glob("cam_*"))] == [second, last]
        (tmp_path / second).write_bytes(b"of the user, by the same name")
        kept.retain(float("inf"), 3600)
        assert [path.name for path in sorted(tmp_path.glob("cam_*"))] == [second, last]
        kept.retain(1, 0.001)
        assert (tmp_path / last).exists(), "the last one is kept for who follows"
    assert mine.stat().st_size == 1000
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"finished":"../../etc/passwd","bytes":1}\n[]\n{"finished":"to')
    assert list(Journal(tmp_path).bytes_of) == [last]
    reader = JournalReader(tmp_path)
    reader.refresh()
    assert (list(reader.finished), list(reader.removed)) == ([last], [first, second])


def test_segments_stay_until_a_store_has_analysed_them(tmp_path: Path, film: Path) -> None:
    folder, store, other = (tmp_path / name for name in ("cameras", "out.zarr", "elsewhere"))
    other.mkdir()
    workflow = tmp_path / "light.yaml"
    workflow.write_text("stages: {objects: {use: objects}}\nsource: {every: 25}\n")
    with recording_into(folder, print) as kept, av.open(str(film)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        for at in (1.6e9, 1.6e9 + 60, 1.6e9 + 120, 1.6e9 + 180):
            segment = kept.begin("cam", at, container.streams.video[0], False)
            for packet in packets:
                segment.take(packet, int(packet.pts or 0), int(packet.dts or 0))
            assert kept.finish(segment)
        names = list(kept.journal.bytes_of)

        def left() -> list[str]:
            kept.retain(1, 1, store)
            return sorted(path.name for path in folder.glob("cam_*"))

        assert left() == names
        assert kept.kept_count == 3
        (other / names[0]).write_bytes((folder / names[0]).read_bytes())  # another file of that name
        pipeline.run(workflow, [other / names[0], folder / names[1]], store, executor="inline")
        assert left() == [names[0], *names[2:]]
        assert kept.kept_count == 2
        begun = pipeline.open(store).input(Path(names[1]).stem).attributes
        assert begun["complete"]


def test_a_store_needs_a_limit(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["record", "rtsp://127.0.0.1:1/x", "--to", str(tmp_path / "to"), "--analysed", "out.zarr"]) == 2
    assert "--analysed needs a limit" in capfd.readouterr().err
    assert not (tmp_path / "to").exists()


def test_full_disk(camera: HttpCamera, tmp_path: Path) -> None:
    words = ["record", camera.url("ts"), "--segments", "60", "--to", str(tmp_path), "--name", "door"]
    with subprocess.Popen(
        [*COMMAND, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (3000, 3000)),
    ) as process:
        wait_until(lambda: len(camera.sent) > 1)
        process.terminate()
        said = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert "File too large" in said
    assert "the next start saves what it holds" in said
    with recording_into(tmp_path, print):
        films = sorted(tmp_path.glob("door_*.mkv"))
        assert len(numbers_of(films[0])) >= 25
        assert follows(numbers_of(films[0]))


def test_a_disk_without_a_byte_left(camera: HttpCamera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try leaves an empty file: they do not pile up, and the camera is not said to be silent."""

    def full(self: segments.Segment, *_: Any) -> bool:
        self.aside.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(recorder, "_PAUSES", (0.1, 0.1))
    monkeypatch.setattr(segments.Segment, "take", full)
    monkeypatch.setattr(segments.Segment, "close", full)
    recording = Recording(tmp_path, camera.url("ts"), names=["door"])
    wait_until(lambda: len(camera.sent) > 2)
    (found,) = recording.end()
    assert "No space left on device" in found["error"]
    assert list(tmp_path.glob(".*.partial")) == []
    assert len(recording.lines) == 1
    assert recording.lines[0].startswith("door: nothing is recorded since ")


def test_raw_pictures_are_encoded(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "raw.avi"), "w") as container:
        stream = container.add_stream("rawvideo", rate=120)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(60):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
    recording = Recording(tmp_path / "out", str(tmp_path / "raw.avi"), seconds=0.2)
    recording.join(20)
    films = recording.films()
    assert [len(numbers_of(film)) for film in films] == [24, 24, 12]
    assert numbers_of(*films) == list(range(60))
    assert "it gives raw pictures, which are encoded as H.264" in recording.lines[0]


def test_open_groups_of_pictures_are_not_cut(tmp_path: Path) -> None:
    film = write_film(
        tmp_path / "open.mp4", 75, fps=150, preset="veryfast", **{"x264-params": "open-gop=1:bframes=3:keyint=10"}
    )
    recording = Recording(tmp_path / "out", str(film), seconds=0.3)
    recording.join(20)
    assert len(recording.films()) == 1
    assert sorted(numbers_of(*recording.films())) == list(range(75))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gopher://x/y"], "unknown kind of address 'gopher'"),
        (["nothing.mp4"], "no such file: nothing.mp4"),
        (["rtsp://u:secret@h/a", "rtsp://u:secret@h/b", "--name", "a"], "--name is given 1 time for 2 sources"),
        (["@cameras.txt", "--name", "a"], "--name does not name the cameras of @cameras.txt; write NAME"),
        (["rtsp://u:secret@h/a", "rtsp://u:secret@h/b", "--name", "ä", "--name", "ö"],
         "two sources are named 'camera' ('ö' without all but a to z, digits, dots and hyphens)"),
        (["rtsp://u:secret@h/a", "--segments", "0"], "'0' is not a number above 0"),
        (["rtsp://u:secret@h/a", "--retention", "3", "rtsp://u:secret@h/b"], "unrecognized arguments"),
    ],
)  # fmt: skip
def test_mistakes(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.cli import main

    try:
        code = main(["record", "--to", str(tmp_path), *words])
    except SystemExit as end:
        code = int(str(end.code))
    shown = capsys.readouterr().err
    assert code == 2
    assert said in shown
    assert "secret" not in shown


def test_names_and_secrets(tmp_path: Path) -> None:
    urls = [
        "rtsp://admin:pa/s@s@10.0.0.5/Streaming/Channels/101?token=1", "rtsp://h/user=admin_password=x_channel=1.sdp",
        "rtsp://h/live", "rtsp://h/live", "/dev/video0",
    ]  # fmt: skip
    assert [camera.name for camera in cameras(urls, [])] == [
        "10.0.0.5-Streaming-Channels-101", "h-user", "h-live", "h-live-2", "video0",
    ]  # fmt: skip
    assert without_secrets(f"a {urls[0]} b") == "a rtsp://10.0.0.5/Streaming/Channels/101 b"
    (tmp_path / "cameras.txt").write_text("# of the yard\ndoor rtsp://u:secret@h/a\n\nrtsp://u:secret@h/b\n")
    (tmp_path / "bad.txt").write_text("door of the yard rtsp://u:secret@h/a")
    assert [one.name for one in cameras([f"@{tmp_path}/cameras.txt", "/dev/video0"], [])] == ["door", "h-b", "video0"]
    with pytest.raises(UsageError, match="one source in each line"):
        cameras([f"@{tmp_path}/bad.txt"], [])
    with pytest.raises(UsageError, match="two sources are named 'x'"):
        cameras(["rtsp://h/a", "rtsp://h/b"], ["x", "x"])


def test_one_recorder_at_a_time(tmp_path: Path) -> None:
    with recording_into(tmp_path, print):
        lock = tmp_path / segments.LOCK
        owner = json.loads(lock.read_text())
        lock.write_text(json.dumps({**owner, "host": "another machine"}))
        with pytest.raises(UsageError, match=r"another machine .*; or record into another folder"):
            segments.Segments(tmp_path, print)


class Stands:
    """A stream whose clock stands still after 20 packets."""

    def __init__(self, container: InputContainer) -> None:
        self.found = [packet for packet in container.demux(video=0) if packet.size]
        self.streams, self.format = container.streams, container.format

    def demux(self, _: object) -> Iterator[av.Packet[Any]]:
        for number, packet in enumerate(self.found):
            if number >= 20:
                packet.pts = packet.dts = self.found[19].dts
            time.sleep(0.002)
            yield packet


def test_a_clock_that_stands_still(film: Path) -> None:
    (camera,) = cameras(["rtsp://h/a"], [])
    with av.open(str(film)) as container:
        timeline = Timeline(camera, Stands(container))  # type: ignore[arg-type]
        timed = list(timeline.packets())
    assert [number for number, one in enumerate(timed) if one.note] == [29]
    times = [float(one.dts * timeline.base) for one in timed]
    assert times[:20] == pytest.approx([number / 50 for number in range(20)])
    assert all(after > before for before, after in pairwise(times))


def test_a_codec_that_changes(film: Path, tmp_path: Path) -> None:
    first, second, mixed = (tmp_path / name for name in ("first.ts", "second.ts", "mixed.ts"))
    with av.open(str(film)) as reading, av.open(str(first), "w") as writing:
        copy = writing.add_stream_from_template(reading.streams.video[0])
        for packet in reading.demux(video=0):
            if packet.size:
                packet.stream = copy
                writing.mux_one(packet)
    with av.open(str(second), "w") as writing:
        stream = writing.add_stream("mpeg2video", rate=50)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for number in range(50):
            writing.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        writing.mux(stream.encode())
    mixed.write_bytes(first.read_bytes() + second.read_bytes())
    (camera,) = cameras(["http://h/a"], [])
    with av.open(str(mixed)) as container:
        timeline = Timeline(camera, container)
        count = sum(1 for _ in timeline.packets())
    assert timeline.ended == "its codec changed"
    assert 49 <= count <= 50
