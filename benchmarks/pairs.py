"""Four pairs of detector and network, raced: DeepFace's loop, `reelgraph run`, and the models' own limit.

    make bench-pairs                                an hour and a half on two cores
    make bench-pairs ARGS=--quick                   a first impression
    make bench-pairs ARGS="--pairs yunet+SFace --align native --frames 400"

Weights are those in DeepFace's folder, in $REELGRAPH_DATA/weights/deepface, or in packages; where there are none, the
table says "stand-in": the true architecture with random weights (stand_ins.py), for DeepFace and for us.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import clip as clips
import stand_ins
from race import LIMIT, Race, Timing, benchmark_environment, faces_of, long_clip, machine, say
from weights_at_hand import REPOSITORY

ALIGNS = ("native", "deepface")
HOW = {
    "DeepFace loop": "DeepFace.represent(frame, model_name=..., detector_backend=..., enforce_detection=False), "
    "DEEPFACE_BACKEND_ENGINE=onnx, warmed up",
    "native": "this package's own way to find and cut faces",
    "deepface": "DeepFace's results: its boxes, its crops, and a frame without faces embedded whole",
    "one worker": "reelgraph run --workers 1: one chunk at a time, each model on all cores",
    "all cores": "reelgraph run with a worker per core (per GPU, where there are any) and a copy of the clip for each; "
    "its cluster already started, its models not yet loaded",
    "limit": LIMIT,
    "stand-in": "the true architecture with random weights, one face planted in what RetinaFace's finds",
}


@dataclass(frozen=True)
class Pair:
    """A detector and a network, with sampled frames for runs of two to four minutes: in shorter ones the loading of the
    models weighs, which the limit leaves out."""

    detector: str
    network: str
    deepface_frames: int
    frames: int
    """Of each worker."""

    @property
    def name(self) -> str:
        return f"{self.detector}+{self.network}"


PAIRS = (
    Pair("mtcnn", "Dlib", 12, 400),
    Pair("retinaface", "ArcFace", 4, 40),
    Pair("yunet", "SFace", 20, 1200),
    Pair("opencv", "VGG-Face", 20, 150),
)
QUICK = 16
"""--quick: so many times fewer frames, two at least."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    pair: str
    align: str
    """Empty for DeepFace's loop."""
    name: str
    timing: Timing
    same_faces: float | None = None
    """Faces per frame in the frames that DeepFace did."""
    times_loop: float | None = None
    share_of_limit: float | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    pairs = [_sized(pair, options) for pair in PAIRS if pair.name in options.pairs]
    folder = options.folder.resolve()
    weights, store = folder / ".deepface" / "weights", folder / "stand_ins"
    stand_ins.forget(weights, store)
    environment = benchmark_environment(folder) | {"DEEPFACE_BACKEND_ENGINE": "onnx"}
    say("stand-ins, where weights are missing")
    standing = stand_ins.provide({name for pair in pairs for name in (pair.detector, pair.network)}, weights, store)
    longest = max(max(pair.frames, pair.deepface_frames) for pair in pairs)
    clip = clips.clip_as_it_is(options.clip) if options.clip else long_clip(folder, longest * options.every)
    race = Race(clip, options.every, folder, environment)
    rows: list[Row] = []
    for pair in pairs:
        rows += raced(race, pair, options.align)
        _write(options.json, rows, pairs, standing, clip)  # after each, so that an end before the last loses one only
    _print(rows, pairs, standing, clip)
    print(f"written to {options.json}", file=sys.stderr)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [pair.name for pair in PAIRS]
    parser.add_argument("--pairs", nargs="+", choices=names, default=names, metavar="PAIR", help=" ".join(names))
    parser.add_argument("--align", nargs="+", choices=ALIGNS, default=ALIGNS, help="for reelgraph (default: both)")
    parser.add_argument("--frames", type=int, help="sampled frames of each worker (default: a pair's own)")
    parser.add_argument("--deepface-frames", type=int, help="sampled frames for DeepFace (default: a pair's own)")
    parser.add_argument("--every", type=int, default=5, help="sample every Nth frame (default: 5)")
    parser.add_argument("--quick", action="store_true", help="few frames")
    parser.add_argument("--clip", type=Path, help="a clip of your own, used as it is")
    parser.add_argument("--json", type=Path, default=REPOSITORY / "bench-pairs.json", help="default: bench-pairs.json")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "runs" / "bench", help="for clips and stores")
    return parser.parse_args(arguments)


def _sized(pair: Pair, options: argparse.Namespace) -> Pair:
    part = QUICK if options.quick else 1
    deepface_frames = options.deepface_frames or max(2, pair.deepface_frames // part)
    # DeepFace's frames are looked up among ours.
    frames = max(deepface_frames, options.frames or max(2, pair.frames // part))
    return Pair(pair.detector, pair.network, deepface_frames, frames)


def raced(race: Race, pair: Pair, aligns: Sequence[str]) -> Iterator[Row]:
    say(f"{pair.name}: DeepFace's loop")
    loop = race.contest("deepface_loop", pair.deepface_frames, detector=pair.detector, network=pair.network)
    yield Row(pair.name, "", "DeepFace loop", loop, (loop.faces or 0) / loop.frames, 1.0)
    for align in aligns:
        workflow = _workflow(race, pair, align)
        inputs = _copies(race)
        out = race.folder / "pair.zarr"
        ours = {}
        if not race.gpus:
            say(f"{pair.name}: align {align}, one worker")
            ours["one worker"] = race.run(workflow, inputs[:1], out, workers=1), faces_of(out, loop.frames)
        say(f"{pair.name}: align {align}, all cores")
        ours["all cores"] = race.run(workflow, inputs, out), faces_of(out, loop.frames)
        say(f"{pair.name}: align {align}, limit")
        limit = race.limit(workflow, pair.frames, copies=len(inputs))
        for name, (timing, faces) in ours.items():
            share = timing.rate / limit.both.rate if name == "all cores" else None
            yield Row(pair.name, align, name, timing, faces / loop.frames, timing.rate / loop.rate, share)
        named = {"limit": limit.both, "decoding alone": limit.decoding, "models alone": limit.models}
        for name, timing in named.items():
            yield Row(pair.name, align, name, timing, None, timing.rate / loop.rate)


def _workflow(race: Race, pair: Pair, align: str) -> Path:
    """The file of a workflow that ends after the pair's number of sampled frames."""
    import av
    import yaml

    with av.open(race.clip.path) as container:
        rate = container.streams.video[0].average_rate
    # Half a sampled frame early: the one after the last lies at the end itself.
    source = {"kind": "video", "every": race.every, "stop": float((pair.frames - 0.5) * race.every / rate)}
    detect: dict[str, Any] = {"use": "detect", "model": pair.detector, "align": align}
    if align == "deepface":
        detect["whole_frame"] = True
    embed = {"use": "embed", "model": pair.network, "align": align, "after": "detect"}
    path = race.folder / "pair.yaml"
    path.write_text(yaml.safe_dump({"source": source, "stages": {"detect": detect, "embed": embed}}))
    return path


def _copies(race: Race) -> list[str]:
    """The clip under as many names as there are workers: some pairs are so slow that one chunk has to do for each."""
    clip = Path(race.clip.path).resolve()
    copies = []
    for number in range(race.workers):
        link = race.folder / f"copy_{number}{clip.suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(clip)
        copies.append(str(link))
    return copies


def _print(rows: list[Row], pairs: list[Pair], standing: set[str], clip: clips.ClipFacts) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{clip.width}x{clip.height}, made from {clip.made_from}")
    columns = ("", "align", "frames", "frames/s", "faces/frame*", "times the loop", "of the limit", "peak MB")
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "align") else "right")
    for pair in pairs:
        models = [f"{name} (stand-in)" if name in standing else name for name in (pair.detector, pair.network)]
        table.add_section()
        table.add_row(f"[bold]{' + '.join(models)}[/bold]")
        for row in (row for row in rows if row.pair == pair.name):
            table.add_row(*_cells(row))
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    counts = ", ".join(f"{pair.deepface_frames} of {pair.name}" for pair in pairs)
    console.print(f"* in the frames that DeepFace did: the first {counts}", highlight=False)
    for name, how in HOW.items():
        console.print(f"[bold]{name}[/bold]: {how}.", highlight=False)
    console.print(machine()["words"], highlight=False)


def _cells(row: Row) -> list[str]:
    timing = row.timing
    return [
        row.name,
        row.align,
        str(timing.frames),
        f"{timing.rate:.3g}",
        "" if row.same_faces is None else f"{row.same_faces:.2f}",
        "" if row.times_loop is None else f"{row.times_loop:.1f}",
        "" if row.share_of_limit is None else f"{row.share_of_limit:.0%}",
        "" if timing.peak_mb is None else f"{timing.peak_mb:.0f}",
    ]


def _write(path: Path, rows: list[Row], pairs: list[Pair], standing: set[str], clip: clips.ClipFacts) -> None:
    described = []
    for row in rows:
        values = asdict(row)
        timing = values.pop("timing")
        described.append({**values, **timing, "frames_per_second": row.timing.rate})
    content = {
        "clip": clip.as_dict(),
        "machine": machine(),
        "how": HOW,
        "pairs": [asdict(pair) for pair in pairs],
        "stand_ins": sorted(standing),
        "rows": described,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
