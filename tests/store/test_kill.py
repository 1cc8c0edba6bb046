"""kill -9: at every file operation, and at random moments of a whole run."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import storemaker as made
from faults import CASES

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}

RUN = """
import sys
import storemaker as made
from pipeline.store.run import RunStore
import zarr

print("ready", flush=True)
with RunStore.open(sys.argv[1]) as store:
    name = store.find_input("/films/clip.mp4") or made.set_up(store)
    if not store.input(name).is_complete:
        done = store.input(name).chunks().indices
        for index in range(len(made.BOUNDARIES)):
            if index not in done:
                made.write(sys.argv[1], name, index)
        made.compact(store)
"""


FEWEST = {"new chunk": 2, "chunk again": 2, "failed chunk again": 3}
"""Operations of a case; the others have dozens. A chunk is one file: opened aside, and renamed."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in FEWEST else pytest.mark.slow) for case in CASES]
)
def test_every_operation(case: str, tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "faults.py"), case, str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout) >= FEWEST.get(case, 10), "too few operations were counted: the patch no longer reaches them"


@pytest.mark.slow
def test_random_moments(tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    moments = random.Random(3)
    killed = 0
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(out)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(moments.uniform(0, 0.15))
            process.kill()
        killed += process.returncode != 0
    subprocess.run([sys.executable, "-c", RUN, str(out)], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    made.assert_equal(made.compacted(out, "clip"), made.expected(*made.OLD))
    assert killed > 0
    assert not list(out.rglob("*.partial"))
