"""`make bench-streams` without a GPU: its arithmetic, and NVML's memory of each process from a stand-in."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def benchmark(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import streams

    return streams


class Nvml(ModuleType):
    """pynvml of one card, whose processes grow; without `shown` it hides them, as a container may."""

    class NVMLError(Exception):
        pass

    def __init__(self, shown: bool = True) -> None:
        super().__init__("pynvml")
        self.asked, self.shown = 0, shown

    def nvmlInit(self) -> None: ...  # noqa: N802

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        self.asked += 1
        return SimpleNamespace(used=min(self.asked, 5) * 10**9)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        if not self.shown:
            raise self.NVMLError("Not Supported")
        grown = SimpleNamespace(pid=11, usedGpuMemory=min(self.asked, 4) * 10**8)
        return [grown, SimpleNamespace(pid=12, usedGpuMemory=None)]


@pytest.mark.parametrize("shown", [True, False])
def test_streams_on_shares_of_a_card(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shown: bool
) -> None:
    recorded, asked = Nvml(shown), []
    monkeypatch.setitem(sys.modules, "pynvml", recorded)
    monkeypatch.setattr(benchmark, "NVML_SECONDS", 0.001)

    def run(workflow: Path, inputs: list[str], out: Path, *given: Any, **flags: Any) -> Any:
        asked.append((len(inputs), flags))
        before = recorded.asked
        while recorded.asked < before + 6:
            time.sleep(0.001)
        return {"frames": 100 * len(inputs), "seconds": {"run": 2.0 * len(inputs) ** 0.5}}, 0.0

    monkeypatch.setattr(benchmark, "reelgraph_run", run)
    chosen = Namespace(folder=tmp_path, frames=100, streams=(1, 2, 3))
    rows = benchmark.on_gpus(chosen, ["0"])
    assert [(row["streams"], row["workers"], row["share"]) for row in rows] == [
        (1, 1, 1.0), (2, 1, 1.0), (2, 2, 0.5), (3, 1, 1.0), (3, 2, 0.5), (3, 3, 1 / 3),
    ]  # fmt: skip
    assert [streams for streams, _ in asked] == [1, 2, 2, 3, 3, 3]
    assert asked[-1][1] == {"together": 3, "workers_per_gpu": 3, "gpus": "0", "device": "cuda"}
    assert {row["card_mb"] for row in rows} == {5000.0}
    assert {row["process_mb"] for row in rows} == {"400 0" if shown else ""}
    np.testing.assert_allclose([row["gain_steady"] for row in rows], np.sqrt([1, 2, 2, 3, 3, 3]))


def test_the_gain_of_streams_as_it_is_reported_by_others(benchmark: Any) -> None:
    """0.1476 s a frame alone; three at 57.28% of that speed each are 1.72 times as fast as one after the other."""
    alone = {"streams": 1, "frames": 1000, "seconds": 170.0, "run": 147.6}
    row = benchmark.with_gain({"streams": 3, "frames": 1000, "seconds": 356.6, "run": 257.7}, alone)
    assert (round(row["each_steady"], 4), round(row["gain_steady"], 2), round(row["gain"], 2)) == (0.5728, 1.72, 1.43)
    assert row["per_frame"] == 0.2577


def test_rows_of_passes_are_put_in_order_of_frames(benchmark: Any) -> None:
    passes = (([2, 0, 1], [1, 2, 3]), ([0, 1, 0], [9]))
    whole = benchmark.merged([{"n": np.array(counts), "box": np.array(boxes)} for counts, boxes in passes], "n")
    assert whole["n"].tolist() == [2, 1, 1]
    assert whole["box"].tolist() == [1, 2, 9, 3]
