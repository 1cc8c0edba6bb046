"""What `--device` chooses, what is said where it cannot be had, and how the suite itself chooses devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.cluster import existing, starting
from pipeline.cluster import options as options_module
from pipeline.cluster.options import ClusterOptions, check, check_in_process, chosen_gpus
from pipeline.errors import ClusterError, ReelgraphError
from pipeline.faces.models.base import Faces
from pipeline.machine.device import Device, gpu_device
from pipeline.machine.gpus import GPU_HEADROOM_BYTES
from tests.clips import write_clip
from tests.devices import GPU_TOLERANCE, assert_same_faces, device_parameters, matched, tolerance
from tests.faults import one_stage

GPU_BYTES = 80 << 30


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (options_module, starting):
        monkeypatch.setattr(module, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(starting, "card_bytes", lambda gpu: GPU_BYTES + GPU_HEADROOM_BYTES)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "visible_gpus", lambda: [])


@pytest.mark.parametrize(("device", "expected"), [("auto", ["0", "1"]), ("cuda", ["0", "1"]), ("cpu", [])])
def test_gpus_of_a_device(two_gpus: None, device: str, expected: list[str]) -> None:
    assert chosen_gpus(ClusterOptions(device=device)) == expected


def test_auto_is_the_cpu_where_there_is_no_gpu(no_gpu: None) -> None:
    assert chosen_gpus(ClusterOptions()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, "--device cuda: this machine shows no GPU"),
        ({"device": "tensorrt"}, "--device tensorrt: this machine shows no GPU"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cpu", "gpus": ("0",)}, "--gpus 0 and --device cpu exclude each other"),
    ],
)
def test_what_cannot_be_had(no_gpu: None, options: dict[str, str], message: str) -> None:
    with pytest.raises(ClusterError, match=message) as caught:
        check(ClusterOptions.of(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("device", "kind", "memory"),
    [("auto", "cpu", None), ("cuda", "cuda", GPU_BYTES), ("tensorrt", "tensorrt", 6 << 30)],
)
def test_in_this_process(two_gpus: None, device: str, kind: str, memory: int | None) -> None:
    wanted = 6 << 30 if device == "tensorrt" else None
    options = ClusterOptions(device=device, gpus=("1",) if device != "auto" else None, gpu_memory_bytes=wanted)
    found = starting.in_process_settings(options).device
    assert (found.kind, found.memory_bytes, found.index) == (kind, memory, int(kind != "cpu"))


def worker(address: str, host: str, gpu: str | None, gigabytes: int = 0) -> dict[str, Any]:
    """What a worker of a running cluster says of itself."""
    return {"address": address, "host": host, "cores": 16, "gpu": gpu, "gpu_bytes": gigabytes << 30 or None}


def test_the_kind_of_workers_that_are_there_already() -> None:
    gpu, cpu = worker("tcp://a", "one", "0", 40), worker("tcp://b", "two", None)
    assert existing._kind_on([gpu, cpu], "auto") == "cpu"
    assert existing._kind_on([gpu], "auto") == "cuda"
    assert existing._kind_on([gpu], "tensorrt") == "tensorrt"
    assert existing._kind_on([gpu, cpu], "cpu") == "cpu"
    with pytest.raises(ClusterError, match="--device cuda: worker tcp://b sees no GPU"):
        existing._kind_on([gpu, cpu], "cuda")


def test_shares_of_cards_that_are_elsewhere(no_gpu: None) -> None:
    """Of the cards that the workers have, whatever this machine has; workers on one card share it."""
    shared = [worker("tcp://a", "one", "0", 82), worker("tcp://b", "one", "0", 82), worker("tcp://c", "two", "0", 82)]
    found = existing._settings_there(shared, 3, ClusterOptions(scheduler="tcp://s:1"))
    assert (found.device.kind, found.device.memory_bytes) == ("cuda", 40 << 30)
    assert found.device == gpu_device("cuda", 40 << 30)
    assert found.decode_threads == 16 // 2 // 2
    smaller = [*shared, worker("tcp://d", "three", "GPU-1", 26)]
    assert existing._settings_there(smaller, 3, ClusterOptions()).device.memory_bytes == 24 << 30
    wanted = ClusterOptions(gpu_memory_bytes=8 << 30)
    assert existing._settings_there(shared, 3, wanted).device.memory_bytes == 8 << 30
    with pytest.raises(ClusterError, match=r"--gpu-memory 64\.4 GB for each of 2 workers does not fit a card of 88\.0"):
        existing._settings_there(shared, 3, ClusterOptions(gpu_memory_bytes=60 << 30))


def test_cores_of_workers_without_a_gpu() -> None:
    there = [worker("tcp://a", "one", None), worker("tcp://b", "one", None)]
    found = existing._settings_there(there, 1, ClusterOptions(gpu_memory_bytes=8 << 30))
    assert (found.device, found.decode_threads) == (Device("cpu", threads=8), 8)


@pytest.mark.parametrize(
    "options",
    [{"workers": 2}, {"workers_per_gpu": 2}, {"threads": 2}, {"gpus": ("0",)}, {"worker_memory_bytes": 8 << 30}],
)
def test_a_running_cluster_is_as_it_is(options: dict[str, Any]) -> None:
    flag = next(iter(options)).removesuffix("_bytes").replace("_", "-")
    with pytest.raises(ClusterError, match=f"^--{flag} is for workers started here; .*: leave it out$"):
        check(ClusterOptions(scheduler="tcp://127.0.0.1:9", **options))


@pytest.mark.parametrize(
    "options",
    [{"workers": 2}, {"threads": 3}, {"host": "0.0.0.0"}, {"insecure": True}, {"chunk_timeout_seconds": 5.0}],
    ids=lambda options: next(iter(options)),
)
def test_options_of_a_cluster_are_refused_without_one(options: dict[str, Any]) -> None:
    with pytest.raises(ClusterError, match=r"^--\S+ is for a cluster; with executor inline it has no effect: leave"):
        check_in_process(ClusterOptions.of(**options))
    check_in_process(ClusterOptions(device="cpu", precision="fp16", flush=False))


@pytest.mark.parametrize("executor", ["inline", pytest.param("dask", marks=pytest.mark.slow)])
def test_a_store_says_what_its_models_ran_on(tmp_path: Path, executor: str) -> None:
    clip = write_clip(tmp_path / "clip.mp4", n_frames=30)
    workflow = one_stage(tmp_path, "Faulty", fault="none")
    out = tmp_path / "out.zarr"
    workers = {"workers": 1} if executor == "dask" else {}
    done = pipeline.run(workflow, clip, out, executor=executor, device="cpu", **workers)  # type: ignore[arg-type]
    assert done.summary.exit_code == 0
    assert pipeline.open(out).attributes["devices"] == ["cpu"]
    assert done.summary.device == "cpu"
    again = pipeline.run(workflow, clip, out, executor="inline")
    assert again.summary.device is None
    assert pipeline.open(out).attributes["devices"] == ["cpu"]


def test_a_gpu_that_is_wanted_and_absent_makes_no_store(no_gpu: None, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", n_frames=10)
    with pytest.raises(ReelgraphError, match="--device cuda: this machine shows no GPU"):
        pipeline.run(
            one_stage(tmp_path, "Faulty", fault="none"), clip, tmp_path / "o.zarr", executor="inline", device="cuda"
        )
    assert not (tmp_path / "o.zarr").exists()


# -- the suite's own choice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpus", "required", "expected"), [([], False, 1), (["0"], False, 2), ([], True, 2), (["0", "1"], True, 2)]
)
def test_devices_of_the_suite(gpus: list[str], required: bool, expected: int) -> None:
    assert len(device_parameters(gpus, required)) == expected


ONE_TEST = """
def test_on(device):
    assert device.kind in ("cpu", "cuda")
"""


@pytest.mark.parametrize(("required", "code", "expected"), [("1", 1, "1 passed, 1 error"), ("", 0, "1 passed")])
def test_a_required_gpu_that_is_absent_fails_tests(
    tmp_path: Path, repository: Path, required: str, code: int, expected: str
) -> None:
    """The suite's own conftest, in a process that sees no GPU."""
    (tmp_path / "conftest.py").write_text((repository / "tests" / "conftest.py").read_text())
    (tmp_path / "test_one.py").write_text(ONE_TEST)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(repository)}
    environment["REELGRAPH_REQUIRE_GPU"] = required
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-c",
            str(repository / "pyproject.toml"),
            "--rootdir",
            tmp_path,
            tmp_path,
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    summary = done.stdout.splitlines()[-1]
    assert done.returncode == code, done.stdout
    assert sorted(expected.split(", ")) == sorted(summary.split(" in ")[0].split(", "))
    assert ("this machine shows no GPU" in done.stdout) is bool(required)


def test_tolerance_grows_on_a_gpu_only() -> None:
    assert tolerance(Device(), 1e-6) == 1e-6
    assert tolerance(Device("cuda"), 1e-6) == GPU_TOLERANCE
    assert tolerance(Device("cuda"), 1e-2) == 1e-2


def faces(*boxes: tuple[float, ...]) -> Faces:
    n = len(boxes)
    return Faces(
        np.zeros(n, np.int64), np.array(boxes, np.float32), np.zeros((n, 5, 2), np.float32), np.ones(n, np.float32)
    )


def test_faces_are_matched_by_overlap() -> None:
    ours, theirs = faces((10, 10, 40, 40), (100, 20, 30, 30)), faces((100.5, 20, 30, 30), (10, 10.5, 40, 40))
    assert matched(ours.box, theirs.box).tolist() == [1, 0]
    assert_same_faces(ours, theirs, Device("cuda"))
    with pytest.raises(AssertionError):
        assert_same_faces(ours, theirs, Device())
    with pytest.raises(AssertionError):
        matched(ours.box, faces((100, 20, 30, 30), (100, 20, 30, 30)).box)
    with pytest.raises(AssertionError):
        assert_same_faces(faces((10, 10, 40, 40)), faces((12, 10, 40, 40)), Device("cuda"))
