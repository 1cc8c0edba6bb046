"""`import reelgraph` is the package `pipeline`, also beside a `pipeline.py` of the user's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from tests.clips import write_clip

USERS_OWN = "print('the user\\'s own module')\nHELLO = 1\n"


def python(folder: Path, repository: Path, *words: str, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the packages of this repository found after what lies in that folder."""
    path = [first, str(repository / "pipeline" / "distribution"), str(repository)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )


def run_script(folder: Path, repository: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text)
    return python(folder, repository, "script.py")


def test_dir_lists_the_public_names() -> None:
    assert dir(pipeline) == sorted(pipeline.__all__)
    assert {"run", "plan", "open", "Stage", "Array", "Chunk", "deepface", "ReelgraphError"} <= set(dir(pipeline))
    assert [name for name in dir(pipeline) if not hasattr(pipeline, name)] == []


@pytest.mark.parametrize("own_file", [False, True], ids=["alone", "beside pipeline.py"])
def test_both_names_are_one_package(tmp_path: Path, repository: Path, own_file: bool) -> None:
    if own_file:
        (tmp_path / "pipeline.py").write_text(USERS_OWN)
    text = f"""
import reelgraph
import reelgraph.engine.source as base
from reelgraph import Stage, deepface, errors
import pipeline, pipeline.engine.source, pipeline.engine.workflow
import reelgraph.engine.workflow
import sys
assert reelgraph is pipeline
assert pipeline.__file__ == {str(repository / "pipeline" / "__init__.py")!r}, pipeline.__file__
assert reelgraph.run is pipeline.run
assert reelgraph.deepface is deepface is sys.modules["pipeline.deepface"]
assert base is pipeline.engine.source
assert reelgraph.engine.workflow is pipeline.engine.workflow is sys.modules["reelgraph.engine.workflow"]
assert pipeline.engine.workflow.__spec__.name == "pipeline.engine.workflow"
assert issubclass(pipeline.engine.finding.find_stage("detect"), Stage)
assert errors.ReelgraphError is reelgraph.ReelgraphError
both = [name for name in sys.modules if name.startswith("reelgraph.")]
assert all(sys.modules[name] is sys.modules["pipeline" + name[len("reelgraph"):]] for name in both), both
assert dir(reelgraph) == sorted(reelgraph.__all__)
try:
    import reelgraph.nowhere
except ModuleNotFoundError as err:
    print(err)
"""
    done = run_script(tmp_path, repository, text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "No module named 'pipeline.nowhere'\n"


def test_pipeline_may_be_imported_before(tmp_path: Path, repository: Path) -> None:
    done = run_script(tmp_path, repository, "import pipeline, reelgraph\nassert reelgraph is pipeline\n")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_is_taken_is_said_in_one_line(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "pipeline.py").write_text(USERS_OWN)
    text = "import pipeline\ntry:\n    import reelgraph\nexcept ImportError as err:\n    print(err)\n"
    done = run_script(tmp_path, repository, text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "the user's own module",
        "cannot import reelgraph: the name 'pipeline', which its own package has, is taken by "
        f"{tmp_path / 'pipeline.py'}; rename that module",
    ]


def test_the_command_beside_a_file_of_that_name(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "pipeline.py").write_text(USERS_OWN)
    done = python(tmp_path, repository, "-m", "reelgraph", "--version")
    assert (done.stdout, done.stderr) == (f"reelgraph {pipeline.__version__}\n", "")
    done = python(tmp_path, repository, "-m", "reelgraph", "workflows", "fases", first=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("reelgraph: unknown workflow 'fases'; did you mean 'faces'?")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["at the top", "where it is needed", "command"])
def test_workers_take_our_package(tmp_path: Path, repository: Path, where: str) -> None:
    """They inherit the search path, where the user's folder is first, and find functions by the module's name."""
    (tmp_path / "pipeline.py").write_text(USERS_OWN)
    write_clip(tmp_path / "clip.mp4", n_frames=40)
    (tmp_path / "mine.yaml").write_text("source: {every: 5}\nstages: {mine: {use: 'mine:Mine'}}\n")
    (tmp_path / "mine.py").write_text(
        """
import numpy as np
import reelgraph
from reelgraph import Array, Stage

class Mine(Stage):
    needs = ("frames_rgb",)
    outputs = (Array("mine", ("frame",), "float32"),)

    def run(self, chunk):
        import pipeline
        assert pipeline is reelgraph
        return {"mine": np.full(len(chunk.frame), 7, np.float32)}
"""
    )
    if where == "command":
        words = ["run", "mine.yaml", "clip.mp4", "--out", "x.zarr", "--workers", "1"]
        done = python(tmp_path, repository, "-m", "reelgraph", *words)
    else:
        head, inside = ("import reelgraph", "pass") if where == "at the top" else ("", "import reelgraph")
        done = run_script(
            tmp_path,
            repository,
            f"""
{head}
if __name__ == "__main__":
    {inside}
    run = reelgraph.run("mine.yaml", "clip.mp4", out="x.zarr", executor="dask", workers=1)
    assert run.summary.exit_code == 0, run.summary
""",
        )
    assert done.returncode == 0, done.stderr
    assert "the user's own module" not in done.stdout + done.stderr
    assert (pipeline.open(tmp_path / "x.zarr").input("clip").read(["mine"])["mine"] == 7).tolist() == [True] * 8
