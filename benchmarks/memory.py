"""Peak memory of `reelgraph run` on files of growing length, and on frames with ever more faces: it must not grow.

    make bench-memory                             about half an hour on two cores
    make bench-memory ARGS="--minutes 1 2"        a first impression
    make bench-memory ARGS="--minutes --light-minutes"     crowds alone

1080p clips, `workflows/faces.yaml` on files of 3 and 15 minutes; then, on files of 3 and 60 minutes, a light stage in
the place of the models; then three 8K frames that show one face 200 to 20,000 times, with one worker and tracks.
Memory is what is resident at once, summed over the client, the scheduler and all workers; pages that they share count
once for each.
"""

from __future__ import annotations

from harness import REPOSITORY, Rows, clip_for, crowd, environment, parser, reelgraph_run, say, show, write_json

FRAMES_PER_MINUTE = 30 * 60
COLUMNS = (
    "workflow", "minutes", "faces", "frames", "seconds:.0f", "peak MB=peak_mb:.0f",
    "to the shortest=times_the_shortest:.2f",
)  # fmt: skip


def main() -> None:
    options = parser(__doc__, "memory.json", "bench")
    options.add_argument("--minutes", type=int, nargs="*", default=[3, 15], help="lengths with the models")
    options.add_argument("--light-minutes", type=int, nargs="*", default=[3, 60], help="lengths without")
    options.add_argument("--crowds", type=int, nargs="*", default=[200, 2000, 20000], help="faces in an 8K frame")
    options.add_argument("--min-face", type=int, default=20, help="smallest face of the detector, pixels")
    options.add_argument("--workers", type=int, default=2, help="CPU workers")
    chosen = options.parse_args()
    there, out = environment(chosen.folder), chosen.folder / "memory.zarr"
    smallest, light = [f"detect.min_face={chosen.min_face}"], REPOSITORY / "benchmarks" / "light.yaml"
    rows: Rows = []
    for label, workflow, overrides, lengths in (
        (f"faces.yaml, min_face {chosen.min_face}", REPOSITORY / "workflows" / "faces.yaml", smallest, chosen.minutes),
        ("light stage", light, [], chosen.light_minutes),
    ):
        shortest = 0.0
        for minutes in lengths:
            clip = clip_for(None, chosen.folder, minutes * FRAMES_PER_MINUTE)
            say(f"{label}, {minutes} minutes")
            summary, peak = reelgraph_run(workflow, [clip.path], out, there, overrides, workers=chosen.workers)
            shortest = shortest or peak
            figures = {"frames": summary["frames"], "seconds": summary["seconds"]["run"], "peak_mb": peak}
            rows.append({"workflow": label, "minutes": minutes, **figures, "times_the_shortest": peak / shortest})
    shortest = 0.0
    for faces in chosen.crowds:
        say(f"{faces} faces in a frame")
        clip, tracks = crowd(chosen.folder, faces), REPOSITORY / "workflows" / "people.yaml"
        summary, peak = reelgraph_run(tracks, [str(clip)], out, there, ["source.every=1"], workers=1)
        shortest = shortest or peak
        figures = {"frames": summary["frames"], "seconds": summary["seconds"]["run"], "peak_mb": peak}
        label = {"workflow": "people.yaml, 8K", "faces": summary["faces"]}
        rows.append({**label, **figures, "times_the_shortest": peak / shortest})
    show("Peak memory of the whole process tree; 1080p, every 5th frame, or 8K, every frame", COLUMNS, rows)
    write_json(chosen.json, {"rows": rows})


if __name__ == "__main__":
    main()
