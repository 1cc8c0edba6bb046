"""Peak memory of `reelgraph run` on files of growing length: it must not grow with them.

    make bench-memory                             about half an hour on two cores
    make bench-memory ARGS="--minutes 1 2"        a first impression

1080p clips, `workflows/faces.yaml` on files of 3 and 15 minutes; then, on files of 3 and 60 minutes, a light stage in
the place of the models. Memory is what is resident at once, summed over the client, the scheduler and all workers;
pages that they share count once for each.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from race import benchmark_environment, long_clip, say
from watch import watched
from weights_at_hand import REPOSITORY

FRAMES_PER_MINUTE = 30 * 60


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    faces = [str(REPOSITORY / "workflows" / "faces.yaml"), "--set", f"detect.min_face={options.min_face}"]
    light = [str(REPOSITORY / "benchmarks" / "light.yaml")]
    for label, workflow, lengths in (
        (f"faces.yaml, min_face {options.min_face}", faces, options.minutes),
        ("light stage", light, options.light_minutes),
    ):
        measured = [_run(label, workflow, minutes, folder, options.workers) for minutes in lengths]
        rows += [row | {"times_the_shortest": row["peak_mb"] / measured[0]["peak_mb"]} for row in measured]
    _print(rows)
    options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, nargs="*", default=[3, 15], help="with the models (default: 3 15)")
    parser.add_argument("--light-minutes", type=int, nargs="*", default=[3, 60], help="without (default: 3 60)")
    parser.add_argument("--min-face", type=int, default=20, help="of the detector, pixels (default: 20)")
    parser.add_argument("--workers", type=int, default=2, help="CPU workers (default: 2)")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "memory.json", help="result (default: memory.json)")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "runs" / "bench", help="for clips and stores")
    return parser.parse_args(arguments)


def _run(label: str, workflow: list[str], minutes: int, folder: Path, workers: int) -> dict[str, Any]:
    clip = long_clip(folder, minutes * FRAMES_PER_MINUTE)
    say(f"{label}, {minutes} minutes")
    command = [sys.executable, "-m", "pipeline", "run", *workflow, clip.path, "--workers", str(workers)]
    command += ["--out", str(folder / "memory.zarr"), "--fresh", "--json"]
    done, peak_mb = watched(command, benchmark_environment(folder), folder)
    summary = json.loads(done)
    return {
        "workflow": label,
        "minutes": minutes,
        "frames": summary["frames"],
        "seconds": summary["seconds"]["run"],
        "peak_mb": peak_mb,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Peak memory of the whole process tree, 1080p, every 5th frame")
    for column in ("workflow", "minutes", "frames", "seconds", "peak MB", "to the shortest"):
        table.add_column(column, justify="left" if column == "workflow" else "right")
    for row in rows:
        numbers = (f"{row['seconds']:.0f}", f"{row['peak_mb']:.0f}", f"{row['times_the_shortest']:.2f}")
        table.add_row(row["workflow"], str(row["minutes"]), str(row["frames"]), *numbers)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(main())
