"""Peak memory of `reelgraph run` on files of growing length: it must not grow with them.

    make bench-memory                             about half an hour on two cores
    make bench-memory ARGS="--minutes 1 2"        a first impression

1080p clips, `workflows/faces.yaml` on files of 3 and 15 minutes; then, on files of 3 and 60 minutes, a light stage in
the place of the models. Memory is what is resident at once, summed over the client, the scheduler and all workers;
pages that they share count once for each.
"""

from __future__ import annotations

from harness import REPOSITORY, WORKFLOW, Rows, clip_for, environment, parser, reelgraph_run, say, show, write_json

FRAMES_PER_MINUTE = 30 * 60
COLUMNS = (
    "workflow", "minutes", "frames", "seconds:.0f", "peak MB=peak_mb:.0f", "to the shortest=times_the_shortest:.2f",
)  # fmt: skip


def main() -> None:
    options = parser(__doc__, "memory.json", "bench")
    options.add_argument("--minutes", type=int, nargs="*", default=[3, 15], help="lengths with the models")
    options.add_argument("--light-minutes", type=int, nargs="*", default=[3, 60], help="lengths without")
    options.add_argument("--min-face", type=int, default=20, help="smallest face of the detector, pixels")
    options.add_argument("--workers", type=int, default=2, help="CPU workers")
    chosen = options.parse_args()
    there = environment(chosen.folder)
    smallest, light = [f"detect.min_face={chosen.min_face}"], REPOSITORY / "benchmarks" / "light.yaml"
    rows: Rows = []
    for label, workflow, overrides, lengths in (
        (f"faces.yaml, min_face {chosen.min_face}", WORKFLOW, smallest, chosen.minutes),
        ("light stage", light, [], chosen.light_minutes),
    ):
        shortest = 0.0
        for minutes in lengths:
            clip = clip_for(None, chosen.folder, minutes * FRAMES_PER_MINUTE)
            say(f"{label}, {minutes} minutes")
            out = chosen.folder / "memory.zarr"
            summary, peak = reelgraph_run(workflow, [clip.path], out, there, overrides, workers=chosen.workers)
            shortest = shortest or peak
            figures = {"frames": summary["frames"], "seconds": summary["seconds"]["run"], "peak_mb": peak}
            rows.append({"workflow": label, "minutes": minutes, **figures, "times_the_shortest": peak / shortest})
    show("Peak memory of the whole process tree, 1080p, every 5th frame", COLUMNS, rows)
    write_json(chosen.json, {"rows": rows})


if __name__ == "__main__":
    main()
