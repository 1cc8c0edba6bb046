"""The second pass: pairs of stored items, with chunks, commits, resume and failures of their own."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

import pipeline
from pipeline.cli import main
from pipeline.engine.events import ChunkDone, Event, InputDone
from pipeline.engine.workflow import build_workflow
from pipeline.errors import InputError, StoreError, UsageError, WorkflowError
from pipeline.views import summary as summary_view
from pipeline.views.plan import lines
from pipeline.views.progress import Bars, Tally
from tests.clips import write_clip
from tests.own import Own

MARKS = '''
"""Rows of pictures: the marks of a picture of brightness n are n numbers, of n and which they are."""

from pathlib import Path

import numpy as np

from pipeline import Array, Axis, Stage, StageOptions


class MarksOptions(StageOptions):
    times: int = 1


class Marks(Stage):
    needs = ("frames_rgb",)
    axes = (Axis("mark"),)
    Options = MarksOptions
    outputs = (Array("n_marks", ("frame",), "int32"), Array("brightness", ("frame",), "float32"),
               Array("mark", ("mark", "part"), "int32", (2,), mapped=True), Array("packed", ("mark",), "int32"),
               Array("feature", ("frame", "component"), "float32", (2,)))

    def run(self, chunk):
        n = np.array([picture[0, 0, 0] * good for picture, good in zip(chunk.frames_rgb, chunk.decoded)], np.int32)
        item = np.repeat(np.arange(len(chunk)), n)
        which = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        angle = n / 100
        return {"n_marks": n, "brightness": n.astype("float32"),
                "mark": np.stack([n[item] * self.options.times, which], axis=1), "packed": which.astype("int32"),
                "feature": np.stack([np.cos(angle), np.sin(angle)], axis=1).astype("float32")}


class CompareOptions(StageOptions):
    fail_at: tuple[int, int] | None = None


class Compare(Stage):
    """Rows of pairs: as many as the darker picture has marks."""

    item = "pair"
    needs = ("a", "b", "a_mark", "b_mark", "a_packed", "b_packed", "a_brightness", "b_name")
    axes = (Axis("common", of="pair", count="n_common"),)
    Options = CompareOptions
    outputs = (Array("n_common", ("pair",), "int32"), Array("sum", ("pair",), "int64"),
               Array("named", ("pair",), "str"), Array("common", ("common", "part"), "int32", (2,)))

    def run(self, chunk):
        counts, sums, rows = [], [], []
        for k in range(len(chunk)):
            a, b = chunk["a_mark"][k], chunk["b_mark"][k]
            if self.options.fail_at == (chunk["a"][k], chunk["b"][k]) and not Path("mended").exists():
                raise ValueError("this pair cannot be compared")
            assert not a.flags.writeable and (a[:, 1] == chunk["a_packed"][k]).all()
            n = min(len(a), len(b))
            counts.append(n)
            sums.append(a.sum() + b.sum())
            rows.append(np.stack([a[:n, 0], b[:n, 0]], axis=1))
        assert (chunk["a_brightness"] >= 0).all()
        return {"n_common": np.array(counts, np.int32), "sum": np.array(sums, np.int64), "named": chunk["b_name"],
                "common": np.concatenate(rows).astype("int32")}


class Later(Stage):
    """Reads what another stage of this pass made."""

    item = "pair"
    needs = ("n_common", "common")
    outputs = (Array("difference", ("common",), "int32"),)

    def run(self, chunk):
        assert len(chunk.rows("common")) == len(chunk["common"])
        return {"difference": chunk["common"][:, 0] - chunk["common"][:, 1]}
'''


MARKS_ALONE = {"marks": {"use": "own_marks:Marks"}}
COMPARE = {"compare": {"use": "own_marks:Compare"}}


@pytest.fixture
def pictures(own: Own, monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    """A folder of twelve pictures of brightness 1 to 12, in two folders, and the stages above."""
    monkeypatch.chdir(own.folder)
    own.module("own_marks", MARKS)
    add(own, range(1, 13))
    return own


def add(own: Own, values: Any) -> None:
    for value in values:
        path = own.folder / "photos" / f"{'odd' if value % 2 else 'even'}" / f"{value:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (value,) * 3).save(path)


def workflow(own: Own, later: bool = False, times: int = 1, fail_at: Any = None, **pairs: Any) -> Path:
    stages: dict[str, Any] = {
        "marks": {"use": "own_marks:Marks", "times": times},
        "compare": {"use": "own_marks:Compare", "fail_at": fail_at},
    }
    stages |= {"later": {"use": "own_marks:Later"}} if later else {}
    path = own.folder / "match.yaml"
    path.write_text(yaml.safe_dump({"source": {"kind": "images"}, "pairs": pairs, "stages": stages}))
    return path


def run(own: Own, path: Path, **options: Any) -> Any:
    return own.run(path, own.folder / "photos", **options)


def test_pairs_of_a_folder(pictures: Own) -> None:
    made = run(pictures, workflow(pictures, later=True))
    assert made.summary.exit_code == 0
    assert made.summary.pairs == 66
    assert made.summary.pictures == 12
    assert list(made.inputs) == ["photos", "photos-pairs"]
    photos, pairs = made.inputs["photos"], made.inputs["photos-pairs"]
    assert pairs.item == "pair"
    assert pairs.attributes["of"] == ["photos"]
    n = photos.array("brightness").astype(int)
    a, b = pairs.array("a"), pairs.array("b")
    assert sorted(zip(a.tolist(), b.tolist(), strict=True)) == [(i, j) for i in range(12) for j in range(i + 1, 12)]
    assert pairs.array("n_common").tolist() == np.minimum(n[a], n[b]).tolist()
    triangle = n * n + n * (n - 1) // 2
    assert pairs.array("sum").tolist() == (triangle[a] + triangle[b]).tolist()
    assert pairs.array("named").tolist() == photos.array("name")[b].tolist()
    rows = pairs.array("common_pair")
    assert pairs.array("difference").tolist() == (n[a] - n[b])[rows].tolist()
    assert run(pictures, workflow(pictures, later=True)).summary.chunks == 0


def test_a_fresh_run_of_one_process_reads_what_it_stored(pictures: Own) -> None:
    """A process maps stored arrays. Those of a store that is no longer there must not stand for the new ones."""
    before = run(pictures, workflow(pictures)).array("photos-pairs", "common")
    after = run(pictures, workflow(pictures, times=2), fresh=True).array("photos-pairs", "common")
    assert after.tolist() == (2 * before).tolist()


def test_same_on_dask(pictures: Own) -> None:
    one = run(pictures, workflow(pictures))
    two = run(pictures, workflow(pictures), out=pictures.folder / "dask.zarr", executor="dask", workers=2)
    for name in ("photos", "photos-pairs"):
        for array in one.inputs[name].arrays:
            assert two.array(name, array).tolist() == one.array(name, array).tolist() or array == "feature"


def test_a_stage_added_later_reads_what_is_stored(pictures: Own) -> None:
    run(pictures, workflow(pictures))
    made = run(pictures, workflow(pictures, later=True))
    pairs = made.inputs["photos-pairs"]
    assert made.summary.exit_code == 0
    assert made.summary.counts["picture"] == 0
    assert len(pairs.array("difference")) == pairs.array("n_common").sum()


def test_a_broken_picture_loses_its_pairs_and_no_others(pictures: Own) -> None:
    (pictures.folder / "photos" / "even" / "004.png").write_bytes(b"not a picture")
    made = run(pictures, workflow(pictures))
    assert made.summary.exit_code == 0
    photos, pairs = made.inputs["photos"], made.inputs["photos-pairs"]
    lost = photos.array("name").tolist().index("even/004.png")
    touched = (pairs.array("a") == lost) | (pairs.array("b") == lost)
    assert (pairs.array("decoded") == ~touched).all()
    assert touched.sum() == 11
    assert all("even/004.png" in text for text in pairs.array("error")[touched])
    assert (pairs.array("error")[~touched] == "").all()
    shown = summary_view.lines(made.summary)
    assert "1 picture of them cannot be read; the array `error` says why" in shown
    assert "11 pairs of them left out: a picture of each cannot be read" in shown


def test_a_failed_chunk_of_pairs(pictures: Own) -> None:
    """A chunk fails, others are kept; it is taken again with --retry-failed, or closed without."""
    path = workflow(pictures, fail_at=(0, 1))
    made = run(pictures, path)
    assert made.summary.exit_code == 1
    assert len(made.summary.failures) == 1
    assert made.summary.failures[0]["input"] == "photos-pairs"
    assert made.summary.pairs == 66 - 16
    assert made.inputs["photos"].complete
    (pictures.folder / "mended").touch()
    assert run(pictures, path).summary.exit_code == 1
    assert run(pictures, path, retry_failed=True).summary.pairs == 16
    assert run(pictures, path).summary.exit_code == 0


def test_pairs_wait_for_a_complete_first_pass(pictures: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.module("own_marks", MARKS.replace("def run(self, chunk):", "def run(self, chunk):\n        1 / 0", 1))
    made = run(pictures, workflow(pictures))
    assert made.summary.exit_code == 1
    assert list(made.inputs) == ["photos"]
    closed = run(pictures, workflow(pictures), accept_failed=True)
    assert closed.summary.exit_code == 0
    assert not closed.inputs["photos-pairs"].array("decoded").any()


def test_later_pictures_are_paired_with_all(pictures: Own) -> None:
    run(pictures, workflow(pictures))
    add(pictures, [20, 21, 22])
    made = run(pictures, workflow(pictures))
    assert made.summary.exit_code == 0
    assert made.summary.pictures == 3
    assert made.summary.pairs == 3 * 12 + 3
    assert list(made.inputs) == ["photos", "photos-pairs", "photos-2", "photos-2-pairs"]
    later = made.inputs["photos-2-pairs"]
    assert later.attributes["of"] == ["photos", "photos-2"]
    n = np.concatenate([made.array("photos", "brightness"), made.array("photos-2", "brightness")]).astype(int)
    a, b = later.array("a"), later.array("b")
    assert (b >= 12).all()
    assert (a < b).all()
    assert later.array("n_common").tolist() == np.minimum(n[a], n[b]).tolist()
    assert run(pictures, workflow(pictures)).summary.chunks == 0


def test_removed_pictures_take_their_pairs_with_them(pictures: Own) -> None:
    run(pictures, workflow(pictures))
    (pictures.folder / "photos" / "odd" / "003.png").unlink()
    made = run(pictures, workflow(pictures), prune=True)
    n = made.array("photos", "brightness").astype(int)
    pairs = made.inputs["photos-pairs"]
    assert len(n) == 11
    assert made.summary.pairs == 55
    assert pairs.array("n_common").tolist() == np.minimum(n[pairs.array("a")], n[pairs.array("b")]).tolist()


def test_no_pair_outlives_its_pictures(pictures: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs count pictures: they go before a picture does, whatever workflow removes it and wherever it stops."""
    photos = {"source": {"kind": "images"}, "stages": MARKS_ALONE}
    alone = pictures.folder / "alone.yaml"
    alone.write_text(yaml.safe_dump(photos))
    run(pictures, workflow(pictures))
    (pictures.folder / "photos" / "odd" / "003.png").unlink()
    with monkeypatch.context() as patched:
        patched.setattr("pipeline.engine.parts.remove_items", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(pictures, alone, prune=True)
    assert list(pipeline.open(pictures.folder / "out.zarr").inputs) == ["photos"]
    assert run(pictures, workflow(pictures), prune=True).summary.pairs == 55


def test_a_later_picture_has_its_place_in_a_window(pictures: Own) -> None:
    for name in ("even/006.png", "odd/001.png"):
        (pictures.folder / "photos" / name).unlink()
    before = run(pictures, workflow(pictures, window=1))
    add(pictures, [1, 6])
    (pictures.folder / "photos" / "zero.png").write_bytes((pictures.folder / "photos" / "odd" / "001.png").read_bytes())
    made = run(pictures, workflow(pictures, window=1))
    names = [*made.array("photos", "name").tolist(), *made.array("photos-2", "name").tolist()]
    in_order = ["zero.png"]
    in_order += [f"even/{n:03d}.png" for n in range(2, 13, 2)] + [f"odd/{n:03d}.png" for n in range(1, 12, 2)]
    later = made.inputs["photos-2-pairs"]
    found = {frozenset((names[a], names[b])) for a, b in zip(later.array("a"), later.array("b"), strict=True)}
    new = {"zero.png", "even/006.png", "odd/001.png"}
    assert found == {frozenset(pair) for pair in pairwise(in_order) if set(pair) & new}
    assert made.array("photos-pairs", "a").tolist() == before.array("photos-pairs", "a").tolist()


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ({"window": 2}, lambda i, j: j - i <= 2),
        ({"of": "groups"}, lambda i, j: (i < 6) == (j < 6)),
        ({"of": "groups", "window": 1}, lambda i, j: (i < 6) == (j < 6) and j - i == 1),
    ],
)
def test_which_pairs(pictures: Own, pairs: dict[str, Any], expected: Any) -> None:
    made = run(pictures, workflow(pictures, **pairs)).inputs["photos-pairs"]
    found = sorted(zip(made.array("a").tolist(), made.array("b").tolist(), strict=True))
    assert found == [(i, j) for i in range(12) for j in range(i + 1, 12) if expected(i, j)]


def test_pairs_of_a_list(pictures: Own) -> None:
    listed = pictures.folder / "pairs.txt"
    listed.write_text("# by hand\neven/002.png odd/001.png\nodd/001.png even/002.png\n\nodd/003.png\todd/005.png\n")
    made = run(pictures, workflow(pictures, list="pairs.txt"))
    names = made.array("photos", "name")
    pairs = made.inputs["photos-pairs"]
    found = {frozenset((names[a], names[b])) for a, b in zip(pairs.array("a"), pairs.array("b"), strict=True)}
    assert found == {frozenset(("even/002.png", "odd/001.png")), frozenset(("odd/003.png", "odd/005.png"))}
    assert len(pairs.array("a")) == 2
    listed.write_text("even/002.png odd/001.png\n")
    with pytest.raises(StoreError, match="or a file that the section pairs names"):
        run(pictures, workflow(pictures, list="pairs.txt"))


def test_a_list_may_name_pictures_that_come_later(pictures: Own) -> None:
    (pictures.folder / "photos" / "odd" / "005.png").unlink()
    (pictures.folder / "pairs.txt").write_text("even/002.png odd/001.png\nodd/003.png odd/005.png\n")
    run(pictures, pictures.workflow(MARKS_ALONE, kind="images"))
    summary = run(pictures, workflow(pictures, list="pairs.txt")).summary
    assert "unknown picture 'odd/005.png'" in summary.unusable[0]["error"]
    add(pictures, [5])
    made = run(pictures, workflow(pictures, list="pairs.txt"))
    assert made.summary.exit_code == 0
    assert [len(made.array(name, "a")) for name in ("photos-pairs", "photos-2-pairs")] == [1, 1]


def test_a_list_of_any_bytes(pictures: Own) -> None:
    """An editor's mark at its beginning, ends of lines as on Windows, and a name that is not UTF-8."""
    odd = pictures.folder / "photos" / "odd"
    (odd / "001.png").rename(os.fsdecode(os.fsencode(odd) + b"/\xff.png"))
    (pictures.folder / "pairs.txt").write_bytes(b"\xef\xbb\xbfodd/\xff.png odd/003.png\r\n\r\n")
    made = run(pictures, workflow(pictures, list="pairs.txt"))
    named = [str(made.array("photos", "name")[made.array("photos-pairs", side)[0]]) for side in "ab"]
    assert sorted(named) == ["odd/003.png", r"odd/\xff.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("even/002.png odd/011.jpg\n", "line 1: unknown picture 'odd/011.jpg'; did you mean 'odd/011.png'"),
        ("even/002.png\n", "line 1: 'even/002.png' is not two names"),
    ],
)
def test_a_list_with_mistakes(pictures: Own, text: str, message: str) -> None:
    (pictures.folder / "pairs.txt").write_text(text)
    _is_refused(pictures, workflow(pictures, list="pairs.txt"), message)


def _is_refused(pictures: Own, path: Path, message: str) -> None:
    """Check that a plan and a run say what is wrong before any picture is worked on."""
    out = pictures.folder / "refused.zarr"
    with pytest.raises(InputError) as planned:
        pipeline.plan(path, pictures.folder / "photos", out=out)
    with pytest.raises(InputError) as caught:
        run(pictures, path, out=out)
    assert message in str(caught.value)
    assert str(planned.value) == str(caught.value)
    assert not pipeline.open(out).inputs


def test_a_list_over_several_inputs_is_refused(pictures: Own) -> None:
    (pictures.folder / "pairs.txt").write_text("001.png 003.png\n")
    folders = [pictures.folder / "photos" / name for name in ("odd", "even")]
    with pytest.raises(InputError, match=r"photos/even: .*pairs.txt, line 1: unknown picture '001.png'"):
        pictures.run(workflow(pictures, list="pairs.txt"), *folders)


def test_a_list_of_a_film_names_frames(own: Own) -> None:
    write_clip(own.folder / "film.mp4", 25)
    stages = {"keypoints": {"use": "keypoints"}, "match": {"use": "match"}}
    path = own.folder / "film.yaml"
    listed = {"list": str(own.folder / "pairs.txt")}
    path.write_text(yaml.safe_dump({"source": {"kind": "video", "every": 10}, "pairs": listed, "stages": stages}))
    (own.folder / "pairs.txt").write_text("0 10\n0 5\n")
    with pytest.raises(InputError, match="line 2: unknown picture '5'"):
        own.run(path, own.folder / "film.mp4")
    (own.folder / "pairs.txt").write_text("0 10\n10 20\n")
    assert own.run(path, own.folder / "film.mp4").array("film-pairs", "b").tolist() == [1, 2]


def test_a_list_of_a_growing_folder_is_checked_with_all_parts(pictures: Own) -> None:
    run(pictures, pictures.workflow(MARKS_ALONE, kind="images"))
    add(pictures, [13])
    (pictures.folder / "pairs.txt").write_text("odd/013.png odd/001.png\nodd/013.png odd/015.png\n")
    with pytest.raises(InputError, match=r"line 2: unknown picture 'odd/015.png'"):
        run(pictures, workflow(pictures, list="pairs.txt"))
    assert "photos-2" not in pipeline.open(pictures.out).inputs
    (pictures.folder / "pairs.txt").write_text("odd/013.png odd/001.png\n")
    assert run(pictures, workflow(pictures, list="pairs.txt")).summary.exit_code == 0


def test_pairs_of_similar_features(pictures: Own) -> None:
    made = run(pictures, workflow(pictures, similar=2))
    n = made.array("photos", "brightness")
    pairs = made.inputs["photos-pairs"]
    found = set(zip(pairs.array("a").tolist(), pairs.array("b").tolist(), strict=True))
    expected = set()
    for i in range(12):
        near = sorted((j for j in range(12) if j != i), key=lambda j: abs(n[i] - n[j]))
        for j in near[:2]:
            if abs(n[i] - n[near[2]]) > abs(n[i] - n[j]):  # not a tie
                expected.add((min(i, j), max(i, j)))
    assert expected <= found
    assert len(found) <= 24
    _is_refused(pictures, workflow(pictures, similar=2, array="featur"), "did you mean 'feature'")
    _is_refused(pictures, workflow(pictures, similar=2, array="brightness"), "unknown array of features 'brightness'")


def test_changed_options_are_refused(pictures: Own) -> None:
    run(pictures, workflow(pictures))
    with pytest.raises(StoreError, match=r"pairs\.window: None -> 3"):
        run(pictures, workflow(pictures, window=3))
    with pytest.raises(StoreError, match=r"marks\.times: 1 -> 2"):
        run(pictures, workflow(pictures, times=2))
    with pytest.raises(UsageError, match="did you mean 'compare'"):
        run(pictures, workflow(pictures), keep_stale=["compar"])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"stages": COMPARE}, "it runs on pairs and source 'images' gives frames; a section pairs: makes some"),
        ({"pairs": {}, "stages": MARKS_ALONE}, "pairs: no stage runs on pairs"),
        ({"pairz": {}, "stages": MARKS_ALONE}, "unknown section 'pairz'; did you mean 'pairs'"),
        ({"pairs": {"of": "al"}}, "pairs.of"),
        ({"pairs": {"window": 2, "similar": 3}}, "window and similar exclude each other"),
        ({"pairs": {"array": "name"}}, "option array: name has no effect without similar; leave it out"),
        ({"pairs": {"windo": 2}}, "did you mean 'window'"),
        ({"pairs": {"list": "absent.txt"}}, "absent.txt cannot be read: No such file"),
    ],
)
def test_mistakes_in_a_workflow(pictures: Own, document: dict[str, Any], message: str) -> None:
    whole = {"source": {"kind": "images"}, "stages": {**MARKS_ALONE, **COMPARE}, **document}
    with pytest.raises(WorkflowError) as caught:
        _ = [one.keys() for one in build_workflow("match", whole, pictures.folder).passes]
    assert message in str(caught.value)


def test_set_reaches_the_section(pictures: Own) -> None:
    made = run(pictures, workflow(pictures), set={"pairs.window": 1})
    assert made.summary.pairs == 11


def test_the_store_says_how_it_was_made(pictures: Own) -> None:
    made = run(pictures, workflow(pictures, window=3))
    assert made.attributes["workflow"]["pairs"]["window"] == 3
    assert made.attributes["workflow"]["stages"]["compare"]["after"] == ["marks"]
    assert json.dumps(made.summary.as_dict())


def test_it_opens_with_zarr_and_verifies(pictures: Own) -> None:
    import zarr

    run(pictures, workflow(pictures))
    group = zarr.open_group(pictures.out, mode="r")
    assert group["photos-pairs/a"].shape == (66,)
    assert main(["verify", str(pictures.out)]) == 0


def test_plan_counts_the_pairs_before_and_after(pictures: Own) -> None:
    path, folder = workflow(pictures), [str(pictures.folder / "photos")]
    before = pipeline.plan(path, folder, pictures.out)
    assert before.as_dict()["pairs"]["expected"] == 66
    assert any("then at most 66 pairs" in line for line in lines(before))
    run(pictures, path)
    add(pictures, [30])
    after = pipeline.plan(path, folder, pictures.out).as_dict()
    assert [(one["name"], one["frames_to_do"]) for one in after["pairs"]["inputs"]] == [("photos-pairs", 0)]
    assert after["inputs"][1]["frames"] == 1
    assert after["pairs"]["expected"] == 12, "the new picture with each of the others"
    assert list(pipeline.open(pictures.out).inputs) == ["photos", "photos-pairs"]


@pytest.mark.parametrize(
    ("pairs", "before", "after"),
    [
        ({"of": "groups"}, 30, 12),
        ({"of": "groups", "window": 1}, 12, 4),
        ({"window": 3}, 36, 12),
        ({"similar": 2}, 24, 25),
    ],
    ids=str,
)
def test_plan_counts_the_pairs_of_each_choice(pictures: Own, pairs: dict[str, Any], before: int, after: int) -> None:
    """The names of pictures are known before the first pass, so pairs of all and of groups are counted exactly."""
    path = workflow(pictures, **pairs)
    assert pipeline.plan(path, pictures.folder / "photos", pictures.out).as_dict()["pairs"]["expected"] == before
    run(pictures, path)
    add(pictures, [30, 31])
    planned = pipeline.plan(path, pictures.folder / "photos", pictures.out).as_dict()["pairs"]
    assert planned["expected"] == after
    done = run(pictures, path)
    assert len(done.array("photos-2-pairs", "a")) <= after


@pytest.mark.parametrize(("of", "expected"), [("all", 3), ("groups", 2)])
def test_plan_counts_the_pairs_of_a_list(pictures: Own, of: str, expected: int) -> None:
    """Each once, also if the list names pictures that come later than others of the store."""
    listed = "odd/001.png odd/003.png\nodd/003.png odd/001.png\nodd/001.png even/002.png\nodd/031.png odd/001.png\n"
    (pictures.folder / "pairs.txt").write_text(listed)
    run(pictures, pictures.workflow(MARKS_ALONE, kind="images"))
    add(pictures, [31])
    path = workflow(pictures, of=of, list="pairs.txt")
    planned = pipeline.plan(path, pictures.folder / "photos", pictures.out)
    assert planned.as_dict()["pairs"]["expected"] == expected
    assert not planned.further[0].unusable
    made = run(pictures, path)
    assert sum(len(made.array(name, "a")) for name in ("photos-pairs", "photos-2-pairs")) == expected


def test_status_says_pairs(pictures: Own, capsys: pytest.CaptureFixture[str]) -> None:
    run(pictures, workflow(pictures))
    assert main(["status", str(pictures.out)]) == 0
    shown = capsys.readouterr().out
    assert "photos: 12 of 12 pictures, 78 marks, complete" in shown
    assert "photos-pairs: 66 of 66 pairs, 286 commons, complete" in shown


def test_the_end_of_a_run_counts_both(pictures: Own) -> None:
    done = summary_view.lines(run(pictures, workflow(pictures)).summary)
    assert done[0].startswith("12 pictures, 78 marks; 66 pairs, 286 commons in ")
    assert "pictures/s, then " in done[0]
    assert done[-1].startswith("2 of 2 inputs complete")
    assert "nothing to do" in summary_view.lines(run(pictures, workflow(pictures)).summary)[0]


def test_progress_counts_each_pass(pictures: Own) -> None:
    class Heard:
        def __init__(self) -> None:
            self.tally, self.lines = Tally(), []

        def on(self, event: Event) -> None:
            self.tally.on(event)
            if isinstance(event, InputDone):
                self.lines.append(f"{event.name}: {self.tally.line(event.name)}")

    heard = Heard()
    run(pictures, workflow(pictures), listener=heard)
    assert heard.lines == ["photos: 12/12 pictures, 78 marks", "photos-pairs: 66/66 pairs, 286 commons"]


def test_bars_of_two_passes(pictures: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = Bars()
    bars.console = Console(file=io.StringIO(), force_terminal=True, width=120)
    bars.bars.live.console = bars.console
    with bars:
        run(pictures, workflow(pictures), listener=bars)
    shown = bars.console.file.getvalue()  # type: ignore[attr-defined]
    assert "photos: 12/12 pictures, 78 marks" in shown
    assert "66/66 pairs" in shown


def test_a_drained_run_goes_on_with_the_pairs(pictures: Own) -> None:
    """SIGTERM in the first pass: what is under way is finished, no pair is begun, and the same command goes on."""

    class Ends:
        def on(self, event: Event) -> None:
            if isinstance(event, ChunkDone):
                signal.raise_signal(signal.SIGTERM)

    first = run(pictures, workflow(pictures), listener=Ends())
    assert first.summary.exit_code == 75
    assert first.summary.pairs == 0
    second = run(pictures, workflow(pictures))
    assert second.summary.exit_code == 0
    assert second.summary.pairs == 66


def test_a_damaged_chunk_of_the_first_pass_is_made_again(pictures: Own) -> None:
    """The check before the first pass reads no chunk of the input."""
    add(pictures, range(13, 100))

    class Ends:
        def on(self, event: Event) -> None:
            if isinstance(event, ChunkDone):
                signal.raise_signal(signal.SIGTERM)

    path = workflow(pictures, similar=1)
    assert run(pictures, path, listener=Ends()).summary.exit_code == 75
    chunk = next((pictures.out / "photos" / "chunks").glob("*.ok.*"))
    chunk.write_bytes(b"damaged")
    assert run(pictures, path).summary.exit_code == 0
