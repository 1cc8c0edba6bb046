"""The command line: exit codes, one clear line per mistake, signals, and what `--help` may cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import cli
from pipeline.cli import GROUP, main
from pipeline.store.read import open as open_store
from tests.clips import write_clip
from tests.faults import one_stage
from tests.made_stores import faces_of, make_store, people
from tests.processes import COMMAND, kill_group, reelgraph, start, wait_until

HEAVY = ("numpy", "dask", "distributed", "zarr", "av", "cv2", "onnxruntime", "pydantic", "rich", "pandas")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", n_frames=60)


@pytest.fixture
def slow_workflow(tmp_path: Path) -> Path:
    """A workflow that takes half a second per chunk and logs what it computes."""
    return one_stage(tmp_path, "Counted", log=str(tmp_path / "log"), seconds=0.5)


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys, pipeline.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", sorted({"run", "plan", "status", *entry_points(group=GROUP).names}))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert command in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "nowhere.mp4", "nowhere.mp4"),
        (lambda folder: _made(folder / "empty"), "no video"),
        (lambda folder: _written(folder / "zero.mp4", b""), "zero.mp4"),
        (lambda folder: _written(folder / "text.mp4", b"this is a letter, not a film\n" * 50), "text.mp4"),
    ],
    ids=["missing", "folder without videos", "zero bytes", "text"],
)
def test_unusable_inputs_exit_2(
    tmp_path: Path, workflows: Path, capfd: pytest.CaptureFixture[str], make: object, message: str
) -> None:
    bad = make(tmp_path)  # type: ignore[operator]
    code = main(
        ["run", str(workflows / "faces.yaml"), str(bad), "--out", str(tmp_path / "o.zarr"), "--executor", "inline"]
    )
    shown = capfd.readouterr()
    assert code == 2
    assert message in shown.err
    assert "Traceback" not in shown.err + shown.out


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "detect.min_face=many"], "detect.min_face"),
        (["--set", "detect.model=mtcn"], "did you mean 'mtcnn'"),
        (["--every", "0"], "source.every"),
        (["--start", "soon"], "source.start"),
    ],
)
def test_wrong_options_exit_2(
    tmp_path: Path, workflows: Path, clip: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    code = main(["run", str(workflows / "faces.yaml"), str(clip), "--out", str(tmp_path / "o.zarr"), *words])
    assert code == 2
    error = capfd.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "two"], "'two' is not a whole number"),
        (["--chunk-timeout", "-1"], "'-1' is not a number of seconds"),
        (["--worker-memory", "lots"], "'lots' is not a size of at least 256MB"),
        (["--worker-memory", "1e400"], "'1e400' is not a size of at least 256MB"),
        (["--gpu-memory", "1KB"], "'1KB' is not a size of at least 256MB"),
        (["--executor", "spark"], "invalid choice: 'spark'"),
    ],
)
def test_flags_of_the_wrong_type_exit_2(
    workflows: Path, clip: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", str(workflows / "faces.yaml"), str(clip), "--out", "o.zarr", *words])
    assert caught.value.code == 2
    error = capfd.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


def test_out_that_is_no_store_is_refused(
    tmp_path: Path, workflows: Path, clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "photos"
    _written(_made(out) / "me.jpg", b"x")
    for extra in ([], ["--fresh"]):
        code = main(
            ["run", str(workflows / "faces.yaml"), str(clip), "--out", str(out), "--executor", "inline", *extra]
        )
        assert code == 2
        assert "photos" in capfd.readouterr().err
    assert (out / "me.jpg").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["faces", "--out", "a.zarr", "one.mp4", "two.mp4"],
        ["faces", "one.mp4", "--out", "a.zarr", "two.mp4"],
        ["--out", "a.zarr", "faces", "one.mp4", "--executor", "inline", "two.mp4"],
        ["faces", "--out", "a.zarr", "--", "one.mp4", "two.mp4"],
    ],
    ids=" ".join,
)
def test_inputs_may_stand_after_flags(words: list[str]) -> None:
    options = cli._parser(["run"]).parse_args(["run", *words])
    assert (str(options.workflow), list(map(str, options.inputs)), str(options.out)) == (
        "faces", ["one.mp4", "two.mp4"], "a.zarr",
    )  # fmt: skip


def test_an_unknown_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["run", "faces", "--out", "a.zarr", "--evry", "2", "one.mp4"])
    assert "unrecognized arguments: --evry 2 one.mp4; see reelgraph run --help" in capsys.readouterr().err


def test_status_of_no_store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path / "none.zarr")]) == 2
    assert "none.zarr" in capfd.readouterr().err


def test_plan_does_no_work(tmp_path: Path, workflows: Path, clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o.zarr"
    words = [str(workflows / "faces.yaml"), str(clip), "--out", str(out), "--json"]
    assert main(["plan", *words]) == 0
    planned = json.loads(capfd.readouterr().out)
    assert planned["inputs"][0]["frames"] == 12
    assert planned["inputs"][0]["chunks_done"] == 0
    assert planned["estimated_seconds"] > 0
    assert not out.exists()
    assert main(["run", *words, "--executor", "inline"]) == 0
    assert json.loads(capfd.readouterr().out)["frames"] == 12
    assert main(["plan", *words]) == 0
    again = json.loads(capfd.readouterr().out)
    assert again["inputs"][0]["chunks_done"] == again["inputs"][0]["chunks"]
    assert again["estimated_seconds"] == 0


def test_a_terminal_without_unicode(tmp_path: Path, workflows: Path, clip: Path) -> None:
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    words = ["plan", str(workflows / "faces.yaml"), str(clip), "--out", str(tmp_path / "o.zarr")]
    ended = subprocess.run([sys.executable, "-m", "pipeline", *words], env=environment, capture_output=True, check=True)
    assert rb"\xd7" in ended.stdout  # the multiplication sign of the frame's size


def unread() -> int:
    """The end of a pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize(
    "where",
    [{"stderr": unread}, {"preexec_fn": lambda: os.close(2)}, {"stdout": unread}],
    ids=["pipe", "closed", "out"],
)
def test_a_run_goes_on_when_nobody_listens(tmp_path: Path, clip: Path, where: dict[str, Any]) -> None:
    streams = {name: how() if name != "preexec_fn" else how for name, how in where.items()}
    words = [str(one_stage(tmp_path, "Counted", log=str(tmp_path / "log"))), str(clip)]
    command = [sys.executable, "-m", "pipeline", "run", *words, "--out", str(tmp_path / "o.zarr")]
    ended = subprocess.run([*command, "--executor", "inline", "--json"], **({"stdout": subprocess.PIPE} | streams))
    assert ended.returncode == 0
    assert open_store(tmp_path / "o.zarr").done_share == 1
    if ended.stdout is not None:
        assert json.loads(ended.stdout)["inputs_complete"] == 1


def test_the_exit_code_holds_when_nobody_reads_the_result(tmp_path: Path, workflows: Path, clip: Path) -> None:
    empty = tmp_path / "empty.mp4"
    empty.touch()
    words = ["plan", str(workflows / "faces.yaml"), str(clip), str(empty), "--out", str(tmp_path / "o.zarr")]
    ended = subprocess.run([sys.executable, "-m", "pipeline", *words], stdout=unread(), stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_full_disk_for_the_result(workflows: Path) -> None:
    words = [sys.executable, "-m", "pipeline", "workflows", str(workflows / "faces.yaml")]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith("reelgraph: cannot write to standard output: No space left on device")
    assert len(ended.stderr.splitlines()) == 1


def test_workflows_explains_options(workflows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", str(workflows / "faces.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "min_face: 20" in shown
    assert "smallest face to look for" in shown
    assert main(["workflows"]) == 0


def test_doctor_names_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--out", str(tmp_path), "--json"]) == 0
    findings = {finding["what"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["weights mtcnn"]["ok"]
    assert findings["weights Dlib"]["ok"]
    assert findings["output"]["ok"]
    assert findings["ONNX Runtime"]["ok"]


def test_doctor_says_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    from pipeline.views.doctor import examine

    findings = {finding.what: finding for finding in examine(tmp_path / "file" / "runs")}
    assert not findings["output"].ok
    assert "--out" in findings["output"].remedy


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path: Path, slow_workflow: Path) -> None:
    long_clip = write_clip(tmp_path / "long.mp4", n_frames=800)
    words = ["run", slow_workflow, long_clip, "--out", tmp_path / "o.zarr"]
    process = start(*words, "--workers", "1")
    wait_until(lambda: (tmp_path / "log").exists())
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does: the whole group gets it
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "reelgraph run" in errors.splitlines()[-1]
    assert reelgraph(*words, "--executor", "inline").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "where"), [(signal.SIGTERM, ("--workers", "1")), (signal.SIGUSR1, ("--executor", "inline"))]
)
def test_a_batch_systems_signal_drains(
    tmp_path: Path, slow_workflow: Path, number: signal.Signals, where: tuple[str, ...]
) -> None:
    long_clip = write_clip(tmp_path / "long.mp4", n_frames=800)
    words = ["run", slow_workflow, long_clip, "--out", tmp_path / "o.zarr"]
    process = start(*words, *where)
    wait_until(lambda: (tmp_path / "log").exists())
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "the same command continues" in output
    computed = (tmp_path / "log").read_text().splitlines()
    assert reelgraph(*words, "--executor", "inline").returncode == 0
    assert len(set(computed)) == len(computed)
    everything = (tmp_path / "log").read_text().splitlines()
    assert len(set(everything)) == len(everything)  # nothing that was drained was computed again


@pytest.mark.slow
def test_a_store_in_use_is_refused(tmp_path: Path, slow_workflow: Path) -> None:
    long_clip = write_clip(tmp_path / "long.mp4", n_frames=1500)
    words = ["run", slow_workflow, long_clip, "--out", tmp_path / "o.zarr", "--workers", "1"]
    process = start(*words)
    try:
        wait_until(lambda: (tmp_path / "log").exists())
        second = reelgraph(*words)
    finally:
        kill_group(process)
    assert second.returncode == 2
    assert str(process.pid) in second.stderr


SLOW_EXPORT = """
import time
from pathlib import Path

from pipeline import Export


class Slow(Export):
    def write(self, file, stored):
        file.write(b"half")
        Path("begun").touch()
        time.sleep(60)
"""


def test_an_export_that_is_ended_leaves_nothing(tmp_path: Path, repository: Path) -> None:
    arrays = faces_of(np.ones(3, int), people(1, 3).reshape(-1, 128))
    make_store(tmp_path / "out.zarr", {"clip": arrays})
    (tmp_path / "slow.py").write_text(SLOW_EXPORT)
    words = ["export", str(tmp_path / "out.zarr"), "--to", "faces.txt", "--format", "slow:Slow"]
    ours = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(tmp_path)])}
    with subprocess.Popen([*COMMAND, *words], cwd=tmp_path, env=ours, stderr=subprocess.PIPE, text=True) as process:
        wait_until((tmp_path / "begun").exists)
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (143, "")
    assert not list(tmp_path.glob("faces*"))


def test_a_deleted_working_folder(tmp_path: Path, repository: Path) -> None:
    command = f"cd {tmp_path} && rmdir {tmp_path} && exec {sys.executable} -m pipeline doctor"
    ours = {**os.environ, "PYTHONPATH": str(repository)}
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, env=ours)
    assert ended.returncode == 2
    assert ended.stderr == "reelgraph: the folder you are in has been deleted; cd to one that exists\n"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "faces", "clip.mp4", "--out", ""], ["run", "faces", "clip.mp4", "--out", "o.zarr", "--host", ""],
        ["run", "faces", "--out", "o.zarr", ""], ["find", "o.zarr", "--gallery", ""], ["annotate", "o.zarr", "--out="],
        ["index", "o.zarr", "--out", ""], ["demo", ""], ["status", ""],
    ],
)  # fmt: skip
def test_an_empty_value_is_not_the_working_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "the value is empty; give one, or leave it out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
