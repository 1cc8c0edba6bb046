"""Galleries: which face of which picture is whose, what is said about the rest, and files of galleries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError, StoreError, UsageError
from pipeline.faces.people import gallery as galleries
from pipeline.faces.people.pictures import Recipe
from tests.people import drawn

SMALL, LARGE = (10, 20, 30, 40), (100, 60, 60, 90)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def recipe() -> Recipe:
    return Recipe.of_store({"workflow": drawn.document()}, "s.zarr")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "people"
    drawn.write(folder / "Ann" / "a.png", (drawn.ANN, LARGE))
    drawn.write(folder / "Ann" / "b.jpg", (drawn.ANN, SMALL))
    drawn.write(folder / "Bob.png", (drawn.BOB, LARGE))
    return folder


def test_a_folder_is_a_person_and_a_flat_file_its_stem(folder: Path, recipe: Recipe) -> None:
    drawn.write(folder / "Staff" / "Ann" / "c.JPEG", (drawn.CY, LARGE))
    for hidden in (".trash/Eve.png", "Ann/._a.png", "Bob/@eaDir/Eve.png"):
        drawn.write(folder / hidden, (drawn.EVE, LARGE))
    found = galleries.open_gallery(folder, recipe, "s.zarr")
    assert found.names == ("Ann", "Ann", "Bob", "Staff/Ann")
    assert found.pictures == ("Ann/a.png", "Ann/b.jpg", "Bob.png", "Staff/Ann/c.JPEG")
    assert found.people == ["Ann", "Bob", "Staff/Ann"]
    assert found.person.tolist() == [0, 0, 1, 2]
    np.testing.assert_array_equal(found.embedding[0], drawn.vector(drawn.ANN))
    assert (found.model, found.align, found.notes) == ("Dlib", "native", ())


def test_linked_folders_are_people_too_each_once(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    drawn.write(tmp_path / "elsewhere" / "Eve" / "deep" / "e.png", (drawn.EVE, LARGE))
    (folder / "Eve").symlink_to(tmp_path / "elsewhere" / "Eve")
    (folder / "Aa").symlink_to(folder / "Ann")  # the folder itself gives the name
    (folder / "Ann" / "loop").symlink_to(folder)
    (tmp_path / "elsewhere" / "Eve" / "up").symlink_to(tmp_path / "elsewhere")
    found = galleries.open_gallery(folder, recipe, "s.zarr")
    assert found.pictures == ("Ann/a.png", "Ann/b.jpg", "Bob.png", "Eve/deep/e.png")
    assert found.notes == ()


def test_of_two_faces_the_largest_is_taken_and_said(folder: Path, recipe: Recipe) -> None:
    both = drawn.write(folder / "Cy" / "with Eve.png", (drawn.EVE, SMALL), (drawn.CY, LARGE))
    found = galleries.open_gallery(folder, recipe, "s.zarr")
    assert found.names.count("Cy") == 1
    np.testing.assert_array_equal(found.embedding[found.names.index("Cy")], drawn.vector(drawn.CY))
    assert found.notes == (f"{both}: 2 faces, the largest is used: 100,60,60,90; use --all-faces for every face",)
    every = galleries.open_gallery(folder, recipe, "s.zarr", all_faces=True)
    assert every.names.count("Cy") == 2
    assert every.notes == ()
    assert every.sha256 != found.sha256


def test_what_cannot_be_used_is_said_and_left_out(folder: Path, recipe: Recipe) -> None:
    (folder / "Ann" / "broken.jpg").write_bytes(b"no picture")
    (folder / "Ann" / "empty.png").touch()
    (folder / "Ann" / "other.webp").write_bytes(b"?")
    nobody = drawn.write(folder / "nobody.png")
    found = galleries.open_gallery(folder, recipe, "s.zarr")
    assert len(found) == 3
    assert found.notes == (
        f"{folder}: 1 pictures that are not JPEG or PNG are left out: other.webp",
        f"{folder}/Ann/broken.jpg is not a picture that OpenCV can read; left out",
        f"{folder}/Ann/empty.png is not a picture that OpenCV can read; left out",
        f"{nobody}: no face found; left out",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "there is no gallery at .*people; name a folder"),
        (lambda folder: folder.mkdir(), r"the gallery .*people holds no \.jpg, \.jpeg or \.png$"),
        (lambda folder: drawn.write(folder / "a.png"), r"no face was found in any of the 1 pictures .*a\.png: no face"),
        (
            lambda folder: (folder.mkdir(), (folder / "a.jpg").write_bytes(b"x"), (folder / "b.gif").write_bytes(b"x")),
            "no face was found in any of the 1 pictures .* not JPEG or PNG",
        ),
    ],
    ids=["absent", "empty", "no faces", "unreadable"],
)
def test_a_gallery_of_nothing_is_refused(make: object, message: str, tmp_path: Path, recipe: Recipe) -> None:
    make(tmp_path / "people")  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        galleries.open_gallery(tmp_path / "people", recipe, "s.zarr")


def test_pictures_are_embedded_once_by_their_content(folder: Path, recipe: Recipe, cache: Path) -> None:
    def embedded() -> int:
        before = drawn.EmbedDrawn.ran
        galleries.open_gallery(folder, recipe, "s.zarr")
        return drawn.EmbedDrawn.ran - before

    assert embedded() == 1
    assert embedded() == 0
    (folder / "Bob.png").rename(folder / "Rob.png")
    assert embedded() == 0
    drawn.write(folder / "Cy.png", (drawn.CY, SMALL))
    assert embedded() == 1
    kept = next(cache.rglob("*.npz"))
    kept.write_bytes(kept.read_bytes()[:-40])  # as a full disk leaves it
    assert embedded() == 1
    assert embedded() == 0


def test_its_hash_is_that_of_names_and_content(folder: Path, recipe: Recipe) -> None:
    before = galleries.gallery_sha256(folder)
    assert galleries.open_gallery(folder, recipe, "s.zarr").sha256 == before
    (folder / "Bob.png").rename(folder / "Rob.png")
    renamed = galleries.gallery_sha256(folder)
    drawn.write(folder / "Rob.png", (drawn.BOB, SMALL))
    assert len({before, renamed, galleries.gallery_sha256(folder)}) == 3
    with pytest.raises(InputError, match="there is no gallery at"):
        galleries.gallery_sha256(folder / "nowhere")


def test_a_saved_gallery_is_the_same(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    made = galleries.open_gallery(folder, recipe, "s.zarr")
    galleries.save(made, tmp_path / "g.npz")
    read = galleries.open_gallery(tmp_path / "g.npz", recipe, "s.zarr")
    assert (read.names, read.pictures, read.keys, read.sha256) == (made.names, made.pictures, made.keys, made.sha256)
    np.testing.assert_array_equal(read.embedding, made.embedding)
    np.testing.assert_array_equal(read.box, made.box)
    assert galleries.gallery_sha256(tmp_path / "g.npz") == galleries.gallery_sha256(folder)
    with pytest.raises(InputError, match="holds one face of each picture"):
        galleries.open_gallery(tmp_path / "g.npz", recipe, "s.zarr", all_faces=True)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            drawn.document("Facenet"),
            r"embedded with Dlib \(align native\), the faces of b\.zarr with Facenet \(align native\)",
        ),
        (
            drawn.document("Dlib", "deepface"),
            r"with Dlib \(align native\), the faces of b\.zarr with Dlib \(align deepface\)",
        ),
        (drawn.document("Dlib", "two_views"), r"the faces of b\.zarr with Dlib \(align two_views\); embed its"),
    ],
    ids=["model", "align", "two_views"],
)
def test_another_models_gallery_is_refused_with_both_names(
    other: dict[str, object], message: str, folder: Path, recipe: Recipe, tmp_path: Path
) -> None:
    galleries.save(galleries.open_gallery(folder, recipe, "a.zarr"), tmp_path / "g.npz")
    with pytest.raises(InputError, match=message):
        galleries.open_gallery(tmp_path / "g.npz", Recipe.of_store({"workflow": other}, "b.zarr"), "b.zarr")


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def _other_arrays(path: Path) -> None:
    np.savez(path, a=np.zeros(3))


def _other_format(path: Path) -> None:
    with np.load(path) as stored:
        facts = {**json.loads(stored["facts"].tobytes()), "format": 9}
        arrays = {name: stored[name] for name in ("box", "embedding")}
    np.savez(path, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)


def _short(path: Path) -> None:
    with np.load(path) as stored:
        arrays = {**stored, "embedding": stored["embedding"][:1]}
    np.savez(path, **arrays)


def _objects(path: Path) -> None:
    np.savez(path, facts=np.array([{"format": 1}], object), box=np.zeros((1, 4)), embedding=np.zeros((1, 4)))


@pytest.mark.parametrize(
    "damage", [_truncated, _flipped, _other_arrays, _other_format, _short, _objects, lambda path: path.write_text("x")]
)
def test_a_damaged_file_is_refused(damage: object, folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    galleries.save(galleries.open_gallery(folder, recipe, "s.zarr"), tmp_path / "g.npz")
    damage(tmp_path / "g.npz")  # type: ignore[operator]
    with pytest.raises(InputError, match=r"g\.npz is not a gallery that --save-gallery wrote, or is damaged"):
        galleries.load(tmp_path / "g.npz")


def test_a_picture_or_a_text_is_not_a_gallery(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    picture = next(folder.rglob("*.jpg"))
    with pytest.raises(InputError, match="is a picture; name a folder of pictures"):
        galleries.open_gallery(picture, recipe, "s.zarr")
    (tmp_path / "people.txt").write_text("Ann")
    with pytest.raises(InputError, match=r"people\.txt is not a gallery .* \(it is not an \.npz file\)"):
        galleries.gallery_sha256(tmp_path / "people.txt")


def test_a_file_that_unpacks_to_more_than_memory(
    folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    galleries.save(galleries.open_gallery(folder, recipe, "s.zarr"), tmp_path / "g.npz")
    monkeypatch.setattr(galleries, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(InputError, match=r"damaged \(it unpacks to \d+ kB, the limit is 1 kB\)"):
        galleries.load(tmp_path / "g.npz")


def test_a_file_that_cannot_be_written(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    made = galleries.open_gallery(folder, recipe, "s.zarr")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the gallery .*file/g\.npz cannot be written: "):
        galleries.save(made, tmp_path / "file" / "g.npz")


def test_pictures_are_no_track(recipe: Recipe) -> None:
    """A store may hold one vector for each track: a gallery's faces are embedded one by one, and may be the same."""
    stages = {"detect": {"use": "detect", "after": []}, "embed": {"use": "embed", "after": ["detect"], "model": "Dlib"}}
    tracks = {**stages, "embed": {**stages["embed"], "per": "track", "best": 5}}
    recipes = [Recipe.of_store({"workflow": {"stages": one}}, "s.zarr") for one in (stages, tracks)]
    assert recipes[0].key == recipes[1].key
    assert recipes[1].workflow.node("embed").stage.options.per == "face"


def test_a_store_that_embeds_nothing() -> None:
    stages = {"detect": drawn.document()["stages"]["detect"]}
    with pytest.raises(StoreError, match=r"s\.zarr was made without a stage that embeds faces \(its stages: detect\)"):
        Recipe.of_store({"workflow": {"stages": stages}}, "s.zarr")
    with pytest.raises(StoreError, match=r"its stages: none"):
        Recipe.of_store({}, "s.zarr")
    stages["embed"] = {"use": "not_installed:Embed", "after": ["detect"]}
    with pytest.raises(StoreError, match=r"the workflow faces into it first; .*cannot import 'not_installed'"):
        Recipe.of_store({"workflow": {"stages": stages}}, "s.zarr")


def test_a_store_names_no_file_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lies_about.py").write_text("raise SystemExit('run')\n")
    monkeypatch.chdir(tmp_path)
    stages = {"embed": {"use": "lies_about:Embed", "after": []}}
    with pytest.raises(StoreError, match="cannot import 'lies_about'"):
        Recipe.of_store({"workflow": {"stages": stages}}, "s.zarr")


def test_a_stage_that_is_not_here_does_not_matter(recipe: Recipe) -> None:
    document = drawn.document()
    document["stages"] = {"mine": {"use": "not_installed:Stage", "after": []}, **document["stages"]}
    assert Recipe.of_store({"workflow": document}, "s.zarr").key == recipe.key
