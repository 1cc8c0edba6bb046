"""`make accuracy ARGS="--lfw FOLDER"`: LFW's protocol, on pictures of LFW and small lists in its format."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PEOPLE = ("Tony_Blair", "Colin_Powell", "Vladimir_Putin", "George_W_Bush")
FOLD = "Ann 1 2\nBob_Lee 1 3\nAnn 1 Bob_Lee 3\nAnn 2 Bob_Lee 1\n"


@pytest.fixture
def lfw(repository: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import lfw

    return lfw


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Empty pictures of two people, which only have to be there."""
    for name in ("Ann/Ann_0001", "Ann/Ann_0002", "Bob_Lee/Bob_Lee_0001", "Bob_Lee/Bob_Lee_0003"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jpg").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "fold"),
    [
        ("2\t2\n" + 2 * FOLD, [0] * 4 + [1] * 4),
        ("2 2\r\n\r\n" + (2 * FOLD).replace(" ", "\t").replace("\n", "\r\n"), [0] * 4 + [1] * 4),
        (FOLD, [0, 1, 0, 1]),
        ("2\n" + FOLD, [0, 1, 0, 1]),
        ("1 2\n" + FOLD, [0, 1, 0, 1]),
    ],
    ids=["folds", "tabs", "no first line", "one number", "one fold"],
)
def test_pairs_in_the_format_of_lfw(lfw: ModuleType, folder: Path, text: str, fold: list[int]) -> None:
    (folder / "pairs.txt").write_text(text)
    read = lfw.read_pairs(folder, None)
    assert read.fold.tolist() == fold
    assert read.same.tolist() == [True, True, False, False] * (len(fold) // 4)
    assert (read.left[1], read.right[1]) == ("Bob_Lee/Bob_Lee_0001.jpg", "Bob_Lee/Bob_Lee_0003.jpg")
    assert (read.left[2], read.right[2]) == ("Ann/Ann_0001.jpg", "Bob_Lee/Bob_Lee_0003.jpg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 2\n" + FOLD, "its first line stands for 8 pairs, but it has 4"),
        ("Ann 1\n" + FOLD, "line 1: 'Ann 1' is not NAME 1 2 or NAME 1 OTHER 3"),
        ("2 x\n" + FOLD, "line 1: '2 x' is not"),
        (FOLD + "Ann 1 two\n", "line 5: 'Ann 1 two' is not"),
        (FOLD + "Ann 0 2\n", "line 5: 'Ann 0 2' is not"),
        ("", "two folds or more"),
        ("Ann 1 2\n", "two folds or more"),
        ("2 1\nAnn 1 2\nAnn 1 2\nAnn 1 Bob_Lee 1\nAnn 1 Bob_Lee 3\n", "as many pairs of two people"),
        (FOLD + "Ann 1 7\nCem 1 4\n", "lacks 3 of the 7 pictures that .*; the first: Cem/Cem_0001.jpg"),
        (None, "cannot read .*pairs.txt .No such file or directory.; name LFW's list: --pairs pairs.txt"),
    ],
    ids=["short", "header", "letter", "word", "zero", "empty", "one pair", "one kind", "missing", "no file"],
)
def test_wrong_lists_end_with_one_line(
    lfw: ModuleType, folder: Path, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    if text is not None:
        (folder / "pairs.txt").write_text(text)
    with pytest.raises(SystemExit) as ended:
        lfw.read_pairs(folder, None)
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.search(message, error), error
    assert error.startswith("accuracy: ")
    assert error.count("\n") == 1


def test_a_folder_that_is_not_there(lfw: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        lfw.read_pairs(tmp_path / "none", None)
    assert (ended.value.code, "there is no folder" in capsys.readouterr().err) == (2, True)


def test_each_fold_is_judged_by_the_threshold_of_the_others(lfw: ModuleType) -> None:
    same = np.array([True, False] * 6)
    distance = np.array([1, 3, 1, 3, 1, 3, 1, 3, 5, 7, 5, 7.0])
    found = lfw.ten_fold(distance, same, np.repeat([0, 1, 2], 4))
    # Fold 2 lies above the threshold 2 of the others: its pairs of one person are refused.
    assert found["accuracy"] == pytest.approx(np.mean([100, 100, 50]))
    assert found["standard_error"] == pytest.approx(np.std([100, 100, 50], ddof=1) / 3**0.5)


def test_a_pair_without_a_face_counts_as_two_people(lfw: ModuleType) -> None:
    vectors = {"a": np.array([1.0, 0]), "b": np.array([1, 0.1]), "c": np.array([0, 1.0])}
    sides = ["a", "a", "a", "a"], ["b", "c", "none", "c"]
    pairs = lfw.Pairs(*sides, np.array([True, False, True, False]), np.array([0, 0, 1, 1]))
    assert lfw.judged(vectors, pairs)["cosine"]["auc"] == 0.5
    assert lfw.judged({}, pairs) == {}


def test_the_face_in_the_middle_counts(lfw: ModuleType) -> None:
    assert lfw.middle(np.array([(0, 0, 90, 90), (110, 60, 20, 20)]), 240, 140) == 1


@pytest.mark.slow
def test_the_protocol_itself(
    lfw: ModuleType, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four people of LFW in two folds, DeepFace beside us, and a picture without a face."""
    pytest.importorskip("deepface")
    import accuracy

    for name in PEOPLE:
        (tmp_path / name).symlink_to(data_dir / "faces" / "lfw" / name)
    (tmp_path / "Nobody").mkdir()
    (tmp_path / "Nobody" / "Nobody_0001.jpg").symlink_to(data_dir / "faces" / "groups" / "no-faces.jpg")
    lines = ["2 2"]
    for one, other in (PEOPLE[:2], PEOPLE[2:]):
        lines += [f"{one} 1 2", f"{other} 1 2", f"{one} 1 {other} 1", f"{one} 2 Nobody 1"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    monkeypatch.setattr(accuracy, "REPOSITORY", tmp_path / "here")
    command = ["--lfw", str(tmp_path), "--pairs", str(tmp_path / "list.txt"), "--detectors", "yunet"]
    monkeypatch.setattr("sys.argv", ["accuracy.py", *command, "--networks", "Dlib", "--json", str(tmp_path / "a.json")])
    monkeypatch.setenv("DEEPFACE_HOME", str(data_dir / "weights" / "deepface"))
    monkeypatch.setenv("REELGRAPH_DATA", str(data_dir))
    accuracy.main()
    printed = capsys.readouterr().out
    assert "Accuracy in % in the form of DeepFace's table" in printed
    rows = {row["how"]: row for row in json.loads((tmp_path / "a.json").read_text())["rows"]}
    assert set(rows) == {"native", "native, flip", "two_views", "deepface", "stock"}
    for row in rows.values():
        assert (row["pictures"], row["pairs"], row["without_face"]) == (9, 8, 1)
    for metric, figures in rows["two_views"]["by_metric"].items():
        assert (figures["accuracy"], figures["auc"]) == (100, 1), metric
    for metric, figures in rows["stock"]["by_metric"].items():
        assert rows["deepface"]["by_metric"][metric] == pytest.approx(figures, abs=1e-3)
