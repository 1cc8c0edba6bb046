"""Under which licence each model of a store is: recorded when it is first used, shown by `reelgraph status`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pipeline
from pipeline.cli import main
from pipeline.engine.workflow import build_workflow
from pipeline.faces.models import zoo
from pipeline.store.run import RunStore

DETECT = {"detect": {"min_face": 60}}
BOTH = {**DETECT, "embed": {"model": "Dlib"}}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import av
    import numpy as np

    path = tmp_path_factory.mktemp("clips") / "grey.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for _ in range(3):
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.full((120, 160, 3), 90, np.uint8), format="rgb24"))
            )
        container.mux(stream.encode())
    return path


def run(out: Path, clip: Path, stages: dict[str, dict[str, object]]) -> None:
    path = out.parent / "workflow.yaml"
    path.write_text(json.dumps({"stages": stages}))  # JSON is YAML
    assert pipeline.run(path, clip, out, executor="inline").summary.exit_code == 0


def test_added_stages_extend_the_list(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.zarr"
    run(out, clip, DETECT)
    with RunStore.open(out, mode="r") as store:
        assert [model["name"] for model in store.attributes["models"]] == ["mtcnn"]
    run(out, clip, BOTH)
    run(out, clip, DETECT)  # a smaller workflow afterwards takes none away
    assert main(["status", str(out), "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)["models"]}
    assert models.keys() == {"mtcnn", "Dlib", "dlib"}  # dlib: its five points cut the second view
    for name, model in models.items():
        card = zoo.card(name)
        assert (model["licence"], model["licence_source"]) == (card.licence, card.licence_source)
        assert len(model["weights_sha256"]) == 64
        assert model["runtime"].startswith("numpy " if name == "dlib" else "onnxruntime ")
    assert main(["status", str(out)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "model " in line]
    assert len(lines) == 3
    assert any(line.startswith("  model Dlib: CC0-1.0 (onnxruntime ") for line in lines)


def test_each_attribute_and_antispoofing_is_a_model_of_its_own() -> None:
    """Whether or not their weights are here."""
    stages = {**BOTH, "analyze": {}, "antispoof": {}}
    loaded = build_workflow("analyze", {"stages": stages}, Path("."))
    licences = {info.name: info.licence for node in loaded.stages for info in node.stage.models()}
    assert licences == {
        "mtcnn": "MIT", "Dlib": "CC0-1.0", "dlib": zoo.card("dlib").licence, "Age": "non-commercial research",
        "Gender": "non-commercial research", "Emotion": "MIT", "Race": "non-commercial research",
        "Fasnet": "Apache-2.0",
    }  # fmt: skip


def test_every_licence_has_its_source() -> None:
    assert not [card.name for card in zoo.CARDS.values() if not (card.licence and card.licence_source)]


def test_a_store_from_before_sources_were_kept(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.zarr"
    run(out, clip, DETECT)
    with RunStore.open(out) as store:
        (model,) = store.attributes["models"]
        del model["licence_source"]
        store.update(models=[model])
    assert main(["status", str(out)]) == 0
    assert "model mtcnn: MIT" in capsys.readouterr().out
