"""Stores from strangers: whatever their JSON and links say, they are read or refused, and nothing else happens."""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr.registry
from numcodecs.abc import Codec
from numcodecs.registry import codec_registry, register_codec

import pipeline
from pipeline.cli import main
from pipeline.errors import InputError, StoreError
from pipeline.faces.people.index import FACTS_FILE, INDEX_FILE, FaceIndex, build
from pipeline.faces.people.pictures import Recipe
from pipeline.faces.people.registry import Registry
from pipeline.files.checksum import CHECKSUM, sealed
from pipeline.store.compact import add_arrays
from pipeline.store.nodes import below
from pipeline.store.run import RunStore
from pipeline.store.schema import Array
from tests.made_stores import faces_of, make_store
from tests.people import drawn
from tests.store.old_chunks import write_record

FACE = (100, 60, 60, 90)
N_FRAMES = 70
"""Two chunks."""
REGISTRY = {"registry": "../people.json", "registry_id": "theirs", "names": {"1": "Ann"}}
EXTRA = (
    Array("track", ("face",), "int32"),
    Array("person", ("face",), "int32", (), REGISTRY),
)
Snapshot = dict[str, tuple[str, bytes]]
Attack = Callable[[Path, Path], None]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete store and one whose input is half done, made once."""
    vectors = np.tile(drawn.vector(drawn.ANN), (N_FRAMES, 1))
    person = {"track": np.zeros(N_FRAMES, np.int32), "person": np.ones(N_FRAMES, np.int32)}
    film = faces_of(np.ones(N_FRAMES, np.int64), vectors, **person)
    folder = tmp_path_factory.mktemp("made")
    make_store(folder / "a.zarr", {"lobby": film}, extra=EXTRA, workflow=drawn.document())
    make_store(folder / "half.zarr", {"lobby": film}, extra=EXTRA, workflow=drawn.document(), done_chunks=1)
    return folder


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "a.zarr", tmp_path / "theirs" / "a.zarr")


@pytest.fixture
def half(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "half.zarr", tmp_path / "theirs" / "half.zarr")


@pytest.fixture
def mine(made: Path, tmp_path: Path) -> Path:
    """A folder that is no business of the store's: files of any kind, an input of another store, a registry."""
    folder = tmp_path / "mine"
    shutil.copytree(made / "a.zarr" / "lobby", folder / "lobby")
    shutil.copytree(made / "half.zarr" / "lobby" / "chunks", folder / "chunks")
    write_record(folder / "chunks" / "000000", {"state": "failed", "error": "as earlier versions had it"})
    for name in ("letters.txt", "film.mp4.partial", "chunks/draft.partial", "chunks/000000/draft.partial"):
        (folder / name).write_text("precious")
    Registry(folder / "people.json", "mine", "Dlib", "native").save()
    return folder


def snapshot(folder: Path) -> Snapshot:
    """Everything below a folder: kind and content of each entry."""
    found: Snapshot = {}
    for top, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(top, name)
            key = str(path.relative_to(folder))
            if path.is_symlink():
                found[key] = ("link", os.readlink(path).encode())
            else:
                found[key] = ("folder", b"") if path.is_dir() else ("file", path.read_bytes())
    return found


def edit(node: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the `zarr.json` of a node by hand, and its checksum with it: a stranger can do that too."""
    content = json.loads((node / "zarr.json").read_text())
    change(content)
    content = sealed(content, "attributes") if CHECKSUM in content["attributes"] else content
    (node / "zarr.json").write_text(json.dumps(content))


def replace_by_link(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.symlink_to(target)


# -- what a stranger may send ------------------------------------------------------------------------------------------


def removal_of(name: str) -> Attack:
    """A removal that was committed, and of an "array" by this name: the next writer is to put it into its place."""

    def attack(out: Path, mine: Path) -> None:
        edit(out / "lobby", lambda node: node["attributes"].update(removing_faces=[name]))
        (out / "lobby" / "aside" / name).resolve().mkdir(parents=True, exist_ok=True)

    return attack


def removal_by_number(out: Path, mine: Path) -> None:
    edit(out / "lobby", lambda node: node["attributes"].update(removing_faces=[1]))


def array_of_elsewhere(out: Path, mine: Path) -> None:
    def change(node: dict[str, Any]) -> None:
        arrays = node["consolidated_metadata"]["metadata"]
        arrays["../../../mine/lobby/box"] = arrays["box"]

    edit(out / "lobby", change)


def array_called_chunks(out: Path, mine: Path) -> None:
    def change(node: dict[str, Any]) -> None:
        arrays = node["consolidated_metadata"]["metadata"]
        arrays["chunks"] = arrays["box"]
        node["attributes"]["removing_faces"] = ["chunks"]

    edit(out / "lobby", change)


def linked_input(out: Path, mine: Path) -> None:
    replace_by_link(out / "lobby", mine / "lobby")


def linked_void_chunks(out: Path, mine: Path) -> None:
    edit(out / "lobby", lambda node: node["attributes"].update(void_chunks=True))
    replace_by_link(out / "lobby" / "chunks", mine / "chunks")


def linked_aside(out: Path, mine: Path) -> None:
    edit(out / "lobby", lambda node: node["attributes"].update(removing_faces=["box"]))
    replace_by_link(out / "lobby" / "aside", mine / "lobby")


def linked_arrays(out: Path, mine: Path) -> None:
    for name in ("embedding", "person", "time_seconds"):
        replace_by_link(out / "lobby" / name, mine / "lobby" / name)


def linked_chunk(out: Path, mine: Path) -> None:
    (chunk,) = (out / "lobby" / "chunks").glob("000000.*.zip")
    chunk.unlink()
    chunk.symlink_to(mine / "chunks" / chunk.name)


def linked_chunk_folder(out: Path, mine: Path) -> None:
    """Of a store that an earlier version made."""
    replace_by_link(out / "lobby" / "chunks" / "000000", mine / "chunks" / "000000")


def linked_chunks(out: Path, mine: Path) -> None:
    replace_by_link(out / "lobby" / "chunks", mine / "chunks")


def deep_json(out: Path, mine: Path) -> None:
    (out / "lobby" / "zarr.json").write_text("[" * 200_000)


def odd_attributes(out: Path, mine: Path) -> None:
    edit(out / "lobby", lambda node: node["attributes"].update(stages=["detect"]))


def array_with(**changes: Any) -> Attack:
    """Arrays whose metadata says something that we never write: in their own file, and where it is consolidated."""

    def attack(out: Path, mine: Path) -> None:
        for name in ("box", "embedding", "person"):
            edit(out / "lobby" / name, lambda node: node.update(changes))
        edit(out / "lobby", lambda node: node["consolidated_metadata"]["metadata"]["box"].update(changes))

    return attack


def only_in_the_arrays_own_file(out: Path, mine: Path) -> None:
    for name in ("frame", "box", "embedding", "person"):
        edit(out / "lobby" / name, lambda node: node.update(codecs=[{"name": "evil"}]))


def zarr_version_2(out: Path, mine: Path) -> None:
    """Arrays in the older format, whose filters may unpickle what they read."""
    for name in ("frame", "box", "embedding", "person"):
        node = json.loads((out / "lobby" / name / "zarr.json").read_text())
        (out / "lobby" / name / "zarr.json").unlink()
        old = {
            "zarr_format": 2, "shape": node["shape"], "chunks": node["shape"], "dtype": "|O", "fill_value": None,
            "order": "C", "compressor": None, "filters": [{"id": "evil"}],
        }  # fmt: skip
        (out / "lobby" / name / ".zarray").write_text(json.dumps(old))


SHARDED = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [1, 4], "codecs": [{"name": "bytes"}, {"name": "evil"}], "index_codecs": [{"name": "bytes"}],
        "index_location": "end",
    },
}  # fmt: skip
READING = ("status", "export", "report", "find")
COMMANDS = (*READING, "people", "forget", "run")
EVERYWHERE: dict[str, tuple[Attack, str]] = {
    "removal of another folder": (removal_of("../../../mine"), "lists .* under 'removing_faces'"),
    "removal of the store": (removal_of(".."), "lists .* under 'removing_faces'"),
    "removal by number": (removal_by_number, "lists .* under 'removing_faces'"),
    "array of elsewhere": (array_of_elsewhere, r"names a node '../../../mine/lobby/box', which is not a plain name"),
    "array called chunks": (array_called_chunks, "keeps for itself"),
    "linked input": (linked_input, "is a link"),
    "codec": (array_with(codecs=[{"name": "bytes"}, {"name": "evil"}]), "'box' in .* has codec 'evil'"),
    "codec in shards": (array_with(codecs=[SHARDED]), "'box' in .* has codec 'evil'"),
    "transposed": (array_with(codecs=[{"name": "transpose"}, {"name": "bytes"}]), "has codec 'transpose'"),
    "data type": (array_with(data_type="object"), "has data type 'object'"),
    "extension": (array_with(data_type={"name": "pickle", "configuration": {}}), "has data type"),
    "shape": (array_with(shape=[-1, 4]), "has damaged metadata"),
    "format": (array_with(zarr_format=2), "is not a Zarr v3 array"),
    "deep JSON": (deep_json, "is damaged"),
    "odd attributes": (odd_attributes, "has damaged attributes"),
}
"""Whoever looks at the input refuses: what was sent, and what is said of it."""
WRITERS_AND_READERS: dict[str, tuple[Attack, str, set[str]]] = {
    "linked arrays": (linked_arrays, "is a link", {*COMMANDS} - {"status"}),
    "linked chunks that are void": (linked_void_chunks, "is a link", {"people", "forget", "run"}),
    "linked aside": (linked_aside, "is a link", {*COMMANDS} - {"status"}),
    "codec in the arrays' own files": (
        only_in_the_arrays_own_file, "has codec 'evil'|cannot be opened", {"export", "report", "people", "forget"}
    ),
    "arrays of version 2": (zarr_version_2, "cannot be opened", {"export", "report", "people", "forget"}),
}  # fmt: skip
"""Whoever comes across it refuses: what was sent, what is said of it and by whom; `status` for example does not."""
HALF: dict[str, tuple[Attack, str, set[str]]] = {
    "linked chunk": (linked_chunk, "is a link", {*COMMANDS}),
    "linked chunk folder": (linked_chunk_folder, "is a link", {*COMMANDS}),
    "linked chunks": (linked_chunks, "is a link", {*COMMANDS}),
}


def words_of(command: str, out: Path, folder: Path) -> list[str]:
    if command == "export":
        return ["export", str(out), "--to", str(folder / "faces.csv")]
    if command == "report":
        return ["report", str(out), "--out", str(folder / "page.html")]
    if command == "find":
        return ["find", str(out), "--face", str(drawn.write(folder / "ann.png", (drawn.ANN, FACE)))]
    if command == "people":
        return ["people", str(out)]
    if command == "forget":
        return ["forget", str(out), "--person", "1", "--yes"]
    if command == "run":
        (folder / "mine.yaml").write_text(json.dumps(drawn.document()))
        (folder / "clip.mp4").write_bytes(b"no film")
        inputs = [str(folder / "clip.mp4")]
        return ["run", str(folder / "mine.yaml"), *inputs, "--out", str(out), "--executor", "inline"]
    return ["status", str(out)]


@pytest.fixture(autouse=True)
def codecs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Codecs by the name `evil` in both versions of the format: made at all, they have had their chance."""
    made_of: list[str] = []

    class Evil(Codec):
        codec_id = "evil"

        def __init__(self, **_: Any) -> None:
            made_of.append("numcodecs")

        encode = decode = staticmethod(bytes)

    class EvilToo:
        @classmethod
        def from_dict(cls, _: Any) -> EvilToo:
            made_of.append("zarr")
            raise ValueError("too late")

    register_codec(Evil)
    zarr.registry.register_codec("evil", EvilToo)
    yield
    codec_registry.pop("evil")
    assert not made_of


def attempt(
    command: str, out: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Exit code and what is said, after nothing but what is the command's to write has changed."""
    folder = tmp_path / "results"
    folder.mkdir()
    words = words_of(command, out, folder)
    beside, store = snapshot(mine), snapshot(out)
    capsys.readouterr()
    code = main(words)
    said = capsys.readouterr().err
    assert snapshot(mine) == beside
    if command in READING:
        assert snapshot(out) == store
    assert {path.name for path in tmp_path.iterdir()} <= {"theirs", "mine", "results", "cache"}
    return code, said


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", EVERYWHERE)
def test_it_is_refused_in_one_line(
    case: str, command: str, out: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack, message = EVERYWHERE[case]
    attack(out, mine)
    before = snapshot(out)
    code, said = attempt(command, out, mine, tmp_path, capsys)
    assert code == 2
    lines = [line for line in said.splitlines() if line.startswith("reelgraph: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0]), said
    assert snapshot(out) == before
    with pytest.raises(StoreError, match=message) as caught:
        _ = {name: item.arrays for name, item in pipeline.open(out).inputs.items()}
    assert "\n" not in str(caught.value)
    assert snapshot(out) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", [*WRITERS_AND_READERS, *HALF])
def test_nothing_outside_is_touched(
    case: str, command: str, out: Path, half: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some commands pass by without a look; who looks, says it in one line."""
    attack, message, told_by = (WRITERS_AND_READERS | HALF)[case]
    store = half if case in HALF else out
    attack(store, mine)
    code, said = attempt(command, store, mine, tmp_path, capsys)
    assert code in (0, 1, 2)
    assert "Traceback" not in said
    assert (code != 0 and re.search(message, said) is not None) == (command in told_by), said


@pytest.mark.parametrize("case", WRITERS_AND_READERS)
def test_opened_and_read_in_python(case: str, out: Path, mine: Path) -> None:
    attack, message, _ = WRITERS_AND_READERS[case]
    attack(out, mine)
    before, beside = snapshot(out), snapshot(mine)
    with pytest.raises(StoreError, match=message) as caught:  # noqa: PT012
        pipeline.open(out).faces()
        pipeline.open(out).embeddings()
        with RunStore.open(out):
            pass
    assert "\n" not in str(caught.value)
    assert (snapshot(mine), {k: v for k, v in snapshot(out).items() if k != ".lock"}) == (beside, before)


def test_a_new_input_takes_no_linked_folder(out: Path, mine: Path) -> None:
    """The link leads to a folder that a new input could have, with files that look like ours being written."""
    (mine / "empty" / "chunks").mkdir(parents=True)
    (mine / "empty" / "film.partial").write_text("precious")
    (out / "yard").symlink_to(mine / "empty")
    (out / "gate").mkdir()
    (out / "gate" / "chunks").symlink_to(mine / "empty")
    before = snapshot(mine)
    with RunStore.open(out) as store:
        assert store.add_input("yard", {}) == "yard-2"
        with pytest.raises(StoreError, match="is a link"):
            store.add_input("gate", {})
    assert snapshot(mine) == before


def test_a_link_to_the_store_itself_is_fine(out: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.zarr"
    link.symlink_to(out)
    assert main(["status", str(link)]) == 0
    assert main(["people", str(link), "--no-thumbnails"]) == 0
    assert pipeline.open(link).inputs.keys() == {"lobby"}


@pytest.mark.parametrize("command", ["people", "forget"])
def test_a_registry_is_changed_by_those_who_know_its_id(
    command: str, out: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry.load(mine / "people.json")
    registry.new_person()
    registry.save()

    def change(node: dict[str, Any]) -> None:
        attributes = node["consolidated_metadata"]["metadata"]["person"]["attributes"]
        attributes["registry"] = "../../mine/people.json"
        del attributes["registry_id"]

    edit(out / "lobby", change)
    attempt(command, out, mine, tmp_path, capsys)
    assert Registry.load(mine / "people.json").people.keys() == {1}


@pytest.mark.parametrize("place", ["embed", "before"])
def test_no_module_is_imported_on_a_stores_word(
    place: str, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "installed"
    folder.mkdir()
    (folder / "evil_stage.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(folder)

    def change(node: dict[str, Any]) -> None:
        stages = node["attributes"]["workflow"]["stages"]
        if place == "embed":
            stages["embed"]["use"] = "evil_stage:Embed"
        else:
            node["attributes"]["workflow"]["stages"] = {"first": {"use": "evil_stage:First", "after": []}, **stages}

    edit(out, change)
    code = main(words_of("find", out, tmp_path))
    said = capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert code == (2 if place == "embed" else 0)
    if place == "embed":
        assert re.search("reelgraph: .*stage 'evil_stage:Embed': a store's word alone cannot import 'evil_stage'", said)


@pytest.mark.parametrize("workflow", [7, {"stages": 3}, {"stages": {"embed": 1}}, {"stages": {"embed": {"after": 5}}}])
def test_a_workflow_of_any_shape(workflow: Any) -> None:
    with pytest.raises(StoreError, match="without a stage that embeds faces"):
        Recipe.of_store({"workflow": workflow}, "theirs")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "a\\b", "a\nb", "a\0b", "zarr.json", 7, None])
def test_a_node_has_a_plain_name(name: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a plain name") as caught:
        below(tmp_path, "lobby", name)
    assert "\n" not in str(caught.value)


def test_a_node_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "lobby").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="is a link"):
        below(tmp_path, "lobby", "box")
    assert below(tmp_path, "gäte 2.x", "box") == f"{tmp_path}/gäte 2.x/box"


def test_an_index_of_another_kind_is_not_read(out: Path, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    build([out], tmp_path / "index")
    FaceIndex(tmp_path / "index")
    flat = faiss.IndexFlatL2(8)
    faiss.write_index(flat, str(tmp_path / "index" / INDEX_FILE))
    with pytest.raises(InputError, match=r"is damaged \(its kind is"):
        FaceIndex(tmp_path / "index")


def test_an_index_takes_the_place_of_an_index_alone(out: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    place = tmp_path / "index"
    build([out], place)
    build([out], place)
    (place / "letters.txt").write_text("precious")
    before = snapshot(place)
    with pytest.raises(InputError, match=r"is not replaced: it holds 'letters.txt' too"):
        build([out], place)
    assert snapshot(place) == before
    assert FACTS_FILE in before


def test_a_thumbnail_of_a_face_that_is_not_there(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = [Array("thumbnail", ("shot", "y"), "uint8", (4,)), Array("thumbnail_face", ("shot",), "int64")]
    with RunStore.open(out) as store:
        shots = {"thumbnail": np.zeros((2, 4), np.uint8), "thumbnail_face": np.array([0, 10**9])}
        add_arrays(store, "lobby", specs, shots)
    before = snapshot(out)
    assert main(["forget", str(out), "--person", "1", "--yes"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"reelgraph: array 'thumbnail_face' of .* points beyond the last face", said)
    assert snapshot(out) == before


@pytest.mark.parametrize("content", ["{}", "[]", "[" * 200_000, "{", '{"zarr_format": 3, "node_type": "array"}'])
def test_a_chunk_whose_array_says_nothing(
    content: str, out: Path, half: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (chunk,) = (half / "lobby" / "chunks").glob("000000.*.zip")
    with zipfile.ZipFile(chunk) as whole:
        held = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(chunk, "w") as edited:
        for name, before in held.items():
            edited.writestr(name, content if name == "embedding/zarr.json" else before)
    before = snapshot(half)
    assert main(["forget", str(out), str(half), "--person", "1", "--dry-run"]) == 2
    said = capsys.readouterr().err.splitlines()
    told = "(array 'embedding' in .*chunks/000000.*zip |chunk 0 of 'lobby' .* metadata of 'embedding' cannot be read)"
    assert len([line for line in said if re.match(f"reelgraph: {told}", line)]) == 1
    assert snapshot(half) == before
