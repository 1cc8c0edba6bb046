"""`reelgraph verify`: what is damaged is named, with a command that does put it right."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.files.checksum import CHECKSUM
from pipeline.store.compact import add_arrays, write_array
from pipeline.store.nodes import Group, read_group, write_group
from pipeline.store.run import RunStore
from pipeline.store.schema import Array
from tests.store import flips


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    flips.make(folder)
    return folder


@pytest.fixture
def films(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "films", tmp_path / "films") / "films.zarr"


@pytest.fixture
def half(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "half", tmp_path / "half") / "half.zarr"


def verified(out: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["verify", str(out), "--json", *flags])
    return code, json.loads(capsys.readouterr().out)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_sound_store(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verified(made / "films/films.zarr", capsys)
    assert (code, found["ok"], found["inputs"], found["arrays"], found["flaws"]) == (0, True, 2, 18, [])
    code, found = verified(made / "half/half.zarr", capsys)
    assert (code, found["ok"], found["chunks"]) == (0, True, 3)
    assert main(["verify", str(made / "half/half.zarr")]) == 0
    assert "1 input, 0 arrays, 3 chunk files read; nothing is damaged" in capsys.readouterr().out


def test_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letters.txt").write_text("precious")
    for place in ("none.zarr", ".", "letters.txt"):
        assert main(["verify", str(tmp_path / place)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "file",
    [
        "zarr.json", "a/zarr.json", "a/box/zarr.json", "a/n_faces/zarr.json", "a/n_faces/c/0", "a/embedding/c/0/0",
        "../people.json",
    ],
)  # fmt: skip
def test_each_damaged_file_is_named(films: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    if file == "../people.json":
        with RunStore.open(films) as store:
            n = len(store.input("a").read_rows("face_frame", 0, None))
            person = Array("person", ("face",), "int32", attributes={"registry": "../people.json"})
            add_arrays(store, "a", [person], {"person": np.ones(n, np.int32)})
        assert verified(films, capsys)[0] == 0
    damage(films / file)
    code, found = verified(films, capsys)
    assert code == 1
    (flaw,) = found["flaws"]
    named = (films / file).resolve()
    assert Path(flaw["place"]) in (named, *named.parents)
    assert flaw["mend"]
    assert "\n" not in flaw["what"] + flaw["mend"]
    assert main(["verify", str(films)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[1:] == [f"  {flaw['place']}: {flaw['what']}", f"    to fix it: {flaw['mend']}"]


@pytest.mark.parametrize("file", ["a/zarr.json", "b/box/zarr.json"])
def test_what_has_a_copy_is_restored(films: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = flips.content_of(films.parent)
    damage(films / file)
    (flaw,) = verified(films, capsys)[1]["flaws"]
    assert main(shlex.split(flaw["mend"])[1:]) == 0
    assert f"written again: {films / file}" in capsys.readouterr().out
    assert flips.content_of(films.parent) == before
    assert verified(films, capsys)[0] == 0


def test_a_lost_root_keeps_its_inputs(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = pipeline.open(films).faces()
    damage(films / "zarr.json")
    (flaw,) = verified(films, capsys)[1]["flaws"]
    assert flaw["mend"].startswith(f"rm -f {films / 'zarr.json'}; reelgraph run WORKFLOW")
    (films / "zarr.json").unlink()
    code, found = verified(films, capsys)
    assert (code, found["inputs"], len(found["flaws"])) == (1, 2, 1)
    assert main(["status", str(films)]) == 2
    assert "has lost its zarr.json; run again" in capsys.readouterr().err
    with RunStore.open(films) as store:
        assert store.input_names() == ["a", "b"]
    assert pipeline.open(films).faces().equals(before)
    assert verified(films, capsys)[0] == 0


@pytest.mark.parametrize("kept", [True, False])
def test_fresh_starts_over_where_the_root_is_damaged(films: Path, kept: bool) -> None:
    if kept:
        damage(films / "zarr.json")
    else:
        (films / "zarr.json").unlink()
    with RunStore.open(films, fresh=True) as store:
        assert store.input_names() == []
    assert {path.name for path in films.iterdir()} == {"zarr.json"}


def test_damaged_chunks(half: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chunks = sorted((half / "clip/chunks").glob("*.zip"))
    damage(chunks[1])
    damage(half / "clip/chunks/zarr.json")
    code, found = verified(half, capsys)
    assert code == 1
    assert {flaw["place"] for flaw in found["flaws"]} == {str(chunks[1]), str(half / "clip/chunks/zarr.json")}
    code, found = verified(half, capsys, "--repair")
    assert code == 1
    assert found["repaired"] == [str(half / "clip/chunks/zarr.json")]
    assert [flaw["place"] for flaw in found["flaws"]] == [str(chunks[1])]
    assert flips.go_on(half.parent)
    assert verified(half, capsys)[0] == 0


def test_counts_and_references(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file is sound by its checksum; only together they are wrong."""
    with RunStore.open(films) as store:
        source = store.input("a")
        counts = source.read_rows("n_faces", 0, None)
        wrong = {"n_faces": counts + 1, "face_frame": np.arange(int(counts.sum())) + 10**6}
        for name, values in wrong.items():
            node = source.group().arrays[name]
            shutil.rmtree(films / "a" / name)
            spec = Array(name, tuple(node["dimension_names"]), node["data_type"], attributes=node["attributes"])
            write_array(source.folder, spec, len(values), iter([values]), len(values))
    code, found = verified(films, capsys)
    assert code == 1
    said = {Path(flaw["place"]).name: flaw["what"] for flaw in found["flaws"]}
    assert said["n_faces"] == f"it counts {int(counts.sum()) + len(counts)} rows along 'face'; there are {counts.sum()}"
    assert said["face_frame"].startswith("it leads to row 1000000 along 'frame', which has")


def test_a_complete_stage_without_its_array(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunStore.open(films) as store:
        stages = store.input("a").attributes["stages"]
        arrays = {"arrays": ["n_faces", "box", "age"]}
        store.input("a").update(stages={**stages, "detect": {**stages["detect"], **arrays}})
    code, found = verified(films, capsys)
    assert code == 1
    assert [flaw["what"] for flaw in found["flaws"]] == ["stage 'detect' is complete, without its array 'age'"]


def unseal_all(out: Path) -> None:
    """Turn a store into one of the form before checksums."""
    for path in out.rglob("zarr.json"):
        node = json.loads(path.read_text())
        node.get("attributes", {}).pop(CHECKSUM, None)
        path.write_text(json.dumps(node))


@pytest.mark.parametrize("name", ["films", "half"])
def test_stores_without_checksums_are_read_and_continued(made: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(made / name, tmp_path / name)
    (out,) = folder.glob("*.zarr")
    before = flips.content_of(folder)
    with_checksums = shutil.copytree(folder, tmp_path / "with")
    unseal_all(out)
    assert flips.content_of(folder) == before
    assert main(["verify", str(out)]) == 0
    after = flips.go_on(folder)
    assert after == flips.go_on(with_checksums)
    assert all(group.sealed for path in out.iterdir() if path.is_dir() and (group := read_group(path))) == (
        name == "half"  # what is written again has a checksum
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"consolidated_metadata"', '"consolidatee_metadata"'), ('"attributes": {"path"', '"attribuues": {"path"'),
        ('"stages"', '"stagas"'), ('"group"', '"grnup"'), ('"box"', '"bnx"'), ('"complete": true', '"complete": null'),
        ('"frames": 20', '"frames": 21'), ('"face_frame"', '"fice_frame"'), ('"zarr_format": 3', '"zarr_format": 2'),
    ],
)  # fmt: skip
def test_without_a_checksum_what_decides_is_checked(films: Path, old: str, new: str) -> None:
    unseal_all(films)
    path = films / "a" / "zarr.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(flips.ReelgraphError) as caught:
        flips.content_of(films.parent)
    assert "\n" not in str(caught.value)


def test_without_a_checksum_a_lost_array_is_noticed(films: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unseal_all(films)
    path = films / "a" / "zarr.json"
    node = json.loads(path.read_text())
    del node["consolidated_metadata"]["metadata"]["box"]
    path.write_text(json.dumps(node))
    code, found = verified(films, capsys)
    assert code == 1
    assert {flaw["place"] for flaw in found["flaws"]} == {str(films / "a/box"), str(films / "zarr.json")} or [
        flaw["place"] for flaw in found["flaws"]
    ] == [str(films / "a/box")]


def test_a_program_that_changes_attributes_is_noticed(films: Path) -> None:
    group = read_group(films / "a")
    assert group is not None
    write_group(films / "a", Group({**group.attributes, "note": "mine"}, group.arrays, True))
    assert pipeline.open(films).input("a").attributes["note"] == "mine"
    path = films / "a" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))  # the layout may change
    assert pipeline.open(films).input("a").attributes["note"] == "mine"
    path.write_text(path.read_text().replace("mine", "yours"))
    with pytest.raises(flips.ReelgraphError, match="a disk or another program changed it"):
        pipeline.open(films).input("a").attributes  # noqa: B018


def test_zarr_and_xarray_open_what_has_checksums(films: Path) -> None:
    xarray = pytest.importorskip("xarray")
    import zarr

    assert zarr.open_group(films, mode="r")["a/box"].shape == (30, 4)
    with xarray.open_zarr(films, group="a", consolidated=True) as data:
        assert data["box"].shape == (30, 4)
