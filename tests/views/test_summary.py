"""The end of a run in a few lines: numbers that do not follow from each other say why."""

from __future__ import annotations

import pytest

from pipeline.engine.summary import Summary
from pipeline.views.summary import lines


@pytest.mark.parametrize(
    ("run_seconds", "detect_seconds", "rate", "rest"),
    [
        (2.0, 1.0, "(10.0 frames/s without start and end)", ". The models ran 25% of the time; else they were loaded,"),
        (9.5, 18.0, "(2.1 frames/s)", ". The models ran 95% of the time"),
    ],
    ids=["short", "long"],
)
def test_speed_and_bottleneck(run_seconds: float, detect_seconds: float, rate: str, rest: str) -> None:
    summary = Summary(
        out="out.zarr", items=20, rows={"face": 1}, chunks=1, inputs_total=1, inputs_complete=1, gpu_slots=2,
        seconds={"total": 10.0, "run": run_seconds}, step_seconds={"decode": 0.5, "detect": detect_seconds},
        model_steps=("detect", "embed"),
    )  # fmt: skip
    shown = lines(summary)
    assert shown[0] == f"20 frames, 1 face in 10 s {rate}"
    assert shown[1].startswith(f"bottleneck: detect{rest}")
    assert shown[1].endswith("chunk" if "loaded" in rest else "time")
