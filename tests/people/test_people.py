"""`reelgraph people`: ids that stay over reruns, new stores, names, merges and splits."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.errors import StoreError, UsageError
from pipeline.faces.people.gather import Gathered, GatherOptions, gather
from pipeline.faces.people.labels import labels
from pipeline.faces.people.registry import Registry
from pipeline.faces.views.people import people_of
from pipeline.store.compact import add_arrays
from pipeline.store.run import RunStore
from tests.made_stores import faces_of, make_store, people, specs

LOOKS = people(8, 400, seed=11)
SETTINGS = GatherOptions(thumbnails=False)


def clip(shots: Sequence[Sequence[int]], frames_each: int = 6, start: int = 0) -> dict[str, np.ndarray]:
    """Shots of some frames, in each of which these people are side by side; -1 is a face like nobody's."""
    rng = np.random.default_rng(start)
    n_faces = np.repeat([len(shot) for shot in shots], frames_each)
    faces = [who for shot in shots for _ in range(frames_each) for who in shot]
    look = [LOOKS[who, start + k] if who >= 0 else rng.normal(0, 0.2, 128) for k, who in enumerate(faces)]
    return faces_of(n_faces, np.array(look, np.float32).reshape(-1, 128))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """a: persons 0, 1 together, then 2; b: 2, then 0. Each shot is farther than a track can bridge from its like."""
    return make_store(tmp_path / "one.zarr", {"a": clip([[0, 1], [2]]), "b": clip([[2], [0]], start=50)})


def ids(out: Path, name: str) -> list[int]:
    return pipeline.open(out).input(name).array("person").tolist()


def run(*outs: Path, **options: Any) -> Gathered:
    return gather(outs, options=GatherOptions(thumbnails=False, **options))


def test_people_of_two_inputs(store: Path) -> None:
    found = run(store)
    assert ids(store, "a") == [1, 2] * 6 + [3] * 6
    assert ids(store, "b") == [3] * 6 + [1] * 6
    item = pipeline.open(store).input("a")
    assert item.array("track").tolist() == [0, 1] * 6 + [2] * 6
    attributes = item.arrays["person"].attributes
    assert attributes["registry"] == "../people.json"
    assert attributes["registry_id"] == found.registry.id
    assert json.loads((store.parent / "people.json").read_text())["inputs"]["one.zarr:a"] == {"1": 6, "2": 6, "3": 6}
    assert labels(item).names == {1: "person 1", 2: "person 2", 3: "person 3"}


def test_a_second_run_does_nothing(store: Path) -> None:
    run(store)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    again = run(store)
    assert again.assigned == []
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()} == before


def test_ids_stay_when_other_inputs_and_stores_come(store: Path) -> None:
    run(store)
    other = make_store(store.parent / "two.zarr", {"c": clip([[4], [1], [0, 5]], start=120)})
    found = run(store, other)
    assert found.assigned == ["two.zarr:c"]
    assert ids(other, "c") == [4] * 6 + [2] * 6 + [1, 5] * 6
    assert found.new_people == [4, 5]
    assert ids(store, "a") == [1, 2] * 6 + [3] * 6
    third = make_store(store.parent / "three.zarr", {"d": clip([[5], [2]], start=200)})
    run(third)
    assert ids(third, "d") == [5] * 6 + [3] * 6, "a store alone, by what the registry knows"


def test_changed_tracks_are_taken_again(store: Path) -> None:
    run(store)
    item = pipeline.open(store).input("b")
    with RunStore.open(store) as writer:
        spec = item.arrays["track"]
        add_arrays(writer, "b", [spec], {"track": np.repeat([0, 1, 2], 4).astype(np.int32)}, replace_existing=True)
    assert run(store).assigned == ["one.zarr:b"]


def test_few_faces_are_nobody(tmp_path: Path) -> None:
    n_faces = np.array([1, 1, 2, 1, 1])
    embedding = np.array([LOOKS[0, 0], LOOKS[0, 1], LOOKS[0, 2], LOOKS[3, 0], LOOKS[0, 3], LOOKS[0, 4]])
    out = make_store(tmp_path / "one.zarr", {"a": faces_of(n_faces, embedding)})
    run(out)
    assert ids(out, "a") == [1, 1, 1, -1, 1, 1]
    run(out, again=True, min_faces=6)
    assert ids(out, "a") == [-1] * 6
    run(out, again=True, min_faces=1)
    assert ids(out, "a") == [2, 2, 2, 3, 2, 2]


@pytest.mark.parametrize(
    ("detector", "frames", "confidence", "found"),
    [
        ("mtcnn", 2, 0.999, [1, 2] * 2),
        ("mtcnn", 1, 0.999, [-1, -1]),
        ("mtcnn", 2, 0.95, [-1] * 4),
        ("mtcnn", 3, 0.95, [1, 2] * 3),
        ("opencv", 2, 0.999, [-1] * 4),
    ],
    ids=["two sure frames", "one detection", "never very sure", "three frames", "a scale not known"],
)
def test_evidence_makes_a_person(
    tmp_path: Path, detector: str, frames: int, confidence: float, found: list[int]
) -> None:
    made = clip([[0, 1]], frames)
    made["confidence"] = np.full(len(made["confidence"]), confidence, np.float32)
    workflow = {"stages": {"detect": {"use": "detect", "model": detector}}}
    out = make_store(tmp_path / "one.zarr", {"a": made}, workflow=workflow)
    run(out)
    assert ids(out, "a") == found
    run(out, again=True, min_faces=4)
    assert ids(out, "a") == [-1] * len(found), "given, the option is obeyed"


def test_names_merges_and_splits_survive(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also with --again, which takes all inputs anew."""
    registry = ["--registry", str(store.parent / "people.json")]
    run(store)
    assert main(["people", "name", "3", "Cy", *registry]) == 0
    before = (store.parent / "people.json").read_bytes()
    assert main(["people", "merge", "1", "2", *registry]) == 2
    assert "side by side in one frame (one.zarr:a at 0:00:00" in capsys.readouterr().err
    assert (store.parent / "people.json").read_bytes() == before
    assert main(["people", "merge", "1", "2", "--force", *registry]) == 0
    assert "person 1 is 2 too; they were seen side by side in one.zarr:a" in capsys.readouterr().out
    assert labels(pipeline.open(store).input("a")).code.tolist() == [1] * 12 + [3] * 6
    for again in (False, True, True):
        run(store, again=again)
        assert set(ids(store, "a")[:12]) == {1}, "one person by somebody's word, though seen side by side"
        assert ids(store, "b") == [3] * 6 + [1] * 6
        assert labels(pipeline.open(store).input("b")).names == {1: "person 1", 3: "Cy"}
    before = (store.parent / "people.json").read_bytes()
    assert main(["people", "split", "3", "b:0", "--dry-run", *registry]) == 0
    shown = capsys.readouterr().out
    assert "person 3 would keep 6 faces: a:2\na new person would get 6 faces: b:0\nnothing was changed" in shown
    assert (store.parent / "people.json").read_bytes() == before
    assert main(["people", "split", "3", "b:0", *registry]) == 0
    assert "person 4: 6 faces" in capsys.readouterr().out
    assert ids(store, "b") == [4] * 6 + [1] * 6
    for again in (False, True, True):
        run(store, again=again)
        assert ids(store, "a") == [1] * 12 + [3] * 6
        assert ids(store, "b") == [4] * 6 + [1] * 6
    assert pipeline.open(store).input("a").arrays["person"].attributes["names"] == {"3": "Cy"}


def test_again_keeps_ids_where_it_can(store: Path) -> None:
    run(store)
    run(store, again=True)
    assert ids(store, "a") == [1, 2] * 6 + [3] * 6
    run(store, again=True, threshold=0.01)
    assert len(set(ids(store, "a") + ids(store, "b"))) == 5
    run(store, again=True)
    found = set(ids(store, "a"))
    assert len(found) == 3
    assert found <= {1, 2, 3}, "who had most of the faces has the id"


def test_a_person_is_split_by_look(store: Path) -> None:
    run(store)
    path = store.parent / "people.json"
    main(["people", "merge", "3", "2", "--registry", str(path)])
    run(store)
    assert main(["people", "split", "3", "--registry", str(path), "--json"]) == 0
    assert ids(store, "a") == [1, 4] * 6 + [3] * 6
    assert Registry.load(path).apart == {(3, 4)}
    more = make_store(store.parent / "two.zarr", {"c": clip([[1], [2]], start=150)})
    run(more)
    assert ids(more, "c") == [4] * 6 + [3] * 6


def test_people_go_by_their_names_too(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(store)
    registry = ["--registry", str(store.parent / "people.json")]
    assert main(["people", "name", "1", "Ann", *registry]) == 0
    assert main(["people", "name", "ann", "Anna", *registry]) == 0
    assert Registry.load(store.parent / "people.json").people[1].name == "Anna"
    assert main(["people", "name", "2", "Anna", *registry]) == 0
    capsys.readouterr()
    assert main(["people", "name", "Anna", "Eve", *registry]) == 2
    assert "2 people are called 'Anna': 1, 2; give the id" in capsys.readouterr().err
    assert main(["people", "name", "person 2", "Bo", *registry]) == 0, "as reports and exports call them"
    assert Registry.load(store.parent / "people.json").people[2].name == "Bo"
    assert main(["people", "merge", "1", "2", "--force", *registry]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["split", "1", "a:2"], r"track a:2 is not one of person 1; theirs are a:0, b:1"),
        (["split", "2"], "person 2 has 1 track, too few for 2 parts"),
        (["split", "1", "a:0", "b:1"], "these are all tracks of person 1"),
        (["split", "1", "a"], "'a' is not a track; write INPUT:TRACK"),
        (["split"], "people split takes an id"),
        (["merge", "1"], "at least two ids"),
        (["merge", "1", "9"], "no person 9"),
        (["name", "1"], "takes an id and a name"),
        (["name", "Ann", "Bo"], "'Ann' is neither an id nor a person's name"),
        (["merge", "", "1"], "'' is neither an id nor a person's name"),
        (["name", "1", "2"], "the name '2' would be read as an id"),
        (["name", "1", " Person 2"], "the name ' Person 2' would be read as an id"),
        (["list", "x"], "people list takes no 'x'"),
    ],
)
def test_mistakes_are_one_line(store: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(store)
    before = (store.parent / "people.json").read_text()
    capsys.readouterr()
    assert main(["people", *words, "--registry", str(store.parent / "people.json")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message.replace(r"\.", ".") in lines[0]
    assert (store.parent / "people.json").read_text() == before


def test_the_registry_is_found_from_here(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(store.parent.parent)
    assert main(["people", "list"]) == 2
    assert "neither people.json nor runs/people.json" in capsys.readouterr().err
    run(store)
    monkeypatch.chdir(store.parent)
    assert main(["people", "name", "2", "Bea", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "Bea"
    assert main(["people", "list", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["people"]] == [None, "Bea", None]
    assert main(["people", "list"]) == 0
    assert "Bea" in capsys.readouterr().out


def test_stores_stay_with_their_registry(store: Path, tmp_path: Path) -> None:
    """Without --registry a second run must not begin another one, beside the first."""
    cast = tmp_path / "more" / "cast.json"
    gather([store], cast, SETTINGS)
    again = run(store)
    assert (again.registry.path, again.assigned) == (cast, [])
    assert again.notes == [f"these stores use the registry {cast}"]
    assert not (tmp_path / "people.json").exists()
    other = make_store(tmp_path / "two.zarr", {"c": clip([[1]], start=90)})
    run(other)
    assert (tmp_path / "people.json").exists()
    with pytest.raises(UsageError, match=r"use 2 registries \(.*cast\.json, .*people\.json\); choose one"):
        run(store, other)
    (replaced,) = gather([store, other], cast, SETTINGS).notes
    assert replaced.startswith(f"{other}, c: the people of {tmp_path / 'people.json'} are replaced")
    assert ids(other, "c") == [2] * 6
    cast.unlink()
    assert run(store).registry.path == tmp_path / "people.json", "a registry that is away is made anew"
    (tmp_path / "people.json").unlink()
    note = f"its people are those of an earlier registry at {tmp_path / 'people.json'}; the one there now replaces them"
    assert [text.split(": ", 1)[1] for text in run(store).notes] == [note] * len(pipeline.open(store).inputs)


def test_half_done_and_empty_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = make_store(tmp_path / "half.zarr", {"h": clip([[0]], 130)}, done_chunks=1)
    whole = make_store(tmp_path / "whole.zarr", {"w": clip([[1]]), "none": clip([[]])})
    with pytest.raises(UsageError, match=r"no complete input.*64 of 130 frames are done"):
        run(half)
    assert not (tmp_path / "people.json").exists()
    found = run(half, whole)
    assert found.notes[0].startswith(f"{half}, h: 64 of 130 frames are done")
    assert ids(whole, "w") == [1] * 6
    assert ids(whole, "none") == []
    with pytest.raises(StoreError, match="there is no store"):
        run(tmp_path / "nowhere" / "away.zarr")
    assert not (tmp_path / "nowhere").exists()


def test_two_models_are_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(store)
    embedding = specs()[-1]
    foreign = {**embedding.attributes, "model": "ArcFace", "thresholds": {"euclidean_l2": 1.1}}
    monkeypatch.setitem(embedding.attributes, "model", "ArcFace")
    monkeypatch.setattr(
        "tests.made_stores.specs",
        lambda d: [*specs(d)[:-1], type(embedding)("embedding", embedding.dims, "float32", (d,), foreign)],
    )
    other = make_store(store.parent / "arc.zarr", {"x": clip([[0]])})
    with pytest.raises(StoreError, match=r"'x' of .*arc.zarr has embeddings of ArcFace .* of Dlib"):
        run(store, other)
    with pytest.raises(StoreError, match=r"is of Dlib .* ArcFace"):
        run(other)


def test_what_is_advised_changes_the_registry_of_the_stores(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another registry lies here, which a command without --registry would take."""
    here = store.parent.parent / "here"
    here.mkdir()
    other = make_store(here / "other.zarr", {"c": clip([[1]], start=90)})
    run(other)
    monkeypatch.chdir(here)
    assert main(["people", "name", "1", "Ann"]) == 0
    capsys.readouterr()
    assert main(["people", str(store), "--no-thumbnails"]) == 0
    advised = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("give a name: "))
    assert main(shlex.split(advised.removeprefix("give a name: reelgraph "))) == 0
    assert labels(pipeline.open(store).input("a")).names[1] == "NAME"
    assert labels(pipeline.open(other).input("c")).names == {1: "Ann"}
    capsys.readouterr()
    assert main(["people", "name", "2", "NAME", "--registry", str(store.parent / "people.json")]) == 0
    assert f"people merge 2 1 --registry {store.parent / 'people.json'}" in capsys.readouterr().out
    assert main(["people", "name", "1", "Bea"]) == 0
    assert "person 1 is Bea; the name before was Ann" in capsys.readouterr().out
    assert main(["people", "other.zarr", "--no-thumbnails", "--again"]) == 0
    assert "--registry" not in capsys.readouterr().out, "found from here"


def test_stores_in_several_folders(store: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = make_store(tmp_path / "elsewhere" / "two.zarr", {"c": clip([[1]], start=90)})
    found = run(store, other)
    assert found.notes[0] == f"the stores lie in 2 folders; the registry is {tmp_path / 'people.json'}"
    assert pipeline.open(other).input("c").arrays["person"].attributes["registry"] == "../../people.json"
    assert labels(pipeline.open(other).input("c")).names == {2: "person 2"}


def test_what_is_shown(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["people", str(store), "--json", "--no-thumbnails"]) == 0
    values = json.loads(capsys.readouterr().out)
    first = values["people"][0]
    assert {one["id"] for one in values["people"]} == {1, 2, 3}
    assert (first["faces"], first["tracks"], first["inputs"]) == (12, 2, ["a", "b"])
    shown = first["appearances"]
    assert [one["input"] for one in shown] == ["a", "b"]
    assert shown[0]["start_seconds"] == 0
    assert shown[0]["stop_seconds"] == pytest.approx(1.2)
    assert first["screen_seconds"] == pytest.approx(2.4)
    assert first["best"]["box"] == [100, 80, 60, 80]
    assert main(["people", str(store), "--no-thumbnails"]) == 0
    out = capsys.readouterr().out
    assert "3 people in 2 inputs, 0 faces of unknown people" in out
    assert "nothing to do" in out


def test_people_who_look_alike_are_named(tmp_path: Path) -> None:
    """Two that the threshold just keeps apart: for somebody to look at; said to be two, they are not named again."""
    near = LOOKS[0, 40:80] + np.float32(0.44 / np.sqrt(128))
    embedding = np.concatenate([LOOKS[0, :6], near[:6], LOOKS[1, :6]])
    out = make_store(tmp_path / "one.zarr", {"a": faces_of(np.ones(18, int), embedding)})
    found = run(out)
    assert [pair[:2] for pair in found.similar] == [(1, 2)]
    registry = Registry.load(tmp_path / "people.json")
    registry.apart.add((1, 2))
    registry.save()
    assert run(out, again=True).similar == []


def test_screen_time_of_everybody(store: Path) -> None:
    found = run(store)
    shown = people_of(found.inputs, found.registry)
    assert [one.id for one in shown] == [1, 3, 2]
    assert [len(one.appearances) for one in shown] == [2, 2, 1]
