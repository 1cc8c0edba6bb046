"""A store that is deleted, renamed or half deleted while a run writes to it: the run says so, the next one works."""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from pathlib import Path

import pytest

import pipeline
from pipeline.engine.plan import find_inputs, open_source
from pipeline.engine.workflow import load_workflow
from pipeline.errors import InputError, StoreError
from pipeline.store.chunks import fail_chunk
from pipeline.store.record import Record
from tests import own as texts
from tests.clips import write_clip
from tests.own import Own
from tests.processes import reelgraph, start, wait_until

SLOW = texts.PLAIN.replace("        return", "        import time\n        time.sleep(0.15)\n        return")
N = 150
"""Numbers, in chunks of five."""


def failing_at(number: int) -> str:
    return texts.PLAIN.replace("        return", f'        assert {number} not in chunk["number"]\n        return')


def remove(out: Path) -> None:
    """As rm -rf does it where files keep appearing: again, until nothing is left."""
    for _ in range(20):
        shutil.rmtree(out, ignore_errors=True)
        if not out.exists():
            return


def remove_once(out: Path) -> None:
    """As rm -rf ends with "Directory not empty"."""
    shutil.rmtree(out, ignore_errors=True)


def rename(out: Path) -> None:
    out.rename(out.with_suffix(".moved"))


def remove_all_but_chunks(out: Path) -> None:
    """As an rm -rf that was stopped."""
    for path in (out / "zarr.json", out / ".lock", out / "numbers" / "zarr.json"):
        path.unlink(missing_ok=True)


def remove_the_input(out: Path) -> None:
    shutil.rmtree(out / "numbers", ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "executor"),
    [
        (remove, "inline"), (remove_once, "inline"), (rename, "inline"), (remove_all_but_chunks, "inline"),
        (remove_the_input, "inline"), (remove_once, "dask"), (rename, "dask"),
    ],
)  # fmt: skip
def test_the_store_goes_in_the_middle(own: Own, harm, executor: str) -> None:
    own.module("plain", SLOW)
    workflow = own.workflow({"square": "plain:Square"})
    words: list[str | Path] = ["run", workflow, own.numbers(*range(N)), "--out", own.out]
    words += ["--executor", "inline"] if executor == "inline" else ["--workers", "2", "--dashboard-port", "0"]
    process = start(*words)
    wait_until(lambda: len(list(own.out.glob("numbers/chunks/0*.zip"))) > 5)
    harm(own.out)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2, said
    lines = [line for line in said.splitlines() if line.startswith("reelgraph: ")]
    assert len(lines) == 1, said
    assert "Traceback" not in said
    assert str(own.out) in lines[0]
    assert "run again" in lines[0]
    time.sleep(0.5)
    own.module("plain", texts.PLAIN)
    again = reelgraph(*words[:3], "--out", own.out, "--executor", "inline", "--keep-stale", "square")
    assert again.returncode == 0, again.stderr
    assert pipeline.open(own.out).frames()["square"].tolist() == [float(n) ** 2 for n in range(N)]
    assert not [path for path in own.out.rglob("*.zip")]
    assert os.listdir(own.out / "numbers").count("chunks") == 0


def test_leftovers_of_another_file_are_not_taken_over(own: Own) -> None:
    """Chunks without their input may be of another file of the same name, or of other options."""
    own.module("plain", texts.PLAIN)
    workflow = own.workflow({"square": "plain:Square"})
    own.numbers(*range(100, 112))
    own.module("plain", failing_at(106))
    own.run(workflow)
    own.module("plain", texts.PLAIN)
    (own.out / "zarr.json").unlink()
    (own.out / "numbers" / "zarr.json").unlink()
    own.numbers(*range(12))
    run = own.run(workflow)
    assert run.frames()["square"].tolist() == [float(n) ** 2 for n in range(12)]


@pytest.mark.parametrize("more", ["a.txt", "numbers/a.txt", "numbers/chunks/a.txt", "other/a.txt"])
def test_other_files_are_no_leftovers(own: Own, more: str) -> None:
    own.module("plain", failing_at(6))
    workflow = own.workflow({"square": "plain:Square"})
    own.run(workflow)
    (own.out / "zarr.json").unlink()
    (own.out / "numbers" / "zarr.json").unlink()
    (own.out / more).parent.mkdir(exist_ok=True)
    (own.out / more).write_text("precious")
    before = sorted(own.out.rglob("*"))
    with pytest.raises(pipeline.errors.StoreError, match="exists and is not a reelgraph store"):
        own.run(workflow)
    assert sorted(own.out.rglob("*")) == before


def test_a_worker_that_does_not_see_the_store_or_the_footage_names_its_machine(tmp_path: Path) -> None:
    """On a running cluster both may well be there for the others."""
    host = re.escape(socket.gethostname())
    with pytest.raises(StoreError, match=f"the store was deleted or renamed, or {host} does not see it"):
        fail_chunk(str(tmp_path / "out.zarr"), "clip", 0, Record("failed", error="made to fail"))
    clip = write_clip(tmp_path / "clip.mp4", n_frames=10)
    workflow = load_workflow("faces")
    (ref,) = find_inputs(workflow, [str(clip)])
    source = open_source(workflow, ref, None)
    job = source.job(0, 10)
    clip.unlink()
    with pytest.raises(InputError, match=f"clip.mp4 is gone since the run was set up, or {host} does not see it"):
        job.load()
