"""Pictures as a source: each kind of container, what is found in folders, growth, memory, and places in pictures."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import pipeline
from pipeline.cli import main
from pipeline.engine.events import Silent
from pipeline.engine.source import INVENTORY, Loaded
from pipeline.errors import InputError, StoreError
from pipeline.files.fingerprint import fingerprint
from pipeline.files.lock import LOCK_FILE
from pipeline.media.images.copies import Digests, Inventory
from pipeline.media.images.names import Names, of_lines, text
from pipeline.media.images.pictures import Pictures
from pipeline.media.images.reading import Geometry, read
from pipeline.media.images.source import ImagesJob, ImagesOptions, ImagesSource
from pipeline.media.picture import UnreadableError
from pipeline.media.reread import reread
from pipeline.views.export import export
from tests.images.kills import campaign
from tests.own import Own

OPTIONS = ImagesOptions()


def colour(number: int) -> tuple[int, int, int]:
    return (number * 37 % 256, number * 91 % 256, number * 151 % 256)


def encoded(number: int, size: tuple[int, int] = (8, 6)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour(number)).save(content, "PNG")
    return content.getvalue()


def folder_of(path: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(encoded(number))
    return path


def opened(*words: str | Path, **options: Any) -> list[ImagesSource]:
    chosen = ImagesOptions(**options)
    refs = list(ImagesSource.find([str(word) for word in words], chosen))
    return [ImagesSource.open(ref, chosen, None) for ref in refs]


def names_of(source: ImagesSource) -> list[str]:
    return [str(name) for name in source.values(0, len(source))["name"]]


def load(source: ImagesSource, threads: int = 1) -> Loaded:
    return source.job(0, len(source)).load(threads)


def colours(loaded: Loaded) -> list[tuple[int, ...]]:
    frames = loaded.arrays["frames_rgb"]
    return [tuple(frames[k][0, 0].tolist()) for k in range(len(frames))]


# -- what an input is ----------------------------------------------------------------------------------------


def test_a_folder_is_searched_in_order_and_says_what_it_passed_over(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ["b.png", "a/2.JPG", "a/1.webp", "c d/ä.tiff"])
    for name in ("notes.txt", "clip.mp4", "x.cr2", "other.cr2", "noending", ".hidden.png"):
        (folder / name).write_text("")
    (folder / ".thumbs").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "again").symlink_to(folder / "a")
    (source,) = opened(folder)
    assert names_of(source) == ["b.png", "a/1.webp", "a/2.JPG", "c d/ä.tiff"]
    assert source.note == (
        "passed over: files that end in .cr2: 2; files that end in .mp4: 1; files that end in .txt: 1; "
        "files without an ending: 1; hidden files: 1; hidden folders and those of the system: 1; "
        "links to a folder that is searched anyway: 2"
    )
    assert colours(load(source)) == [colour(k) for k in (0, 2, 1, 3)]


def test_a_linked_folder_is_searched(tmp_path: Path) -> None:
    folder_of(tmp_path / "elsewhere", ["1.png", "deep/2.png"])
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "link").symlink_to(tmp_path / "elsewhere")
    (source,) = opened(tmp_path / "photos")
    assert names_of(source) == ["link/1.png", "link/deep/2.png"]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ["a.png"])
    os.rename(os.fsencode(folder / "a.png"), os.fsencode(folder) + b"/caf\xe9\n.png")
    (source,) = opened(folder)
    assert names_of(source) == [r"caf\xe9\n.png"]
    assert load(source).decoded.all()


def test_pictures_named_one_by_one_are_one_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "photos", ["b.png", "a/1.png", "a/2.png"])
    monkeypatch.chdir(tmp_path)
    (by_name,) = opened("photos/b.png", "photos/a/2.png", "photos/b.png")
    assert names_of(by_name) == ["b.png", "a/2.png"]
    (by_glob,) = opened("photos/**/*.png")
    assert names_of(by_glob) == ["a/1.png", "a/2.png", "b.png"]
    (one,) = opened(folder / "b.png")
    assert (names_of(one), one.collection.path) == (["b.png"], str(folder / "b.png"))


def test_a_list_is_relative_to_its_folder_and_asks_for_no_file(tmp_path: Path) -> None:
    folder_of(tmp_path / "photos", ["b.png", "a/1.png"])
    listing = tmp_path / "photos.lst"
    listing.write_bytes(f"\ufeff# mine\nphotos/b.png\r\n\n   {tmp_path}/photos/a/1.png \nphotos/gone.png\n".encode())
    (source,) = opened(listing)
    assert names_of(source) == ["photos/b.png", f"{tmp_path}/photos/a/1.png", "photos/gone.png"]
    loaded = load(source)
    assert loaded.decoded.tolist() == [True, True, False]
    assert loaded.arrays["error"].tolist() == ["", "", "no such file or directory"]
    (same,) = opened(f"@{listing}")
    assert names_of(same) == names_of(source)


def test_tar_shards(tmp_path: Path) -> None:
    for shard in range(2):
        with tarfile.open(tmp_path / f"train-{shard}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            for number in range(3):
                for ending, content in ((".png", encoded(shard * 3 + number)), (".cls", b"7")):
                    member = tarfile.TarInfo(f"dir/{number:04d}" + "x" * 120 * number + ending)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    first, second = opened(tmp_path / "train-*.tar")
    assert names_of(first)[0] == "dir/0000.png"
    assert [len(name) for name in names_of(first)] == [12, 132, 252]
    assert first.note == "passed over: files that end in .cls: 3"
    assert colours(load(first)) + colours(load(second)) == [colour(k) for k in range(6)]
    part = second.job(1, 3).load(2)
    assert colours(part) == [colour(4), colour(5)]


def test_a_tar_file_that_is_cut_off(tmp_path: Path) -> None:
    whole = tmp_path / "a.tar"
    with tarfile.open(whole, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(3):
            (tmp_path / "x.png").write_bytes(encoded(number, (300, 200)))
            tar.add(tmp_path / "x.png", f"{number}.png")
    content = whole.read_bytes()
    member = 512 + -(-len(encoded(0, (300, 200))) // 512) * 512
    whole.write_bytes(content[: member + 700])
    (source,) = opened(whole)
    loaded = load(source)
    assert loaded.decoded.tolist() == [True, False]
    assert loaded.arrays["error"][1].startswith("the tar file is cut off")
    whole.write_bytes(b"\x1f\x8b" + content)
    with pytest.raises(InputError, match="unpack it"):
        opened(whole)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_zarr_store_is_known_by_its_content(own: Own, tmp_path: Path, zarr_format: Any) -> None:
    import zarr

    pixels = np.stack([np.full((8, 8, 3), colour(k), np.uint8) for k in range(4)])
    root = zarr.open_group(tmp_path / "data.zarr", mode="w", zarr_format=zarr_format)
    stored = root.create_array("images", shape=pixels.shape, dtype="u1", chunks=(2, 8, 8, 3))
    stored[:] = pixels
    root.create_array("names", shape=4, dtype=str)[:] = np.array([f"n{k}.png" for k in range(4)], object)
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images", names="names")
    assert own.run(workflow, tmp_path / "data.zarr").array("data", "name").tolist()[3] == "n3.png"
    assert own.run(workflow, tmp_path / "data.zarr").summary.items == 0
    stored[2:] = 7
    changed = own.run(workflow, tmp_path / "data.zarr")
    assert "its content changed" in str(changed.summary.unusable)


def test_a_zarr_store_of_an_earlier_run_is_known(tmp_path: Path) -> None:
    import zarr

    path = tmp_path / "data.zarr"
    zarr.open_group(path, mode="w").create_array("images", data=np.zeros((2, 8, 8, 3), np.uint8))
    (ref,) = ImagesSource.find([str(path)], OPTIONS)
    assert ImagesSource.is_stored(ref, {"fingerprint": fingerprint(path / "zarr.json")})
    assert ImagesSource.is_stored(ref, {"fingerprint": ImagesSource.fingerprint(ref)})
    assert not ImagesSource.is_stored(ref, {"fingerprint": "another"})


def test_one_picture_is_not_many_lines(tmp_path: Path) -> None:
    """(height, width, 3) would do as grey pictures, 3 pixels wide."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "one.h5"
    with h5py.File(path, "w") as file:
        file["picture"] = np.zeros((48, 64, 3), np.uint8)
    with pytest.raises(InputError, match=r"no array of pictures: uint8 \(n, height, width, 3\)"):
        opened(path)
    (named,) = opened(path, array="picture")
    assert len(named) == 48


@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_arrays(tmp_path: Path, kind: str) -> None:
    pixels = np.stack([np.full((6, 8, 3), colour(k), np.uint8) for k in range(4)])
    path = tmp_path / f"data.{kind}"
    if kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["train/images"] = pixels
            file["train/names"] = [f"n{k}.png" for k in range(4)]
            files = file.create_dataset("files", 4, h5py.vlen_dtype(np.uint8))
            for k in range(4):
                files[k] = np.frombuffer(encoded(k), np.uint8)
    else:
        import zarr

        root = zarr.open_group(path, mode="w")
        root.create_array("train/images", data=pixels)
        root.create_array("train/names", shape=4, dtype=str)[:] = np.array([f"n{k}.png" for k in range(4)], object)
    (source,) = opened(path, array="train/images", names="train/names")
    assert names_of(source) == ["n0.png", "n1.png", "n2.png", "n3.png"]
    assert colours(load(source)) == [colour(k) for k in range(4)]
    assert colours(source.job(2, 4).load()) == [colour(2), colour(3)]
    if kind == "h5":
        with pytest.raises(InputError, match=r"several arrays of pictures \(files, train/images\); name one"):
            opened(path)
        (encoded_rows,) = opened(path, array="files")
        assert colours(load(encoded_rows)) == [colour(k) for k in range(4)]
        assert names_of(encoded_rows) == ["0", "1", "2", "3"]
    with pytest.raises(InputError, match="has no array 'nope' of pictures"):
        opened(path, array="nope")


def test_parquet_as_hugging_face_has_it(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": encoded(k), "path": f"{k}.png"} for k in range(7)]
    rows[3]["bytes"] = None  # type: ignore[typeddict-item]
    table = pa.table({"image": rows, "label": list(range(7))})
    path = tmp_path / "train.parquet"
    pq.write_table(table, path, row_group_size=3)
    (source,) = opened(path)
    assert names_of(source) == [f"{k}.png" for k in range(7)]
    loaded = load(source)
    assert loaded.decoded.tolist() == [True] * 3 + [False] + [True] * 3
    assert loaded.arrays["error"][3] == "the row has no picture"
    for start, stop in ((0, 2), (2, 4), (3, 7), (5, 6)):
        part = source.job(start, stop).load()
        assert [c for c, d in zip(colours(part), part.decoded, strict=True) if d] == [
            colour(k) for k in range(start, stop) if k != 3
        ]


def test_a_table_without_pictures_shows_its_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"many": [[encoded(1)]], "label": [1]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"no column of files as bytes; it has many: list<.*binary>, label: int64"):
        opened(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("gone", "no such file or folder"), ("no*.png", "no file matches"), ("", "an input is empty"),
        ("https://example.com/a.jpg", "URLs are not supported"), ("empty", "no pictures in folder"),
        ("empty.txt", "is empty; write one path per line"), ("a.tgz", "unpack it to .tar first"),
        ("a.mp4", "is a video, not a picture: leave out --images, or write source"),
        ("bad.h5", "cannot be opened as hdf5"), ("bad.parquet", "cannot be read as Parquet"),
    ],
)  # fmt: skip
def test_mistakes(word: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("empty.txt", "a.tgz", "bad.h5", "bad.parquet", "a.mp4"):
        (tmp_path / name).write_text("" if name == "empty.txt" else "no")
    with pytest.raises(InputError, match=message):
        opened(word)


@pytest.mark.parametrize("ending", [".tar", ".h5", ".parquet", ".zarr", ".tgz", ".txt"])
def test_a_folder_may_have_any_name_and_a_pipe_is_refused(ending: str, tmp_path: Path) -> None:
    (source,) = opened(folder_of(tmp_path / f"photos{ending}", ["1.png"]))
    assert names_of(source) == ["1.png"]
    os.mkfifo(tmp_path / f"pipe{ending}")
    with pytest.raises(InputError, match=r"cannot be|unpack it"):
        opened(tmp_path / f"pipe{ending}")


def test_a_line_of_a_list_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a.lst").write_text("b.png\na.png\nb.png\nc.png\na.png\n")
    assert names_of(opened(tmp_path / "a.lst")[0]) == ["b.png", "a.png", "c.png"]
    with pytest.raises(InputError, match="an input is empty"):
        opened("@")


def test_members_of_a_tar_file_that_are_no_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, kind in (("1.png", tarfile.REGTYPE), ("d/._1.png", tarfile.REGTYPE), ("2.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(encoded(1)) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(encoded(1)))
        at = tar.offset
        member = tarfile.TarInfo("3.png")
        tar.addfile(member)
    (source,) = opened(path)
    assert names_of(source) == ["1.png", "3.png"]
    assert source.note == "passed over: hidden files: 1; links, sparse files and other members that are not files: 1"
    content = bytearray(path.read_bytes())
    content[at + 5] ^= 0xFF
    path.write_bytes(content)
    (source,) = opened(path)
    assert names_of(source) == ["1.png"]
    assert "the end of the tar file, which is cut off or damaged: 1" in str(source.note)


def test_a_column_may_have_a_dot_and_numbers_for_its_files(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image.bytes": pa.array([encoded(0), encoded(1)]).dictionary_encode()}), path)
    assert colours(load(opened(path)[0])) == [colour(0), colour(1)]


@pytest.mark.parametrize("options", [{"crop": 10**6}, {"resize": 10**6}, {"resize": (10**5, 10**5)}])
def test_sizes_that_no_memory_holds(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the limit is 134 million"):
        ImagesOptions(**options)
    with pytest.raises(ValueError, match=r"crop \(10, 10\) is larger than resize \(3, 4\)"):
        ImagesOptions(resize=(3, 4), crop=10)


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="resize and longest exclude each other"):
        ImagesOptions(resize=3, longest=5)
    with pytest.raises(ValueError, match="1 pixel or more"):
        ImagesOptions(crop=0)


# -- loading -------------------------------------------------------------------------------------------------


def test_broken_pictures_are_a_result(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ["a.png"])
    (folder / "b.png").write_text("text")
    (folder / "c.png").symlink_to("/nowhere")
    os.mkfifo(folder / "d.png")
    (folder / "e.png").write_bytes(b"")
    (folder / "f.png").symlink_to(folder / "f.png")
    (source,) = opened(folder)
    loaded = load(source, threads=2)
    assert loaded.is_final
    assert loaded.decoded.tolist() == [True] + [False] * 5
    assert loaded.arrays["error"].tolist() == [
        "", "not a picture that can be read", "it is a link to /nowhere, which is not there",
        "it is a pipe, a socket or a device, not a file", "the file is empty", "too many levels of symbolic links",
    ]  # fmt: skip
    assert loaded.arrays["width"].tolist() == [8, -1, -1, -1, -1, -1]


def test_an_error_of_the_disk_is_no_fault_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = opened(folder_of(tmp_path / "photos", ["a.png"]))

    def failing(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pipeline.media.images.shelves.open_file", failing)
    with pytest.raises(OSError, match="Input/output error"):
        load(source)


def test_one_size_gives_one_array(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ["a.png", "b.png"])
    (folder / "c.png").write_text("no")
    (source,) = opened(folder, resize=12, crop=10)
    frames = load(source).arrays["frames_rgb"]
    assert (frames.shape, frames.dtype) == ((3, 10, 10, 3), np.uint8)
    assert not frames[2].any()
    assert source.item_bytes == 300


def test_memory_of_a_chunk_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.png").write_bytes(encoded(number, (100, 100 + number)))
    (source,) = opened(folder)
    job = source.job(0, 5)
    loaded = ImagesJob(job.shelf, job.geometry, most_bytes=70_000).load()
    frames = loaded.arrays["frames_rgb"]
    assert isinstance(frames, Pictures)
    assert frames.nbytes <= 70_000
    assert [frames[k].shape for k in range(5)] == [(100 + k, 100, 3) for k in range(5)]
    assert colours(loaded) == [colour(k) for k in range(5)]
    assert list(frames.blocks(70_000)) == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert [frame[0, 0].tolist() for frame in frames[np.array([4, 0])]] == [list(colour(4)), list(colour(0))]
    assert len(frames[1:3]) == 2


def test_the_largest_picture_says_how_many_a_chunk_holds(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encoded(number, (2000, 1000) if number == 1 else (20, 10)))
    (source,) = opened(folder)
    assert source.item_bytes == 6_000_000
    (smaller,) = opened(folder, longest=100)
    assert smaller.item_bytes == 15_000


# -- names ---------------------------------------------------------------------------------------------------


def test_names_are_packed_and_compared() -> None:
    names = [b"a", "ä/1.png".encode(), b"", b"caf\xe9"]
    packed = Names.of(names)
    assert list(packed) == names
    assert list(Inventory.unpacked(packed.packed()).names) == names
    assert list(Inventory.unpacked(Names.of([]).packed()).names) == []
    assert (packed[1:3], packed[3], packed[-4:2], packed[3:1]) == (names[1:3], names[3], names[:2], [])
    assert list(packed.not_in(Names.of([b"a", b"x"]))) == names[1:]
    assert list(Names.of([b"x"]).not_in(Names.of([]))) == [b"x"]
    assert list(Names.of([b"x"]).not_in(Names.of([b"x"]))) == []
    assert of_lines(b"\xef\xbb\xbf  a b \r\n#no\n\n\t\nb#\n \n\nc") == b"a b\0b#\0c\0"
    assert of_lines(b"") == of_lines(b"\n\n#") == b""
    with pytest.raises(ValueError, match="bytes of 0"):
        of_lines("a".encode("utf-16"))
    assert text(b"a\nb\x80") == r"a\nb\x80"


# -- runs ----------------------------------------------------------------------------------------------------

LOOKING = '''
"""The place of the brightest pixel: one row per picture, in pixels that the stage sees."""

import numpy as np

from pipeline import Array, Axis, Stage


class Look(Stage):
    needs = ("frames_rgb",)
    axes = (Axis("spot"),)
    outputs = (
        Array("n_spots", ("frame",), "int32"),
        Array("at", ("spot", "xy"), "float32", (2,), place="xy"),
        Array("around", ("spot", "xywh"), "float32", (4,), place="xywh"),
        Array("middle", ("frame", "xy"), "float32", (2,), place="xy"),
    )

    def run(self, chunk):
        at, middle = [], []
        for frame, decoded in zip(chunk.frames_rgb, chunk.decoded):
            height, width = frame.shape[:2]
            middle.append((width / 2, height / 2))
            if decoded:
                y, x = np.unravel_index(np.argmax(frame.sum(-1)), frame.shape[:2])
                at.append((x + 0.5, y + 0.5))
        at = np.array(at, np.float32).reshape(-1, 2)
        around = np.concatenate([at - 1, np.full((len(at), 2), 2)], 1)
        return {"n_spots": chunk.decoded.astype(np.int32), "at": at, "around": around, "middle": np.array(middle)}


class Shift(Stage):
    """Needs what is stored, in pixels of what it sees."""

    needs = ("frames_rgb", "n_spots", "at", "width")
    outputs = (
        Array("again", ("spot", "xy"), "float32", (2,), place="xy"),
        Array("brightness", ("spot",), "int32"),
    )

    def run(self, chunk):
        spots = chunk["at"]
        bright = [
            int(chunk.frames_rgb[int(k)][int(y), int(x)].sum()) for k, (x, y) in zip(chunk.rows("spot"), spots)
        ]
        return {"again": spots, "brightness": np.array(bright, np.int32)}
'''


def spotted(folder: Path, sizes: list[tuple[int, int]]) -> np.ndarray:
    """Write black pictures with one bright square of 8 x 8 each; return the middle of each square, x and y."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    spots = []
    for number, (width, height) in enumerate(sizes):
        pixels = np.zeros((height, width, 3), np.uint8)
        x, y = int(rng.integers(width // 3, 2 * width // 3)), int(rng.integers(height // 3, 2 * height // 3))
        pixels[y - 4 : y + 4, x - 4 : x + 4] = 255
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        spots.append((x, y))
    return np.array(spots, np.float64)


@pytest.mark.parametrize(
    "options", [{}, {"longest": 60}, {"resize": 70}, {"resize": [50, 90]}, {"resize": 90, "crop": 64}], ids=str
)
def test_places_are_those_of_the_whole_picture(own: Own, tmp_path: Path, options: dict[str, Any]) -> None:
    sizes = [(120, 90), (90, 150), (200, 100), (64, 64)]
    spots = spotted(tmp_path / "photos", sizes)
    (tmp_path / "photos" / "01x.png").write_text("broken")
    own.module("looking", LOOKING)
    stages = {"look": "looking:Look"}
    source = {"kind": "images", **options}
    run = own.run(own.workflow(stages, **source), tmp_path / "photos")
    assert run.summary.exit_code == 0
    assert run.summary.broken == 1
    item = run.input("photos")
    assert item.array("decoded").tolist() == [True, True, False, True, True]
    scale = item.array("scale")[item.array("spot_frame")] if options else np.ones((4, 2))
    assert np.abs(item.array("at") - spots).max() <= (8 / scale).max()
    assert np.abs(item.array("around")[:, 2:] * scale - 2).max() < 1e-4
    assert np.allclose(item.array("around")[:, :2] + item.array("around")[:, 2:] / 2, item.array("at"), atol=1e-3)
    if "crop" in options or not options:
        good = item.array("decoded")
        whole = np.stack([item.array("width"), item.array("height")], 1)[good] / 2
        assert np.abs(item.array("middle")[good] - whole).max() < 1
    # A stage that comes later sees the stored places in its own pixels.
    added = own.run(own.workflow({**stages, "shift": "looking:Shift"}, **source), tmp_path / "photos")
    assert np.allclose(added.array("photos", "again"), item.array("at"), atol=1e-3)
    assert (added.array("photos", "brightness") > 600).all()


def test_a_folder_that_grew(own: Own, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ["b.png", "d.png"])
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images")
    first = own.run(workflow, folder)
    before = first.array("photos", "at")
    for name in ("a.png", "c.png", "sub/e.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encoded(9))
    (folder / "b.png").unlink()
    second = own.run(workflow, folder)
    assert second.summary.items == 3
    assert second.array("photos", "name").tolist() == ["b.png", "d.png"]
    assert second.array("photos-2", "name").tolist() == ["a.png", "c.png", "sub/e.png"]
    assert np.array_equal(second.array("photos", "at"), before)
    assert own.run(workflow, folder).summary.items == 0
    (folder / "f.png").write_bytes(encoded(1))
    third = own.run(workflow, folder)
    assert third.array("photos-3", "name").tolist() == ["f.png"]
    assert third.summary.items == 1


@pytest.mark.parametrize("lost", ["photos", "photos-2"])
def test_a_part_that_is_gone_before_others(own: Own, tmp_path: Path, lost: str) -> None:
    """It would be made again of all pictures that are new to the store without it, and those of later parts twice."""
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images")
    for number in range(3):
        own.run(workflow, folder_of(tmp_path / "photos", [f"{number}.png"]))
    shutil.rmtree(own.out / lost)
    said = "the store has (photos-2, )?photos-3, which .* gone; .* rm -r /.*photos-3$"
    for prune in (False, True):
        with pytest.raises(StoreError, match=said):
            own.run(workflow, tmp_path / "photos", prune=prune)
    for name in {"photos-2", "photos-3"} - {lost}:
        shutil.rmtree(own.out / name)
    made = own.run(workflow, tmp_path / "photos")
    assert sorted(name for item in made.inputs.values() for name in item.array("name")) == ["0.png", "1.png", "2.png"]


def test_a_glob_that_grew_beyond_its_folder(own: Own, tmp_path: Path) -> None:
    """Names are relative to the folder of all matches, which was another one before."""
    photos = folder_of(tmp_path / "photos", ["a/0.png", "a/1.png"])
    own.module("looking", LOOKING)
    workflow, matching = own.workflow({"look": "looking:Look"}, kind="images"), str(photos / "**" / "*.png")
    assert own.run(workflow, matching).array("a", "name").tolist() == ["0.png", "1.png"]
    folder_of(photos, ["b/0.png", "b/2.png"])
    second = own.run(workflow, matching)
    assert second.summary.items == 2
    assert second.array("photos-2", "name").tolist() == ["b/0.png", "b/2.png"]
    assert own.run(workflow, matching, prune=True).summary.items == 0
    (photos / "a" / "0.png").unlink()
    os.utime(photos / "a" / "1.png", (1, 1))
    pruned = own.run(workflow, matching, prune=True)
    assert [pruned.array(name, "name").tolist() for name in ("a", "photos-2", "photos-3")] == [
        [], ["b/0.png", "b/2.png"], ["a/1.png"],
    ]  # fmt: skip


def test_a_glob_may_match_one_picture_before_or_later(own: Own, tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos", ["0.png"])
    own.module("looking", LOOKING)
    workflow, matching = own.workflow({"look": "looking:Look"}, kind="images"), str(photos / "*.png")
    own.run(workflow, matching)
    folder_of(photos, ["1.png"])
    os.utime(photos / "1.png", (1, 1))
    grown = own.run(workflow, matching)
    assert [item.array("name").tolist() for item in grown.inputs.values()] == [["0.png"], ["1.png"]]
    (photos / "0.png").unlink()
    pruned = own.run(workflow, matching, prune=True)
    assert pruned.summary.items == 0
    assert [item.array("name").tolist() for item in pruned.inputs.values()] == [[], ["1.png"]]


def test_prune_reads_again_what_can_be_read_now(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is as it was: its reader is a package that was installed since, or its permissions were wrong."""
    folder = folder_of(tmp_path / "photos", ["0.png", "1.png", "2.png"])
    (folder / "broken.png").write_text("no")
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images")
    (folder / "1.png").write_bytes(lacking := encoded(99))

    def without_reader(content: bytes, geometry: Geometry) -> Any:
        if content == lacking:
            raise UnreadableError("not a picture that can be read (HEIC: pip install 'reelgraph[heic]')")
        return read(content, geometry)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.media.images.source.read", without_reader)
        assert own.run(workflow, folder).array("photos", "decoded").tolist() == [True, False, True, False]
        assert own.run(workflow, folder, prune=True).input("photos").frames_total == 4
    pruned = own.run(workflow, folder, prune=True)
    assert pruned.array("photos", "name").tolist() == ["0.png", "2.png", "broken.png"]
    assert pruned.array("photos-2", "name").tolist() == ["1.png"]
    assert pruned.array("photos-2", "decoded").all()


def test_prune_drops_what_is_gone_and_reads_again_what_has_changed(own: Own, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", [f"{k}.png" for k in range(6)])
    for number in range(6):
        (folder / f"{number}.png").write_bytes(encoded(number, (8 + 2 * number, 6)))
    (folder / "broken.png").write_text("no")
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images")
    before = own.run(workflow, folder).input("photos")
    assert before.array("file_bytes").tolist()[:2] == [os.path.getsize(folder / f"{k}.png") for k in range(2)]
    middles = before.array("middle")
    assert len(np.unique(middles[:6], axis=0)) == 6
    (folder / "1.png").unlink()
    (folder / "3.png").write_bytes(encoded(77, (30, 20)))
    os.utime(folder / "4.png", (1, 1))
    (folder / "broken.png").write_bytes(encoded(5))
    (folder / "new.png").write_bytes(encoded(6))
    listener = Silent()
    pruned = own.run(workflow, folder, prune=True, listener=listener)
    assert "photos: 4 pictures of 7 removed (gone, changed, or to be read again)" in listener.notes
    assert pruned.array("photos", "name").tolist() == ["0.png", "2.png", "5.png"]
    assert pruned.array("photos-2", "name").tolist() == ["3.png", "4.png", "broken.png", "new.png"]
    assert pruned.array("photos-2", "decoded").all()
    assert pruned.array("photos-2", "width").tolist() == [30, 16, 8, 8]
    item = pruned.input("photos")
    assert item.array("spot_frame").tolist() == [0, 1, 2]
    assert np.array_equal(item.array("middle"), middles[[0, 2, 5]])
    assert (item.frames_total, item.attributes["frames"]) == (3, 3)
    # It is complete, grows, and takes a further stage, as before.
    assert own.run(workflow, folder, prune=True).summary.items == 0
    added = own.run(own.workflow({"look": "looking:Look", "shift": "looking:Shift"}, kind="images"), folder)
    assert np.array_equal(added.array("photos", "again"), item.array("at"))
    assert len(list((own.out / "photos").glob(".inventory*"))) == 1
    (folder / "0.png").unlink()
    (folder / "2.png").unlink()
    (folder / "5.png").unlink()
    emptied = own.run(workflow, folder, prune=True)
    assert emptied.array("photos", "name").tolist() == []
    assert emptied.summary.exit_code == 0


def test_duplicates_are_computed_once(own: Own, tmp_path: Path) -> None:
    """The list of the store has the copies: they are not new later, and they follow what becomes of their original."""
    folder = folder_of(tmp_path / "photos", [f"{k}.png" for k in range(3)])
    for name, seed in {"0.png": 1, "1.png": 2, "2.png": 1, "deep/3.png": 2, "4.png": 1}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(encoded(seed))
    (folder / "5.png").write_bytes(encoded(3)[:-1] + b"\0")  # as long as another, and different
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images", duplicates="once")
    listener = Silent()
    first = own.run(workflow, folder, listener=listener)
    assert first.array("photos", "name").tolist() == ["0.png", "1.png", "5.png"]
    assert "3 pictures with the content of another: computed once" in listener.notes
    kept = Inventory.unpacked(first.input("photos").inventory() or b"")
    assert dict(zip(kept.copies, kept.originals.tolist(), strict=True)) == {b"2.png": 0, b"4.png": 0, b"deep/3.png": 1}
    said = "3 pictures with the content of another are not in the file; features as .h5, .npy or .faiss have all"
    assert export(own.out, tmp_path / "table.csv").notes == [said]
    assert own.run(workflow, folder).summary.items == 0
    (folder / "6.png").write_bytes(encoded(4))
    (folder / "7.png").write_bytes(encoded(4))
    assert own.run(workflow, folder).array("photos-2", "name").tolist() == ["6.png"]
    (folder / "0.png").unlink()  # its copies are pictures of their own now, one of them computed
    (folder / "deep" / "3.png").write_bytes(encoded(9))
    (folder / "7.png").unlink()
    pruned = own.run(workflow, folder, prune=True)
    assert pruned.array("photos", "name").tolist() == ["1.png", "5.png"]
    assert pruned.array("photos-2", "name").tolist() == ["6.png"]
    assert pruned.array("photos-3", "name").tolist() == ["2.png", "deep/3.png"]
    assert own.run(workflow, folder, prune=True).summary.items == 0
    with pytest.raises(StoreError, match="source"):
        own.run(own.workflow({"look": "looking:Look"}, kind="images"), folder)


def test_copies_of_pictures_of_earlier_runs_are_not_computed_again(own: Own, tmp_path: Path) -> None:
    """They are kept beside their originals, in the part that has these; stored items and their order stay."""
    folder = folder_of(tmp_path / "photos", ["0.png", "1.png", "2.png"])
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images", duplicates="once")

    def run(**options: Any) -> list[str]:
        listener = Silent()
        own.run(workflow, folder, listener=listener, **options)
        return [note for note in listener.notes if "content" in note]

    def kept(name: str) -> dict[bytes, int]:
        inventory = Inventory.unpacked(pipeline.open(own.out).input(name).inventory() or b"")
        return dict(zip(inventory.copies, inventory.originals.tolist(), strict=True))

    run()
    digest = pipeline.open(own.out).input("photos").inventory_digest()
    (folder / "new").mkdir()
    for name, number in {"new/1.png": 1, "3.png": 3, "new/3.png": 3}.items():
        (folder / name).write_bytes(encoded(number))
    before = (own.out / "photos" / "zarr.json").read_bytes()
    said = f"{folder}: 1 new picture with the content of stored ones: not computed again"
    assert said in pipeline.plan(workflow, folder, own.out).notes
    assert (own.out / "photos" / "zarr.json").read_bytes() == before, "a plan writes nothing"
    assert run() == [said, "1 picture with the content of another: computed once"]
    assert kept("photos") == {b"new/1.png": 1}
    assert kept("photos-2") == {b"new/3.png": 0}
    assert pipeline.open(own.out).input("photos-2").array("name").tolist() == ["3.png"]
    assert pipeline.open(own.out).input("photos").inventory_digest() == digest
    assert run() == []

    (folder / "4.png").write_bytes(encoded(2))
    (folder / "5.png").write_bytes(encoded(3))
    (folder / "1.png").write_bytes(encoded(6))  # changed: its stored values are those of another content
    (folder / "7.png").write_bytes(encoded(6))
    assert run() == [f"{folder}: 2 new pictures with the content of stored ones: not computed again"]
    assert (kept("photos"), kept("photos-2")) == ({b"new/1.png": 1, b"4.png": 2}, {b"new/3.png": 0, b"5.png": 0})
    assert pipeline.open(own.out).input("photos-3").array("name").tolist() == ["7.png"]
    assert len(list((own.out / "photos").glob(".inventory*"))) == 1

    run(prune=True)  # what lost its original is a picture of its own
    names = [pipeline.open(own.out).input(name).array("name").tolist() for name in ("photos", "photos-2", "photos-3")]
    assert names == [["0.png", "2.png"], ["3.png"], ["7.png"]]
    assert kept("photos-3") == {b"1.png": 0}, "it now has the content of a stored picture"
    assert pipeline.open(own.out).input("photos-4").array("name").tolist() == ["new/1.png"]
    assert kept("photos") == {b"4.png": 1}
    assert run(prune=True) == []


def test_prune_takes_copies_for_pictures(own: Own, tmp_path: Path) -> None:
    """Copies that changed or are gone leave the list, also if no computed picture does."""
    folder = folder_of(tmp_path / "photos", ["0.png", "1.png", "2.png", "3.png"])
    for name in ("1.png", "2.png", "3.png"):
        (folder / name).write_bytes(encoded(0))
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images", duplicates="once")
    listing = tmp_path / "photos.txt"
    listing.write_text("".join(f"photos/{k}.png\n" for k in range(4)))

    def run(**options: Any) -> tuple[list[str], list[list[str]]]:
        listener = Silent()
        made = own.run(workflow, f"@{listing}", listener=listener, **options)
        kept = [Inventory.unpacked(item.inventory() or b"") for item in made.inputs.values()]
        return listener.notes, [[text(name) for name in one.all_names] for one in kept]

    run()
    (folder / "1.png").write_bytes(encoded(7))
    (folder / "2.png").unlink()
    removed = "photos: copies of its pictures removed (gone, or changed)"
    assert run(prune=True) == ([removed], [["photos/0.png", "photos/3.png"], ["photos/1.png", "photos/2.png"]])
    assert run(prune=True)[0] == []
    listing.write_text("photos/0.png\nphotos/1.png\nphotos/2.png\n")
    assert run(prune=True) == ([removed], [["photos/0.png"], ["photos/1.png", "photos/2.png"]])
    assert len(list((own.out / "photos").glob(".inventory*"))) == 1


def test_prune_of_originals_whose_copies_are_there(own: Own, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ["0.png"])
    (folder / "1.png").write_bytes(encoded(0))
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images", duplicates="once")
    own.run(workflow, folder)
    (folder / "0.png").unlink()
    pruned = own.run(workflow, folder, prune=True)
    assert [item.array("name").tolist() for item in pruned.inputs.values()] == [[], ["1.png"]]
    (folder / "1.png").unlink()
    (folder / "2.png").write_bytes(encoded(4))
    with pytest.raises(InputError, match="holds none of the pictures of the store any more"):
        own.run(workflow, folder, prune=True)


def test_copies_of_a_picture_that_changed_before_it_was_computed(own: Own, tmp_path: Path) -> None:
    """The first run was killed after it had found the copies, and the originals changed before the next."""
    folder = folder_of(tmp_path / "photos", ["0.png", "1.png", "2.png"])
    for name, number in {"3.png": 0, "4.png": 1, "5.png": 2}.items():
        (folder / name).write_bytes(encoded(number))
    place, feature = '("frame", "xy"), "float32", (2,), place="xy"', '("frame", "size"), "float32", (2,)'
    own.module("looking", (LOOKING + FAILING).replace(f'"middle", {place}', f'"middle", {feature}'))
    workflow = own.workflow({"look": "looking:Failing"}, kind="images", duplicates="once")
    (tmp_path / "fail").touch()
    own.run(workflow, folder)
    (tmp_path / "fail").unlink()
    (folder / "0.png").write_bytes(encoded(8))
    os.utime(folder / "0.png", (1, 1))
    os.utime(folder / "1.png", (1, 1))
    own.run(workflow, folder, retry_failed=True)
    assert export(own.out, tmp_path / "middle.h5", array="middle").items == 6
    with h5py.File(tmp_path / "middle.h5") as file:
        failed = dict(zip(file["failed"].asstr()[:], file["failed_reason"].asstr()[:], strict=True))
    said = "the picture with the same content changed before it was computed; run again to compute this one"
    assert failed == {"3.png": said, "4.png": said}
    again = own.run(workflow, folder)
    assert again.array("photos-2", "name").tolist() == ["3.png"]
    kept = Inventory.unpacked(again.input("photos").inventory() or b"")
    assert dict(zip(kept.copies, kept.originals.tolist(), strict=True)) == {b"4.png": 1, b"5.png": 2}


FAILING = """

class Failing(Look):
    def run(self, chunk):
        from pathlib import Path

        if Path(__file__).with_name("fail").exists():
            raise ValueError("not today")
        return super().run(chunk)
"""


def test_options_of_arrays_are_said_to_do_nothing_for_files(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", ["0.png"])
    (source,) = opened(folder, array="images", names="labels")
    said = f"array and names do nothing for {folder}: HDF5, Zarr and Parquet files have arrays"
    assert source.note == said
    assert opened(folder, array="images")[0].note == said.replace("and names do", "does", 1)
    assert opened(folder)[0].note is None


def test_pictures_are_compared_with_those_of_complete_parts(own: Own, tmp_path: Path) -> None:
    """Files of an input that is not complete are still to be read, and may change until then."""
    folder = folder_of(tmp_path / "photos", ["0.png", "1.png"])
    own.module("looking", LOOKING + FAILING)
    workflow = own.workflow({"look": "looking:Failing"}, kind="images", duplicates="once")
    (tmp_path / "fail").touch()
    own.run(workflow, folder)
    (folder / "2.png").write_bytes(encoded(1))
    (tmp_path / "fail").unlink()
    again = own.run(workflow, folder, retry_failed=True)
    assert again.array("photos", "name").tolist() == ["0.png", "1.png"]
    assert again.array("photos-2", "name").tolist() == ["2.png"]


@pytest.mark.parametrize("damage", ["short", "parts", "index", "bytes"])
def test_a_damaged_list_of_copies_is_said_to_be_damaged(damage: str) -> None:
    names = Names.of([b"a", b"b"])
    digests = Digests(np.array([0]), np.zeros((1, 16), np.uint8), np.array([1.0]))
    original = np.array([5 if damage == "index" else 1])
    packed = Inventory(names, Names.of([b"c"]), original, np.zeros(1), digests).packed()
    content = {"short": packed[:-3], "parts": packed + packed[:20], "index": packed, "bytes": packed}[damage]
    if damage == "bytes":
        content = Inventory(names, Names.of([b"c"]), np.zeros(1, np.int64), np.zeros(1), digests).packed()
        content = content[: -len(zlib.compress(np.zeros(1).tobytes(), 1))] + zlib.compress(b"123", 1)
    with pytest.raises(StoreError, match=r"photos: the store's list of its pictures is damaged \(.*--fresh"):
        Inventory.of_store("photos", content)


def test_prune_refuses_if_all_is_gone(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "photos", ["a/1.png", "a/2.png"])
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images")
    own.run(workflow, folder)
    (folder / "a").rename(tmp_path / "elsewhere")
    (folder / "stray.png").write_bytes(encoded(5))
    with pytest.raises(InputError, match="holds none of the pictures of the store any more; nothing was removed"):
        own.run(workflow, folder, prune=True)
    (tmp_path / "elsewhere").rename(folder / "a")
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.media.images.folders._identity", lambda path: (0, hash(path)))
        real = os.scandir
        denied = os.fsencode(folder / "a")

        def scandir(path: Any = ".") -> Any:
            if path == denied:
                raise PermissionError(13, "Permission denied")
            return real(path)

        patched.setattr(os, "scandir", scandir)
        with pytest.raises(InputError, match="folders that cannot be read; nothing is removed"):
            own.run(workflow, folder, prune=True)
    assert own.run(workflow, folder, prune=True).array("photos", "name").tolist() == ["a/1.png", "a/2.png"]
    for name in ("a/1.png", "a/2.png"):
        os.utime(folder / name, (1, 1))  # all changed, and there: that is no unmounted disk
    assert own.run(workflow, folder, prune=True).array("photos", "name").tolist() == []


def test_a_kill_leaves_no_list_of_pictures(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(tmp_path / "photos", ["1.png", "2.png"])
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images")
    own.run(workflow, folder_of(tmp_path / "other", ["1.png"]))
    (own.out / "photos").mkdir()
    (own.out / "photos" / ".inventory").write_bytes(b"of a run that was killed before its input was committed")
    own.run(workflow, folder)
    assert [path.name for path in own.out.iterdir() if "photos" in path.name] == ["photos"]
    (folder / "1.png").unlink()

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.store.remove.finish_removal", killed)
        with pytest.raises(KeyboardInterrupt):
            own.run(workflow, folder, prune=True)
    assert len(list((own.out / "photos").glob(".inventory*"))) == 2
    assert own.run(workflow, folder).array("photos", "name").tolist() == ["2.png"]
    assert len(list((own.out / "photos").glob(".inventory*"))) == 1


def test_a_plan_for_a_folder_that_a_run_takes(own: Own, tmp_path: Path) -> None:
    """It is empty, or has the lock of a run that was killed before it had made the store."""
    folder = folder_of(tmp_path / "photos", ["1.png"])
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images")
    own.out.mkdir()
    assert pipeline.plan(workflow, folder, own.out).inputs[0].frames == 1
    (own.out / LOCK_FILE).touch()
    assert pipeline.plan(workflow, folder, own.out).inputs[0].frames == 1
    (own.out / "mine.txt").touch()
    with pytest.raises(StoreError, match="is not a reelgraph store"):
        pipeline.plan(workflow, folder, own.out)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_a_list_of_pictures_that_is_no_file_of_the_store(own: Own, tmp_path: Path, kind: str) -> None:
    folder = folder_of(tmp_path / "photos", ["1.png"])
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images")
    own.run(workflow, folder)
    place = own.out / "photos" / ".inventory"
    place.rename(tmp_path / "outside")
    {"pipe": os.mkfifo, "folder": os.mkdir, "link": lambda at: os.symlink(tmp_path / "outside", at)}[kind](place)
    with pytest.raises(StoreError):
        own.run(workflow, folder)


@pytest.mark.parametrize("is_gone", [True, False], ids=["gone", "damaged"])
@pytest.mark.parametrize("part", ["photos", "photos-2"])
def test_a_list_of_pictures_that_is_lost(own: Own, tmp_path: Path, part: str, is_gone: bool) -> None:
    """Without it no new picture would be found, and no copy exported, without a word."""
    folder = folder_of(tmp_path / "photos", ["1.png", "2.png"])
    (folder / "2.png").write_bytes(encoded(0))
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images", duplicates="once")
    own.run(workflow, folder)
    folder_of(folder, ["3.png", "4.png", "5.png"])
    own.run(workflow, folder)
    assert main(["verify", str(own.out)]) == 0
    (place,) = (own.out / part).glob(".inventory*")
    place.unlink() if is_gone else place.write_bytes(place.read_bytes()[:-3])
    assert main(["verify", str(own.out)]) == 1
    said = "the store's list of its pictures is " + ("gone" if is_gone else r"damaged \(incomplete\)")
    for act in (
        lambda: own.run(workflow, folder), lambda: own.run(workflow, folder, prune=True),
        lambda: pipeline.plan(workflow, folder, own.out), lambda: reread(pipeline.open(own.out).input(part)),
    ):  # fmt: skip
        with pytest.raises(StoreError, match=said):
            act()
    with pytest.raises(StoreError, match=said):
        Inventory.of_input(pipeline.open(own.out).input(part))


def test_a_run_that_is_resumed_keeps_its_list(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "photos", [f"{k}.png" for k in range(3)])
    (ref,) = ImagesSource.find([str(folder)], OPTIONS)
    source = ImagesSource.open(ref, OPTIONS, None)
    (folder / "00.png").write_bytes(encoded(1))
    (folder / "1.png").unlink()
    stored = {**source.facts, "chunk_frames": 2, INVENTORY: source.inventory()}
    again = ImagesSource.open(ref, OPTIONS, stored)
    assert names_of(again) == ["0.png", "1.png", "2.png"]
    later, gone = ImagesSource.later(ref, OPTIONS, [stored[INVENTORY]])
    assert later is not None
    assert names_of(ImagesSource.open(later, OPTIONS, None)) == ["00.png"]
    assert gone == f"{folder}: 1 picture of the store is no longer there; what was found in them stays"
    with pytest.raises(StoreError, match="list of its pictures is damaged"):
        ImagesSource.open(ref, OPTIONS, {**stored, INVENTORY: b"no"})


def test_the_same_rows_whatever_the_chunks(own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spotted(tmp_path / "photos", [(60 + 3 * k, 50 + 2 * k) for k in range(11)])
    own.module("looking", LOOKING)
    workflow = own.workflow({"look": "looking:Look"}, kind="images")
    whole = own.run(workflow, tmp_path / "photos").array("photos", "at")
    monkeypatch.setattr("pipeline.media.images.source.LEAST_PICTURES", 4)
    parts = pipeline.run(workflow, tmp_path / "photos", tmp_path / "parts.zarr", executor="inline")
    assert parts.summary.chunks == 3
    assert np.array_equal(parts.array("photos", "at"), whole)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_lose_no_picture(tmp_path: Path) -> None:
    (tmp_path / "mean.py").write_text(MEAN)
    workflow = tmp_path / "mean.yaml"
    workflow.write_text("source: {kind: images, resize: [8, 8]}\nstages:\n  mean: {use: 'mean:Mean'}\n")
    done = campaign(tmp_path, workflow, "mean", pictures=1100, kills=4, found=[])
    assert done.startswith("4 kills")


MEAN = """
import time

import numpy as np

from pipeline import Array, Stage


class Mean(Stage):
    needs = ("frames_rgb",)
    outputs = (Array("mean", ("frame", "channel"), "float64", (3,)),)

    def run(self, chunk):
        time.sleep(0.4)
        return {"mean": chunk.frames_rgb.mean(axis=(1, 2))}
"""
