"""Every command and every program of the README and of the pages that go on from it, in order, in a copy of the
repository; and that what they say of arrays, links and pictures is so."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from pipeline.engine.workflow import load_workflow
from pipeline.faces.people.find import outputs
from pipeline.objects.stages.count import Count, CountOptions
from tests.docs import Reader, blocks

DOCS = Path(__file__).parent.parent / "docs"
ACTIVATE = "source .venv/bin/activate"
"""A line of the README for the reader's own shell."""
PEOPLE = {
    "track": "int32", "person": "int32", "thumbnail": "uint8", "thumbnail_face": "int64",
    **{array.name: array.dtype for array in outputs()},
}  # fmt: skip
"""What `people` and `find` add to a store."""
PAGES = ("faces.md", "commands.md", "running.md", "store.md")
"""Pages of docs/ that go on from the README, in the folder and with the store that it made."""


@pytest.fixture(scope="module")
def copy(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files git knows, and this Python's environment as .venv: nothing is installed again."""
    target = tmp_path_factory.mktemp("readme") / "reelgraph"
    names = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(repository / name, target / name)
    (target / ".venv").mkdir()
    (target / ".venv" / "bin").symlink_to(Path(sys.prefix) / "bin")
    (target / ".venv" / ".installed").touch()
    _picture(target / "photo.jpg")
    _picture(target / "known" / "Ann" / "1.jpg")
    return target


def _picture(path: Path) -> None:
    """A photograph of somebody who is in the clip."""
    import cv2
    from skimage import data

    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), data.astronaut()[:, :, ::-1])


@pytest.fixture(scope="module")
def followed(repository: Path, copy: Path) -> Path:
    """The copy, after every command and program of the README: each a process of its own, as a reader starts it."""
    of_an_outer_make = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in of_an_outer_make},
        "PATH": f"{copy}/.venv/bin:{os.environ['PATH']}",  # as after `source .venv/bin/activate`
        "PYTHONPATH": os.pathsep.join([str(copy), str(copy / "pipeline" / "distribution")]),
    }
    found = [block for block in blocks(repository / "README.md") if block.language in ("sh", "python")]
    assert sum(block.language == "sh" for block in found) >= 4
    for block in found:
        text = block.text
        if block.language == "python":
            commands = [[sys.executable, "-c", text]]
        else:
            commands = [line.split() for line in text.splitlines() if line != ACTIVATE]
        if "__main__" in text:
            (copy / "example.py").write_text(text)
            commands = [[sys.executable, "example.py"]]
        for command in commands:
            done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return copy


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command_does_what_the_readme_says(repository: Path, followed: Path) -> None:
    faces = pipeline.open(followed / "runs" / "clip.zarr").faces()
    assert {"x", "y", "w", "h", "confidence", "sharpness"} <= set(faces.columns)
    assert len(faces) > 0
    assert (followed / "runs" / "demo.zarr").is_dir()
    (opened,) = re.findall(r"`(xarray\.open_zarr\([^`]*\))`", (repository / "README.md").read_text())
    subprocess.run([sys.executable, "-c", f"import xarray\n{opened}.box"], cwd=followed, check=True)
    made = ("runs/clip.html", "faces.parquet", "runs/people.json", "mine.yaml")
    assert [name for name in made if not (followed / name).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_pages_go_on_from_the_readme(
    repository: Path, followed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    reader = Reader(followed, monkeypatch)
    for page in PAGES:
        assert reader.follow(repository / "docs" / page) >= 1
    reader.leave()
    clip = pipeline.open(followed / "runs" / "clip.zarr").input("clip")
    arrays = clip.arrays
    assert {name: arrays[name].dtype for name in PEOPLE} == PEOPLE
    rows = re.findall(r"^\| input.*$", (repository / "docs" / "store.md").read_text(), re.MULTILINE)
    assert len(rows) == 2
    assert set(clip.attributes) <= set(re.findall(r"`(\w+)`", "".join(rows)))
    made = ("shots", "annotated.mp4", "blurred.mp4", "clips", "runs/sparse.zarr", "runs/heard.zarr")
    assert [name for name in made if not (followed / name).exists()] == []


def listed(page: Path) -> dict[str, str]:
    """Arrays of a page's tables, with their dtypes."""
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| [^|]+ \| (\w+) \|", page.read_text(), re.MULTILINE)
    return {name: dtype for names, dtype in rows for name in re.findall(r"\w+", names)}


def test_the_tables_list_the_arrays_that_are_stored(repository: Path, workflows: Path) -> None:
    made = {name: spec.dtype for name, spec in load_workflow(workflows / "faces.yaml").specs().items()}
    own = {"frame": "int64", "time_seconds": "float64", "decoded": "bool", "face_frame": "int64"}
    assert listed(repository / "README.md") == {**own, **made}
    more = ["embed.per=track", "analyze.per=track", "detect.align=deepface"]
    analysed = {name: spec.dtype for name, spec in load_workflow(workflows / "analyze.yaml", more).specs().items()}
    features = {name: spec.dtype for name, spec in load_workflow(workflows / "features.yaml").specs().items()}
    objects = {name: spec.dtype for name, spec in load_workflow(workflows / "objects.yaml").specs().items()}
    counted = CountOptions(lines={"door": ((0, 0), (1, 1))}, zones={"hall": ((0, 0), (1, 0), (1, 1))})
    objects |= {array.name: array.dtype for array in Count(counted).outputs} | {"object_frame": "int64"}
    assert listed(repository / "docs" / "store.md") == {**own, **made, **PEOPLE, **analysed, **features, **objects}


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in DOCS.glob("*.md"))])
def test_links_lead_somewhere(repository: Path, page: str) -> None:
    text = re.sub(r"^```.*?^```", "", (repository / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (repository / page).parent / path if path else repository / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in anchors, f"{page}: {target}"


def test_the_readme_is_short_and_its_pages_are_linked(repository: Path) -> None:
    text = (repository / "README.md").read_text()
    assert len(text.split()) < 1600
    assert {path.name for path in DOCS.glob("*.md")} == set(re.findall(r"\(docs/([\w-]+\.md)\)", text))


def test_the_picture_of_the_data_flow_is_that_of_its_script() -> None:
    names = runpy.run_path(str(DOCS / "dataflow.py"))
    assert names["PICTURE"].read_text() == names["drawing"]()


def test_make_run_installs_what_the_readme_imports(repository: Path) -> None:
    """xarray comes with an extra, which the first target installs."""
    (extras,) = re.findall(r"call INSTALL,\"\.\[(demo[^\"]*)\]\"", (repository / "Makefile").read_text())
    assert "xarray.open_zarr" in (repository / "README.md").read_text()
    assert "xarray" in re.split(r"\W+", extras)
