"""Files that a killed process wrote aside: the next one that writes the same file removes them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from pipeline.files.whole import PARTIAL, written_whole

WRITING = """
import sys, time
from pipeline.files.whole import written_whole
with written_whole(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_wrote_aside_is_removed(tmp_path: Path) -> None:
    place = tmp_path / "table [1].csv"
    other = tmp_path / f"{place.name}.backup{PARTIAL}"
    other.write_bytes(b"a backup")

    def aside() -> set[Path]:
        return set(tmp_path.iterdir()) - {place, other}

    with subprocess.Popen([sys.executable, "-c", WRITING, str(place)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        with written_whole(place) as file:
            file.write(b"first")
            assert len(aside()) == 2
        assert len(aside()) == 1, "the other process still writes"
        writer.send_signal(signal.SIGKILL)
    assert len(aside()) == 1
    with written_whole(place) as file:
        file.write(b"second")
    assert (aside(), place.read_bytes(), other.read_bytes()) == (set(), b"second", b"a backup")
