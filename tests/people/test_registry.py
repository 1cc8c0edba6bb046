"""The registry: ids that stay, what people decide, and a file that bears being damaged or written by two."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StoreError, StoreLockedError, UsageError
from pipeline.faces.people.registry import Exemplar, Person, Pin, Registry, edit, known


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry.open(tmp_path / "people.json", "Dlib", "native")
    for k in range(4):
        made.people[made.new_person()] = Person(exemplars=[Exemplar(np.full(3, k, np.float32), 0.1, 5, 0.1)])
    made.inputs = {"a.zarr:clip": {1: 10, 2: 5, 3: 1}, "b.zarr:film": {2: 7}}
    made.pins = [Pin("a.zarr:clip", "print", 25, (1.0, 2.0, 3.0, 4.0), 3)]
    made.save()
    return made


def test_what_is_saved_is_loaded(registry: Registry) -> None:
    registry.name(1, "Ann")
    registry.merge([2, 4])
    registry.forget(3)
    registry.split(1)
    registry.save()
    again = Registry.load(registry.path)
    for field in ("id", "model", "align", "merged", "forgotten", "apart", "pins", "inputs", "next_id"):
        assert getattr(again, field) == getattr(registry, field), field
    assert again.people.keys() == registry.people.keys()
    assert again.people[1].name == "Ann"
    assert again.people[1].decided
    assert [each.vector.tolist() for each in again.people[2].exemplars] == [[1, 1, 1], [3, 3, 3]]
    content = json.loads(registry.path.read_text())
    assert content["format"] == 1
    assert content["merged"] == {"4": 2}
    assert content["forgotten"] == [3]


def test_names(registry: Registry) -> None:
    registry.name(2, " Bob ")
    registry.name(3, "Bob")
    assert registry.named("Bob") == [2, 3]
    registry.name(2, "")
    assert registry.named("Bob") == [3]
    registry.save()
    attributes = {"registry": "../people.json", "registry_id": registry.id}
    store = registry.path.parent / "a.zarr"
    store.mkdir()
    found = known(attributes, store)
    assert found is not None
    assert found.names == {3: "Bob"}
    assert known({**attributes, "registry_id": "another"}, store) is None


def test_merge_moves_all_that_was_the_others(registry: Registry) -> None:
    registry.name(3, "Cy")
    registry.merge([4, 3])
    assert registry.merge([2, 4, 3]) == 2
    assert registry.merged == {3: 2, 4: 2}
    assert registry.people[2].name == "Cy"
    assert len(registry.people[2].exemplars) == 3
    assert registry.pins[0].person == 2
    assert registry.inputs["a.zarr:clip"] == {1: 10, 2: 6}
    assert registry.resolve(3) == registry.resolve(4) == 2
    with pytest.raises(UsageError, match="merge needs the ids of two different people"):
        registry.merge([3, 4])


def test_ids_are_never_given_again(registry: Registry) -> None:
    assert registry.forget(4) == [4]
    registry.merge([1, 2])
    registry.retire(3)
    registry.save()
    assert Registry.load(registry.path).new_person() == 5
    content = json.loads(registry.path.read_text())
    del content["next_id"], content["metadata_checksum"]
    registry.path.write_text(json.dumps(content))
    assert Registry.load(registry.path).new_person() == 5, "a tombstone counts too"


def test_forget_leaves_nothing_of_a_person(registry: Registry) -> None:
    registry.merge([2, 3])
    registry.split(2)
    assert registry.forget(3) == [2, 3]
    registry.save()
    text = registry.path.read_text()
    content = json.loads(text)
    assert content["forgotten"] == [2, 3]
    assert content["people"].keys() == {"1", "4", "5"}
    assert (content["merged"], content["pins"], content["apart"]) == ({}, [], [])
    assert content["inputs"] == {"a.zarr:clip": {"1": 10}, "b.zarr:film": {}}
    with pytest.raises(UsageError, match="person 3 was forgotten"):
        registry.resolve(3)


def test_a_split_is_remembered_through_merges(registry: Registry) -> None:
    new = registry.split(1)
    assert (new, registry.apart) == (5, {(1, 5)})
    registry.merge([2, 5])
    assert registry.apart == {(1, 2)}
    registry.merge([1, 2])
    assert registry.apart == set()


@pytest.mark.parametrize(
    ("number", "message"),
    [(9, r"has no person 9; it has 1, 2, 3, 4"), (0, "has no person 0")],
)
def test_unknown_people(registry: Registry, number: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        registry.name(number, "Ann")


def test_another_models_embeddings_are_refused(registry: Registry) -> None:
    message = r"is of Dlib \(align native\), these embeddings of ArcFace .*again with --set embed\.model=Dlib"
    with pytest.raises(StoreError, match=message):
        Registry.open(registry.path, "ArcFace", "native")
    for align in ("deepface", "two_views"):
        with pytest.raises(StoreError, match=rf"\(align native\), .* of Dlib \(align {align}\); use another .*=native"):
            Registry.open(registry.path, "Dlib", align)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: text[: len(text) // 2], id="cut off"),
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: "[1, 2]", id="a list"),
        pytest.param(lambda text: text.replace('"model"', '"modell"'), id="a key is gone"),
        pytest.param(lambda text: re.sub(r'"vector": "[^"]{3}', '"vector": "!!!', text), id="a vector is damaged"),
        pytest.param(lambda text: text.replace('"people": {', '"people": {"x": {},', 1), id="an id is no number"),
    ],
)
def test_a_damaged_file_is_one_line(registry: Registry, damage) -> None:  # type: ignore[no-untyped-def]
    registry.path.write_text(damage(registry.path.read_text()))
    with pytest.raises(StoreError, match=r"people\.json cannot be read \(.*\); restore it, or delete it") as caught:
        Registry.load(registry.path)
    assert "\n" not in str(caught.value)


def test_other_formats_and_no_file(registry: Registry, tmp_path: Path) -> None:
    registry.path.write_text(registry.path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(StoreError, match="format 7"):
        Registry.load(registry.path)
    with pytest.raises(UsageError, match="there is no registry at"):
        Registry.load(tmp_path / "none.json")
    assert known({"registry": "../none.json"}, tmp_path / "a.zarr") is None


def test_one_writer_at_a_time(registry: Registry) -> None:
    with edit(registry.path), pytest.raises(StoreLockedError, match="being written"), edit(registry.path):
        pass
    with edit(registry.path):
        pass
    assert sorted(path.name for path in registry.path.parent.iterdir()) == ["people.json"]


def test_inputs_are_known_by_where_their_store_lies_from_here(registry: Registry) -> None:
    place = registry.path.parent
    key = registry.key(place / "more" / "c.zarr", "clip:2")
    assert key == "more/c.zarr:clip:2"
    assert registry.store_of("../x.zarr:clip") == (place.parent / "x.zarr", "clip")
