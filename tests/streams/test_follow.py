"""Following a folder: each finished file once, in rounds, through failures, removals and restarts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import pipeline
from pipeline.cli import main
from pipeline.engine.follow import Follower
from pipeline.engine.source import InputRef
from pipeline.engine.summary import Summary
from pipeline.errors import UsageError
from pipeline.files.journal import Journal
from pipeline.views.summary import lines
from tests.processes import kill_group, start, wait_until
from tests.streams.cameras import write_film
from tests.streams.numbered import analysed, write_workflow


class Lines:
    """A process, and the lines that it writes to its standard error."""

    def __init__(self, folder: Path, *words: str | Path) -> None:
        self.path = folder / "said.txt"
        with self.path.open("w") as file:
            self.process: subprocess.Popen[str] = start(*words, stderr=file)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            kill_group(self.process)

    @property
    def text(self) -> str:
        return self.path.read_text()

    def end(self, number: int = signal.SIGTERM) -> str:
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=30)
        return out


def finish(film: Path, folder: Path, name: str) -> None:
    """Put a film into a folder as a recorder does, with its journal."""
    shutil.copy(film, folder / f".{name}.partial")
    os.replace(folder / f".{name}.partial", folder / name)
    Journal(folder).finished(name)


def test_segments_as_they_come(film: Path, tmp_path: Path) -> None:
    workflow, folder, out = write_workflow(tmp_path), tmp_path / "cams", tmp_path / "out.zarr"
    folder.mkdir()
    (folder / "broken.mkv").write_bytes(b"not a film")
    os.utime(folder / "broken.mkv", (1e9, 1e9))
    words = ["run", workflow, "--follow", folder, "--out", out, "--executor", "inline", "--settle", "1000"]
    words += ["--together", "2"]
    with Lines(tmp_path, *words) as lines:
        for name in ("a.mkv", "b.mkv"):
            finish(write_film(folder / f".{name}", 30), folder, name)
            os.unlink(folder / f".{name}")
        wait_until(lambda: all((out / name).exists() for name in "ab") and "b: 30/30" in lines.text)
        (folder / "growing.mkv").write_bytes(b"still written")
        wait_until(lambda: "broken.mkv is not a video" in lines.text)
        finish(film, folder, "c.mkv")
        wait_until(lambda: "c: 50/50" in lines.text)
        (folder / "growing.mkv").unlink()
        wait_until(lambda: "removed before analysis: growing.mkv" in lines.text)
        said = lines.end()
    assert lines.process.returncode == 1
    assert "not usable" in said
    assert "growing.mkv was removed before it was analysed" in said
    assert {name: len(numbers) for name, numbers in analysed(out).items()} == {"a": 30, "b": 30, "c": 50}
    assert "1 input to analyse: finished" in lines.text
    # A restart goes on: nothing is done twice, and what came meanwhile is done.
    finish(film, folder, "d.mkv")
    journal = Journal(folder)
    finish(film, folder, "e.mkv")
    Journal(folder).remove("e.mkv")
    assert "a.mkv" in journal.bytes_of
    with Lines(tmp_path, *words) as lines:
        wait_until(lambda: "d: 50/50" in lines.text)
        said = lines.end(signal.SIGINT)
    assert lines.process.returncode == 1
    assert "e.mkv was removed before it was analysed" in said
    assert analysed(out)["d"] == list(range(50))
    assert "50 frames in" in said, "the others were done before"
    (folder / "broken.mkv").unlink()
    finish(film, folder, "f.mkv")
    with Lines(tmp_path, *words) as lines:
        wait_until(lambda: "f: 50/50" in lines.text)
        lines.end()
    assert lines.process.returncode == 0, "nothing failed this time"
    recorded = [Path(one["path"]).name for one in pipeline.open(out).attributes["unusable"]]
    assert sorted(recorded) == ["broken.mkv", "e.mkv", "growing.mkv"]


class Fed:
    """A run that notes what a follower gives it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.given_up: list[str] = []
        self.known: set[str] = set()
        self.stops = False

    def must_stop(self) -> bool:
        return self.stops

    def known_paths(self) -> set[str]:
        return self.known

    def note(self, text: str) -> None:
        self.notes.append(text)

    def give_up(self, path: str, error: str) -> None:
        self.given_up.append(path)


@pytest.fixture
def fed() -> Fed:
    return Fed()


def test_settling_and_growing(tmp_path: Path, fed: Fed) -> None:
    paths = [tmp_path / name for name in ("a.ts", "b.ts")]

    def find() -> list[InputRef]:
        return [InputRef(str(path), path.stem) for path in paths if path.exists()]

    follower = Follower(str(tmp_path), find, 10)
    now = time.time()
    follower.clock = lambda: now
    rounds = follower.rounds(fed)
    paths[0].write_bytes(b"1")
    os.utime(paths[0], (now - 60, now - 60))
    paths[1].write_bytes(b"1")
    os.utime(paths[1], (now - 5, now - 5))
    assert [ref.name for ref in next(rounds)] == ["a"]
    now += 4
    paths[1].write_bytes(b"12")  # by a machine whose clock is an hour ahead
    os.utime(paths[1], (now + 3600, now + 3600))
    assert follower._look(fed) == []
    now += 9
    assert follower._look(fed) == []
    now += 2
    assert [ref.name for ref in next(rounds)] == ["b"]
    paths[0].write_bytes(b"12")  # it grew after it was taken
    assert follower._look(fed) == []
    now += 11
    assert [ref.name for ref in next(rounds)] == ["a"]
    assert fed.notes[0] == "1 input to analyse: finished 1 min 00 s ago"
    fed.stops = True
    assert next(rounds, None) is None


def test_a_file_that_is_renamed_into_place(tmp_path: Path, fed: Fed) -> None:
    follower = Follower(str(tmp_path), lambda: [InputRef(str(path), path.stem) for path in tmp_path.iterdir()], 10)
    now = time.time()
    follower.clock = lambda: now
    (tmp_path / "a.tmp.ts").write_bytes(b"1")
    (tmp_path / "b.ts").write_bytes(b"1")
    assert follower._look(fed) == []
    (tmp_path / "a.tmp.ts").rename(tmp_path / "a.ts")
    (tmp_path / "b.ts").unlink()
    assert follower._look(fed) == []
    assert fed.given_up == [str(tmp_path / "b.ts")]
    now += 11
    assert [ref.name for _, ref in follower._look(fed)] == ["a"]


def test_what_a_journal_says_was_removed(tmp_path: Path, fed: Fed) -> None:
    journal = Journal(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"1")
        journal.finished(name)
    journal.remove("a")
    follower = Follower(str(tmp_path), lambda: [], 10)
    follower._look(fed)
    assert fed.given_up == [], "it was removed before this folder was followed"
    fed.known = {str(tmp_path / "b")}
    journal.remove("b")
    journal.remove("c")
    follower._look(fed)
    assert fed.given_up == [str(tmp_path / "c")]
    follower._look(fed)
    assert len(fed.notes) == 1


@pytest.mark.parametrize("words", [["in.mp4", "--follow", "."], [], ["--follow", "nowhere"]])
def test_mistakes(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "faces", *words, "--out", str(tmp_path / "out.zarr")]) == 2
    assert "--follow" in capsys.readouterr().err
    with pytest.raises(UsageError, match="not a folder"):
        Follower("nowhere", lambda: [], 1)


def test_an_input_that_is_taken_again_counts_once(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow, path, out = write_workflow(tmp_path), tmp_path / "cams" / "a.mp4", tmp_path / "out.zarr"
    path.parent.mkdir()
    contents = [b"", film.read_bytes()[:2000], film.read_bytes(), film.read_bytes()]

    def rounds(self: Follower, run: Any) -> Iterator[Sequence[InputRef]]:
        for content in contents:
            path.write_bytes(content)
            yield self.find()

    monkeypatch.setattr(Follower, "rounds", rounds)
    command = ["run", str(workflow), "--follow", str(path.parent), "--out", str(out), "--executor", "inline"]
    assert main(command) == 0
    assert "1 of 1 input complete" in capsys.readouterr().out
    assert analysed(out)["a"] == list(range(50))
    assert not pipeline.open(out).attributes.get("unusable")


def test_a_run_that_is_stopped_before_its_first_chunk_is_not_complete() -> None:
    stopped = Summary(out="out.zarr", follows=True, inputs_total=3, seconds={"total": 9.0})
    assert lines(stopped) == ["0 frames in 9.0 s", "0 of 3 inputs complete in out.zarr; the same command goes on"]
