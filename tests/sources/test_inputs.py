"""What a user may name as input, and what is said when it is wrong."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.cli import main
from pipeline.errors import InputError
from pipeline.media.inputs import expand
from pipeline.media.video.index import open_container
from pipeline.media.video.source import VideoOptions, VideoSource
from tests.clips import write_clip


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
    (tmp_path / "urls.txt").write_text("https://host/clip.mp4\n")
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
        (["http://host/clip.mp4"], "http://host/clip.mp4: URLs are not supported; download it first"),
        (["file:///films/my%20clip.mp4"], "URLs are not supported; name the file by its path: /films/my clip.mp4"),
        (["rtsp://camera/1"], "URLs are not supported; record it with `reelgraph record`"),
        (["S3://bucket/clip.mp4"], "URLs are not supported; copy it here first"),
        (["urls.txt"], "https://host/clip.mp4: URLs are not supported"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("tree")
def test_refuses(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        expand(given)
    assert "\n" not in str(caught.value)


def put(folder: Path, *names: str, content: bytes = b"\0") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("given", ["Show [2024]/*.mp4", "@list.txt", "*/[ab].mp4", "Show [[]2024]/a.*", "**/*.mp4"])
def test_globs_below_folders_with_brackets(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "base [1]", "Show [2024]/a.mp4", "Show 2/a.mkv", "Show [2024]/.hidden.mp4")
    (tmp_path / "base [1]" / "list.txt").write_text("Show [2024]/*.mp4\n")
    monkeypatch.chdir(tmp_path / "base [1]")
    assert expand([given]) == [tmp_path / "base [1]" / "Show [2024]" / "a.mp4"]


def test_what_is_no_video_is_left_out_and_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.mp4", ".Trash-1000/files/b.mp4", "$RECYCLE.BIN/c.mp4", "x/@eaDir/d.mp4", "x/.Spotlight-V100/e.mp4")
    put(tmp_path, "lost+found/f.mp4", "raw.braw")
    put(tmp_path, "._a.mp4", "x/._b.mkv", content=b"\0\5\26\7\0\2\0\0")
    put(tmp_path, "code.ts", "go.mod", content=b"module example\n")
    put(tmp_path, "faces.index/lists.ivf", content=b"\1\2\3\4\5")
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    notes: list[str] = []
    assert expand([str(tmp_path)], notes.append) == [tmp_path / "a.mp4"]
    assert notes == [
        "left out: .braw files, which FFmpeg cannot read: 1; .ivf files that are not video: 1; "
        ".mod files that are text: 1; .ts files that are text: 1; AppleDouble files (._*): 2; "
        "broken links, pipes or devices: 1; folders $RECYCLE.BIN: 1; folders .Spotlight-V100: 1; "
        "folders .Trash-1000: 1; folders @eaDir: 1; folders lost+found: 1"
    ]
    notes.clear()
    assert expand([str(tmp_path / "**" / "*.mp4")], notes.append) == [tmp_path / "a.mp4"]
    assert "folders @eaDir: 1" in notes[0]
    with pytest.raises(InputError, match=r"no video among the inputs; left out: AppleDouble files \(\._\*\): 1"):
        expand([str(tmp_path / "._a.mp4")])
    assert expand([str(tmp_path / "lost+found")]) == [tmp_path / "lost+found" / "f.mp4"]  # asked for by name


SUFFIXES = (
    "3g2 m2t divx insv f4v m2v dv 264 mod ogm qt mpe mp4v wtv rmvb h264 265 hevc mxf vob m2ts mts ts amv asf wmv flv"
)


@pytest.mark.parametrize("suffix", SUFFIXES.split())
def test_endings(suffix: str, tmp_path: Path) -> None:
    put(tmp_path, f"clip.{suffix}", f"CLIP.{suffix.upper()}", content=b"\x47\0\x1f")
    assert len(expand([str(tmp_path)])) == 2


@pytest.mark.timeout(20)
@pytest.mark.parametrize("given", [".", "**/*.mp4", "**"])
def test_linked_folders_are_searched_once(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "films/a.mp4", "films/sub/b.mp4", "elsewhere/c.mp4")
    films = tmp_path / "films"
    for number in range(3):  # three circles: a walk into them would have 3 to the 40th ways
        (films / f"circle{number}").symlink_to(films)
        (films / "sub" / f"up{number}").symlink_to("..")
    (films / "linked").symlink_to(tmp_path / "elsewhere")
    (films / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(films)
    monkeypatch.chdir(films)
    found = expand([given])
    assert len(found) == 3
    assert {path.name for path in found} == {"a.mp4", "b.mp4", "c.mp4"}


@pytest.mark.parametrize(
    "name", ["img%03d.jpg", "img*.jpg", "concat:img.jpg", "file:img.jpg", "-img.jpg", "img[1].jpg"]
)
def test_a_name_is_no_pattern_and_no_protocol(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, other in enumerate(["img000.jpg", "img001.jpg", "img002.jpg", "img1.jpg", "img.jpg"]):
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(tmp_path / other)
    Image.new("RGB", (32, 32), "white").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (path,) = expand([name])
    source = VideoSource(path, VideoOptions(every=1))
    assert len(source) == 1
    assert source.job(0, 1).decode().frames_rgb.min() > 240
    with open_container(Path(name)) as container:
        assert container.streams.video[0].codec_context.width == 32


@pytest.mark.parametrize("name", ["clip%03d.mp4", "concat:a.mp4", "-a.mp4"])
def test_videos_of_such_names(name: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", n_frames=10).rename(tmp_path / name)
    source = VideoSource(path, VideoOptions(every=1))
    assert (source.decoder, len(source)) == ("decord", 10)
    assert source.job(0, 10).decode().decoded.all()


def test_a_plan_says_what_is_left_out(tmp_path: Path, workflows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films").mkdir()
    write_clip(tmp_path / "films" / "a.mp4", n_frames=10)
    put(tmp_path / "films", "._a.mp4", ".Trashes/501/b.mp4", content=b"\0\5\26\7")
    arguments = [str(workflows / "faces.yaml"), str(tmp_path / "films"), "--out", str(tmp_path / "out.zarr")]
    assert main(["plan", *arguments]) == 0
    assert "\nleft out: AppleDouble files (._*): 1; folders .Trashes: 1\n" in capsys.readouterr().out
    assert main(["plan", arguments[0], "https://host/a.mp4", *arguments[2:]]) == 2
    assert capsys.readouterr().err == "reelgraph: https://host/a.mp4: URLs are not supported; " + (
        "download it first, and name the file\n"
    )


def test_linked_folders_in_each_other_are_searched_once(tmp_path: Path) -> None:
    put(tmp_path, "films/a.mp4", "outside/inner/c.mp4", "beside.mp4")
    for name, target in (("1", "outside/inner"), ("2", "outside"), ("above", ".")):
        (tmp_path / "films" / name).symlink_to(tmp_path / target)
    notes: list[str] = []
    found = expand([str(tmp_path / "films")], notes.append)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["films/1/c.mp4", "films/a.mp4"]
    assert notes == ["left out: links to a folder above: 1"]
