"""Pipes, devices and sockets in a file's place; pictures with more pixels than memory holds: one line, at once."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.errors import StoreError
from pipeline.media.picture import MAX_PIXELS, UnreadableError, check_content
from pipeline.media.video.index import build_index
from pipeline.store.run import RunStore
from tests.clips import write_clip
from tests.faults import one_stage
from tests.made_stores import film, make_store
from tests.people import drawn

PICTURE = "it is a pipe, a socket or a device, not a file"


class TookTooLongError(BaseException):
    pass


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """Fail a test that waits for a writer."""

    def ring(*_: object) -> None:
        raise TookTooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def server(path: Path) -> Path:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:  # its path must be short
        one.bind(path.name)
    return path


def device(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


OTHERS = pytest.mark.parametrize("other", [pipe, server, device])
Other = Callable[[Path], Path]


def said(capfd: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str]:
    """Return the exit code of a command and all that it printed."""
    code, printed = main(words), capfd.readouterr()
    return code, f"{printed.out}{printed.err}".strip()


@OTHERS
@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["plan", "faces", "@{}", "--out", "out.zarr"], "list"),
        (["plan", "faces", "{}", "--out", "out.zarr"], "list.txt"),
        (["plan", "faces", "{}", "--out", "out.zarr"], "clip.mp4"),
        (["plan", "{}", "clip.mp4", "--out", "out.zarr"], "workflow.yaml"),
        (["run", "faces", "clip.mp4", "--out", "out.zarr", "--scheduler", "{}"], "scheduler.json"),
        (["init", "faces", "--to", "{}", "--force"], "mine.yaml"),
        (["workflows", "{}"], "mine.yaml"),
    ],
    ids=["@list", "list", "input", "workflow", "scheduler file", "target", "checked workflow"],
)
def test_what_the_user_names(
    other: Other, words: list[str], name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", n_frames=2) if name != "clip.mp4" else None
    other(tmp_path / name)
    code, text = said(capfd, [word.format(name) for word in words])
    assert code == 2
    assert "a pipe, a socket or a device" in text
    assert "Traceback" not in text
    assert not (tmp_path / name).is_file()


@OTHERS
def test_a_stored_input(other: Other, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    grey = one_stage(tmp_path, "Faulty", fault="none")
    clip, out = write_clip(tmp_path / "clip.mp4", n_frames=20), tmp_path / "out.zarr"
    words = ["run", str(grey), str(clip), "--out", str(out), "--executor", "inline"]
    assert main(words) == 0
    clip.unlink()
    other(clip)
    code, text = said(capfd, words)
    assert code == 2
    assert f"{clip} is a pipe, a socket or a device; name a video file" in text


@OTHERS
def test_a_picture_of_a_gallery(other: Other, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = film(60, 2, seed=1)
    out = make_store(tmp_path / "one.zarr", {"film": made.arrays}, extra=made.extra, workflow=drawn.document())
    (tmp_path / "people").mkdir()
    picture = other(tmp_path / "people" / "Ann.png")
    for words in (["--gallery", str(picture.parent)], ["--face", str(picture)]):
        code, text = said(capfd, ["find", str(out), *words])
        assert code == 2
        assert f"{picture} cannot be read: {PICTURE}" in text.splitlines()[-1]


@pytest.mark.slow
def test_every_file_of_a_store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = film(60, 2, seed=1)
    whole = make_store(tmp_path / "whole.zarr", {"film": made.arrays}, extra=made.extra)
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    assert len(files) > 10
    codes = set()
    for name in files:
        out = tmp_path / "out.zarr"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        (out / name).unlink()
        pipe(out / name)
        for words in (["status", str(out)], ["export", str(out), "--to", str(tmp_path / "rows.csv")]):
            code, text = said(capfd, words)
            codes.add(code)
            assert "Traceback" not in text
    assert codes == {0, 2}  # not every command reads every file


def test_the_lock_of_a_store(tmp_path: Path) -> None:
    grey = one_stage(tmp_path, "Faulty", fault="none")
    clip, out = write_clip(tmp_path / "clip.mp4", n_frames=20), tmp_path / "out.zarr"
    assert main(["run", str(grey), str(clip), "--out", str(out), "--executor", "inline"]) == 0
    pipe(out / ".lock")
    with pytest.raises(StoreError, match=f"{PICTURE} .*lock"):
        RunStore.open(out)


def png(width: int, height: int, rows: bytes = b"", colour: int = 2) -> bytes:
    """A PNG of these sides; without `rows`, only what declares them."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    content = bytearray(file.getvalue())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def gif(width: int, height: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    frames = [Image.new("P", (16, 16), number) for number in range(3)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    content = bytearray(file.getvalue())
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def tiff(width: int, height: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    frames = [Image.new("RGB", (16, 16)) for _ in range(3)]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    content = bytearray(file.getvalue())
    for tag, value in ((256, width), (257, height)):
        for kind, size in ((4, "<HHII"), (3, "<HHII")):
            at = content.find(struct.pack(size, tag, kind, 1, 16))
            if at >= 0:
                content[at : at + 12] = struct.pack("<HHII", tag, 4, 1, value)
    return bytes(content)


def webp(width: int, height: int) -> bytes:
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little")
    extended += (height - 1).to_bytes(3, "little")
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "WEBP", lossless=True)
    inside = extended + file.getvalue()[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(inside)) + b"WEBP" + inside


KINDS = pytest.mark.parametrize("kind", [png, jpeg, gif, bmp, tiff, webp], ids=lambda kind: kind.__name__)


@KINDS
@pytest.mark.parametrize(("width", "height"), [(16383, 16383), (12000, 11186)])
def test_a_picture_beyond_the_limit_is_refused_by_its_header(
    kind: Callable[[int, int], bytes], width: int, height: int
) -> None:
    limit = rf"Ann.png has {width}x{height} pixels, \d+ million; the limit is 134 million; shrink it"
    unread = "not a picture that OpenCV can read|Image size .268402689 pixels. exceeds.* The limit here is 134 million"
    with pytest.raises(UnreadableError, match=f"{limit}|{unread}"):
        check_content(kind(width, height), "Ann.png")


@pytest.mark.parametrize("kind", [png, jpeg, gif, bmp, tiff], ids=lambda kind: kind.__name__)
def test_the_refusal_gives_the_numbers(kind: Callable[[int, int], bytes]) -> None:
    with pytest.raises(UnreadableError, match="has 20000x20000 pixels, 400 million; the limit is 134 million"):
        check_content(kind(20000, 20000), "Ann.png")
    check_content(kind(16, 16), "Ann.png")
    check_content(kind(11585, 11585), "Ann.png")  # the largest square within
    assert 11585**2 <= MAX_PIXELS < 11586**2


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0", b"text"])
def test_a_header_that_is_cut_off(content: bytes) -> None:
    with pytest.raises(UnreadableError, match="is not a picture that OpenCV can read"):
        check_content(content, "Ann.png")


@pytest.mark.slow
def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    made = film(60, 2, seed=1)
    out = make_store(tmp_path / "one.zarr", {"film": made.arrays}, extra=made.extra, workflow=drawn.document())
    (tmp_path / "people").mkdir()
    picture = tmp_path / "people" / "Ann.png"
    picture.write_bytes(png(30000, 30000, bytes(30000 * 30001), colour=0))
    assert picture.stat().st_size < 1e6
    for words in (["--gallery", str(picture.parent)], ["--face", str(picture)]):
        program = (
            "import sys, tests.people.drawn, pipeline.cli; code = pipeline.cli.main(sys.argv[1:]); "
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]); sys.exit(code)"
        )
        command = [sys.executable, "-c", program, "find", str(out), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert int(done.stdout.splitlines()[-1]) < 600_000, "kB"
        assert "has 30000x30000 pixels, 900 million; the limit is 134 million" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("form", ["path", "file", "base64"])
def test_deepfaces_functions_refuse_a_bomb(form: str, tmp_path: Path) -> None:
    content = png(30000, 30000, b"")
    path = tmp_path / "bomb.png"
    path.write_bytes(content)
    text = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    given = {"path": str(path), "file": io.BytesIO(content), "base64": text}
    with pytest.raises(UnreadableError, match="has 30000x30000 pixels, 900 million; the limit is 134 million"):
        list(pipeline.deepface.represent(given[form], model_name="Dlib", detector_backend="mtcnn"))


def written(path: Path, declared: int, pictures: list[bytes]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width = stream.height = declared
        stream.pix_fmt, stream.time_base = "rgb24", Fraction(1, 25)
        for number, content in enumerate(pictures):
            packet = av.Packet(content)
            packet.pts = packet.dts = number
            packet.duration, packet.time_base, packet.stream, packet.is_keyframe = 1, Fraction(1, 25), stream, True
            container.mux(packet)
    return path


SMALL = png(64, 64, bytes(64 * (64 * 3 + 1)))
LARGE = png(16000, 16000)


@pytest.mark.parametrize("declared", [16000, 64])
def test_a_film_of_bombs(declared: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    film = written(tmp_path / "film.mov", declared, [LARGE] * 6)
    code, text = said(capfd, ["run", "faces", str(film), "--out", str(tmp_path / "o.zarr"), "--executor", "inline"])
    assert code == 2
    assert f"{film} has 16000x16000 pixels, 256 million; the limit is 134 million; scale it down" in text


def test_a_film_that_grows_loses_only_its_large_frames(tmp_path: Path) -> None:
    film = written(tmp_path / "film.mov", 64, [SMALL] * 3 + [LARGE] * 3)
    assert len(build_index(film)) == 6
    grey = one_stage(tmp_path, "Faulty", fault="none")
    run = pipeline.run(grey, film, tmp_path / "out.zarr", executor="inline")
    np.testing.assert_array_equal(run.array("film", "decoded"), [True] * 3 + [False] * 3)
