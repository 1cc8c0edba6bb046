"""The best shot of each person: in the list, in JSON, on a contact sheet, and as a picture in a terminal."""

from __future__ import annotations

import base64
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.faces.people.gather import GatherOptions, gather
from pipeline.faces.people.registry import Registry
from pipeline.faces.views import people as views
from pipeline.faces.views import sheet as sheets
from pipeline.faces.views.people import PersonView, people_of
from pipeline.faces.views.sheet import draw, pictures_of
from pipeline.store.compact import add_arrays
from pipeline.store.run import RunStore
from pipeline.store.schema import Array
from tests.clips import write_clip
from tests.made_stores import make_store
from tests.people.test_people import clip
from tests.people.test_thumbnails import store_of
from tests.views.test_sixel import decoded

RED, GREEN, BLUE = (200, 20, 30), (10, 180, 40), (15, 25, 190)


def tell(out: Path, name: str, faces: list[int], colours: list[tuple[int, int, int]], side: int = 96) -> None:
    """Add thumbnails of one colour each."""
    specs = [
        Array("thumbnail", ("shot", "y", "x", "rgb"), "uint8", (side, side, 3)),
        Array("thumbnail_face", ("shot",), "int64"),
    ]
    pictures = np.array([np.full((side, side, 3), one, np.uint8) for one in colours])
    with RunStore.open(out) as store:
        arrays: dict[str, np.ndarray] = {"thumbnail": pictures, "thumbnail_face": np.array(faces, np.int64)}
        add_arrays(store, name, specs, arrays, replace_existing=True)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """a: persons 1, 2 side by side; b: 3. The last face of 1 is the largest, others are the first of equal ones."""
    made = {"a": clip([[0, 1]]), "b": clip([[2]], start=50)}
    made["a"]["box"][10] = [100, 80, 120, 160]
    out = make_store(tmp_path / "one.zarr", made)
    gather([out], options=GatherOptions(thumbnails=False))
    return out


def seen(out: Path) -> list[PersonView]:
    return people_of(list(pipeline.open(out).inputs.values()), Registry.load(out.parent / "people.json"))


def test_json_says_where_each_is_best_seen(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(store, "a", [3, 10], [GREEN, RED])
    assert main(["people", str(store), "--json", "--no-thumbnails"]) == 0
    found = {one["id"]: one["best"] for one in json.loads(capsys.readouterr().out)["people"]}
    assert found[1] == {
        "store": str(store), "input": "a", "frame": 25, "time_seconds": 1.0, "clock": "0:00:01.000",
        "box": [100.0, 80.0, 120.0, 160.0], "thumbnail": 1,
    }  # fmt: skip
    assert (found[2]["frame"], found[2]["thumbnail"]) == (0, None), "there is a picture, but of another moment"
    assert (found[3]["input"], found[3]["thumbnail"]) == ("b", None)


def test_the_list_names_input_and_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole name: those of one camera often differ at their end."""
    names = [f"a-long-name-of-an-input-of-camera-{k}" for k in (1, 2)]
    out = make_store(tmp_path / "one.zarr", {name: clip([[k]], start=50 * k) for k, name in enumerate(names)})
    assert main(["people", str(out), "--no-thumbnails"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name} 0:00:00.0" in shown for name in names)
    assert "\x1b" not in shown
    assert "--sheet" not in shown


def test_pictures_are_of_that_face(store: Path) -> None:
    tell(store, "a", [10, 1, 0], [RED, GREEN, BLUE])
    tell(store, "b", [0], [BLUE])
    assert [one.id for one in seen(store)] == [1, 2, 3]
    assert colours(store) == [RED, GREEN, BLUE]
    tell(store, "a", [10], [RED])
    assert colours(store) == [RED, None, BLUE]
    tell(store, "a", [10], [RED], side=20)
    assert colours(store) == [None, None, BLUE], "not a thumbnail of ours"


def colours(out: Path) -> list[tuple[int, ...] | None]:
    found = pictures_of(seen(out), list(pipeline.open(out).inputs.values()))
    return [None if one is None else tuple(one[0, 0].tolist()) for one in found]


@pytest.mark.parametrize("suffix", ["png", "jpg", "JPEG"])
def test_the_contact_sheet(store: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    tell(store, "a", [10], [RED])
    tell(store, "b", [0], [BLUE])
    path = store.parent / "new folder" / f"people.{suffix}"
    command = ["people", str(store), "--no-thumbnails", "--sheet", str(path)]
    assert main(command) == 0
    assert f"{path}: 3 people" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sheet"] == str(path)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    found = cv2.imread(str(path))[:, :, ::-1].astype(int)
    assert found.shape == (2 * 236 + 8, 2 * 176 + 8, 3)
    for k, colour in enumerate((RED, (224, 224, 224), BLUE)):
        top, left = 8 + k // 2 * 236, 8 + k % 2 * 176
        tile = found[top + 8 : top + 60, left + 8 : left + 152]  # JPEG mixes the colours at an edge
        assert abs(tile - colour).max() <= 3, "person 2 has no picture"
        letters = found[top + 160 : top + 220, left : left + 160].min(axis=(1, 2))
        assert all(letters[20 * line : 20 * line + 20].min() < 60 for line in range(3)), "number, input and time"
    assert found[8 + 236 :, 8 + 176 :].min() >= 250, "no fourth person"


def test_the_words_of_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(sheets, "_write", lambda sheet, text, top, left: written.append(text))
    best = {"input": "clip", "time_seconds": 3725.5}
    people = [PersonView(3, "Ann Lee", best=best), PersonView(4, None, best=best), PersonView(5, "Zoë\x1b", best=best)]
    draw(people, [np.zeros((96, 96, 3), np.uint8)] * 3)
    assert written == ["3  Ann Lee", "clip", "1:02:05.500", "4", "clip", "1:02:05.500", "5  Zoë\\x1b", *written[1:3]]


def test_long_names_stay_in_their_tile() -> None:
    best = {"input": "x" * 300, "time_seconds": 0}
    people = [PersonView(1, "W" * 300, best=best), PersonView(2, None, best=best)]
    picture = np.zeros((96, 96, 3), np.uint8)
    found = draw(people, [picture, picture])
    assert found.shape == (236 + 8, 2 * 176 + 8, 3)
    assert (found[168:, 168:184] == 255).all(), "nothing between the tiles"
    assert (found[168:, -16:] == 255).all()
    assert draw(people[:1], [None]).shape == (236 + 8, 176 + 8, 3)


def test_a_sheet_of_thousands_says_what_it_leaves_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MOST_ON_SHEET", 15)
    people = [PersonView(k, None, best={"input": "a", "time_seconds": k}) for k in range(1, 18)]
    path = tmp_path / "people.png"
    line = sheets.write_sheet(people, [None] * 17, path)
    assert line == f"{path}: 15 people, the longest on screen of 17"
    assert cv2.imread(str(path)).shape == (4 * 236 + 8, 4 * 176 + 8, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sheet", "people.gif"], "'people.gif' is not a picture's name; let it end with .png or .jpg"),
        (["--sheet", "people"], "'people' is not a picture's name"),
        (["--sheet", "{store}/zarr.json/x.png"], "the sheet "),
        (["--sheet", "folder.png"], "folder.png cannot be written"),
    ],
)
def test_a_bad_sheet_is_one_line(
    store: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)
    Path("folder.png").mkdir()
    capsys.readouterr()
    try:
        code: Any = main(["people", str(store), "--no-thumbnails", *(word.format(store=store) for word in words)])
    except SystemExit as end:
        code = end.code
    shown = capsys.readouterr().err.splitlines()
    assert (code, len(shown)) == (2, 1)
    assert message in shown[0]


def test_a_sheet_of_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = make_store(tmp_path / "one.zarr", {"none": clip([[]])})
    assert main(["people", str(out), "--no-thumbnails", "--sheet", str(tmp_path / "x.png")]) == 2
    assert "no people were found, so " in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
    for word in (["list"], ["undo"], ["name", "1", "Ann"]):
        assert main(["people", *word, "--sheet", str(tmp_path / "x.png")]) == 2
        assert f"--sheet has no effect on people {word[0]}" in capsys.readouterr().err


TERMINALS = {
    "kitty": ({"TERM": "xterm-kitty", "KITTY_WINDOW_ID": "1"}, r"\x1b_G[^;]*;"),
    "iterm": ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, r"\x1b\]1337;File=[^:]*:"),
    "tmux": ({"TERM": "tmux-256color", "TMUX": "x", "KITTY_WINDOW_ID": "1"}, ""),
}


@pytest.mark.parametrize(("variables", "pattern"), TERMINALS.values(), ids=TERMINALS)
def test_in_a_terminal(tmp_path: Path, variables: dict[str, str], pattern: str) -> None:
    """Two people of a clip whose grey says which frame it is; the pictures are those that the store keeps."""
    out = store_of(write_clip(tmp_path / "clip.mp4", 120, (240, 120)), tmp_path / "one.zarr")
    gather([out])
    shown = in_terminal(["people", str(out)], variables)
    assert "2 people in 1 input" in shown
    assert ("pictures of them: reelgraph people OUT --sheet people.png" in shown) == (not pattern)
    quiet = ["people", str(out), "--no-thumbnails", "--sheet", str(tmp_path / "people.png")]
    for words in (["people", str(out), "--json"], quiet):
        assert not re.search(r"\x1b[_\]]", in_terminal(words, variables)), "no picture"
    if not pattern:
        assert not re.search(r"\x1b[_\]]", shown)
        return
    _, *pngs = b"".join(map(base64.b64decode, _pieces(shown, pattern))).split(b"\x89PNG")
    pictures = [cv2.imdecode(np.frombuffer(b"\x89PNG" + one, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1] for one in pngs]
    stored = pipeline.open(out).input("clip").read(["thumbnail"])["thumbnail"]
    people = seen(out)
    assert len(pictures) == len(people) == 2
    for one, picture in zip(people, pictures, strict=True):
        assert one.best is not None
        assert (picture == stored[one.best["thumbnail"]]).all()
    piped = subprocess.run(
        [sys.executable, "-m", "pipeline", "people", str(out)],
        capture_output=True,
        check=True,
        env=os.environ | variables,
    )
    assert b"\x1b" not in piped.stdout


def test_only_so_many_pictures(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first ones, the longest on screen; rows without one have a line."""
    tell(store, "a", [10, 1], [RED, GREEN])
    tell(store, "b", [0], [BLUE])
    monkeypatch.setattr(views, "MOST_PICTURED", 1)
    found = gather([store], options=GatherOptions(thumbnails=False))
    people = people_of(found.inputs, found.registry)
    views.print_table(found, people, pictures_of(people, found.inputs), "kitty", "")
    shown = capsys.readouterr().out
    assert len(re.findall(r"\x1b_G[^;]*m=[01];", shown)) == 1
    text = re.sub(r"\x1b(_[^\x1b]*\x1b\\|\[\d*[A-Za-z]|[78])", "", shown)
    starts = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert [start for start in starts if start.isdecimal()] == ["1", "2", "3", "3"], "three rows, and a line about them"


def _pieces(shown: str, pattern: str) -> list[bytes]:
    return [one.encode() for one in re.findall(rf"{pattern}([A-Za-z0-9+/=]*)(?:\x1b\\|\x07)", shown)]


def test_in_a_terminal_with_sixel(tmp_path: Path) -> None:
    """Its variables say nothing; it is asked, and the pictures are those that the store keeps, in 256 colours."""
    out = store_of(write_clip(tmp_path / "clip.mp4", 120, (240, 120)), tmp_path / "one.zarr")
    gather([out])
    says = {"\x1b[16t": "\x1b[6;24;12t", "\x1b[?1;1;0S": "\x1b[?1;0;256S", "\x1b[c": "\x1b[?62;4;22c"}
    shown = in_terminal(["people", str(out)], {"TERM": "xterm-256color"}, says)
    pictures = [decoded(one) for one in re.findall(r"\x1bP.*?\x1b\\", shown, re.DOTALL)]
    stored = pipeline.open(out).input("clip").read(["thumbnail"])["thumbnail"]
    assert len(pictures) == 2
    for one, picture in zip(seen(out), pictures, strict=True):
        assert one.best is not None
        assert picture.shape == (96, 96, 3)
        assert np.abs(picture.astype(int) - stored[one.best["thumbnail"]]).mean() < 3
    assert "pictures of them:" not in shown
    plain = in_terminal(["people", str(out)], {"TERM": "xterm-256color"}, {"\x1b[c": "\x1b[?1;2c"})
    assert "\x1bP" not in plain
    assert "pictures of them: reelgraph people OUT --sheet people.png" in plain


def in_terminal(words: list[str], variables: dict[str, str], says: dict[str, str] | None = None) -> str:
    """Return what a command writes to a terminal, which `says` an answer to some of it."""
    hidden = ("TMUX", "STY", "TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID")
    environment = {name: value for name, value in os.environ.items() if name not in hidden} | variables
    ours, theirs = pty.openpty()
    start = "import fcntl, sys, termios; fcntl.ioctl(1, termios.TIOCSCTTY, 0); from pipeline.cli import main; "
    command = [sys.executable, "-c", start + "sys.exit(main(sys.argv[1:]))", *words]
    with subprocess.Popen(
        command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        found = b""
        try:
            while part := os.read(ours, 1 << 16):
                found += part
                for question, answer in (says or {}).items():
                    if question.encode() in part:
                        os.write(ours, answer.encode())
        except OSError:
            pass  # Linux ends a terminal so
        os.close(ours)
    assert process.returncode == 0
    return found.decode().replace("\r\n", "\n")
