"""`plan --cameras`: the table is measured once and kept; the answer and its words; recall by overlap."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.cluster.options import ClusterOptions
from pipeline.engine.events import ChunkDone
from pipeline.engine.workflow import load_workflow
from pipeline.store.schema import Array, Axis
from pipeline.views import cameras
from pipeline.views.cameras import Recall, Row, Table, agreement, answer, as_dict, lines
from tests.clips import write_clip
from tests.objects.made_networks import save


def table(*rows: Row, recall: Recall | None = None) -> Table:
    return Table("objects", "/films/cam.mp4", 1280, 720, 5.0, {}, list(rows), recall, "2026-11-29 15:00")


def test_the_answer_in_words() -> None:
    measured = table(
        Row(1, None, None, 100, 6.0), Row(2, None, None, 200, 11.9), Row(1, None, "2x2", 100, 20.0),
        Row(2, None, "2x2", 200, 20.0), recall=Recall(90, 40, 30, 1),
    )  # fmt: skip
    assert lines(measured, 32) == [
        "2 cameras at 5 frames/s, with 2 workers, each frame alone; 32 need 16 machines like this one",
        "4 cameras at 5 frames/s, with 1 worker, mosaics of 2x2; 32 need 8 machines like this one",
        "mosaics find 30 of 40 objects (75%) that were found in 90 single frames, and 1 that were not",
        "",
        "measured 2026-11-29 15:00 with cam.mp4 (1280x720); --measure measures again:",
        "  1 worker, each frame alone: 6.0 frames/s",
        "  2 workers, each frame alone: 11.9 frames/s",
        "  1 worker, mosaics of 2x2: 20.0 frames/s",
        "  2 workers, mosaics of 2x2: 20.0 frames/s",
    ]
    assert lines(measured, 2)[0] == "2 cameras at 5 frames/s, with 2 workers, each frame alone"
    slow = table(Row(2, None, None, 100, 1.23))
    assert answer(slow, 3)["alone"]["machines"] is None
    assert lines(slow, 3)[0] == (
        "no camera at 5 frames/s: with 2 workers, each frame alone, this machine analyses 1.2 frames/s; choose --fps 1 "
        "or less, or a faster model"
    )


def test_the_answer_on_gpus() -> None:
    measured = table(Row(2, 1, None, 100, 300.0), Row(8, 4, None, 100, 500.0))
    assert lines(measured, 250)[0] == (
        "100 cameras at 5 frames/s, with 8 workers (25% of a GPU's memory each), each frame alone; 250 need 3 machines "
        "like this one; a camera takes 2% of a GPU"
    )


def stored(counts: list[int], boxes: list[list[float]], labels: list[int] | None = None) -> Any:
    """Return what `agreement` reads of a stored input."""
    values = {"n_objects": np.array(counts), "box": np.array(boxes, np.float32).reshape(-1, 4)}
    values |= {} if labels is None else {"class": np.array(labels)}
    arrays = {name: Array(name, ("object",), "int32") for name in values}
    arrays["box"] = Array("box", ("object", "xywh"), "float32", (4,))
    return SimpleNamespace(
        frames_done=len(counts), axes=(Axis("object"),), arrays=arrays, read=lambda names: {n: values[n] for n in names}
    )


def test_recall_by_overlap_within_a_frame() -> None:
    boxes = [[0, 0, 10, 10], [50, 50, 20, 20], [0, 0, 10, 10], [30, 30, 8, 8]]
    moved = [[51, 50, 20, 20], [0, 0, 5, 10], [30, 30, 8, 8], [0, 2, 10, 10], [0, 1, 10, 10]]
    found = agreement(stored([2, 2, 0], boxes), stored([3, 2, 0], moved))
    # The box of 5 by 10 overlaps by just a half; that of the third box is the nearer of two.
    assert (found.frames, found.alone, found.found, found.more) == (3, 4, 3, 2)
    assert found.recall == 0.75
    assert found.apart == [1.0, pytest.approx(4.2), 5.0]
    other = agreement(stored([2, 2, 0], boxes, [0, 0, 1, 1]), stored([3, 2, 0], moved, [0, 1, 1, 1, 0]))
    assert (other.alone, other.found, other.more) == (4, 2, 3)
    nothing = agreement(stored([0], []), stored([0], []))
    assert (nothing.recall, nothing.apart) == (None, [])
    assert lines(table(recall=nothing), 1)[0].startswith("recall in mosaics is not known: nothing was found in 1 frame")


def test_a_table_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs: list[dict[str, Any]] = []

    def in_process(path: str, inputs: list[str], out: Path, *, overrides: list[str], **settings: Any) -> Any:
        runs.append({"inputs": len(inputs), "together": settings["options"].together, "overrides": overrides})
        runs[-1] |= settings["cluster"].model_dump(include={"workers"})
        here = {**settings, "executor": "inline", "cluster": ClusterOptions()}
        return execute(path, inputs, out, overrides=overrides, **here)

    execute = cameras.execute
    monkeypatch.setattr(cameras, "execute", in_process)
    monkeypatch.setattr(cameras, "available_cores", lambda: 1)
    monkeypatch.setattr(cameras, "SECONDS", 0.05)
    monkeypatch.setenv("REELGRAPH_CACHE", str(tmp_path / "cache"))
    rows = np.zeros((5, 84), np.float32)
    rows[:, :2] = [[16, 48], [16, 16], [8, 8], [8, 8], [0.9, 0.8]]
    network = save(tmp_path / "net.onnx", {"output0": rows}, (64, 64))
    workflow = tmp_path / "objects.yaml"
    workflow.write_text(f"source: {{every: 2}}\nstages: {{objects: {{use: objects, model: {network}}}}}\n")
    clip = write_clip(tmp_path / "clip.mp4", n_frames=100)
    words = ["plan", str(workflow), str(clip), "--cameras", "1000000", "--fps", "12.5", "--json"]
    assert main(words) == 0
    first = json.loads(capfd.readouterr().out)
    assert [(run["workers"], run["inputs"]) for run in runs[:1]] == [(1, 1)]  # the probe
    grids = [text.partition("=")[2] for run in runs[1:] for text in run["overrides"] if "tiles" in text]
    assert grids == ["null", '"2x2"', "null", '"2x2"']
    assert {run["inputs"] for run in runs[1:3]} <= {4, 5, 6, 7, 8}
    assert all(run["together"] == run["inputs"] for run in runs)
    assert [row["workers"] for row in first["rows"]] == [1, 1]
    assert all(row["frames_per_second"] > 0 for row in first["rows"])
    assert (first["width"], first["height"], first["recall"]["alone"]) == (160, 120, 2 * first["recall"]["frames"])
    most = first["answer"]["alone"]["cameras"]
    assert first["answer"]["alone"]["machines"] == -(-1_000_000 // most)
    assert main(words) == 0
    assert len(runs) == 5
    assert json.loads(capfd.readouterr().out) == first
    other = table(Row(9, None, None, 1, 1.0))
    monkeypatch.setattr(cameras._Measuring, "table", lambda self: other)
    for again in ([*words, "--measure"], [*words[:-2], "5", "--json"], [*words, "--set", "objects.score=0.5"]):
        assert main(again) == 0
        assert json.loads(capfd.readouterr().out)["rows"][0]["workers"] == 9


def test_settings_on_gpus(workflows: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two cards that are not there: each worker has 1, 1/2, 1/4 of one's memory."""
    runs = []

    def run(self: Any, name: str, links: list[str], frames: int, tiles: Any, cluster: Any, clock: Any) -> Any:
        runs.append((len(links), frames, tiles, cluster))
        for number in range(40):
            clock.on(ChunkDone("cam", number, items=16, elapsed_seconds=0.1 * (number + 1)))
        facts = {"duration_seconds": 60.0, "width": 640, "height": 480}
        probe = SimpleNamespace(step_seconds={"decode": 0.1, "detect": 0.38}, frames_done=16, attributes=facts)
        return SimpleNamespace(inputs={"probe": probe, "clip": stored([1], [[0, 0, 9, 9]])})

    monkeypatch.setattr(cameras, "visible_gpus", lambda: ["0", "1"])
    monkeypatch.setattr(cameras, "card_name", lambda gpu: f"card {gpu}")
    monkeypatch.setattr(cameras._Measuring, "_run", run)
    path = str(workflows / "faces.yaml")

    def measured(*overrides: str) -> Table:
        loaded = load_workflow(path, overrides)
        facts = (path, loaded, list(overrides), "cam.mp4", 5.0, tmp_path, lambda text: None)
        return cameras._Measuring(*facts).table()

    made = measured()
    assert [(row.workers, row.per_gpu, row.share, row.tiles) for row in made.rows] == [
        (2, 1, 1.0, None), (4, 2, 0.5, None), (8, 4, 0.25, None), (2, 1, 1.0, "2x2"), (4, 2, 0.5, "2x2"),
        (8, 4, 0.25, "2x2"),
    ]  # fmt: skip
    assert made.machine["gpus"] == ["card 0", "card 1"]
    assert runs[1:4] == [(2 * n * 4, 48, None, {"workers_per_gpu": n}) for n in (1, 2, 4)]  # 200 frames for each worker
    assert {round(row.frames_per_second) for row in made.rows} == {160}
    assert (made.recall.found, made.recall.alone) == (1, 1)  # type: ignore[union-attr]
    found = as_dict(made, 64)["answer"]["alone"]
    assert (found["cameras"], found["machines"], found["workers"], found["gpu_share_of_a_camera"]) == (32, 2, 2, 1 / 16)
    assert {row.tiles for row in measured("detect.align=deepface").rows} == {None}
    assert {row.tiles for row in measured("detect.tiles=3x2", "detect.size=640x480").rows} == {None, "3x2"}
    twice = measured("detect.tiles=2x2", "detect.size=640x480", "detect.look_again=true").rows
    assert {(row.tiles, row.look_again) for row in twice} == {(None, False), ("2x2", True)}
    assert cameras._setting(twice[-1]).endswith(", mosaics of 2x2 and a second look")


@pytest.mark.parametrize(
    "words",
    [["--cameras", "2"], ["--fps", "5"], ["--out", "o", "--measure"], [], ["--cameras", "2", "--fps", "5", "--images"]],
    ids=["no fps", "no cameras", "measure alone", "no out", "pictures"],
)
def test_what_does_not_go_together(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "faces", "clip.mp4", *words]) == 2
    error = capfd.readouterr().err
    assert ("--cameras needs --fps F and one clip" if "--cameras" in words else "plan needs --out STORE") in error
