"""`make gpu` without a GPU, and what its benchmark writes; what it measures is measured on a GPU only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

PAGE = "# Benchmarks\n\n## The main job\n\n| a |\n|---|\n\n{section}## Memory\n\nIt must not grow.\n"
SUMMARY = {
    "exit_code": 0,
    "failures": [],
    "frames": 984,
    "frames_per_second": 812.34,
    "bottleneck": "detect",
    "model_share": 0.91,
}


@pytest.fixture
def gpu_benchmark(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import gpu as benchmark

    return benchmark


@pytest.mark.parametrize(
    ("required", "code", "line"),
    [
        ("", 0, "no GPU is visible: nothing to measure"),
        ("0", 0, "no GPU is visible: nothing to measure"),
        ("1", 1, "no GPU is visible: nothing to measure, and REELGRAPH_REQUIRE_GPU=1"),
    ],
)
def test_without_a_gpu(repository: Path, tmp_path: Path, required: str, code: int, line: str) -> None:
    page = tmp_path / "page.md"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(repository)}
    environment["REELGRAPH_REQUIRE_GPU"] = required
    command = [sys.executable, str(repository / "benchmarks" / "gpu.py"), "--tests", "--page", str(page)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, line + "\n", "")
    assert not page.exists()


def test_make_gpu_runs_it(repository: Path, tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for stamp in (".installed", ".installed-test"):
        (tmp_path / stamp).touch()
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(repository)}
    for required, code in (("", 0), ("1", 2)):  # make's own code for a command that failed
        environment["REELGRAPH_REQUIRE_GPU"] = required
        done = subprocess.run(
            ["make", "--no-print-directory", "gpu", f"VENV={tmp_path}", "CUDA_MAJOR=", "GPU_ARGS=--quick"],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert done.stdout.startswith("no GPU is visible: nothing to measure")


def test_its_section_replaces_itself_and_nothing_else(gpu_benchmark: Any) -> None:
    bare = PAGE.format(section="")
    first = gpu_benchmark.replaced(bare, "## On GPUs\n\nfirst\n")
    assert first == bare + "\n## On GPUs\n\nfirst\n"
    assert gpu_benchmark.replaced(first, "## On GPUs\n\nsecond\n\nmore\n") == bare + "\n## On GPUs\n\nsecond\n\nmore\n"
    between = PAGE.format(section="## On GPUs\n\nold\n\n### part\n\nold\n\n")
    assert gpu_benchmark.replaced(between, "## On GPUs\n\nnew\n") == PAGE.format(section="## On GPUs\n\nnew\n\n")
    assert gpu_benchmark.replaced("", "## On GPUs\n\nnew\n") == "## On GPUs\n\nnew\n"


def test_the_table(gpu_benchmark: Any) -> None:
    options = gpu_benchmark._parse(["--quick", "--decoder", "nvdec"])
    samples = gpu_benchmark.Samples([0.5, 0.7], [], 9_000_000_000)
    row = gpu_benchmark.row_of(SUMMARY, 2, samples, 3210.4, models=1000.0)
    clip = SimpleNamespace(width=1920, height=1080, frames=4920, made_from="the demo clip")
    text = gpu_benchmark.section(
        [row], gpu_benchmark.Limits(900.0, 300.0, 800.0), clip, "1 × Some GPU, driver 1", options
    )
    lines = text.splitlines()
    assert lines[0] == "## On GPUs"
    assert 'make gpu GPU_ARGS="--frames 984 --every 5 --min-face 40 --per-gpu 1 2 4 --decoder nvdec"' in text
    assert "On 1 × Some GPU, driver 1." in lines
    assert "| 2 | 984 | 812.3 | 1000.0 | 90% | 60% |  | 9000 | detect | 91% | 3210 |" in lines
    assert "in one process: 800.0 frames/s with levels and patches made in the networks' graphs" in text
    assert "300.0 with both made by numpy and OpenCV beforehand" in text
    table = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {len(gpu_benchmark.COLUMNS) + 1}
    assert "decoding alone, on all cores (with nvdec in four processes per GPU), gave 900.0 frames/s" in text


def test_a_run_that_failed_is_no_figure(gpu_benchmark: Any) -> None:
    with pytest.raises(SystemExit, match="ended with 1"):
        gpu_benchmark.row_of({**SUMMARY, "exit_code": 1}, 1, gpu_benchmark.Samples(), 0.0, 1.0)


class RecordedNvml(ModuleType):
    """pynvml of a machine with two cards, the second of which cannot say how busy its decoder is."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.asked = 0

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        self.asked += 1
        return SimpleNamespace(gpu=(20, 60)[handle])

    def nvmlDeviceGetDecoderUtilization(self, handle: int) -> list[int]:  # noqa: N802
        if handle == 1:
            raise self.NVMLError("Not Supported")
        return [30, 166000]

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(used=(1 + handle) * 10**9 + self.asked)


def test_samples_of_all_cards(gpu_benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RecordedNvml()
    monkeypatch.setitem(sys.modules, "pynvml", recorded)
    monkeypatch.setattr(gpu_benchmark, "INTERVAL_SECONDS", 0.001)
    with gpu_benchmark.sampled(["0", "GPU-1"]) as samples:
        while recorded.asked < 7:
            pass
    assert set(samples.gpu) == {0.4}
    assert len(samples.gpu) >= 3
    assert samples.decoder == []
    assert samples.memory_bytes >= 3 * 10**9 + 6
    with gpu_benchmark.sampled(["0"]) as one:
        while recorded.asked < 20:
            pass
    assert set(one.decoder) == {0.3}
