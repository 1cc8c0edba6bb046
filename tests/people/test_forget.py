"""`reelgraph forget`: what goes, what stays, and the proof."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.errors import StoreError, StoreLockedError, UsageError
from pipeline.faces.people.forget import forget, search
from pipeline.faces.people.gather import GatherOptions, gather
from pipeline.faces.people.receipt import lines, prove
from pipeline.faces.people.registry import Exemplar, Person, Pin, Registry, edit
from pipeline.faces.people.sameness import EQUAL_DISTANCE, Sameness
from pipeline.faces.stages.detect import Detect
from pipeline.faces.stages.embed import Embed
from pipeline.faces.views.annotate import Wanted, annotate
from pipeline.store.compact import add_arrays
from pipeline.store.run import RunStore
from pipeline.store.schema import Array
from tests.made_stores import faces_of, make_store, people
from tests.views.films import still, store_of, write_film

N_FRAMES = 90
ANN, BOB, UNKNOWN = 3, 4, -1
NAMES = {"3": "Ann", "4": "Bob"}
CROWD = people(3, N_FRAMES)
"""float32 (3, 90, 128): Ann, Bob and somebody who was not told apart; one face each in every frame."""


def crowd() -> dict[str, np.ndarray]:
    """Faces of an input, by frame, then person."""
    return faces_of(np.full(N_FRAMES, 3), CROWD.transpose(1, 0, 2).reshape(-1, 128))


def who() -> np.ndarray:
    return np.tile(np.array([ANN, BOB, UNKNOWN], np.int32), N_FRAMES)


PERSON = {"registry": "../people.json", "registry_id": "uuid-1", "names": NAMES}


def tell(out: Path, name: str, person: np.ndarray | None, **attributes: Any) -> None:
    """Add what `reelgraph people` writes."""
    with RunStore.open(out) as store:
        specs, arrays = [], {}
        if person is not None:
            specs = [
                Array("person", ("face",), "int32", (), {**PERSON, **attributes}),
                Array("thumbnail", ("shot", "y", "x", "rgb"), "uint8", (96, 96, 3)),
                Array("thumbnail_face", ("shot",), "int64"),
            ]
            shots = np.array([0, 1, 6, 7, 268], np.int64)
            pictures = np.random.default_rng(0).integers(0, 256, (5, 96, 96, 3), np.uint8)
            arrays = {"person": person, "thumbnail": pictures, "thumbnail_face": shots}
        add_arrays(store, name, specs, arrays)


def registry_of(folder: Path) -> Registry:
    """Ann, Bob and somebody without a name; 7 was merged into Ann, 1 was forgotten long ago."""
    exemplars = [Exemplar(CROWD[0, 0], 0.1, 5.0, 0.1)]
    known = {ANN: Person("Ann", True, exemplars), BOB: Person("Bob"), 9: Person()}
    pins = [Pin("films.zarr:clip", "clip", 5, (1, 2, 3, 4), ANN)]
    return Registry(
        folder / "people.json", "uuid-1", "Dlib", "native", known, {7: ANN}, [1], {(ANN, BOB)}, pins,
        {"films.zarr:clip": {ANN: 90, BOB: 90}}, 10,
    )  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_store(tmp_path_factory.mktemp("template") / "films.zarr", {"clip": crowd()})
    tell(made, "clip", who())
    return made


@pytest.fixture
def out(template: Path, tmp_path: Path) -> Path:
    """One input in which Ann, Bob and somebody else are in every frame."""
    registry_of(tmp_path).save()
    return Path(shutil.copytree(template, tmp_path / "films.zarr"))


def arrays_of(out: Path, name: str = "clip") -> dict[str, np.ndarray]:
    item = pipeline.open(out).input(name)
    return item.read(list(item.arrays))


def test_all_rows_of_the_person_go_and_no_others(out: Path) -> None:
    before = arrays_of(out)
    searched, done = forget([out], "Ann")
    after = arrays_of(out)
    stays = before["person"] != ANN
    for name in ("box", "landmarks", "confidence", "embedding", "person", "face_frame"):
        np.testing.assert_array_equal(after[name], before[name][stays], err_msg=name)
    assert after["n_faces"].tolist() == [2] * N_FRAMES
    np.testing.assert_array_equal(after["frame"], before["frame"])
    assert after["thumbnail_face"].tolist() == [0, 4, 178]
    np.testing.assert_array_equal(after["thumbnail"], before["thumbnail"][[1, 3, 4]])
    assert (searched.faces, done[out, "clip"].frames) == (N_FRAMES, N_FRAMES)
    names = pipeline.open(out).input("clip").arrays["person"].attributes["names"]
    assert names == {"4": "Bob"}


def test_nothing_of_the_person_is_left_on_disk(out: Path) -> None:
    """No file of the store holds the name, nor was any file of an array that had rows left as it was."""
    ends = {path: path.stat().st_ino for path in (out / "clip" / "embedding").rglob("*") if path.is_file()}
    assert ends
    forget([out], "Ann")
    assert not [path for path in out.rglob("*") if path.is_file() and b"Ann" in path.read_bytes()]
    assert not (out / "clip" / "aside").exists()
    assert not (out / "clip" / "chunks").exists()
    assert all(not path.exists() or path.stat().st_ino != inode for path, inode in ends.items())


def test_the_registry_keeps_a_tombstone(out: Path) -> None:
    forget([out], "Ann")
    left = Registry.load(out.parent / "people.json")
    assert left.people.keys() == {BOB, 9}
    assert (left.merged, left.pins, left.apart) == ({}, [], set())
    assert left.forgotten == [1, ANN, 7], "ids are never given again, those that were merged neither"
    assert left.inputs == {"films.zarr:clip": {BOB: 90}}
    assert "exemplars" in (text := left.path.read_text())
    assert "Ann" not in text


def test_an_outside_tool_reads_what_is_left(out: Path) -> None:
    xarray = pytest.importorskip("xarray")
    forget([out], "Ann")
    with xarray.open_zarr(out, group="clip") as dataset:
        assert dataset.sizes["face"] == 2 * N_FRAMES
        assert dataset["embedding"].shape == (2 * N_FRAMES, 128)
        assert int(dataset["n_faces"].sum()) == 2 * N_FRAMES


@pytest.mark.parametrize(
    ("person", "expected"),
    [("3", ANN), ("Ann", ANN), ("ann", ANN), ("7", ANN), ("Bob", BOB)],
    ids=["id", "name", "whatever case", "merged id", "other"],
)
def test_who(out: Path, person: str, expected: int) -> None:
    found = search([out], person)
    assert found.who.id == expected
    assert found.faces == N_FRAMES


def test_rows_under_an_id_that_was_merged_go_as_well(out: Path) -> None:
    with RunStore.open(out) as store:
        rows = np.where(np.arange(3 * N_FRAMES) < 60, np.where(who() == ANN, 7, who()), who()).astype(np.int32)
        add_arrays(
            store, "clip", [Array("person", ("face",), "int32", (), PERSON)], {"person": rows}, replace_existing=True
        )
    searched, _ = forget([out], "Ann")
    assert searched.who.ids == (3, 7)
    assert prove([out], searched).holds
    assert set(arrays_of(out)["person"].tolist()) == {BOB, UNKNOWN}


@pytest.mark.parametrize(
    ("person", "message"),
    [
        ("Anne", r"unknown person 'Anne'; did you mean 'Ann'\?"),
        ("12", r"there is no person 12 in .*people\.json; `reelgraph people` lists them"),
    ],
)
def test_nobody_of_that_name(out: Path, person: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        search([out], person)


def test_no_store_of_theirs_is_left_behind(out: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other.zarr", {"clip": faces_of(np.full(3, 1), people(1, 3)[0])})
    with pytest.raises(UsageError, match=r"person 3 \(Ann\) is in .*films\.zarr \(90 faces\) too; name every store"):
        forget([other], "Ann")
    assert Registry.load(tmp_path / "people.json").people[ANN].name == "Ann"
    forget([other, out], "Ann")
    assert ANN not in Registry.load(tmp_path / "people.json").people


def test_a_store_that_is_gone_holds_nothing(out: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other.zarr", {"clip": faces_of(np.full(3, 1), people(1, 3)[0])})
    shutil.rmtree(out)
    forget([other], "Ann", tmp_path / "people.json")
    assert ANN not in Registry.load(tmp_path / "people.json").people


def test_two_of_one_name_are_asked_apart(out: Path) -> None:
    registry = registry_of(out.parent)
    registry.people[BOB].name = "Ann"
    registry.save()
    with pytest.raises(UsageError, match=r"2 people are called 'Ann': 3, 4; give the id"):
        search([out], "Ann")


def test_without_its_registry_the_copied_names_will_do(out: Path) -> None:
    (out.parent / "people.json").unlink()
    searched, _ = forget([out], "Ann")
    assert searched.who.registry is None
    assert prove([out], searched).holds
    assert BOB in arrays_of(out)["person"]


def test_stores_of_two_registries_are_not_mixed(out: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other.zarr", {"clip": crowd()})
    tell(other, "clip", who(), registry_id="uuid-2")
    with pytest.raises(StoreError, match=r"has ids of the registry uuid-2, but the registry .* of uuid-1"):
        search([out, other], "3")


def test_the_very_same_embedding_goes_whoever_it_is_said_to_be(tmp_path: Path) -> None:
    """A second store of the same film, in which one of Ann's faces is nobody's and one is Bob's."""
    out, other = (make_store(tmp_path / f"{name}.zarr", {"clip": crowd()}) for name in ("a", "b"))
    registry_of(tmp_path).save()
    rows = who()
    rows[[0, 3]] = UNKNOWN, BOB
    tell(out, "clip", who())
    tell(other, "clip", rows)
    searched, _ = forget([other, out], "Ann")
    found = {one.store.name: (len(one.rows), one.same) for one in searched.found}
    assert found == {"a.zarr": (N_FRAMES, 0), "b.zarr": (N_FRAMES, 2)}
    assert prove([out, other], searched).holds


def test_a_gallerys_name_where_people_were_not_told_apart(tmp_path: Path) -> None:
    out = make_store(tmp_path / "films.zarr", {"clip": crowd()})
    identity = np.where(who() == ANN, np.arange(3 * N_FRAMES) % 2, -1).astype(np.int32)
    about = {"names": ["Ann", "Ann", "Zoe"], "pictures": ["Ann/1.jpg", "Ann/2.jpg", "Zoe/1.jpg"], "gallery": "/g/faces"}
    with RunStore.open(out) as store:
        add_arrays(store, "clip", [Array("identity", ("face",), "int32", (), about)], {"identity": identity})
    searched, _ = forget([out], "Ann")
    assert (searched.who.id, searched.faces, searched.galleries) == (None, N_FRAMES, ("/g/faces",))
    assert prove([out], searched).holds
    assert set(arrays_of(out)["identity"].tolist()) == {-1}


def test_a_gallerys_name_of_somebody_whom_the_registry_has_under_no_name(out: Path) -> None:
    """The gallery's Zoe is the registry's Bob, half of the time: these go, for Zoe they were called."""
    identity = np.where((who() == BOB) & (np.arange(3 * N_FRAMES) < 3 * 45), 0, -1).astype(np.int32)
    with RunStore.open(out) as store:
        spec = Array("identity", ("face",), "int32", (), {"names": ["Zoe"], "gallery": "/g"})
        add_arrays(store, "clip", [spec], {"identity": identity})
    searched, _ = forget([out, out], "zoe")
    assert (searched.who.name, searched.faces) == ("Zoe", 45)
    assert prove([out], searched).holds
    assert "left and alike: 45 faces of person 4 in clip in" in "\n".join(lines(searched, None, None))
    assert BOB in Registry.load(out.parent / "people.json").people


def test_a_gallery_that_knows_the_person_by_another_name_is_named(out: Path) -> None:
    """Ann goes. The gallery's pictures of Zoe stay: the receipt says so, for faces of Ann had that name."""
    identity = np.where(who() == ANN, 1, np.where(who() == BOB, 0, -1)).astype(np.int32)
    with RunStore.open(out) as store:
        spec = Array("identity", ("face",), "int32", (), {"names": ["Bob", "Zoe"], "gallery": "/g"})
        add_arrays(store, "clip", [spec], {"identity": identity})
    searched, _ = forget([out], "Ann")
    assert (searched.galleries, searched.other_names) == ((), (("/g", "Zoe"),))
    shown = lines(searched, None, None)
    assert "  pictures of Zoe in the gallery /g: find gave that name to faces of person 3 (Ann)" in shown


def test_the_array_person_is_believed_before_the_gallery(out: Path) -> None:
    """Bob, whom the gallery takes for Ann, stays; nobody, whom it takes for Ann, goes."""
    identity = np.where(np.arange(3 * N_FRAMES) < 6, 0, -1).astype(np.int32)
    with RunStore.open(out) as store:
        spec = Array("identity", ("face",), "int32", (), {"names": ["Ann"], "gallery": "/g"})
        add_arrays(store, "clip", [spec], {"identity": identity})
    searched, _ = forget([out], "Ann")
    assert searched.faces == N_FRAMES + 2
    assert (arrays_of(out)["person"] == BOB).sum() == N_FRAMES


def test_a_gallerys_name_counts_for_people_without_one(tmp_path: Path) -> None:
    """Reports show person 9 as Ann, since the gallery says so: these faces go too."""
    registry_of(tmp_path).save()
    out = make_store(tmp_path / "films.zarr", {"clip": crowd()})
    registry = Registry.load(tmp_path / "people.json")
    registry.merged[8] = BOB
    registry.save()
    rows = who()
    rows[:6][rows[:6] == UNKNOWN] = (9, 8)
    tell(out, "clip", rows)
    with RunStore.open(out) as store:
        spec = Array("identity", ("face",), "int32", (), {"names": ["Ann"], "gallery": "/g"})
        add_arrays(store, "clip", [spec], {"identity": np.where(np.isin(rows, (8, 9)), 0, -1).astype(np.int32)})
    searched, _ = forget([out], "Ann")
    assert (searched.faces, prove([out], searched).holds) == (N_FRAMES + 1, True)
    assert set(arrays_of(out)["person"].tolist()) == {BOB, 8, UNKNOWN}, "8 is Bob, as the user said"


def test_what_stays_and_is_alike_is_counted(tmp_path: Path) -> None:
    """Half of Ann was told apart, half is nobody's; another input is half done, a third was never told apart."""
    out = make_store(tmp_path / "films.zarr", {"clip": crowd(), "untold": crowd_again(2)}, chunk_frames=40)
    rows = who()
    rows[3 * 45 :][rows[3 * 45 :] == ANN] = UNKNOWN
    tell(out, "clip", rows)
    half = make_store(tmp_path / "half.zarr", {"film": crowd_again(1)}, chunk_frames=40, done_chunks=1)
    searched = search([out, half], "3")
    shown = "\n".join(lines(searched, None, None))
    assert f"left and alike: 45 faces without a person in clip in {out}; look at them" in shown
    assert f"left, for film in {half} is not complete: 120 faces, 40 of them alike; run it to its end, then" in shown
    assert f"left, for untold in {out} is without the array person: 270 faces, 90 of them alike; run `reel" in shown
    alike = {one.input: one for one in searched.alike}
    assert (alike["clip"].state, alike["clip"].alike, alike["clip"].people) == ("people", 45, {UNKNOWN: 45})
    assert (alike["untold"].state, alike["untold"].alike, alike["untold"].faces) == ("not told apart", 90, 270)
    assert (alike["film"].state, alike["film"].alike, alike["film"].faces) == ("incomplete", 40, 120)


def crowd_again(seed: int) -> dict[str, np.ndarray]:
    """The same people on other frames."""
    noise = np.random.default_rng(seed).normal(0, 0.005, CROWD.shape).astype(np.float32)
    return faces_of(np.full(N_FRAMES, 3), (CROWD + noise).transpose(1, 0, 2).reshape(-1, 128))


def test_a_half_done_copy_of_the_film_breaks_the_proof(out: Path, tmp_path: Path) -> None:
    half = make_store(tmp_path / "half.zarr", {"film": crowd()}, chunk_frames=40, done_chunks=1)
    searched, _ = forget([out, half], "Ann")
    proof = prove([out, half], searched)
    assert not proof.holds
    assert "is not complete and has 40 embeddings within 1e-06 of a removed one" in proof.problems[0]


@pytest.mark.parametrize("harm", ["row", "embedding", "name", "count", "debris", "damage", "registry"])
def test_the_proof_finds(out: Path, harm: str) -> None:
    """Each thing that it claims, undone."""
    before = arrays_of(out)
    searched, _ = forget([out], "Ann")
    assert prove([out], searched).holds
    expected = {
        "row": "1 faces of person 3 (Ann) are left", "embedding": "1 embeddings are within 1e-06 of a removed one",
        "name": "still names person 3 (Ann)", "count": "n_faces does not add up", "debris": "old is left over",
        "damage": "is damaged", "registry": "still knows person 3 (Ann)",
    }  # fmt: skip
    after = arrays_of(out)
    changed: dict[str, Any] = {}
    if harm == "row":
        changed["person"] = np.concatenate([[ANN], after["person"][1:]]).astype(np.int32)
    if harm == "name":
        changed["person"] = after["person"]
    if harm == "embedding":
        changed["embedding"] = np.concatenate([before["embedding"][:1] + 1e-8, after["embedding"][1:]])
    if harm == "count":
        changed["n_faces"] = np.full(N_FRAMES, 3, np.int32)
    declared = pipeline.open(out).input("clip").arrays
    with RunStore.open(out) as store:
        for name, values in changed.items():
            attributes = {**declared[name].attributes, **({"names": NAMES} if harm == "name" else {})}
            spec = Array(name, declared[name].dims, declared[name].dtype, declared[name].shape, attributes)
            add_arrays(store, "clip", [spec], {name: values}, replace_existing=True)
    if harm == "debris":
        shutil.copytree(out / "clip" / "box", out / "clip" / "old")
    if harm == "damage":
        file = next(path for path in (out / "clip" / "box").rglob("*") if path.is_file() and path.name != "zarr.json")
        file.write_bytes(file.read_bytes()[:-100])
    if harm == "registry":
        registry_of(out.parent).save()
    proof = prove([out], searched)
    assert not proof.holds
    assert expected[harm] in " ".join(proof.problems)


def test_a_blurred_film_says_that_it_shows_the_forgotten(tmp_path: Path) -> None:
    """The store does not know any more where the person is, so that `--blur all` leaves that face as it is."""
    film = write_film(tmp_path / "a.mp4", 50, (64, 48), sounds=())
    who = {name: [np.tile([1, 2], (10, 1))] for name in ("person", "track")}
    out = store_of(tmp_path / "a.zarr", [film], [still(10, (4, 4, 16, 20), (40, 4, 16, 20))], **who)
    blur = Wanted(blur=("all",))
    (before,) = annotate([out], target=tmp_path / "before.mp4", wanted=blur)
    assert not any("forgotten" in note for note in before.notes)
    forget([out], "2")
    (after,) = annotate([out], target=tmp_path / "after.mp4", wanted=blur)
    assert any(note.startswith("10 forgotten faces not blurred: ") for note in after.notes)


def test_forgetting_again_finds_nothing(out: Path) -> None:
    forget([out], "Ann")
    searched, done = forget([out], "3")
    assert (searched.faces, done) == (0, {})
    assert prove([out], searched).holds


def test_an_end_between_stores_and_registry_is_made_good_by_the_same_call(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.faces.people.forget._bury", die)
        with pytest.raises(KeyboardInterrupt):
            forget([out], "Ann")
    assert ANN in Registry.load(out.parent / "people.json").people
    searched, _ = forget([out], "Ann")
    assert prove([out], searched).holds
    assert ANN not in Registry.load(out.parent / "people.json").people


def test_an_input_without_the_person_is_not_rewritten_but_for_the_name(tmp_path: Path) -> None:
    out = make_store(tmp_path / "films.zarr", {"clip": crowd()})
    tell(out, "clip", np.where(who() == ANN, UNKNOWN, who()).astype(np.int32))
    registry_of(tmp_path).save()
    inode = (out / "clip" / "embedding" / "zarr.json").stat().st_ino
    searched, done = forget([out], "Ann")
    assert done[out, "clip"].arrays == ("person",)
    assert (out / "clip" / "embedding" / "zarr.json").stat().st_ino == inode
    assert pipeline.open(out).input("clip").arrays["person"].attributes["names"] == {"4": "Bob"}
    assert prove([out], searched).holds


def test_a_store_that_is_being_written_to_is_left_alone(out: Path) -> None:
    with RunStore.open(out), pytest.raises(StoreLockedError):
        forget([out], "Ann")
    assert (arrays_of(out)["person"] == ANN).sum() == N_FRAMES


def test_a_registry_that_is_being_written_to_is_left_alone(out: Path) -> None:
    with edit(out.parent / "people.json"), pytest.raises(StoreLockedError):
        forget([out], "Ann")
    assert (arrays_of(out)["person"] == ANN).sum() == N_FRAMES


def test_people_told_apart_again_are_those_who_stay(tmp_path: Path) -> None:
    """`reelgraph people`, forget, and `reelgraph people` again: the others keep their ids, and the id is not reused."""
    out = make_store(tmp_path / "films.zarr", {"clip": crowd()})
    options = GatherOptions(thumbnails=False)
    first = gather([out], options=options).registry
    assert len(first.people) == 3
    before = arrays_of(out)["person"]
    gone = int(before[0])
    searched, _ = forget([out], str(gone))
    assert searched.faces == N_FRAMES
    second = gather([out], options=options).registry
    assert second.people.keys() == first.people.keys() - {gone}
    assert second.forgotten == [gone]
    np.testing.assert_array_equal(arrays_of(out)["person"], before[before != gone])


# --- the very same embeddings -----------------------------------------------------------------------------------------


def test_sameness_agrees_with_comparing_all() -> None:
    chance = np.random.default_rng(1)
    ours = chance.normal(0, 0.1, (300, 16)).astype(np.float32)
    other = chance.normal(0, 0.1, (2000, 16)).astype(np.float32)
    other[:50] = ours[:50]
    other[50:200] = ours[50:200] + chance.normal(0, 3e-7, (150, 16)).astype(np.float32)
    other[300] = np.nan
    apart = np.linalg.norm(other.astype(float)[:, None] - ours.astype(float)[None], axis=2).min(axis=1)
    expected = np.nan_to_num(apart, nan=1) <= EQUAL_DISTANCE
    assert 50 < expected.sum() < 200, "some of those near are too far"
    np.testing.assert_array_equal(Sameness(ours, None).same(other), expected)


@pytest.mark.parametrize("vectors", [np.empty((0, 4)), np.full((2, 4), np.nan)], ids=["none", "not a number"])
def test_sameness_with_nothing(vectors: np.ndarray) -> None:
    nothing = Sameness(vectors.astype(np.float32), 0.1)
    block = np.array([[0, 0, 0, 0], [np.nan] * 4], np.float32)
    assert not nothing.same(block).any()
    assert not nothing.alike(block).any()


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_dry_run_changes_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.parent.rglob("*")}
    assert main(["forget", str(out), "--person", "Ann", "--dry-run"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.parent.rglob("*")}
    shown = capsys.readouterr().out
    assert "person 3 (Ann): 90 faces would be removed from 1 input" in shown
    assert "the videos themselves: /films/clip.mp4" in shown


def test_nobody_to_ask(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forget", str(out), "--person", "Ann"]) == 2
    assert (
        "person 3 (Ann): 90 faces would be removed from 1 input; nothing was removed: say --yes"
        in capsys.readouterr().err
    )
    assert ANN in arrays_of(out)["person"]


@pytest.mark.parametrize(("answer", "exit_code"), [("yes\n", 0), ("no\n", 2), ("", 2)])
def test_it_asks(out: Path, monkeypatch: pytest.MonkeyPatch, answer: str, exit_code: int) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr("sys.stdin", Terminal())
    assert main(["forget", str(out), "--person", "Ann"]) == exit_code
    assert (ANN in arrays_of(out)["person"]) == bool(exit_code)


def test_the_receipt(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forget", str(out), "--person", "Ann", "--yes", "--json"]) == 0
    receipt = json.loads(capsys.readouterr().out)
    (one,) = receipt["inputs"]
    assert (one["faces_before"], one["faces_after"], one["thumbnails"], one["frames"]) == (270, 180, 2, 90)
    assert {"embedding", "person", "n_faces", "thumbnail"} <= set(one["arrays"])
    proof = receipt["proof"]
    assert (proof["holds"], proof["inputs"], proof["embeddings"], proof["problems"]) == (True, 1, 180, [])
    assert proof["rows"] > 180 * 6
    assert any("--fresh" in text for text in receipt["remains"])
    assert main(["status", str(out)]) == 0
    assert "  clip: 90 of 90 frames, 180 faces, complete, 90 faces forgotten\n" in capsys.readouterr().out
    assert main(["forget", str(out), "--person", "Bob", "--yes"]) == 0
    assert "proven: 12 arrays of 1 input read again" in capsys.readouterr().out


def test_exit_1_where_it_cannot_be_proven(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = make_store(tmp_path / "half.zarr", {"film": crowd()}, chunk_frames=40, done_chunks=1)
    assert main(["forget", str(out), str(half), "--person", "Ann", "--yes"]) == 1
    assert "NOT PROVEN" in capsys.readouterr().out


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forget", str(tmp_path / "nothing.zarr"), "--person", "Ann", "--yes"]) == 2
    assert "there is no store at" in capsys.readouterr().err
    assert not (tmp_path / "nothing.zarr").exists()


# --- and then ---------------------------------------------------------------------------------------------------------


def test_later_runs_bring_nobody_back_and_add_to_those_who_stay(
    data_dir: Path, workflows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, out = data_dir / "videos" / "derived" / "asl_grid_dev.mp4", tmp_path / "grid.zarr"
    (tmp_path / "faces.yaml").write_text("source: {every: 8}\nstages:\n  detect: {min_face: 30}\n  embed: {}\n")
    pipeline.run(tmp_path / "faces.yaml", clip, out, executor="inline")
    name = "asl_grid_dev"
    middle = arrays_of(out, name)["box"][:, 0]
    column = (middle // 320).astype(np.int32) + 1
    with RunStore.open(out) as store:
        add_arrays(store, name, [Array("person", ("face",), "int32", (), {"names": {"2": "B"}})], {"person": column})
    forget([out], "B")
    kept = int((column != 2).sum())

    def run(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(Detect, "run", run)
    monkeypatch.setattr(Embed, "run", run)
    again = pipeline.run(tmp_path / "faces.yaml", clip, out, executor="inline")
    assert (again.summary.exit_code, again.summary.chunks, len(again.faces())) == (0, 0, kept)
    shutil.copy(workflows / "sharpness.py", tmp_path)
    stages = "  sharp: {use: 'sharpness:Sharpness', after: detect, options: {size: 3}}\n"
    (tmp_path / "sharp.yaml").write_text((tmp_path / "faces.yaml").read_text() + stages)
    added = pipeline.run(tmp_path / "sharp.yaml", clip, out, executor="inline")
    assert added.summary.exit_code == 0, added.summary.failures
    assert added.array(name, "sharpness").shape == (kept,)
    assert set(added.array(name, "person").tolist()) == {1, 3}
