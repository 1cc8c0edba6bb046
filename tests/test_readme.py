"""Every command and every program of the README, run in its order, in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline

PEOPLE = {
    "track": "int32", "person": "int32", "identity": "int32", "distance": "float32", "thumbnail": "uint8",
    "thumbnail_face": "int64",
}  # fmt: skip
"""What `people` and `find` add to a store."""
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(repository: Path) -> list[tuple[str, str]]:
    return BLOCK.findall((repository / "README.md").read_text())


@pytest.fixture(scope="module")
def copy(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files git knows, a clip.mp4, and this Python's environment as .venv: nothing is installed again."""
    target = tmp_path_factory.mktemp("readme") / "reelgraph"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repository / name, target / name)
    (target / ".venv").mkdir()
    (target / ".venv" / "bin").symlink_to(Path(sys.prefix) / "bin")
    (target / ".venv" / ".installed").touch()
    pipeline.make_demo_clip(target / "clip.mp4", seconds=4, size=(640, 360))
    _picture(target / "photo.jpg")
    _picture(target / "known" / "Ann" / "1.jpg")
    return target


def _picture(path: Path) -> None:
    """A photograph of somebody who is in the clip."""
    import cv2
    from skimage import data

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), data.astronaut()[:, :, ::-1])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_does_what_the_readme_says(repository: Path, copy: Path) -> None:
    of_an_outer_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in of_an_outer_make},
        "PATH": f"{copy}/.venv/bin:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "pipeline" / "distribution")]),
    }
    found = blocks(repository)
    assert sum(kind == "sh" for kind, _ in found) >= 4
    for kind, text in found:
        commands = [[sys.executable, "-c", text]] if kind == "python" else [line.split() for line in text.splitlines()]
        if "__main__" in text:
            (copy / "example.py").write_text(text)
            commands = [[sys.executable, "example.py"]]
        for command in commands:
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    faces = pipeline.open(copy / "runs" / "clip.zarr").faces()
    assert {"x", "y", "w", "h", "confidence", "sharpness"} <= set(faces.columns)
    assert len(faces) > 0
    assert (copy / "runs" / "demo.zarr").is_dir()
    (opened,) = re.findall(r"`(xarray\.open_zarr\([^`]*\))`", (repository / "README.md").read_text())
    subprocess.run([sys.executable, "-c", f"import xarray\n{opened}.box"], cwd=copy, check=True)
    arrays = pipeline.open(copy / "runs" / "clip.zarr").input("clip").arrays
    assert {name: arrays[name].dtype for name in PEOPLE} == PEOPLE
    made = ("runs/clip.html", "shots", "annotated.mp4", "blurred.mp4", "clips", "faces.parquet", "runs/people.json")
    assert [name for name in made if not (copy / name).exists()] == []


def test_the_table_lists_the_arrays_that_are_stored(repository: Path, workflows: Path) -> None:
    from pipeline.engine.workflow import load_workflow

    text = (repository / "README.md").read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (\w+) \|", text, re.MULTILINE))
    made = {name: spec.dtype for name, spec in load_workflow(workflows / "faces.yaml").specs().items()}
    own = {"frame": "int64", "time_seconds": "float64", "decoded": "bool", "face_frame": "int64"}
    assert listed == {**own, **made, **PEOPLE}


def test_make_run_installs_what_the_readme_imports(repository: Path) -> None:
    """xarray comes with an extra, which the first target installs."""
    (extras,) = re.findall(r"call INSTALL,\"\.\[(demo[^\"]*)\]\"", (repository / "Makefile").read_text())
    assert "xarray.open_zarr" in (repository / "README.md").read_text()
    assert "xarray" in re.split(r"\W+", extras)
