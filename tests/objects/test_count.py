"""Crossings of lines and objects inside zones: known paths, chunks cut in different places, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from pipeline.engine.stage import Chunk, Stage
from pipeline.engine.workflow import build_workflow
from pipeline.objects.crossing import crossings, distance, inside, steps_across
from pipeline.store.schema import Array, Axis
from tests.clips import write_clip

FRAMES = 36
Path2 = list[tuple[float, float]]


class Scene(Stage):
    """Three objects on known paths, in pictures of 160x120: two people and a car, 20x30 pixels each."""

    needs = ("frames_rgb",)
    axes = (Axis("object"),)
    outputs = (
        Array("n_objects", ("frame",), "int32"),
        Array("box", ("object", "xywh"), "float32", (4,), place="xywh"),
        Array("class", ("object",), "int32", (), {"class_names": ["person", "car"]}),
        Array("score", ("object",), "float32"),
    )

    def run(self, chunk: Chunk) -> dict[str, np.ndarray]:
        counts, rows = [], []
        for frame in chunk.frame.tolist():
            here = [(0, *walker(frame)), (0, *pacer(frame))]
            here = here[:1] * (frame not in HIDDEN) + here[1:]
            here += [(1, *driver(frame))] if frame >= 10 else []
            counts.append(len(here))
            rows += here
        table = np.array(rows, np.float32).reshape(-1, 3)
        box = np.concatenate([table[:, 1:] - (10, 30), np.tile([20, 30], (len(table), 1))], axis=1)
        made = {"n_objects": np.array(counts, np.int32), "box": box.astype(np.float32)}
        return {**made, "class": table[:, 0].astype(np.int32), "score": np.ones(len(table), np.float32)}


HIDDEN = (17, 18, 19)
"""Frames on which the walker is lost: the ones on which the middle is crossed."""


def walker(frame: int) -> tuple[float, float]:
    """Return the feet of one who walks from left to right: at x = 80 on frame 18."""
    return 26 + 3 * frame, 50.0


def pacer(frame: int) -> tuple[float, float]:
    """Return the feet of one who crosses from right to left on frame 9, comes back on frame 21, and trembles.

    On every sixth frame they are half a pixel beyond the line, less than the margin of 0.9.
    """
    side = 1 if frame < 9 or frame >= 21 else -1
    return 80 + side * (6 if frame % 6 else -0.5), 90.0


def driver(frame: int) -> tuple[float, float]:
    """Return the lower side of a car that drives from right to left along the edge: at x = 79 on frame 28."""
    return 151 - 4 * (frame - 10), 120.0


def run(folder: Path, count: dict[str, Any], name: str = "scene") -> tuple[Any, Any]:
    """Run the scene; return its input and the summary of the run."""
    workflow = {
        "source": {"kind": "video", "every": 1},
        "stages": {
            "scene": {"use": f"{__name__}:Scene"},
            "track": {"use": "track_objects"},
            "count": {"use": "count", **count},
        },
    }
    clip = folder / "clip.mp4"
    if not clip.exists():
        write_clip(clip, n_frames=FRAMES)
    made = pipeline.run(build_workflow(name, workflow, folder), [clip], out=folder / f"{name}.zarr", executor="inline")
    return made.input("clip"), made.summary


MIDDLE = {"middle": [[80, 120], [80, 0]]}
HALVES = {"left": [[0, 0], [80, 0], [80, 120], [0, 120]], "top": [[0, 0], [160, 0], [160, 60], [0, 60]]}
EDGE = {"edge": [[0, 110], [160, 110], [160, 120], [0, 120]]}


def truth(frames: np.ndarray, of_walker: int, of_pacer: tuple[int, int], of_car: int) -> np.ndarray:
    """Return crossings of the middle: in at the walker's frame, out and in at the pacer's, out at the car's."""
    made = np.zeros((len(frames), 2), int)
    for frame, way in ((of_walker, 0), (of_pacer[0], 1), (of_pacer[1], 0), (of_car, 1)):
        made[frame, way] += 1
    return made


def test_known_crossings_in_both_directions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walker is lost on the line and comes back behind it: counted on the frame on which it is seen again."""
    found = []
    for length in (7, 1000):
        monkeypatch.setattr("pipeline.engine.source.MAX_CHUNK_FRAMES", length)
        monkeypatch.setattr(
            "pipeline.engine.plan.choose_chunk_items",
            lambda source, asked=None, most=length: min(most, len(source.frame)),
        )
        monkeypatch.setattr("pipeline.objects.stages.count.FRAMES_AT_ONCE", length)
        item, _ = run(tmp_path, {"lines": MIDDLE, "zones": HALVES}, f"cut{length}")
        assert item.chunks["total"] == -(-FRAMES // length)
        found.append(item.read(["track", "crossings", "counts"]))
    for name, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][name])
    frames = np.arange(FRAMES)
    assert found[0]["crossings"].dtype == found[0]["counts"].dtype == np.int32
    np.testing.assert_array_equal(found[0]["crossings"][:, 0], truth(frames, 20, (9, 21), 28))
    feet = {frame: [pacer(frame)] for frame in range(FRAMES)}
    for frame, here in feet.items():
        here += [walker(frame)] if frame not in HIDDEN else []
        here += [driver(frame)] if frame >= 10 else []
    expected = [[sum(x <= 80 for x, _ in here), sum(y <= 60 for _, y in here)] for here in feet.values()]
    assert found[0]["counts"].tolist() == expected
    attributes = item.arrays["crossings"].attributes
    assert attributes["line_names"] == ["middle"]
    assert attributes["lines"] == [[[80, 120], [80, 0]]]
    assert item.arrays["counts"].attributes["zone_names"] == ["left", "top"]
    assert item.arrays["crossings"].dims == ("frame", "line", "direction")


def test_options_and_resuming(tmp_path: Path) -> None:
    """Other lines or zones are counted again from stored arrays; nothing else is made again."""
    item, summary = run(tmp_path, {"lines": MIDDLE})
    assert summary.chunks > 0
    assert "counts" not in item.arrays
    before = item.array("crossings")
    item, summary = run(tmp_path, {"lines": {"middle": [[0.5, 1], [0.5, 0]], "back": [[0.5, 0], [0.5, 1]]}})
    assert (summary.chunks, set(summary.derived)) == (0, {"count"})
    after = item.array("crossings")
    np.testing.assert_array_equal(after[:, 0], before[:, 0], "parts are those pixels")
    np.testing.assert_array_equal(after[:, 1], before[:, 0, ::-1], "walked the other way, in is out")
    item, _ = run(tmp_path, {"lines": MIDDLE, "classes": "car"})
    assert item.array("crossings").sum(axis=(0, 1)).tolist() == [0, 1]
    item, _ = run(tmp_path, {"zones": EDGE})
    assert item.array("counts").sum() == FRAMES - 10
    item, _ = run(tmp_path, {"zones": EDGE, "point": "centre"})
    assert item.array("counts").sum() == 0, "the car's lower side is there, its centre is above"
    _, summary = run(tmp_path, {"zones": EDGE, "point": "centre"})
    assert (summary.chunks, summary.derived) == (0, {})


UP = np.array([[100.0, 200.0], [100.0, 0.0]])
BENT = np.array([[0.0, 100.0], [100.0, 100.0], [100.0, 0.0]])


@pytest.mark.parametrize(
    ("line", "path", "expected"),
    [
        pytest.param(UP, [(50, 9), (90, 9), (110, 9), (150, 9)], ["2 in"], id="from left to right"),
        pytest.param(UP, [(150, 9), (50, 9)], ["1 out"], id="from right to left"),
        pytest.param(UP, [(50, 9), (150, 9), (50, 9)], ["1 in", "2 out"], id="there and back"),
        pytest.param(UP[::-1], [(50, 9), (150, 9)], ["1 out"], id="a line walked the other way"),
        pytest.param(UP, [(80, 9), (97, 9), (103, 9), (98, 9), (102, 9), (120, 9)], ["4 in"], id="trembles, goes on"),
        pytest.param(UP, [(80, 9), (97, 9), (103, 9), (98, 9), (80, 9)], [], id="trembles, goes back"),
        pytest.param(UP, [(97, 9), (103, 9), (97, 9), (103, 9)], [], id="never clear of the line"),
        pytest.param(UP, [(103, 9), (97, 9), (50, 9), (150, 9)], ["3 in"], id="begins on the line"),
        pytest.param(UP, [(50, 9), (100, 9), (150, 9)], ["1 in"], id="a point on the line"),
        pytest.param(UP, [(50, 9), (100, 9), (50, 9)], [], id="touches the line"),
        pytest.param(UP, [(50, 250), (150, 250)], [], id="beside its end"),
        pytest.param(UP, [(50, 250), (150, 250), (150, 9), (50, 9)], ["3 out"], id="around its end and through it"),
        pytest.param(UP, [(50, 9)] * 9 + [(150, 9)], ["9 in"], id="stands, then jumps"),
        pytest.param(UP, [(50, 9)], [], id="one point"),
        pytest.param(UP, [], [], id="no point"),
        pytest.param(BENT, [(50, 150), (50, 50)], ["1 out"], id="bent: first leg"),
        pytest.param(BENT, [(50, 50), (150, 50)], ["1 in"], id="bent: second leg"),
        pytest.param(BENT, [(150, 150), (50, 50)], ["1 out"], id="bent: through the corner"),
        pytest.param(BENT, [(50, 150), (150, 50)], [], id="bent: along the corner"),
    ],
)
def test_crossings(line: np.ndarray, path: Path2, expected: list[str]) -> None:
    point = np.array(path, float).reshape(-1, 2)
    rows, ways = crossings(np.zeros(len(point), int), point, np.full(len(point), 5.0), line)
    found = [f"{row} {('in', 'out')[way]}" for row, way in zip(rows, ways, strict=True)]
    assert found == expected


def test_paths_that_touch_a_line_cross_it_once_or_not_at_all() -> None:
    """Points of whole numbers often lie on the line, at its corners, or go along it."""
    rng = np.random.default_rng(0)
    for _ in range(1000):
        inner = np.unique(rng.integers(0, 10, 4)).astype(float)
        x, y = np.array([-100.0, *inner, 100.0]), rng.integers(0, 10, len(inner) + 2).astype(float)
        y[[0, -1]] = y[[1, -2]]
        path = rng.integers(-2, 12, (rng.integers(2, 8), 2)).astype(float)
        below = path[:, 1] - np.interp(path[:, 0], x, y)
        if below[0] and below[-1]:
            net = int(below[-1] > 0) - int(below[0] > 0)
            line = np.stack([x, y], axis=1)
            assert steps_across(path, line).sum() == net, (line, path)
            assert steps_across(path, line[::-1]).sum() == -net, (line, path)


def test_tracks_are_counted_each_by_itself() -> None:
    point = np.array([[50, 9], [150, 9], [50, 9], [50, 9], [150, 9]], float)
    rows, ways = crossings(np.array([0, 1, 1, 2, 2]), point, np.full(5, 5.0), UP)
    assert list(zip(rows.tolist(), ways.tolist(), strict=True)) == [(2, 1), (4, 0)]


def test_points_inside_a_zone_match_opencv() -> None:
    import cv2

    rng = np.random.default_rng(0)
    zone = np.array([[10, 10], [90, 20], [50, 50], [95, 95], [5, 80], [30, 40]], float)
    point = np.concatenate([rng.uniform(0, 100, (500, 2)), zone, (zone + np.roll(zone, 1, axis=0)) / 2])
    contour = zone.astype(np.float32)
    expected = [cv2.pointPolygonTest(contour, (float(x), float(y)), False) >= 0 for x, y in point]
    assert inside(point, zone).tolist() == expected
    lower_half = np.array([[0, 60], [160, 60], [160, 120], [0, 120]])
    assert inside(np.array([[50.0, 120], [50, 121]]), lower_half).tolist() == [True, False]
    np.testing.assert_allclose(distance(np.array([[50.0, 0], [130, 240]]), UP), [50, 50])


@pytest.mark.parametrize(
    ("count", "message"),
    [
        ("lines: {gate: [[10, 10]]}", "lines: line 'gate' needs two different points or more"),
        ("lines: {gate: [[10, 10], [10, 10]]}", "each unlike the one before"),
        ("zones: {shop: [[10, 10], [50, 50]]}", "zones: zone 'shop' needs three different points or more"),
        ("zones: {shop: [[10, 10], [50, 50], [90, 90]]}", "zone 'shop' has no area"),
        ("lines: {gate: [[0.5, 0], [80, 100]]}", "'gate' has 0.5 and line 'gate' has 80; set unit to pixels or parts"),
        ("lines: {gate: [[0.5, 0], [0.5, 1.2]]}", "'gate' has 0.5 and line 'gate' has 1.2; set unit"),
        ("unit: parts, lines: {gate: [[0.5, 0], [0.5, 1.2]]}", "line 'gate': 1.2 is outside of the picture"),
        ("lines: {gate: [[-5, 0], [50, 100]]}", "lines.gate.0.0: input should be greater than or equal to 0"),
        ("lines: {gate: [[5, 0], [.nan, 100]]}", "lines.gate.1.0: input should be a finite number"),
        ("lines: {gate: [[80, 0], [80, 121]]}", "line 'gate' has the point 80, 121, outside of the 160x120 picture"),
        ("zones: {shop: [[0, 0], [161, 0], [9, 9]]}", "zone 'shop' has the point 161, 0, outside of the 160x120"),
        ("lines: {gate: [[80, 0], [80, 100]]}, classes: persn", "unknown class 'persn'; did you mean 'person'"),
        ("classes: person", "there is nothing to count; set lines or zones"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_refused_before_a_run(
    count: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "clip.mp4", n_frames=4)
    stages = f"scene: {{use: '{__name__}:Scene'}}, track: {{use: track_objects}}, count: {{use: count, {count}}}"
    (tmp_path / "w.yaml").write_text(f"source: {{kind: video}}\nstages: {{{stages}}}\n")
    given = [str(tmp_path / "w.yaml"), str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "x.zarr")]
    assert main(["run", *given, "--executor", "inline"]) == 2
    shown = capsys.readouterr().err
    assert sum("stages.count" in line for line in shown.splitlines()) == 1
    assert message in shown
    assert not list((tmp_path / "x.zarr").rglob("*.zip"))


def test_lines_outside_of_one_input_leave_the_others_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small picture is not usable; a stored input is not either, once the lines are moved out of it."""
    for name, size in (("large", (160, 120)), ("small", (64, 48))):
        write_clip(tmp_path / f"{name}.mp4", n_frames=4, size=size)
    clips = [str(tmp_path / f"{name}.mp4") for name in ("large", "small")]
    stages = f"scene: {{use: '{__name__}:Scene'}}, track: {{use: track_objects}}, count: {{use: count}}"
    (tmp_path / "w.yaml").write_text(f"source: {{kind: video}}\nstages: {{{stages}}}\n")
    common = ["--out", str(tmp_path / "x.zarr"), "--executor", "inline"]
    gate = "count.lines={gate: [[80, 0], [80, 100]]}"
    assert main(["run", str(tmp_path / "w.yaml"), *clips, *common, "--set", gate]) == 1
    shown = capsys.readouterr().err
    assert shown.count("small.mp4: stages.count: line 'gate' has the point 80, 0, outside of the 64x48 picture") >= 1
    assert pipeline.open(tmp_path / "x.zarr").array("large", "crossings").shape == (1, 1, 2)
    gate = "count.lines={gate: [[170, 0], [170, 100]]}"
    assert main(["run", str(tmp_path / "w.yaml"), clips[0], *common, "--set", gate]) == 2
    assert "outside of the 160x120 picture" in capsys.readouterr().err


def test_tracks_and_times_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "lines: {gate: [[0.5, 0], [0.5, 1]]}"
    for kind, stages, message in (
        ("video", f"count: {{use: count, {lines}}}", "add a stage that makes it: track: {use: track_objects}"),
        ("images", f"track: {{use: track_objects}}, count: {{use: count, {lines}}}", "count objects in videos"),
    ):
        (tmp_path / "w.yaml").write_text(f"source: {{kind: {kind}}}\nstages: {{objects: {{use: objects}}, {stages}}}\n")
        assert main(["plan", str(tmp_path / "w.yaml"), str(tmp_path), "--out", str(tmp_path / "x.zarr")]) == 2
        assert message in capsys.readouterr().err
