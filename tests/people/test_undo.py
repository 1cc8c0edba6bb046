"""`reelgraph people undo`: the last name, merge or split, whatever came between; never a person who was forgotten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.errors import StoreError
from pipeline.faces.people import undo as undoing
from pipeline.faces.people.labels import labels
from pipeline.faces.people.registry import Registry, edit
from pipeline.faces.views.people import people_of
from pipeline.store.compact import add_arrays
from pipeline.store.run import RunStore
from tests.made_stores import make_store
from tests.people.test_people import clip, ids, run

Undo = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """a: persons 1, 2 together, then 3; b: 3, then 1; c: 4 alone."""
    made = {"a": clip([[0, 1], [2]]), "b": clip([[2], [0]], start=50), "c": clip([[4]], start=100)}
    out = make_store(tmp_path / "one.zarr", made)
    run(out)
    return out


@pytest.fixture
def people(store: Path, capsys: pytest.CaptureFixture[str]) -> Undo:
    """Run `reelgraph people`, and return its first line; its error if it fails with exit code 2."""

    def call(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(["people", *words, "--registry", str(store.parent / "people.json")]) == code
        shown = capsys.readouterr()
        lines = (shown.err if code else shown.out).splitlines()
        assert code == 0 or len(lines) == 1
        return lines[0]

    return call


def content(store: Path) -> dict[str, Any]:
    """Return the registry as it is stored, without what a change leaves on purpose."""
    found: dict[str, Any] = json.loads((store.parent / "people.json").read_text())
    found["pins"].sort(key=str)
    return {name: found[name] for name in found if name not in ("history", "metadata_checksum", "next_id")}


def seen(store: Path) -> dict[str, list[int]]:
    """Return the people of all faces, as views show them."""
    return {name: labels(item).code.tolist() for name, item in pipeline.open(store).inputs.items()}


CHANGES = {
    "name": (["name", "3", "Cy"], "name Cy of person 3 (before: none)"),
    "name with two lines": (["name", "3", "C\ny"], r"name C\ny of person 3 (before: none)"),
    "merge": (["merge", "4", "3"], "merge of person 3 into person 4"),
    "merge of those seen together": (["merge", "1", "2", "--force"], "merge of person 2 into person 1"),
    "merge of three": (["merge", "3", "4", "1", "3"], "merge of person 4 and person 1 into person 3"),
    "split by track": (["split", "3", "b:0"], "split of person 5 from person 3"),
    "split by look": (["split", "1"], "split of person 5 from person 1"),
}


@pytest.mark.parametrize("a_run_between", [False, True])
@pytest.mark.parametrize(("words", "text"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_undone(store: Path, people: Undo, words: list[str], text: str, a_run_between: bool) -> None:
    before, faces, arrays = content(store), seen(store), {name: ids(store, name) for name in "abc"}
    people(*words)
    changed = content(store)
    assert changed != before
    if a_run_between:
        run(store)
    held = (store.parent / "people.json").read_bytes()
    assert people("undo", "--dry-run") == f"would undo: {text}"
    assert (store.parent / "people.json").read_bytes() == held
    assert people("undo") == f"undid: {text}"
    after = content(store)
    assert after.pop("merged") == ({"5": int(words[1])} if words[0] == "split" else {}), "an id leads on for good"
    before.pop("merged")
    assert after == before
    assert {name: ids(store, name) for name in "abc"} == arrays
    assert seen(store) == faces
    assert "nothing to undo" in people("undo", code=2)
    assert not run(store).assigned
    assert seen(store) == faces


def test_many_changes_are_undone_one_by_one(store: Path, people: Undo) -> None:
    changes = [
        ["name", "1", "Ann"], ["name", "Ann", "Anna"], ["name", "4", "Di"], ["merge", "3", "4"], ["merge", "1", "3"],
        ["split", "Anna", "a:2", "c:0"], ["name", "5", "Eve"], ["name", "Eve", ""], ["split", "1", "b:0"],
    ]  # fmt: skip
    texts = [
        "name Ann of person 1 (before: none)", "name Anna of person 1 (before: Ann)",
        "name Di of person 4 (before: none)", "merge of person 4 (Di) into person 3",
        "merge of person 3 (Di) into person 1 (Anna)", "split of person 5 from person 1 (Anna)",
        "name Eve of person 5 (before: none)", "removal of the name of person 5 (Eve)",
        "split of person 6 from person 1 (Anna)",
    ]  # fmt: skip
    states = []
    for k, words in enumerate(changes):
        states.append((content(store), seen(store)))
        people(*words)
        if k % 2:
            run(store)  # some of the merges are written to the arrays, some are not
    for (registry, faces), text in zip(reversed(states), reversed(texts), strict=True):
        assert people("undo") == f"undid: {text}"
        found = content(store)
        assert seen(store) == faces
        assert {**found, "merged": {k: v for k, v in found["merged"].items() if k not in "56"}} == registry
        assert set(found["merged"].values()).isdisjoint(map(int, found["merged"])), "never in two steps"
    assert "nothing to undo: " in people("undo", code=2)
    assert people("name", "6", "Flo") == "person 1 is Flo"
    run(store)
    assert people_of(list(pipeline.open(store).inputs.values()), Registry.load(store.parent / "people.json"))[0].faces


@pytest.mark.parametrize("again", [False, True])
def test_a_merge_is_undone_in_footage_that_came_after_it(store: Path, people: Undo, again: bool) -> None:
    people("merge", "1", "2", "--force")
    more = make_store(store.parent / "two.zarr", {"d": clip([[1], [5], [0]], start=150)})
    run(store, more, again=again)
    assert ids(more, "d") == [1] * 6 + [5] * 6 + [1] * 6
    people("name", "5", "New")
    people("undo")
    assert people("undo") == "undid: merge of person 2 into person 1"
    assert ids(store, "a") == [1, 2] * 6 + [3] * 6
    assert ids(store, "b") == [3] * 6 + [1] * 6
    assert ids(more, "d") == [2] * 6 + [5] * 6 + [1] * 6
    registry = Registry.load(store.parent / "people.json")
    assert registry.inputs["two.zarr:d"] == {1: 6, 2: 6, 5: 6}
    assert set(registry.people) == {1, 2, 3, 4, 5}
    later = make_store(store.parent / "three.zarr", {"e": clip([[0], [1]], start=200)})
    run(later)
    assert ids(later, "e") == [1] * 6 + [2] * 6, "the next footage is told apart again"


def test_a_split_is_undone_in_footage_that_came_after_it(store: Path, people: Undo) -> None:
    people("merge", "3", "2")
    run(store)
    people("split", "3")
    more = make_store(store.parent / "two.zarr", {"d": clip([[1], [2]], start=150)})
    run(store, more)
    assert ids(more, "d") == [5] * 6 + [3] * 6
    people("undo")
    assert ids(more, "d") == [3] * 12
    assert ids(store, "a") == [1, 3] * 6 + [3] * 6
    people("undo")
    assert ids(more, "d") == [2] * 6 + [3] * 6
    assert ids(store, "a") == [1, 2] * 6 + [3] * 6


def test_an_input_with_other_tracks_by_now(store: Path, people: Undo) -> None:
    people("merge", "3", "1")
    with RunStore.open(store) as writer:
        spec = pipeline.open(store).input("b").arrays["track"]
        tracks = np.repeat([1, 0, 2], [3, 3, 6]).astype(np.int32)
        add_arrays(writer, "b", [spec], {"track": tracks}, replace_existing=True)
    assert run(store).assigned == ["one.zarr:b"]
    assert ids(store, "b") == [3] * 12
    people("undo")
    assert ids(store, "b") == [3] * 6 + [1] * 6


def test_people_are_split_right_after_a_merge(store: Path, people: Undo) -> None:
    """The arrays still hold the id of before the merge."""
    people("merge", "3", "2")
    assert people("split", "3", "a:1") == "person 3: 12 faces"
    assert ids(store, "a") == [1, 5] * 6 + [3] * 6
    assert Registry.load(store.parent / "people.json").inputs["one.zarr:a"] == {1: 6, 3: 6, 5: 6}
    people("undo")
    people("undo")
    assert seen(store)["a"] == [1, 2] * 6 + [3] * 6


def test_what_decides_later_runs_is_undone(store: Path, people: Undo) -> None:
    """Pins, pairs that are apart, `decided` and `twice`: with --again nothing of the change is left."""
    before = content(store)
    people("merge", "1", "2", "--force")
    people("split", "3", "b:0")
    people("undo")
    people("undo")
    registry = Registry.load(store.parent / "people.json")
    assert (registry.pins, registry.apart) == ([], set())
    assert not any(one.decided or one.twice for one in registry.people.values())
    run(store, again=True)
    assert seen(store) == {"a": [1, 2] * 6 + [3] * 6, "b": [3] * 6 + [1] * 6, "c": [4] * 6}
    assert content(store)["inputs"] == before["inputs"]


def test_a_name_keeps_what_the_person_has_learnt(store: Path, people: Undo) -> None:
    people("name", "4", "Di")
    more = make_store(store.parent / "two.zarr", {"d": clip([[4]], start=150)})
    run(store, more)
    looks = content(store)["people"]["4"]["exemplars"]
    people("undo")
    assert content(store)["people"]["4"] == {"name": None, "decided": False, "exemplars": looks}
    people("name", "4", "")
    people("undo")
    people("name", "4", "Di")
    people("name", "4", "Di")
    people("undo")
    assert "nothing to undo" in people("undo", code=2), "the same name again is not a change"


@pytest.mark.parametrize("who", ["4", "1"])
def test_no_undo_brings_back_who_was_forgotten(store: Path, people: Undo, who: str) -> None:
    """Nor their look in the record of another's change."""
    people("name", "1", "Ann")
    people("merge", "1", "4")
    people("split", "1", "c:0")
    people("name", "5", "Di")
    assert main(["forget", str(store), "--person", who, "--yes"]) == 0
    text = (store.parent / "people.json").read_text()
    assert "history" not in text
    for words in (["undo"], ["undo", "--dry-run"], ["undo", str(store)]):
        assert "nothing to undo" in people(*words, code=2)
    assert set(Registry.load(store.parent / "people.json").people) == {2, 3, 5}
    people("name", "2", "Bo")
    assert people("undo") == "undid: name Bo of person 2 (before: none)"
    assert Registry.load(store.parent / "people.json").forgotten == [1, 4]


def test_a_kill_of_forget_leaves_nothing_to_undo(store: Path, people: Undo, monkeypatch: pytest.MonkeyPatch) -> None:
    people("merge", "1", "4")
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.faces.people.forget.remove_rows", _killed)
        with pytest.raises(Killed):
            main(["forget", str(store), "--person", "1", "--yes"])
    assert "nothing to undo" in people("undo", code=2)


def test_the_receipt_of_forget_reads_the_history(store: Path, people: Undo, monkeypatch: pytest.MonkeyPatch) -> None:
    people("name", "1", "Ann")
    monkeypatch.setattr("pipeline.faces.people.forget._forget_history", lambda path: None)
    monkeypatch.setattr(Registry, "forget", _forget_but_the_history)
    assert main(["forget", str(store), "--person", "1", "--yes"]) == 1


def _forget_but_the_history(registry: Registry, number: int, forget: Any = Registry.forget) -> list[int]:
    history = registry.history
    gone: list[int] = forget(registry, number)
    registry.history = history
    return gone


class Killed(BaseException):
    """In place of a kill."""


def _killed(*_: Any, **__: Any) -> Any:
    raise Killed


def test_a_kill_of_undo_is_made_good_by_the_next(store: Path, people: Undo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seen(store)
    people("merge", "1", "2", "--force")
    run(store)
    people("split", "3", "b:0")
    for _ in range(2):
        held, faces = content(store), seen(store)
        with monkeypatch.context() as patch:
            patch.setattr(Registry, "save", _killed)
            with pytest.raises(Killed):
                people("undo")
        assert content(store) == held
        assert seen(store) in (faces, {**faces, "b": before["b"]}), "as before the undo, or as after it"
        people("undo")
    assert seen(store) == before


def test_undo_waits_for_no_lock(store: Path, people: Undo) -> None:
    people("merge", "1", "2", "--force")
    more = make_store(store.parent / "two.zarr", {"d": clip([[1], [0]], start=150)})
    run(store, more)
    held, faces = content(store), [seen(store), seen(more)]
    for place in (store, more):
        with RunStore.open(place):
            assert f"{place.name} is being written by" in people("undo", code=2)
    with edit(store.parent / "people.json"):
        assert "is being written by" in people("undo", code=2)
    assert (content(store), [seen(store), seen(more)]) == (held, faces), "all stores, or none"
    people("undo")
    assert seen(more) == {"d": [2] * 6 + [1] * 6}


def test_a_store_that_is_away(store: Path, people: Undo) -> None:
    """Its faces are the merged person's when it is back, if a run has written them so; else they are right at once."""
    more = make_store(store.parent / "two.zarr", {"d": clip([[1], [0]], start=150)})
    run(more)
    assert ids(more, "d") == [2] * 6 + [1] * 6
    for written in (False, True):
        people("merge", "1", "2", "--force")
        if written:
            run(more)
        shutil.move(more, store.parent / "away")
        with edit(store.parent / "people.json"):
            registry = Registry.load(store.parent / "people.json")
            change, notes = undoing.undo(registry)
            registry.save()
        assert change.text == "merge of person 2 into person 1"
        assert notes == [
            "two.zarr:d: its store is away, damaged, or has other people by now; its faces stay as they are"
        ]
        assert registry.inputs["two.zarr:d"] == {1: 6, 2: 6}
        shutil.move(store.parent / "away", more)
        assert seen(more) == {"d": ([1] if written else [2]) * 6 + [1] * 6}
        assert seen(store)["a"][:2] == [1, 2]


def test_the_history_is_bounded(store: Path, people: Undo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undoing, "MOST_CHANGES", 3)
    for k in range(5):
        people("name", "1", f"Ann {k}")
    for k in (4, 3, 2):
        assert people("undo") == f"undid: name Ann {k} of person 1 (before: Ann {k - 1})"
    assert "nothing to undo" in people("undo", code=2)
    monkeypatch.setattr(undoing, "MOST_BYTES", 10)
    people("name", "1", "A")
    people("name", "1", "B")
    assert len(Registry.load(store.parent / "people.json").history) == 1, "the last one, whatever its size"
    assert people("undo") == "undid: name B of person 1 (before: A)"
    monkeypatch.undo()
    for k in range(110):
        people("name", "1", f"Ann {k}")
    assert len(Registry.load(store.parent / "people.json").history) == 100


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no record": lambda entry: entry.clear(),
    "another change": lambda entry: entry.update(change="swap"),
    "no people": lambda entry: entry["before"].pop("people"),
    "another person": lambda entry: entry.update(kept=77),
    "a text as id": lambda entry: entry.update(made=["x"]),
    "a list of people": lambda entry: entry["before"].update(people=[]),
    "tracks of nothing": lambda entry: entry.update(tracks={"one.zarr:a": 3}),
    "another model": lambda entry: entry["before"].update(model="ArcFace"),
    "a cut look": lambda entry: entry["before"]["people"]["1"]["exemplars"][0].update(vector="AAAA"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record_is_one_line(store: Path, people: Undo, damage: Callable[[dict[str, Any]], object]) -> None:
    people("merge", "1", "4")
    path = store.parent / "people.json"
    found = json.loads(path.read_text())
    del found["metadata_checksum"]
    damage(found["history"][-1])
    path.write_text(json.dumps(found))
    assert "is damaged (" in people("undo", code=2)
    assert path.read_text() == json.dumps(found)
    assert people("name", "1", "Ann") == "person 1 is Ann", "all else goes on"
    people("undo")
    assert "is damaged (" in people("undo", code=2)


@pytest.mark.parametrize("history", [3, {"a": 1}, "x", [3], [[]], [None]])
def test_a_history_of_another_form_is_one_line(store: Path, people: Undo, history: object) -> None:
    path = store.parent / "people.json"
    found = json.loads(path.read_text())
    del found["metadata_checksum"]
    path.write_text(json.dumps({**found, "history": history}))
    assert str(path) in people("undo", code=2)


def test_a_flipped_bit_in_the_history_is_noticed(store: Path, people: Undo) -> None:
    people("name", "1", "Ann")
    path = store.parent / "people.json"
    path.write_text(path.read_text().replace("name Ann of person 1", "name Amn of person 1"))
    assert "its checksum does not fit" in people("undo", code=2)


def test_a_registry_of_before_with_a_later_history(store: Path, people: Undo) -> None:
    people("split", "3", "b:0")
    path = store.parent / "people.json"
    found = json.loads(path.read_text())
    del found["metadata_checksum"], found["people"]["5"]
    path.write_text(json.dumps(found))
    assert "split of person 5 from person 3 cannot be undone: " in people("undo", code=2)
    with pytest.raises(StoreError, match="has no person 5 any more"):
        undoing.undo(Registry.load(path))


def test_the_registry_of_stores_and_json(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent.parent)
    capsys.readouterr()
    assert main(["people", "undo", str(store)]) == 2
    assert "nothing to undo: " in capsys.readouterr().err
    assert main(["people", "name", "2", "Bea", "--registry", str(store.parent / "people.json")]) == 0
    capsys.readouterr()
    assert main(["people", "undo", str(store), "--json", "--dry-run"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["undone"], values["dry_run"], values["left"]) == ("name Bea of person 2 (before: none)", True, 0)
    assert main(["people", "undo", str(store), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values.pop("at").startswith("20")
    assert values == {
        "registry": str(store.parent / "people.json"), "change": "name", "dry_run": False, "left": 0, "notes": [],
        "undone": "name Bea of person 2 (before: none)",
    }  # fmt: skip
    for words, message in (
        (["undo"], "neither people.json nor runs/people.json"),
        (["undo", "nowhere.zarr"], "there is no store at"),
        (["undo", str(store), "--force"], "--force has no effect on people undo"),
        (["name", "2", "x", "--dry-run"], "--dry-run has no effect on people name; leave it out, or use it with split"),
    ):
        assert main(["people", *words]) == 2
        assert message in capsys.readouterr().err
