"""What must not change with the code: resume keys of the shipped workflows, and the bytes of a complete store.

A key that changes refuses every store that users have; a byte that changes breaks whoever reads them by another tool.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.engine.workflow import load_workflow, stage_keys
from pipeline.models.card import ModelInfo
from pipeline.store.run import RunStore
from tests.store import storemaker

KEYS: dict[str, dict[str, str]] = {
    "analyze": {
        "detect": "1eba2a71a133ff16e0e4569ee8d89202",
        "embed": "a3611590897b67bbeb7263eec2cd9eec",
        "analyze": "b00d3ecb58806bee1c28bb25c97f0136",
        "antispoof": "e6be7898e7f89e4e948b89009ffd991b",
    },
    "faces": {"detect": "1eba2a71a133ff16e0e4569ee8d89202", "embed": "a3611590897b67bbeb7263eec2cd9eec"},
    "find": {
        "detect": "1eba2a71a133ff16e0e4569ee8d89202",
        "embed": "a3611590897b67bbeb7263eec2cd9eec",
        "identify": "ec216e11f0b316fc009f78493bab1c94",
    },
    "people": {
        "detect": "1eba2a71a133ff16e0e4569ee8d89202",
        "embed": "a3611590897b67bbeb7263eec2cd9eec",
        "track": "5341de6a0be3f76b9fae9d3ba951f2d1",
    },
    "sharp_faces": {
        "detect": "1eba2a71a133ff16e0e4569ee8d89202",
        "embed": "a3611590897b67bbeb7263eec2cd9eec",
        "sharp": "f6d341ccbd2bd5fd94b5c60920f8bb3c",
    },
    "source.roi=[1, 2, 30, 40]": {
        "detect": "1be453f2edb4f7f40805a13e82a7b9db",
        "embed": "130d8a567746b5766c6b47b88b1cc530",
    },
    "detect.align=deepface": {
        "detect": "0b52ef97c0836e500b43a0f025d7de53",
        "embed": "cdb86efc8db18f9a3ed4dee973f49e63",
    },
    "embed.flip=true": {"detect": "1eba2a71a133ff16e0e4569ee8d89202", "embed": "f74c4f6c2029ced342bb0ec83f056b20"},
    "embed.align=two_views": {
        "detect": "1eba2a71a133ff16e0e4569ee8d89202",
        "embed": "a3611590897b67bbeb7263eec2cd9eec",
    },
    "embed.align=native": {"detect": "1eba2a71a133ff16e0e4569ee8d89202", "embed": "1a534d017c5ab0639d57628fc865c5a8"},
    "embed.model=ArcFace": {"detect": "1eba2a71a133ff16e0e4569ee8d89202", "embed": "3e212e70aa416a59cfd72b7f3291e108"},
}

OWN_STAGES = {"sharp_faces": {"sharp"}}
"""Stages that are not part of the package, by workflow. Their keys above are those without source text."""

STORE_JSON = "8cb04b8403cc7a99"
"""Digest of all metadata but the checksums in it."""
CHECKSUM = "blake2b:b4817145840fd061"
"""Checksum of the input's metadata: another value here would call every store damaged that users have."""
STORE_FILES: dict[str, str] = {
    "clip/box/c/0/0": "f068c8663aa1eab5",
    "clip/confidence/c/0": "159e24479a59808e",
    "clip/decoded/c/0": "e334c62de1e90768",
    "clip/embedding/c/0/0": "a16ac4b16a4cbd93",
    "clip/face_frame/c/0": "30c35f08038cfc8b",
    "clip/frame/c/0": "21d284036e06eb40",
    "clip/landmarks/c/0/0/0": "d4baf3c3cc897fdd",
    "clip/n_faces/c/0": "628fa1fd48671b5e",
    "clip/time_seconds/c/0": "21b991c3318e1f25",
}
"""Digests of the data files, as numcodecs 0.16.6 packs them."""
PACKED_BY = "0.16.6"


@pytest.fixture
def named_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights known by their model's name alone: keys are compared, not files that a machine may lack."""
    monkeypatch.setattr(ModelInfo, "weights_sha256", property(lambda info: f"weights of {info.name}"))


@pytest.mark.usefixtures("named_weights")
@pytest.mark.parametrize("name", ["analyze", "faces", "find", "people", "sharp_faces"])
def test_resume_keys_of_shipped_workflows(
    name: str, workflows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "people").mkdir()
    Image.new("RGB", (8, 8), "grey").save(tmp_path / "people" / "Ann.png")
    monkeypatch.chdir(tmp_path)
    workflow = load_workflow(workflows / f"{name}.yaml")
    keys = workflow.keys()
    own = {node.name for node in workflow.stages if node.code}
    assert own == OWN_STAGES.get(name, set())
    assert {stage: key for stage, key in keys.items() if stage not in own} == {
        stage: key for stage, key in KEYS[name].items() if stage not in own
    }
    for stage in own:  # its source text entered the key later: a store made before that goes on all the same
        assert keys[stage] != KEYS[name][stage]
        assert stage_keys(workflow, {stage: {"key": KEYS[name][stage]}}) == KEYS[name]


@pytest.mark.usefixtures("named_weights")
@pytest.mark.parametrize("override", sorted(name for name in KEYS if "=" in name))
def test_resume_keys_of_options(override: str, workflows: Path) -> None:
    assert load_workflow(workflows / "faces.yaml", [override]).keys() == KEYS[override]


def test_bytes_of_a_complete_store(tmp_path: Path) -> None:
    out = tmp_path / "run.zarr"
    with RunStore.open(out) as store:
        store.set_workflow({"source": {"kind": "video"}, "stages": {}}, [])
        name = storemaker.set_up(store)
        storemaker.write_all(out, name)
        storemaker.compact(store)
    root = json.loads((out / "zarr.json").read_text())
    for attribute in ("created", "reelgraph", "metadata_checksum"):
        assert root["attributes"].pop(attribute)
    nodes: dict[str, Any] = {"": root}
    files = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        if path.name != "zarr.json":
            files[str(path.relative_to(out))] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        elif path.parent != out:
            nodes[str(path.parent.relative_to(out))] = json.loads(path.read_text())
    assert nodes["clip"]["attributes"].pop("metadata_checksum") == CHECKSUM
    digest = hashlib.sha256(json.dumps(nodes, sort_keys=True).encode()).hexdigest()[:16]
    assert digest == STORE_JSON, json.dumps(nodes, sort_keys=True)
    if importlib.metadata.version("numcodecs") == PACKED_BY:
        assert files == STORE_FILES
    else:
        assert files.keys() == STORE_FILES.keys()
    wanted = storemaker.expected(*storemaker.OLD)
    storemaker.assert_equal(storemaker.compacted(out, name), wanted)
