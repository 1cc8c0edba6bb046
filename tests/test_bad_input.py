"""Damaged files, disks that refuse, mistakes: one clear line, the right exit code, and nothing lost."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import pipeline
from pipeline.cli import main
from tests.clips import remuxed, write_clip
from tests.faults import one_stage

FRAMES, CHUNK = 400, 64


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven chunks, in groups of 12 frames; its index comes first, so that it can be cut off."""
    folder = tmp_path_factory.mktemp("clips")
    return remuxed(write_clip(folder / "made.mp4", n_frames=FRAMES), folder / "clip.mp4")


@pytest.fixture
def grey(tmp_path: Path) -> Path:
    """A workflow of one light stage."""
    return one_stage(tmp_path, "Faulty", fault="none")


def cut_off(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def run(workflow: Path, inputs: Path, out: Path, *flags: str) -> int:
    return main(["run", str(workflow), str(inputs), "--out", str(out), "--executor", "inline", *flags])


def status(out: Path, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["status", str(out), "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_file_cut_off_gives_what_can_be_read(
    suffix: str, clip: Path, grey: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = remuxed(clip, tmp_path / f"whole{suffix}")
    cut = cut_off(shutil.copy(whole, tmp_path / f"cut{suffix}"), 0.5)
    out = tmp_path / "out.zarr"
    assert run(grey, whole, tmp_path / "whole.zarr") == 0
    code = run(grey, cut, out)
    said = capfd.readouterr()
    assert "Traceback" not in said.err + said.out
    opened = pipeline.open(out).inputs["cut"]
    decoded = opened.array("decoded")
    read = int(decoded.sum())
    assert 100 < read < 300
    assert decoded[:read].all()
    np.testing.assert_array_equal(
        opened.array("grey")[:read], pipeline.open(tmp_path / "whole.zarr").array("whole", "grey")[:read]
    )
    if suffix in (".mp4", ".mkv"):  # their headers promise the frames that are not there
        assert code == 1
        assert "cut off" in said.err + said.out
        assert "0:00:" in said.err + said.out
        assert [f["chunk"] for f in status(out, capfd)["inputs"][0]["failures"]] == [4, 5, 6]
    assert run(grey, cut, out, "--accept-failed") == 0
    assert run(grey, cut, out) == 0
    assert status(out, capfd)["inputs"][0]["complete"]


def test_damage_fails_the_chunks_it_lies_in(
    clip: Path, grey: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    for position, size in packets[2 * CHUNK - 8 : 3 * CHUNK]:  # the end of chunk 1 and all of chunk 2
        data[position + 4 : position + size] = bytes(size - 4)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(data)
    out = tmp_path / "out.zarr"
    assert run(grey, bad, out) == 1
    said = capfd.readouterr()
    assert "chunk 2 (0:00:05.120-0:00:07.640) failed: decode: " in said.out
    assert "Traceback" not in said.err + said.out
    run(grey, clip, tmp_path / "whole.zarr")
    truth = pipeline.open(tmp_path / "whole.zarr").array("clip", "grey")
    (found,) = status(out, capfd)["inputs"]
    assert [failure["chunk"] for failure in found["failures"]] == [2]
    assert {entry["chunk"] for entry in found["unreadable"]} <= {1, 3}
    assert run(grey, bad, out, "--accept-failed") == 0
    closed = pipeline.open(out).inputs["bad"]
    decoded = closed.array("decoded")
    assert decoded[: 2 * CHUNK - 20].all()
    assert decoded[3 * CHUNK + 12 :].all()
    np.testing.assert_array_equal(closed.array("grey")[decoded], truth[decoded])


def sound_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path


def test_sound_only(grey: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = sound_only(tmp_path / "song.mp4")
    assert run(grey, path, tmp_path / "out.zarr") == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "song.mp4" in line
    assert "video" in line


def test_one_bad_file_among_many(clip: Path, grey: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for name in ("a.mp4", "c.mp4"):
        shutil.copy(clip, folder / name)
    (folder / "b.mp4").write_text("a letter, not a film\n" * 99)
    (folder / "d.mp4").touch()
    out = tmp_path / "out.zarr"
    assert run(grey, folder, out) == 1
    said = capfd.readouterr()
    assert "b.mp4" in said.out
    assert "d.mp4 is empty" in said.out
    assert "Traceback" not in said.err + said.out
    assert [one["complete"] for one in status(out, capfd)["inputs"]] == [True, True]
    for name in ("b.mp4", "d.mp4"):
        shutil.copy(clip, folder / name)
    assert run(grey, folder, out) == 0
    assert len(status(out, capfd)["inputs"]) == 4


def test_missing_weights(
    clip: Path,
    workflows: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told before a store is made: which file, where it would lie, which command fetches it."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mtcnn" else found(name))
    assert run(workflows / "faces.yaml", clip, tmp_path / "out.zarr") == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "pip install" in line
    assert not (tmp_path / "out.zarr").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A small disk, of the size or the state that is asked for; asked again, it changes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(options: str) -> Path:
        first = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(
            ["mount", "-o", f"remount,{options}", str(folder)] if mounted else first, capture_output=True, text=True
        )
        if done.returncode != 0:
            pytest.skip(f"this user cannot mount a small disk: {done.stderr.strip()}")
        mounted.append(options)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("executor", ["inline", pytest.param("dask", marks=pytest.mark.slow)])
def test_a_full_disk_blames_no_chunk_and_the_rerun_goes_on(
    executor: str,
    disk: Callable[[str], Path],
    clip: Path,
    grey: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = disk("size=40k") / "out.zarr"
    words = ["run", str(grey), str(clip), "--out", str(out), "--executor", executor]
    assert main(words) == 2
    said = capfd.readouterr()
    assert "No space left on device" in said.err
    assert "free some space and run again to continue" in said.err
    assert "Traceback" not in said.err + said.out
    disk("size=20m")
    (before,) = status(out, capfd)["inputs"]
    assert 0 < before["frames_done"] < FRAMES
    assert before["failures"] == []
    assert main(words) == 0
    assert main(["run", str(grey), str(clip), "--out", str(tmp_path / "other.zarr"), "--executor", "inline"]) == 0
    np.testing.assert_array_equal(
        pipeline.open(out).array("clip", "grey"), pipeline.open(tmp_path / "other.zarr").array("clip", "grey")
    )


def test_a_read_only_disk(
    disk: Callable[[str], Path], clip: Path, grey: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = disk("size=20m") / "out.zarr"
    assert run(grey, clip, out) == 0
    disk("ro")
    capfd.readouterr()
    assert run(grey, clip, out.with_name("another.zarr")) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "Read-only file system" in line
    assert pipeline.open(out).done_share == 1.0


SCRIPT = """
import pipeline
pipeline.run({workflow!r}, {clip!r}, out={out!r}, workers=1)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_so(clip: Path, grey: Path, tmp_path: Path) -> None:
    """Workers are processes that import the script; it must neither hang nor start runs in runs. The last line says
    what to do: above it stand the workers' tracebacks and Dask's."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(workflow=str(grey), clip=str(clip), out=str(tmp_path / "out.zarr")))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode != 0
    assert "no worker could be started" in done.stderr.splitlines()[-1]
    assert done.stderr.endswith("if __name__ == '__main__':\n")
