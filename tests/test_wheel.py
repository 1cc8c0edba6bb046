"""The wheel: what is in it, and that it works in an environment of its own, away from the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pipeline
from tests.test_import_name import USERS_OWN

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the files that git knows, with this environment's setuptools: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repository / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    built = subprocess.run([*pip, "wheel", *options, str(folder / "source")], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, which sees the packages of this one, though not an editable installation."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    seen = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (site / "seen.pth").write_text("".join(f"{path}\n" for path in seen))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", f"{folder}/bin/python"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    return folder


def test_what_is_in_the_wheel(wheel: Path, workflows: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        shipped = {f"pipeline/workflows/{p.relative_to(workflows)}": p for p in workflows.rglob("*.yaml")}
        shipped["pipeline/workflows/sharpness.py"] = workflows / "sharpness.py"
        for name, path in shipped.items():
            assert archive.read(name) == path.read_bytes()
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"pipeline", "reelgraph"}
    assert {"pipeline/py.typed", "reelgraph/__init__.py", "reelgraph/py.typed"} <= names
    assert "pipeline/views/report/page.html" in names
    assert not [name for name in names if name.startswith("pipeline/distribution")]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert "License-Expression: MIT" in metadata
    assert f"Version: {pipeline.__version__}\n" in metadata


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = wheel.parent / "source"
    build = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
    command = [sys.executable, "-c", build]
    subprocess.run([*command, "build_sdist", str(tmp_path)], cwd=source, capture_output=True, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(archive, tmp_path, filter="data")
    (unpacked,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    subprocess.run([*command, "build_wheel", str(tmp_path)], cwd=unpacked, capture_output=True, check=True)
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
    assert {"CHANGELOG.md", "LICENSE", "README.md"} <= {path.name for path in unpacked.iterdir()}


def test_the_demo_in_a_fresh_environment(environment: Path, tmp_path: Path) -> None:
    """In a folder with a `pipeline.py` of the user's own, which is first on the search path."""
    (tmp_path / "pipeline.py").write_text(USERS_OWN)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    variables["PYTHONPATH"] = "."

    def reelgraph(*words: str) -> str:
        command = [str(environment / "bin" / "reelgraph"), *words]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        assert "the user's own module" not in done.stdout + done.stderr
        return done.stdout

    listed = json.loads(reelgraph("workflows", "--json"))["workflows"]
    assert {Path(one["path"]).is_relative_to(environment) for one in listed} == {True}
    reelgraph("demo", "demo.mp4", "--seconds", "2")
    reelgraph("run", "faces", "demo.mp4", "--out", "x.zarr", "--workers", "1")
    # The stage beside the shipped workflow is found by workers too.
    reelgraph("run", "sharp_faces", "demo.mp4", "--out", "x.zarr", "--workers", "1")
    assert json.loads(reelgraph("status", "x.zarr", "--json"))["inputs"][0]["name"] == "demo"
    reelgraph("init", "faces")
    planned = json.loads(reelgraph("plan", "faces.yaml", "demo.mp4", "--out", "x.zarr", "--json"))
    assert planned["inputs"][0]["chunks_done"] == planned["inputs"][0]["chunks"]
    faces = pipeline.open(tmp_path / "x.zarr").faces()
    assert len(faces) > 0
    assert (faces["sharpness"] > 0).all()
