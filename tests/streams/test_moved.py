"""Inputs that lie at another path than before: known again by their content, and not computed twice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import pipeline
from pipeline.engine.events import Silent
from pipeline.media.film.film import film_of
from pipeline.store.run import InputStore, RunStore
from tests.own import Own
from tests.streams.cameras import write_film
from tests.streams.numbered import analysed, write_workflow


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive" / "2024"
    folder.mkdir(parents=True)
    for name, frames in (("a.mp4", 12), ("b.mp4", 15)):
        write_film(folder / name, frames, gop=5)
    shutil.copy(folder / "a.mp4", folder / "same.mp4")
    return folder.parent


def run(workflow: Path, *inputs: Path, out: Path, **options: object) -> tuple[pipeline.Run, list[str]]:
    listener = Silent()
    done = pipeline.run(workflow, inputs, out, executor="inline", listener=listener, **options)
    return done, [note for note in listener.notes if " now" in note]


def test_a_renamed_folder_of_films(archive: Path, tmp_path: Path) -> None:
    """It was computed again, and what was stored of it could not be shown any more."""
    workflow, out = write_workflow(tmp_path), tmp_path / "out.zarr"
    run(workflow, archive, out=out)
    before = analysed(out)
    moved = archive.rename(tmp_path / "moved")
    (moved / "2024" / "b.mp4").rename(moved / "2024" / "other.mp4")
    said = [
        f"{name}: {archive}/2024/{old} is {moved}/2024/{new} now"
        for name, old, new in (("a", "a.mp4", "a.mp4"), ("b", "b.mp4", "other.mp4"), ("same", "same.mp4", "same.mp4"))
    ]
    view = pipeline.plan(workflow, moved, out)
    assert [note for note in view.notes if note.endswith(" now")] == said
    assert [(line.name, line.frames_to_do) for line in view.inputs] == [("a", 0), ("b", 0), ("same", 0)]
    assert RunStore.open(out, mode="r").find_input(f"{archive}/2024/a.mp4") == "a", "a plan writes nothing"

    again, notes = run(workflow, moved, out=out)
    assert (again.summary.frames, again.summary.exit_code, notes) == (0, 0, said)
    assert analysed(out) == before
    for name, file in (("a", "a.mp4"), ("b", "other.mp4"), ("same", "same.mp4")):
        assert film_of(again.input(name)).path == moved / "2024" / file
    assert run(workflow, moved, out=out)[1] == []

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("pipeline.engine.parts._SHOWN", 2)
        back = moved.rename(archive)
        first = f"a: {moved}/2024/a.mp4 is {back}/2024/a.mp4 now"
        assert run(workflow, back, out=out)[1] == [f"3 inputs lie at another path; {first}"]


def test_a_copy_is_an_input_of_its_own_while_the_first_is_there(archive: Path, tmp_path: Path) -> None:
    workflow, out = write_workflow(tmp_path), tmp_path / "out.zarr"
    film = archive / "2024" / "a.mp4"
    run(workflow, film, out=out)
    copy = shutil.copy(film, tmp_path / "copy.mp4")
    assert run(workflow, Path(copy), out=out)[1] == []
    assert list(analysed(out)) == ["a", "copy"]
    film.unlink()
    other = Path(copy).rename(tmp_path / "copy of a.mp4")  # two are gone: its name is that of neither
    assert run(workflow, other, out=out)[1] == [f"a: {film} is {other} now"]
    assert list(analysed(out)) == ["a", "copy"]


def test_a_film_that_was_stopped_moved_and_appended_to(archive: Path, tmp_path: Path) -> None:
    """All parts of it move, and what is missing is done at the new place."""
    workflow, out = write_workflow(tmp_path), tmp_path / "out.zarr"
    whole, film = write_film(tmp_path / "whole.ts", 60, gop=10, bf="0"), tmp_path / "from" / "film.ts"
    film.parent.mkdir()
    content = whole.read_bytes()
    for share in (0.4, 0.7):
        film.write_bytes(content[: int(len(content) * share) // 188 * 188])
        run(workflow, film, out=out)
    stored = analysed(out)
    assert list(stored) == ["film", "film-2"]
    at = tmp_path / "to" / "film.ts"
    at.parent.mkdir()
    shutil.move(film, at)
    at.write_bytes(content)
    done, notes = run(workflow, at, out=out)
    assert done.summary.exit_code == 0
    assert notes == [f"film: {film} is {at} now"]
    found = analysed(out)
    assert list(found) == ["film", "film-2", "film-3"]
    assert {name: found[name] for name in stored} == stored
    assert sorted(number for numbers in found.values() for number in numbers) == list(range(60))


def test_a_kill_while_parts_get_their_path(archive: Path, tmp_path: Path) -> None:
    workflow, out = write_workflow(tmp_path), tmp_path / "out.zarr"
    content, film = write_film(tmp_path / "whole.ts", 40, gop=10, bf="0").read_bytes(), tmp_path / "film.ts"
    for share in (0.5, 1):
        film.write_bytes(content[: int(len(content) * share) // 188 * 188])
        run(workflow, film, out=out)
    (tmp_path / "to").mkdir()
    before, at = analysed(out), film.rename(tmp_path / "to" / "film.ts")
    update, updated = InputStore.update, []

    def killed(self: InputStore, **attributes: object) -> None:
        if updated:
            raise KeyboardInterrupt
        updated.append(self.name)
        update(self, **attributes)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(InputStore, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            run(workflow, at, out=out)
    assert updated == ["film"]
    assert run(workflow, at, out=out)[0].summary.frames == 0
    assert analysed(out) == before
    with RunStore.open(out) as store:
        assert store.input_paths() == {str(at), f"{at}#2"}
        assert store.attributes["moving"] is None


def test_files_of_pictures(own: Own, tmp_path: Path) -> None:
    arrays = tmp_path / "pictures.h5"
    with h5py.File(arrays, "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    own.module("mean", MEAN)
    workflow = own.workflow({"mean": "mean:Mean"}, kind="images", resize=[8, 8])
    assert own.run(workflow, arrays).summary.items == 5
    moved = arrays.rename(tmp_path / "renamed.h5")
    assert own.run(workflow, moved).summary.items == 0
    with h5py.File(moved, "a") as file:
        file["images"][0, 0, 0] = 0
    assert own.run(workflow, moved.rename(arrays)).summary.items == 5, "another content"


def pictures(folder: Path, *numbers: int, seconds: float) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        path = folder / f"IMG_{number}.png"
        cv2.imwrite(str(path), np.full((8, 8, 3), number, np.uint8))
        os.utime(path, (seconds, seconds + number))
    return folder


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_a_folder_of_photographs(own: Own, tmp_path: Path, kind: str) -> None:
    """It is known by the names, sizes and times of its pictures: a camera gives the same names to others."""
    own.module("mean", MEAN)
    workflow = own.workflow({"mean": "mean:Mean"}, kind="images", resize=[8, 8])
    first = pictures(tmp_path / "a", 1, 2, 3, seconds=1e9)

    def words(folder: Path) -> Path:
        if kind == "list":
            (folder / "list.txt").write_text("".join(f"{path.name}\n" for path in sorted(folder.glob("*.png"))))
        return folder / "list.txt" if kind == "list" else folder

    own.run(workflow, words(first))
    pictures(first, 4, seconds=1e9)
    before = own.run(workflow, words(first))
    (name, later) = before.inputs
    moved = pictures(first.rename(tmp_path / "b"), 5, seconds=1e9)
    (moved / "IMG_1.png").unlink()
    new = f"{words(moved).stem}-3"
    view = pipeline.plan(workflow, words(moved), own.out)
    assert [(line.name, line.frames_to_do) for line in view.inputs] == [(name, 0), (later, 0), (new, 1)]
    again = own.run(workflow, words(moved))
    assert (again.summary.items, list(again.inputs)) == (1, [name, later, new])
    assert {again.input(one).attributes["folder"] for one in again.inputs} == {str(moved)}
    assert own.run(workflow, words(moved), prune=True).array(name, "name").tolist() == ["IMG_2.png", "IMG_3.png"]
    other = pictures(tmp_path / "c", 2, 3, 4, 5, seconds=2e9)
    moved.rename(tmp_path / "not named")
    assert own.run(workflow, words(other)).summary.items == 4


MEAN = """
from pipeline import Array, Stage


class Mean(Stage):
    needs = ("frames_rgb",)
    outputs = (Array("mean", ("frame", "channel"), "float64", (3,)),)

    def run(self, chunk):
        return {"mean": chunk.frames_rgb.mean(axis=(1, 2))}
"""
