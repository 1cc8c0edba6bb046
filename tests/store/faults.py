"""Die, as after kill -9, at the k-th file operation of a piece of work: run as a process of its own.

The operations counted are those that change a folder or open a file for writing; the process ends before the k-th is
done, so all k together see every state that a kill can leave behind. Each try runs in a fork, which spares the imports.
"""

from __future__ import annotations

import builtins
import io
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.testing  # with the next two: here, so that no fork pays for it
import psutil  # noqa: F401
import storemaker as made
import zarr.storage  # noqa: F401

from pipeline.files import lock
from pipeline.store.chunks import chunk_file
from pipeline.store.compact import add_arrays
from pipeline.store.nodes import ASIDE
from pipeline.store.read import open as open_run
from pipeline.store.remove import Rows, remove_rows
from pipeline.store.run import REMOVING, RunStore

KILLED = 97
# A small input: two chunks, the second without faces. Each array and chunk more adds a dozen operations to die at.
BOUNDARIES = made.BOUNDARIES[:2]
N_FRAMES = BOUNDARIES[-1][1]
OLD = (made.DETECT[0], made.DETECT[3])
OPERATIONS = ("replace", "rename", "link", "unlink", "remove", "rmdir", "mkdir", "utime")


def arm(k: int) -> None:
    """Make the k-th operation (from 0) the death of this process."""
    left = [k]
    guard = threading.Lock()

    def strike() -> None:
        with guard:
            left[0] -= 1
            if left[0] < 0:
                os._exit(KILLED)

    def counted(function: Callable) -> Callable:
        def call(*args, **kwargs):
            strike()
            return function(*args, **kwargs)

        return call

    def opened(file, mode="r", *args, **kwargs):
        if set(mode) & set("wxa+"):
            strike()
        return real_open(file, mode, *args, **kwargs)

    real_open = io.open
    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name)))
    builtins.open = io.open = opened


def forked(work: Callable[[], None]) -> int:
    """Exit status of a fork that does the work; 1 where it raised."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def do_compact(out: Path) -> None:
    with RunStore.open(out) as store:
        made.compact(store, *OLD, n_frames=N_FRAMES)


def do_add_stage(out: Path) -> None:
    with RunStore.open(out) as store:
        made.compact(store, *OLD, *made.SHARP, n_frames=N_FRAMES)


def do_add_arrays(out: Path) -> None:
    with RunStore.open(out) as store:
        spec = made.SHARP[0]
        add_arrays(store, "clip", [spec], made_first(spec), replace_existing=True)


SHOTS = (made.Array("thumbnail", ("shot", "row"), "uint8", (3,)), made.Array("thumbnail_face", ("shot",), "int64"))


def gone_faces() -> np.ndarray:
    """Every third face of the input: which are to be removed."""
    return np.arange(int(made.TRUTH["n_faces"][:N_FRAMES].sum())) % 3 == 0


def of_removal(*, removed: bool) -> dict[str, np.ndarray]:
    """What the input holds before and after."""
    arrays = made.expected(*OLD, n_frames=N_FRAMES)
    shots = np.array([0, 1, 5, -1, 3], np.int64)
    arrays |= {"thumbnail": np.arange(15, dtype=np.uint8).reshape(5, 3), "thumbnail_face": shots}
    if not removed:
        return arrays
    gone = gone_faces()
    kept_shots = (shots < 0) | ~gone[shots]
    new_row = np.where(shots >= 0, np.cumsum(~gone)[shots] - 1, shots)
    faces = {spec.name for spec in OLD if spec.dims[0] == "face"} | {"face_frame"}
    after = {name: array[~gone] if name in faces else array for name, array in arrays.items()}
    after["n_faces"] = np.bincount(arrays["face_frame"][~gone], minlength=N_FRAMES).astype(np.int32)
    return after | {"thumbnail": arrays["thumbnail"][kept_shots], "thumbnail_face": new_row[kept_shots]}


def do_add_shots(out: Path) -> None:
    with RunStore.open(out) as store:
        add_arrays(store, "clip", SHOTS, of_removal(removed=False))


def do_remove(out: Path) -> None:
    with RunStore.open(out) as store:
        if not store.input("clip").attributes.get("removed"):
            faces = Rows("face", "n_faces", "face_frame", {"shot": "thumbnail_face"})
            remove_rows(store, "clip", faces, gone_faces(), facts={"removed": True})


def check_remove(out: Path) -> None:
    """A reader sees the old state or the new, before the next opening for writing and after it; then only the new."""
    states = [of_removal(removed=False), of_removal(removed=True)]
    item = open_run(out).input("clip")
    committed = bool(item.attributes.get("removed"))
    made.assert_equal(item.read(list(states[0])), states[committed])
    with RunStore.open(out) as store:
        assert not {REMOVING, "void_chunks"} & store.input("clip").attributes.keys()
    assert not (out / "clip" / ASIDE).exists()
    made.assert_equal(made.compacted(out, "clip"), states[committed])
    do_remove(out)
    made.assert_equal(made.compacted(out, "clip"), states[True])
    assert {path.name for path in (out / "clip").iterdir()} == {"zarr.json", *states[True]}


def do_fresh(out: Path) -> None:
    with RunStore.open(out, fresh=True) as store:
        made.set_up(store)


def made_first(spec) -> dict:
    return {spec.name: made.expected(spec, n_frames=N_FRAMES)[spec.name]}


def do_chunk(out: Path) -> None:
    made.write(out, "clip", 0, OLD, attempts=2)


def make(
    out: Path, *, complete: bool = False, sharp: bool = False, chunks: bool = True, failed: bool = False
) -> None:
    with RunStore.open(out) as store:
        made.set_up(store)
        if failed:
            made.fail(out, "clip", 0)
        if chunks:
            made.write_all(out, "clip", OLD, len(BOUNDARIES))
        if complete:
            made.compact(store, *OLD, n_frames=N_FRAMES)
        if sharp:
            stages = store.input("clip").attributes["stages"]
            store.input("clip").update(stages={**stages, "sharp": {"key": "key-s", "state": "running"}})
            made.write_all(out, "clip", made.SHARP, len(BOUNDARIES), stages={"sharp": "key-s"})


def reader_sees(out: Path, *specs) -> None:
    """What a reader sees after the kill must be right, if not yet all there."""
    item = open_run(out).input("clip")
    known = item.arrays
    for name, array in item.read([spec.name for spec in specs if spec.name in known]).items():
        whole = made.expected(*specs, n_frames=N_FRAMES)
        made.assert_equal({name: array}, {name: whole[name]})


def check_compact(out: Path) -> None:
    reader_sees(out, *OLD)
    do_compact(out)
    made.assert_equal(made.compacted(out, "clip"), made.expected(*OLD, n_frames=N_FRAMES))
    assert not (out / "clip" / "chunks").exists()


def check_add_stage(out: Path) -> None:
    reader_sees(out, *OLD, *made.SHARP)
    item = open_run(out).input("clip")
    assert {spec.name for spec in OLD} <= item.arrays.keys(), "old arrays must stay in sight"
    do_add_stage(out)
    made.assert_equal(made.compacted(out, "clip"), made.expected(*OLD, *made.SHARP, n_frames=N_FRAMES))


def check_add_arrays(out: Path) -> None:
    reader_sees(out, *OLD, made.SHARP[0])
    do_add_arrays(out)
    made.assert_equal(made.compacted(out, "clip"), made.expected(*OLD, made.SHARP[0], n_frames=N_FRAMES))


def check_fresh(out: Path) -> None:
    """Either nothing was removed yet, or the next opening finds an empty store: never a part of the old one."""
    with RunStore.open(out) as store:
        names = store.input_names()
        old = names and store.input("clip").attributes["complete"]
        if old:
            made.assert_equal(made.compacted(out, "clip"), made.expected(*OLD, n_frames=N_FRAMES))
        else:
            left = {path.name for path in out.iterdir()} - {"zarr.json", ".lock"}
            assert left <= {"clip"}, left
            if not names:
                made.set_up(store)
            made.write_all(out, "clip", OLD, len(BOUNDARIES))
            made.compact(store, *OLD, n_frames=N_FRAMES)
    made.assert_equal(made.compacted(out, "clip"), made.expected(*OLD, n_frames=N_FRAMES))


def check_chunk(out: Path) -> None:
    """With a file all arrays are whole; without one a second write makes them so, and no failure is left."""
    chunks = out / "clip" / "chunks"
    if list(chunks.glob("000000.ok.*.zip")):
        reader_sees_chunk(out)
    do_chunk(out)
    reader_sees_chunk(out)
    assert [path.name for path in chunks.glob("000000.*.zip")] == [chunk_file(0, made.record())]
    with RunStore.open(out):
        pass
    assert not list(chunks.glob("*.partial"))


def reader_sees_chunk(out: Path) -> None:
    wanted = made.arrays_of(0, OLD)
    with RunStore.open(out, mode="r") as store:
        made.assert_equal(store.input("clip").read_arrays(list(wanted), 0, made.LENGTH), wanted)


Case = tuple[dict[str, bool], Callable[[Path], None], Callable[[Path], None]]

CASES: dict[str, Case] = {
    "compact": ({}, do_compact, check_compact),
    "add stage": ({"complete": True, "sharp": True}, do_add_stage, check_add_stage),
    "add arrays": ({"complete": True}, do_add_arrays, check_add_arrays),
    "fresh": ({"complete": True}, do_fresh, check_fresh),
    "new chunk": ({"chunks": False}, do_chunk, check_chunk),
    "chunk again": ({}, do_chunk, check_chunk),
    "failed chunk again": ({"chunks": False, "failed": True}, do_chunk, check_chunk),
}

REMOVALS: dict[str, Case] = {
    "remove faces": ({"complete": True}, do_remove, check_remove),
    "remove faces while a stage is added": ({"complete": True, "sharp": True}, do_remove, check_remove),
}


def main(case: str, folder: Path, step: int = 1) -> int:
    """Print how many operations there are, of which every `step`th was tried; exit 1 at the first not repaired."""
    facts, work, check = (CASES | REMOVALS)[case]
    template, out = folder / "template.zarr", folder / "out.zarr"
    if forked(lambda: make(template, **facts)):
        return 1
    if case == "add arrays" and forked(lambda: do_add_arrays(template)):  # so that there is one to replace
        return 1
    if case in REMOVALS and forked(lambda: do_add_shots(template)):
        return 1
    for k in range(0, 10_000, step):
        shutil.copytree(template, out)
        status = forked(lambda k=k: (arm(k), work(out)))
        if status not in (0, KILLED) or forked(lambda: check(out)):
            print(f"operation {k} of {case!r}: exit status {status}, not repaired")
            return 1
        shutil.rmtree(out)
        if status == 0:
            print(k)
            return 0
    return 1


if __name__ == "__main__":
    lock.GUARD_STALE_SECONDS = 0.1  # how long is for test_lock.py: kills that leave an empty guard need not wait
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])))
