"""`workflows/analyze.yaml`: added to a store that `faces.yaml` has filled, it computes what is new and touches no more.

The weights of the attributes are stand-ins (tests.models.stand_in_attributes.py), those of Fasnet the real ones.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import pipeline
from pipeline.errors import ModelError, StoreError
from pipeline.faces.models import zoo
from pipeline.faces.stages.detect import Detect
from pipeline.faces.stages.embed import Embed
from tests.models.stand_in_attributes import write_stand_ins

NEW = {"age": (), "gender": (2,), "emotion": (7,), "race": (6,), "real": (3,)}
"""Arrays that the workflow adds, and the shape of a face's value."""


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Iterator[Path]:
    """DEEPFACE_HOME with stand-ins for the attributes and Minivision's files."""
    with pytest.MonkeyPatch.context() as patch:
        home = write_stand_ins(tmp_path_factory.mktemp("stand_ins"))
        for file in zoo.card("Fasnet").weights:
            shutil.copy(data_dir / "weights" / "deepface" / file.name, home / ".deepface" / "weights")
        patch.setenv("DEEPFACE_HOME", str(home))
        yield home


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photographed face that drifts; no face in the second half."""
    photograph = pytest.importorskip("skimage.data").astronaut()
    path = tmp_path_factory.mktemp("clips") / "astronaut.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 192, "yuv420p"
        for number in range(40):
            left = 90 + 2 * number if number < 20 else 256
            top = 20 if number < 20 else 320
            picture = np.ascontiguousarray(photograph[top : top + 192, left : left + 256])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def faces(clip: Path, workflows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished store of faces.yaml."""
    out = tmp_path_factory.mktemp("runs") / "faces.zarr"
    done = pipeline.run(workflows / "faces.yaml", clip, out, executor="inline")
    assert done.summary.exit_code == 0
    assert done.array("astronaut", "n_faces").tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    return out


@pytest.fixture
def store(faces: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(faces, tmp_path / "out.zarr"))


def contents(store: Path) -> dict[str, str]:
    """Hash of every file of every array, by path."""
    files = [path for path in store.rglob("*") if path.is_file() and path.parent.name not in (store.name, "astronaut")]
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be detected or embedded."""

    def run(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(Detect, "run", run)
    monkeypatch.setattr(Embed, "run", run)


def test_only_what_is_new_is_computed(
    store: Path, clip: Path, workflows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(store)
    forbid(monkeypatch)
    done = pipeline.run(workflows / "analyze.yaml", clip, store, executor="inline")
    assert done.summary.exit_code == 0, done.summary.failures
    after = contents(store)
    assert {path: after.get(path) for path in before} == before
    assert {path.split("/")[1] for path in after.keys() - before.keys()} == set(NEW)
    for name, shape in NEW.items():
        values = done.array("astronaut", name)
        assert values.shape == (4, *shape)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        if shape:
            np.testing.assert_allclose(values.sum(axis=1), 1, atol=1e-5)
    assert (done.array("astronaut", "age") > 0).all()
    assert (done.array("astronaut", "age") < 100).all()


def test_the_store_says_what_its_values_mean(store: Path, clip: Path, workflows: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pipeline.run(workflows / "analyze.yaml", clip, store, executor="inline")
    with xarray.open_zarr(store, group="astronaut") as opened:
        assert opened["age"].attrs["units"] == "year"
        for name, classes in {
            "gender": zoo.GENDERS,
            "emotion": zoo.EMOTIONS,
            "race": zoo.RACES,
            "real": ("2D spoof", "real", "3D spoof"),
        }.items():
            assert opened[name].dims == ("face", f"{name}_class")
            assert tuple(opened[name].attrs["class_names"]) == classes


def test_photographs(workflows: Path, tmp_path: Path) -> None:
    """Pictures of different sizes, one of them broken: each face gets the values that it gets alone."""
    image = pytest.importorskip("skimage.data").astronaut()
    folder = tmp_path / "photographs"
    folder.mkdir()
    Image.fromarray(image[:300, 60:400]).save(folder / "a.png")
    Image.fromarray(image[20:220, 100:356]).save(folder / "b.png")
    (folder / "c.png").write_bytes(b"no picture")
    change = {"source.kind": "images"}
    done = pipeline.run(workflows / "analyze.yaml", folder, tmp_path / "all.zarr", executor="inline", set=change)
    assert done.summary.exit_code == 0, done.summary.failures
    assert done.array("photographs", "n_faces").tolist() == [1, 1, 0]
    one = folder / "b.png"
    alone = pipeline.run(workflows / "analyze.yaml", one, tmp_path / "b.zarr", executor="inline", set=change)
    for name in NEW:
        both = done.array("photographs", name)
        assert np.isfinite(both).all()
        np.testing.assert_allclose(both[1:], alone.array("b", name), atol=1e-6)


def test_each_attribute_can_come_by_itself(
    store: Path, clip: Path, workflows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stage for each: what comes later leaves alone what came before, and only its own weights are asked for."""
    forbid(monkeypatch)
    own = write_stand_ins(tmp_path / "home")
    monkeypatch.setenv("DEEPFACE_HOME", str(own))
    for name in ("gender", "race"):
        (own / ".deepface" / "weights" / zoo.card(name.title()).weights[0].name).unlink()
    path = tmp_path / "more.yaml"
    text = (workflows / "faces.yaml").read_text()
    for name in ("age", "emotion"):
        before = contents(store)
        text += f"  {name}: {{use: analyze, attributes: [{name}], after: detect}}\n"
        path.write_text(text)
        done = pipeline.run(path, clip, store, executor="inline")
        assert done.summary.exit_code == 0, done.summary.failures
        after = contents(store)
        assert {key: after.get(key) for key in before} == before
        assert {key.split("/")[1] for key in after.keys() - before.keys()} == {name}


def test_other_weights_are_other_results(
    store: Path, clip: Path, workflows: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.run(workflows / "analyze.yaml", clip, store, executor="inline")
    other = shutil.copytree(home, tmp_path / "home")
    weights = other / ".deepface" / "weights"
    with (weights / "age_model_weights.onnx").open("ab") as file:
        file.write(b"\x00")
    monkeypatch.setenv("DEEPFACE_HOME", str(other))
    with pytest.raises(StoreError, match="analyze"):
        pipeline.run(workflows / "analyze.yaml", clip, store, executor="inline")


def test_missing_weights_are_named_before_there_is_a_store(
    clip: Path, workflows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPFACE_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"weights of Age are missing: no file .*; run: reelgraph models fetch Age$"):
        pipeline.run(workflows / "analyze.yaml", clip, tmp_path / "out.zarr", executor="inline")
    assert not (tmp_path / "out.zarr").exists()
