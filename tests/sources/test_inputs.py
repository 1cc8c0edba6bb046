"""What a user may name as input, and what is said when it is wrong."""

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.media.inputs import expand


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.mp4", "a.MKV", "sub/c.webm", "sub/note.md", "empty/readme.md", "odd.bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "list.txt").write_text("# clips\nb.mp4\n\nsub\nsub/c.webm\n")
    (tmp_path / "nested.lst").write_text("@list.txt\nodd.bin\n")
    (tmp_path / "none.txt").write_text("# nothing\n")
    (tmp_path / "loop.txt").write_text("loop.txt\n")
    (tmp_path / "marked.txt").write_text("b.mp4\n", encoding="utf-8-sig")
    (tmp_path / "bad.txt").write_text("gone.mp4\n")
    (tmp_path / "[x].mp4").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["b.mp4"], ["b.mp4"]),
        (["odd.bin"], ["odd.bin"]),
        (["b.mp4", "a.MKV", "b.mp4"], ["b.mp4", "a.MKV"]),
        (["."], ["[x].mp4", "a.MKV", "b.mp4", "sub/c.webm"]),
        (["s*/*.webm"], ["sub/c.webm"]),
        (["**/*.webm", "b.mp4"], ["sub/c.webm", "b.mp4"]),
        (["@list.txt"], ["b.mp4", "sub/c.webm"]),
        (["list.txt"], ["b.mp4", "sub/c.webm"]),
        (["nested.lst"], ["b.mp4", "sub/c.webm", "odd.bin"]),
        (["[x].mp4"], ["[x].mp4"]),
        (["@marked.txt"], ["b.mp4"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_expands(given: list[str], expected: list[str], tree: Path) -> None:
    assert expand(given) == [tree / name for name in expected]


def test_a_list_is_relative_to_itself(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert expand([f"@{tree}/list.txt"]) == [tree / "b.mp4", tree / "sub/c.webm"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no input"),
        ([""], "an input is empty; name a video file"),
        (["gone.mp4"], r"no such file or folder: .*gone\.mp4; check"),
        (["empty"], "no videos in folder .*empty"),
        (["*.avi"], r"no file matches '\*\.avi'"),
        (["none.txt"], "none.txt is empty"),
        (["@gone.txt"], "gone.txt cannot be read: No such file"),
        (["loop.txt"], "loop.txt contains itself"),
        (["bad.txt"], r"gone\.mp4 \(named in .*bad\.txt\)"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("tree")
def test_refuses(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        expand(given)
    assert "\n" not in str(caught.value)
